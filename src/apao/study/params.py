"""params.yaml as typed values: reading, validation, and resolution of the parameters of one run.

Every number of the project is chosen in params.yaml. An invalid file raises one error that names the file, line and
key. By default ``load`` resolves every run of every study, as planning a workflow requires; a single job passes
``check_runs=False`` and resolves only its own run. A stage gets only its own subtree, so that editing one objective
affects only that objective's runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import yaml
from pydantic import (
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema

from apao.codes.embedders import AnyEmbedder, EmbedderParams, VectorFile
from apao.codes.tokenizers.base import TOKENIZERS, Tokenizer
from apao.data.base import SOURCES, Source
from apao.errors import AtKey, UserError, nearest
from apao.evaluation.params import DecodingParams, MeasureParams
from apao.files import atomic_path, json_text
from apao.parameters import NAME, OBJECTIVE_NAME, Key, Model, first_mistake, one_of, spelled
from apao.progress import warn
from apao.study.paths import PARAMS_FILE
from apao.study.references import check_fit, check_references, owners, resolve_sweeps, with_values
from apao.study.run_params import AnyBackbone, AnyObjective, RunParams, Start, TimedDecoding
from apao.study.runs import Run, format_value
from apao.study.searches import Search, check_search
from apao.study.studies import STUDIES, Study
from apao.study.sweeps import Sweep
from apao.study.tuned import Tunings, read_tuned, values_at
from apao.study.yaml_lines import line_of, read_yaml
from apao.training.params import TrainingParams

if TYPE_CHECKING:
    AnySource: TypeAlias = Source
    AnyTokenizer: TypeAlias = Tokenizer
    AnyStudy: TypeAlias = Study
else:
    AnySource, AnyTokenizer, AnyStudy = one_of(SOURCES), one_of(TOKENIZERS), one_of(STUDIES)

PUBLISHED_SCALE = "published"
"""Group of studies that ``snakemake published`` draws from the published runs."""

Name = Annotated[str, Field(pattern=rf"^{NAME}$")]
"""Name that is used in paths and run names."""

ObjectiveName = Annotated[str, Field(pattern=rf"^{OBJECTIVE_NAME}$")]
"""The same, but may contain a plus."""

StudyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""Name that is used in the names of files and rules."""

T = TypeVar("T")


class Recipe(Model):
    """Model sizes, training, decoding and measurements; each dataset names a recipe."""

    backbones: dict[Name, AnyBackbone]
    training: TrainingParams = TrainingParams()
    decoding: DecodingParams = DecodingParams()
    measure: MeasureParams = MeasureParams()


