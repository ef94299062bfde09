"""params.yaml as typed values: read, checked, and resolved for one run.

Every number of the project is chosen in params.yaml. A mistake is one error that names the file, the line
and the key. ``load`` checks every run that a study lists, which is for those who plan a workflow; a single
job passes ``check_runs=False`` and resolves no run but its own. A stage sees only its own subtree, so that
editing one objective touches only that objective's runs.
"""

from __future__ import annotations

import hashlib
import json
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
from apao.files import atomic_path
from apao.parameters import NAME, OBJECTIVE_NAME, Key, Model, first_mistake, one_of, spelled
from apao.progress import console
from apao.study.paths import PARAMS_FILE
from apao.study.references import FIXED, changed, check_fit, check_references, resolve_sweeps
from apao.study.run_params import AnyBackbone, AnyObjective, RunParams, Start, TimedDecoding
from apao.study.runs import Run, Value, format_value
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
"""The group of studies that ``snakemake published`` draws from the published runs."""

Name = Annotated[str, Field(pattern=rf"^{NAME}$")]
"""Becomes a part of paths and of the spelling of runs."""

ObjectiveName = Annotated[str, Field(pattern=rf"^{OBJECTIVE_NAME}$")]
"""Likewise; may hold a plus."""

StudyName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""Becomes the names of files and a part of a rule's."""

T = TypeVar("T")


class Recipe(Model):
    """Model sizes, training, decoding and measurements that belong together; a dataset names one."""

    backbones: dict[Name, AnyBackbone]
    training: TrainingParams = TrainingParams()
    decoding: DecodingParams = DecodingParams()
    measure: MeasureParams = MeasureParams()


