"""params.yaml as typed values: read, checked, and resolved for one run.

Every number of the project is chosen in params.yaml. It is validated whole before any stage starts;
a mistake is one error that names the file, the line and the key. A stage then sees only its own
subtree, so that editing one objective touches only that objective's runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import GenerateJsonSchema

from apao.backbones.base import BACKBONES, BackboneParams
from apao.codes.params import AnyEmbedder, CodesParams, EmbedderParams, ResidualKMeansCodes, VectorFile
from apao.data.base import SOURCES, Source
from apao.errors import AtKey, UserError, nearest
from apao.mistakes import first_mistake, line_of, read_yaml, spelled
from apao.objectives.base import OBJECTIVES, Objective
from apao.references import FIXED, changed, check_references, resolve_sweeps
from apao.registry import Model, Registry
from apao.runs import NAME, OBJECTIVE_NAME, DatasetPaths, Run, Value, format_value
from apao.studies import Studies, Sweep
from apao.training.params import DecodingParams, Seed, TrainingParams

if TYPE_CHECKING:
    AnySource: TypeAlias = Source
    AnyBackbone: TypeAlias = BackboneParams
    AnyObjective: TypeAlias = Objective
else:

    def _one_of(registry: Registry) -> Any:
        return Annotated[Union[registry.classes()], Field(discriminator=registry.tag)]  # noqa: UP007

    AnySource, AnyBackbone, AnyObjective = _one_of(SOURCES), _one_of(BACKBONES), _one_of(OBJECTIVES)

PARAMS_FILE = Path("params.yaml")

Name = Annotated[str, Field(pattern=rf"^{NAME}$")]
"""Becomes a part of paths and of the spelling of runs."""

ObjectiveName = Annotated[str, Field(pattern=rf"^{OBJECTIVE_NAME}$")]
"""Likewise; may hold a plus."""


class Recipe(Model):
    """Model sizes, training and decoding that belong together; a dataset names one."""

    backbones: dict[Name, AnyBackbone]
    training: TrainingParams = TrainingParams()
    decoding: DecodingParams = DecodingParams()


class Start(Model):
    """The trained run that another one starts from."""

    run: str
    training: dict[str, Any]
    """What its training depends on: a part of what the later run is."""


class RunParams(Model):
    """Everything one run depends on: params.yaml resolved for it."""

    dataset: str
    backbone: AnyBackbone
    objective: AnyObjective
    training: TrainingParams
    decoding: DecodingParams
    seed: Seed
    start: Start | None = None

    @property
    def decodes_eos(self) -> bool:
        """Whether beam search decodes eos after the code."""
        match self.decoding.eos:
            case None:
                return self.backbone.decodes_eos and self.objective.trains_eos
            case "release":
                return self.backbone.decodes_eos
            case given:
                return given

    def for_training(self) -> dict[str, Any]:
        """The subtree that training depends on."""
        return self.model_dump(mode="json", exclude={"decoding": True, "objective": {"tuned"}})

    def for_evaluation(self) -> dict[str, Any]:
        """The subtree that evaluation depends on, beyond the trained model."""
        return {
            "decoding": self.decoding.model_dump(mode="json"),
            "eos": self.decodes_eos,
            "softmax": self.objective.softmax._asdict(),
        }

    def training_inputs(self) -> list[Path]:
        """Files that training reads."""
        paths = DatasetPaths(self.dataset)
        files = [paths.interactions, paths.codes]
        if self.objective.needs().level_gains:
            files.append(paths.embeddings)
        if self.start is not None:
            files.append(Run.parse(self.start.run).model)
        return files


class Params(Model):
    """The whole of params.yaml."""

    scale: str
    """Which group of studies ``snakemake all`` builds: a key of ``studies``."""
    datasets: dict[Name, AnySource]
    embedders: dict[str, AnyEmbedder]
    codes: dict[str, CodesParams]
    recipes: dict[str, Recipe]
    objectives: dict[ObjectiveName, AnyObjective]
    sweeps: dict[Name, Sweep] = Field(default_factory=dict)
    """Named, for studies to list."""
    studies: dict[Name, Studies]

    @field_validator("studies", mode="before")
    @classmethod
    def _sweeps(cls, studies: object, info: ValidationInfo) -> object:
        """Put the sweeps in the place of their names."""
        # Where the sweeps have mistakes, those are the ones to tell, and studies are not looked at.
        return resolve_sweeps(studies, info.data["sweeps"]) if "sweeps" in info.data else {}

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        """Every name that an entry mentions is defined, and every run a study lists is a valid one."""
        check_references(self)
        for scale, studies in self.studies.items():
            for name, study in studies.chosen().items():
                try:
                    for run in study.runs():
                        self.resolve(run)
                    for dataset in study.dataset_names():
                        self.dataset(dataset)
                except UserError as error:
                    raise AtKey(str(error), "studies", scale, name) from error
        return self

    def dataset(self, name: str) -> Source:
        """The entry of a dataset; raises UserError for an unknown name."""
        if name not in self.datasets:
            raise UserError(f"unknown dataset {name!r}; {nearest(name, self.datasets)}")
        return self.datasets[name]

    def embedder_of(self, dataset: str) -> EmbedderParams | VectorFile | None:
        """What the embeddings of a dataset's items are made with; None where its codes name no embedder."""
        codes = self.codes[self.dataset(dataset).codes]
        return None if codes.embedder is None else self.embedders[codes.embedder]

    def resolve(self, run: Run) -> RunParams:
        """The parameters of one run: defaults, then tuned values, then the run's own overrides.

        An override's key is a field of the objective, of the training, or of the backbone.

        Raises:
            UserError: for an unknown dataset, backbone, objective or key, or a bad value.
        """
        return self._resolve(run, ())

    def _resolve(self, run: Run, later: tuple[Run, ...]) -> RunParams:
        """``later`` are the runs that start, one from the other, from this one."""
        if run in later:
            raise UserError(f"{later[0]}: starts from itself by way of {run}; change one objective's start")
        parts, decoding = self._parts(run)
        try:
            resolved = RunParams(
                dataset=run.dataset, decoding=decoding, seed=run.seed, **{k: v.model_dump() for k, v in parts.items()}
            )
        except ValidationError as error:
            raise UserError(f"{run}: {spelled(*first_mistake(error))}") from error
        self._check_fit(run, resolved)
        if resolved.objective.start is not None:
            resolved = resolved.model_copy(update={"start": self._start(run, resolved, later)})
        return resolved

    def _parts(self, run: Run) -> tuple[dict[str, Model], DecodingParams]:
        """Objective, training and backbone of a run with all overrides, and its decoding."""
        if run.dataset not in self.datasets:
            raise UserError(f"{run}: unknown dataset {run.dataset!r}; {nearest(run.dataset, self.datasets)}")
        recipe = self.recipes[self.datasets[run.dataset].recipe]
        if run.backbone not in recipe.backbones:
            raise UserError(f"{run}: unknown backbone {run.backbone!r}; {nearest(run.backbone, recipe.backbones)}")
        if run.objective not in self.objectives:
            raise UserError(f"{run}: unknown objective {run.objective!r}; {nearest(run.objective, self.objectives)}")
        objective = self.objectives[run.objective]
        tuned = {
            **objective.tuned.get(run.dataset, {}),
            **objective.tuned.get(f"{run.dataset}/{run.backbone}", {}),
        }
        parts: dict[str, Model] = {
            "objective": changed(objective, tuned),
            "training": recipe.training,
            "backbone": recipe.backbones[run.backbone],
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

    def _check_fit(self, run: Run, resolved: RunParams) -> None:
        """What the parts of a run ask of each other and of the dataset's codes."""
        name = self.datasets[run.dataset].codes
        codes = self.codes[name]
        if isinstance(codes, ResidualKMeansCodes):
            try:
                resolved.objective.check_levels(codes.levels + (codes.collisions == "extra"))
            except ValueError as error:
                raise UserError(f"{run}: {error}") from error
        if resolved.objective.needs().level_gains and codes.embedder is None:
            raise UserError(f"{run}: {run.objective} needs the items' embeddings; name an embedder in codes.{name}")
        if resolved.decoding.eos is True and not resolved.objective.trains_eos:
            raise UserError(
                f"{run}: decoding.eos is true but the objective does not train eos; "
                "set decoding.eos to null, or to release to decode an untrained eos as the release does"
            )

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
        for _, run in self.study.named_runs():
            chain = [self.normalised(run)]
            while (start := self.resolve(chain[-1]).start) is not None:
                chain.append(Run.parse(start.run))
            found |= dict.fromkeys(reversed(chain))
        return list(found)

    def normalised(self, run: Run) -> Run:
        """``run`` without the overrides that say what holds anyway, so that sweeps share that run."""
        resolved = self.resolve(run)
        kept = (pair for i, pair in enumerate(run.overrides) if self._resolves(_without(run, i)) != resolved)
        return Run(run.dataset, run.backbone, run.objective, tuple(kept), run.seed)

    def _resolves(self, run: Run) -> RunParams | None:
        """What ``resolve`` gives, None for a run that is not valid."""
        try:
            return self.resolve(run)
        except UserError:
            return None

    @property
    def study(self) -> Studies:
        """The studies of the chosen scale."""
        return self.studies[self.scale]


def _without(run: Run, index: int) -> Run:
    overrides = run.overrides[:index] + run.overrides[index + 1 :]
    return Run(run.dataset, run.backbone, run.objective, overrides, run.seed)


def load(path: Path = PARAMS_FILE, scale: str | None = None) -> Params:
    """Read and check params.yaml; ``scale`` takes the place of the file's own.

    Raises:
        UserError: naming file, line and key of the first mistake.
    """
    data, root = read_yaml(path)
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping with the keys {', '.join(Params.model_fields)}")
    if scale is not None:
        data["scale"] = scale
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        message, key = first_mistake(error, data)
        more = error.error_count() - 1
        tail = f" (and {more} more)" if more else ""
        raise UserError(f"{path}:{line_of(key, root)}: {spelled(message, key)}{tail}") from error


def schema() -> dict[str, Any]:
    """JSON schema of params.yaml, generated from the models."""
    return {"$schema": GenerateJsonSchema.schema_dialect, **Params.model_json_schema()}


def schema_text() -> str:
    """The schema as it is kept in the repository."""
    return json.dumps(schema(), indent=1) + "\n"