class Params(Model):
    """All of params.yaml."""

    scale: str
    """Group of studies that ``snakemake all`` builds: a key of ``studies``."""
    datasets: dict[Name, AnySource]
    embedders: dict[str, AnyEmbedder]
    codes: dict[str, AnyTokenizer]
    recipes: dict[str, Recipe]
    objectives: dict[ObjectiveName, AnyObjective]
    tuned: Annotated[Tunings, WithJsonSchema({"type": "string"})] = Field(default_factory=dict)
    """File in the same folder with values for single datasets and backbones, written by ``apao tune`` and ``apao
    search``. An objective's own ``tuned`` takes precedence."""
    sweeps: dict[Name, Sweep] = Field(default_factory=dict)
    """Sweeps by name; studies list the names."""
    searches: dict[Name, Search] = Field(default_factory=dict)
    """Searches of hyper-parameters, for ``apao search``."""
    studies: dict[Name, dict[StudyName, AnyStudy]]
    """Studies by scale and name. A study's files are named after it."""

    @field_validator("studies", mode="before")
    @classmethod
    def _sweeps(cls, studies: object, info: ValidationInfo) -> object:
        """Replace the names of sweeps by the sweeps."""
        # If the sweeps are invalid, report those errors only: the studies are skipped.
        return resolve_sweeps(studies, info.data["sweeps"]) if "sweeps" in info.data else {}

    _text: str = PrivateAttr("")
    """Text of the file as it was read, including the tunings of the file under ``tuned``."""
    _files: tuple[Path, ...] = PrivateAttr(())
    _absent: Path | None = PrivateAttr(None)
    _resolved: dict[str, RunParams] = PrivateAttr(default_factory=dict)
    """By run name, in which ``ce=0`` and ``ce=false`` differ, although the Run objects are equal."""
    _normalised: dict[str, Run] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        check_references(self)
        return self

    def note_missing_tunings(self) -> None:
        """Print a line if the file under ``tuned`` does not exist."""
        if self._absent is not None:
            warn(f"{self._absent}: not found; objectives have the same values on all datasets")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that were read: params.yaml and the file under ``tuned``, if there is one."""
        return self._files

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the text that was read."""
        return hashlib.sha256(self._text.encode()).hexdigest()

    def write_copy(self, path: Path) -> None:
        """Write the text that was read as one file, for jobs that start after params.yaml may have been edited."""
        with atomic_path(path) as temporary:
            temporary.write_bytes(self._text.encode())

    def check_runs(self) -> None:
        """Resolve every run of the studies of all scales, and runs with the ends of every search's ranges.

        Raises:
            AtKey: for the first study or search with an invalid run.
        """
        for name, search in self.searches.items():
            check_search(self, name, search)
        for scale, studies in self.studies.items():
            for name, study in studies.items():
                try:
                    for run in study.runs():
                        self.resolve(run)
                    for dataset in study.dataset_names():
                        self.dataset(dataset)
                except UserError as error:
                    raise AtKey(str(error), "studies", scale, name) from error

    def dataset(self, name: str) -> Source:
        """The entry of a dataset; raises UserError for an unknown name."""
        return _entry(self.datasets, name, "dataset", "datasets")

    def tokenizer_of(self, dataset: str) -> Tokenizer:
        """Tokenizer of a dataset's items."""
        return self.codes[self.dataset(dataset).codes]

    def embedder_of(self, dataset: str) -> EmbedderParams | VectorFile | None:
        """Embedder of a dataset's items; None if its tokenizer names none."""
        embedder = self.tokenizer_of(dataset).embedder
        return None if embedder is None else self.embedders[embedder]

    def recipe_of(self, dataset: str) -> Recipe:
        """Recipe of a dataset."""
        return self.recipes[self.dataset(dataset).recipe]

    def decoding_of(self, dataset: str) -> DecodingParams:
        """Decoding parameters of runs on a dataset."""
        return self.recipe_of(dataset).decoding

    def timed_decoding(self, dataset: str, backbone: str) -> TimedDecoding:
        """Parameters of the timing of a backbone with the sizes in a dataset's recipe."""
        recipe = self.recipe_of(dataset)
        sizes = _entry(recipe.backbones, backbone, "backbone", f"{dataset}/{backbone}")
        return TimedDecoding(
            backbone=sizes,
            decoding=recipe.decoding,
            threads=recipe.training.threads,
            timing=recipe.measure.decoding_time,
        )

    def tunings(self, objective: str) -> list[Any]:
        """What is tuned of an objective, in the file under ``tuned`` and in its own entry, as JSON values."""
        of_file = [tuning.model_dump(mode="json") for tuning in self.tuned.get(objective, ())]
        own = self.objectives[objective].tuned
        return [*of_file, dict(own)] if own else of_file

    def resolve(self, run: Run) -> RunParams:
        """The parameters of one run: defaults, then tuned values, then the run's own overrides.

        An override's key is a field of the objective, of the training, or of the backbone.

        Raises:
            UserError: for an unknown dataset, backbone, objective or key, or an invalid value.
        """
        return self._resolve(run, ())

    def _resolve(self, run: Run, dependents: tuple[Run, ...]) -> RunParams:
        """Resolve ``run``; ``dependents`` is the chain of runs that start from it, to detect cycles of ``start``."""
        if str(run) in self._resolved:
            return self._resolved[str(run)]
        if run in dependents:
            raise UserError(f"{dependents[0]}: starts from itself via {run}; change one objective's start")
        parts = self._with_overrides(run, self._with_tuned_values(run))
        try:
            resolved = RunParams(dataset=run.dataset, decoding=self.decoding_of(run.dataset), seed=run.seed, **parts)
        except ValidationError as error:
            raise UserError(f"{run}: {spelled(*first_mistake(error))}") from error
        check_fit(self, run, resolved)
        if resolved.objective.start is not None:
            resolved = resolved.model_copy(update={"start": self._start(run, resolved, dependents)})
        self._resolved[str(run)] = resolved
        return resolved

    def _with_tuned_values(self, run: Run) -> dict[str, Model]:
        """Objective, training and backbone of a run with tuned values, before its overrides, by field of RunParams."""
        recipe = self.recipes[_entry(self.datasets, run.dataset, "dataset", run).recipe]
        backbone = _entry(recipe.backbones, run.backbone, "backbone", run)
        objective = _entry(self.objectives, run.objective, "objective", run)
        tuned = {
            **values_at(self.tuned.get(run.objective, ()), run.dataset, run.backbone),
            **objective.tuned.get(run.dataset, {}),
            **objective.tuned.get(f"{run.dataset}/{run.backbone}", {}),
        }
        try:
            return with_values({"objective": objective, "training": recipe.training, "backbone": backbone}, tuned)
        except ValidationError as error:
            # Each tuning is valid by itself (``references``); together they may not be.
            stated = ", ".join(f"{key}={value}" for key, value in tuned.items())
            raise UserError(f"{run}: its tuned values {stated} do not fit: {spelled(*first_mistake(error))}") from error

    def _with_overrides(self, run: Run, parts: Mapping[str, Model]) -> dict[str, Any]:
        """Copy of ``parts`` with the overrides of ``run``, each applied to the part that has its key."""
        owner = owners(parts)
        for key, _ in run.overrides:
            if key not in owner:
                raise UserError(f"{run}: unknown key {key!r}; {nearest(key, owner)}")
        try:
            overridden = with_values(parts, dict(run.overrides))
        except ValidationError as error:
            raise UserError(f"{run}: {spelled(*first_mistake(error))}") from error
        for key, value in run.overrides:
            canonical = format_value(getattr(overridden[owner[key]], key))
            if canonical != format_value(value):
                raise UserError(f"{run}: write {key}={canonical}; a run has one spelling")
        return overridden

    def _start(self, run: Run, resolved: RunParams, dependents: tuple[Run, ...]) -> Start:
        """The run that ``run`` starts from: same data, seed and model sizes, with the objective's ``start``."""
        assert resolved.objective.start is not None
        start = Run.of(run.dataset, run.backbone, resolved.objective.start, run.seed)
        sizes = {key: value for key, value in run.overrides if key in type(resolved.backbone).model_fields}
        start = start.with_overrides(**{**sizes, **dict(start.overrides)})
        params = self._resolve(start, (*dependents, run))
        if params.backbone != resolved.backbone:
            raise UserError(f"{run}: starts from {start}, whose model has other sizes; give both the same overrides")
        start = self.normalised(start)
        return Start(run=str(start), training=params.for_training())

    def all_runs(self) -> list[Run]:
        """All runs of the chosen scale's studies and the runs that they start from, which come first."""
        runs: dict[Run, None] = {}
        for study in self.chosen_studies.values():
            for run in study.runs():
                chain = [self.normalised(run)]
                while (start := self.resolve(chain[-1]).start) is not None:
                    chain.append(Run.parse(start.run))
                runs |= dict.fromkeys(reversed(chain))
        return list(runs)

    def normalised(self, run: Run) -> Run:
        """``run`` without the overrides that change nothing, so that studies share runs of equal parameters."""
        resolved = self.resolve(run)
        if str(run) not in self._normalised:
            kept = tuple(
                pair for i, pair in enumerate(run.overrides) if self._resolved_or_none(_without(run, i)) != resolved
            )
            self._normalised[str(run)] = Run(run.dataset, run.backbone, run.objective, kept, run.seed)
        return self._normalised[str(run)]

    def _resolved_or_none(self, run: Run) -> RunParams | None:
        """The parameters of ``run``; None if it is invalid."""
        try:
            return self.resolve(run)
        except UserError:
            return None

    @property
    def chosen_studies(self) -> dict[str, Study]:
        """The studies of the chosen scale, by name."""
        return self.studies[self.scale]

    def study(self, name: str) -> Study:
        """The study ``name`` of the chosen scale; raises UserError for an unknown name."""
        return _entry(self.chosen_studies, name, "study", f"studies.{self.scale}")

    def search(self, name: str) -> Search:
        """The search ``name``; raises UserError for an unknown name."""
        return _entry(self.searches, name, "search", "searches")