class Params(Model):
    """The whole of params.yaml."""

    scale: str
    """Which group of studies ``snakemake all`` builds: a key of ``studies``."""
    datasets: dict[Name, AnySource]
    embedders: dict[str, AnyEmbedder]
    codes: dict[str, AnyTokenizer]
    recipes: dict[str, Recipe]
    objectives: dict[ObjectiveName, AnyObjective]
    tuned: Annotated[Tunings, WithJsonSchema({"type": "string"})] = Field(default_factory=dict)
    """A file, beside this one, of values chosen for single datasets and backbones (``apao tune`` writes it).
    An objective's own ``tuned`` wins over it."""
    sweeps: dict[Name, Sweep] = Field(default_factory=dict)
    """Named, for studies to list."""
    studies: dict[Name, dict[StudyName, AnyStudy]]
    """By scale and name. A study's name is that of its files."""

    @field_validator("studies", mode="before")
    @classmethod
    def _sweeps(cls, studies: object, info: ValidationInfo) -> object:
        """Put the sweeps in the place of their names."""
        # Where the sweeps have mistakes, those are the ones to tell, and studies are not looked at.
        return resolve_sweeps(studies, info.data["sweeps"]) if "sweeps" in info.data else {}

    _text: str = PrivateAttr("")
    """The file as it was read, with the tunings of the file that it names."""
    _files: tuple[Path, ...] = PrivateAttr(())
    _absent: Path | None = PrivateAttr(None)
    _resolved: dict[str, RunParams] = PrivateAttr(default_factory=dict)
    """By the run's spelling, in which ``ce=0`` and ``ce=false`` differ; as runs they are equal."""
    _normalised: dict[str, Run] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        """Every name that an entry mentions is defined."""
        check_references(self)
        return self

    def say_what_is_absent(self) -> None:
        """One line where the file of tunings that is named is not there."""
        if self._absent is not None:
            console.print(f"{self._absent} is not there; objectives have the same values on all datasets")

    @property
    def files(self) -> tuple[Path, ...]:
        """What was read: params.yaml and, where it names one, the file of tunings."""
        return self._files

    @property
    def sha256(self) -> str:
        """Hash of what was read."""
        return hashlib.sha256(self._text.encode()).hexdigest()

    def write_copy(self, path: Path) -> None:
        """Write what was read as one file, for jobs that start when it may have been edited."""
        with atomic_path(path) as temporary:
            temporary.write_bytes(self._text.encode())

    def check_runs(self) -> None:
        """Resolve every run that a study of any scale lists.

        Raises:
            AtKey: for the first study that lists one that cannot be.
        """
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
        if name not in self.datasets:
            raise UserError(f"unknown dataset {name!r}; {nearest(name, self.datasets)}")
        return self.datasets[name]

    def tokenizer_of(self, dataset: str) -> Tokenizer:
        """What gives a dataset's items their codes."""
        return self.codes[self.dataset(dataset).codes]

    def embedder_of(self, dataset: str) -> EmbedderParams | VectorFile | None:
        """What the embeddings of a dataset's items are made with; None where its codes name no embedder."""
        embedder = self.tokenizer_of(dataset).embedder
        return None if embedder is None else self.embedders[embedder]

    def recipe_of(self, dataset: str) -> Recipe:
        """The recipe that a dataset names."""
        return self.recipes[self.dataset(dataset).recipe]

    def decoding_of(self, dataset: str) -> DecodingParams:
        """How runs on a dataset are evaluated."""
        return self.recipe_of(dataset).decoding

    def timed_decoding(self, dataset: str, backbone: str) -> TimedDecoding:
        """How the decoding time of a backbone of the sizes in a dataset's recipe is measured."""
        recipe = self.recipe_of(dataset)
        sizes = _entry(recipe.backbones, backbone, "backbone", f"{dataset}/{backbone}")
        return TimedDecoding(
            backbone=sizes,
            decoding=recipe.decoding,
            threads=recipe.training.threads,
            timing=recipe.measure.decoding_time,
        )

    def resolve(self, run: Run) -> RunParams:
        """The parameters of one run: defaults, then tuned values, then the run's own overrides.

        An override's key is a field of the objective, of the training, or of the backbone.

        Raises:
            UserError: for an unknown dataset, backbone, objective or key, or a bad value.
        """
        return self._resolve(run, ())

    def _resolve(self, run: Run, later: tuple[Run, ...]) -> RunParams:
        """``later`` are the runs that start, one from the other, from this one."""
        if str(run) in self._resolved:
            return self._resolved[str(run)]
        if run in later:
            raise UserError(f"{later[0]}: starts from itself by way of {run}; change one objective's start")
        parts, decoding = self._parts(run)
        try:
            resolved = RunParams(
                dataset=run.dataset, decoding=decoding, seed=run.seed, **{k: v.model_dump() for k, v in parts.items()}
            )
        except ValidationError as error:
            raise UserError(f"{run}: {spelled(*first_mistake(error))}") from error
        check_fit(self, run, resolved)
        if resolved.objective.start is not None:
            resolved = resolved.model_copy(update={"start": self._start(run, resolved, later)})
        self._resolved[str(run)] = resolved
        return resolved

    def _parts(self, run: Run) -> tuple[dict[str, Model], DecodingParams]:
        """Objective, training and backbone of a run with all overrides, and its decoding."""
        recipe = self.recipes[_entry(self.datasets, run.dataset, "dataset", run).recipe]
        backbone = _entry(recipe.backbones, run.backbone, "backbone", run)
        objective = _entry(self.objectives, run.objective, "objective", run)
        tuned = {
            **values_at(self.tuned.get(run.objective, ()), run.dataset, run.backbone),
            **objective.tuned.get(run.dataset, {}),
            **objective.tuned.get(f"{run.dataset}/{run.backbone}", {}),
        }
        parts: dict[str, Model] = {
            "objective": changed(objective, tuned),
            "training": recipe.training,
            "backbone": backbone,
        }
        owners = {key: name for name, part in parts.items() for key in type(part).model_fields if key not in FIXED}
        overrides: dict[str, dict[str, Value]] = {}
        for key, value in run.overrides:
            if key not in owners:
                raise UserError(f"{run}: unknown key {key!r}; {nearest(key, owners)}")
            overrides.setdefault(owners[key], {})[key] = value
        for name, values in overrides.items():
            try:
                # Together: one key may be allowed only beside another.
                parts[name] = changed(parts[name], values)
            except ValidationError as error:
                raise UserError(f"{run}: {spelled(*first_mistake(error))}") from error
            for key, value in values.items():
                taken = format_value(getattr(parts[name], key))
                if taken != format_value(value):
                    raise UserError(f"{run}: write {key}={taken}; a run has one spelling")
        return parts, recipe.decoding

    def _start(self, run: Run, resolved: RunParams, later: tuple[Run, ...]) -> Start:
        """The run that ``run`` starts from: same data, seed and model sizes, its objective's ``start``."""
        assert resolved.objective.start is not None
        start = Run.of(run.dataset, run.backbone, resolved.objective.start, run.seed)
        sizes = {key: value for key, value in run.overrides if key in type(resolved.backbone).model_fields}
        start = start.with_overrides(**{**sizes, **dict(start.overrides)})
        params = self._resolve(start, (*later, run))
        if params.backbone != resolved.backbone:
            raise UserError(f"{run}: starts from {start}, whose model has other sizes; give both the same overrides")
        start = self.normalised(start)
        return Start(run=str(start), training=params.for_training())

    def all_runs(self) -> list[Run]:
        """Every run of the chosen scale: those of its studies, each after the run that it starts from."""
        found: dict[Run, None] = {}
        for study in self.chosen_studies.values():
            for run in study.runs():
                chain = [self.normalised(run)]
                while (start := self.resolve(chain[-1]).start) is not None:
                    chain.append(Run.parse(start.run))
                found |= dict.fromkeys(reversed(chain))
        return list(found)

    def normalised(self, run: Run) -> Run:
        """``run`` without the overrides that say what holds anyway, so that sweeps share that run."""
        resolved = self.resolve(run)
        if str(run) not in self._normalised:
            kept = tuple(pair for i, pair in enumerate(run.overrides) if self._resolves(_without(run, i)) != resolved)
            self._normalised[str(run)] = Run(run.dataset, run.backbone, run.objective, kept, run.seed)
        return self._normalised[str(run)]

    def _resolves(self, run: Run) -> RunParams | None:
        """What ``resolve`` gives, None for a run that is not valid."""
        try:
            return self.resolve(run)
        except UserError:
            return None

    @property
    def chosen_studies(self) -> dict[str, Study]:
        """The studies of the chosen scale, by name."""
        return self.studies[self.scale]

    def study(self, name: str) -> Study:
        """The study of the chosen scale that is called ``name``; raises UserError for an unknown name."""
        return _entry(self.chosen_studies, name, "study", f"studies.{self.scale}")