def _entry(known: Mapping[str, T], name: str, what: str, where: object) -> T:
    if name not in known:
        raise UserError(f"{where}: unknown {what} {name!r}; {nearest(name, known)}")
    return known[name]


def _without(run: Run, index: int) -> Run:
    overrides = run.overrides[:index] + run.overrides[index + 1 :]
    return Run(run.dataset, run.backbone, run.objective, overrides, run.seed)


def load(path: Path = PARAMS_FILE, scale: str | None = None, check_runs: bool = True) -> Params:
    """Read and validate params.yaml.

    Args:
        path: the file.
        scale: overrides the file's ``scale``.
        check_runs: also resolve every run of every study. A job that needs one run passes False, so that it fails
            only for errors of that run.

    Raises:
        UserError: for the first error, with file, line and key.
    """
    data, root, text = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping with the keys {', '.join(Params.model_fields)}")
    file_of, root_of, absent = path, root, None
    if isinstance(name := data.get("tuned"), str):
        file_of = path.parent / name
        # Optional, since params.yaml is often copied without it.
        absent = None if file_of.exists() else file_of
        tunings, root_of = read_tuned(file_of) if file_of.exists() else ({}, None)
        data["tuned"] = {key: [tuning.model_dump() for tuning in given] for key, given in tunings.items()}
        # A copy contains both files.
        text = yaml.safe_dump(data, sort_keys=False)

    def at(message: str, key: Key) -> str:
        """The message with file, line and key, which may be those of the file of tunings."""
        if key == ("scale",) and scale is not None:
            return f"--scale (or APAO_SCALE, or --config scale=): {message}"
        if key[:1] == ("tuned",) and file_of != path:
            return f"{file_of}:{line_of(key[1:], root_of)}: {spelled(message, key[1:])}"
        return f"{path}:{line_of(key, root)}: {spelled(message, key)}"

    if scale is not None:
        data["scale"] = scale
    try:
        params = Params.model_validate(data)
        if check_runs:
            params.check_runs()
    except ValidationError as error:
        message, key = first_mistake(error, data)
        more = error.error_count() - 1
        tail = f" (and {more} more)" if more else ""
        raise UserError(f"{at(message, key)}{tail}") from error
    except AtKey as error:
        raise UserError(at(str(error), error.key)) from error
    params._absent = absent
    if check_runs:
        params.note_missing_tunings()
    params._text, params._files = text, tuple(dict.fromkeys(file for file in (path, file_of) if file.exists()))
    return params


def schema() -> dict[str, Any]:
    """JSON schema of params.yaml, generated from the models."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **Params.model_json_schema()}


def schema_text() -> str:
    """Text of schema.json in the repository."""
    return json_text(schema())