def _entry(known: Mapping[str, T], name: str, what: str, where: object) -> T:
    if name not in known:
        raise UserError(f"{where}: unknown {what} {name!r}; {nearest(name, known)}")
    return known[name]


def _without(run: Run, index: int) -> Run:
    overrides = run.overrides[:index] + run.overrides[index + 1 :]
    return Run(run.dataset, run.backbone, run.objective, overrides, run.seed)


def load(path: Path = PARAMS_FILE, scale: str | None = None, check_runs: bool = True) -> Params:
    """Read and check params.yaml; ``scale`` takes the place of the file's own.

    Without ``check_runs`` the runs that the studies list are not resolved: a job that needs one run meets
    the mistakes of that run alone.

    Raises:
        UserError: naming file, line and key of the first mistake.
    """
    data, root, text = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping with the keys {', '.join(Params.model_fields)}")
    file_of, root_of, absent = path, root, None
    if isinstance(name := data.get("tuned"), str):
        file_of = path.parent / name
        # params.yaml is often copied alone.
        absent = None if file_of.exists() else file_of
        tunings, root_of = read_tuned(file_of) if file_of.exists() else ({}, None)
        data["tuned"] = {key: [one.model_dump() for one in given] for key, given in tunings.items()}
        # A copy of the file stands for both.
        text = yaml.safe_dump(data, sort_keys=False)

    def at(message: str, key: Key) -> str:
        """Message with file, line and key; those of the tunings are in a file of their own."""
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
        params.say_what_is_absent()
    params._text, params._files = text, tuple(dict.fromkeys(one for one in (path, file_of) if one.exists()))
    return params


def schema() -> dict[str, Any]:
    """JSON schema of params.yaml, generated from the models."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **Params.model_json_schema()}


def schema_text() -> str:
    """The schema as it is kept in the repository."""
    return json.dumps(schema(), indent=1) + "\n"
