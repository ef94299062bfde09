"""params.yaml as typed values: read, checked, and resolved for one run.

Every number of the project is chosen in params.yaml. It is validated whole before any stage starts;
a mistake is one error that names the file, the line and the key. A stage then sees only its own
subtree, so that editing one objective touches only that objective's runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

import yaml
from pydantic import Field, ValidationError, model_validator

from apao.backbones.base import BACKBONES, BackboneParams
from apao.codes.params import CodesParams, EmbedderParams, PublishedCodes, ResidualKMeansCodes
from apao.data.base import SOURCES, Source
from apao.errors import UserError, nearest
from apao.objectives.base import OBJECTIVES, Objective
from apao.registry import Model, Registry
from apao.runs import Run, Value
from apao.studies import Studies
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


class Recipe(Model):
    """Model sizes, training and decoding that belong together; a dataset names one."""

    backbones: dict[str, AnyBackbone]
    training: TrainingParams = TrainingParams()
    decoding: DecodingParams = DecodingParams()


class RunParams(Model):
    """Everything one run depends on: params.yaml resolved for it."""

    dataset: str
    backbone: AnyBackbone
    objective: AnyObjective
    training: TrainingParams
    decoding: DecodingParams
    seed: Seed

    @property
    def decodes_eos(self) -> bool:
        """Whether beam search decodes eos after the code."""
        if self.decoding.eos is None:
            return self.backbone.decodes_eos and self.objective.eos
        return self.decoding.eos

    def for_training(self) -> dict[str, Any]:
        """The subtree that training depends on."""
        return self.model_dump(mode="json", exclude={"decoding": True, "objective": {"tuned"}})

    def for_evaluation(self) -> dict[str, Any]:
        """The subtree that evaluation depends on, beyond the trained model."""
        return {"decoding": self.decoding.model_dump(mode="json"), "eos": self.decodes_eos}


class Params(Model):
    """The whole of params.yaml."""

    scale: str
    """Which group of studies ``snakemake all`` builds: a key of ``studies``."""
    datasets: dict[str, AnySource]
    embedders: dict[str, EmbedderParams]
    codes: dict[str, CodesParams]
    recipes: dict[str, Recipe]
    objectives: dict[str, AnyObjective]
    studies: dict[str, Studies]

    @model_validator(mode="after")
    def _names_exist(self) -> Params:
        """Every name that an entry mentions is defined, and every run a study lists is a valid one."""
        _known(self.scale, self.studies, "scale", "studies")
        for name, code in self.codes.items():
            if isinstance(code, ResidualKMeansCodes):
                _known(code.embedder, self.embedders, f"codes.{name}.embedder", "embedders")
        for name, source in self.datasets.items():
            where = f"datasets.{name}"
            _known(source.codes, self.codes, f"{where}.codes", "codes")
            _known(source.recipe, self.recipes, f"{where}.recipe", "recipes")
            code = self.codes[source.codes]
            if isinstance(code, PublishedCodes) and not source.publishes_codes:
                raise ValueError(f"{where}.codes: source {source.source!r} publishes no codes; name an rq-kmeans entry")
            if isinstance(code, ResidualKMeansCodes):
                beam, most = self.recipes[source.recipe].decoding.beam, code.clusters**code.levels
                if beam > most:
                    raise ValueError(
                        f"recipes.{source.recipe}.decoding.beam: {beam} is more than the {most} codes "
                        f"that codes.{source.codes} ({code.levels} x {code.clusters}) allows"
                    )
        for name in self.objectives:
            self._check_tuned(name)
        for scale, studies in self.studies.items():
            for study, run in studies.named_runs():
                try:
                    self.resolve(run)
                except UserError as error:
                    raise ValueError(f"studies.{scale}.{study}: {error}") from error
        return self

    def _check_tuned(self, name: str) -> None:
        objective = self.objectives[name]
        for place, values in objective.tuned.items():
            where = f"objectives.{name}.tuned.{place}"
            dataset, _, backbone = place.partition("/")
            _known(dataset, self.datasets, where, "datasets")
            if backbone:
                recipe = self.datasets[dataset].recipe
                _known(backbone, self.recipes[recipe].backbones, where, f"recipes.{recipe}.backbones")
            try:
                _changed(objective, values)
            except ValidationError as error:
                raise ValueError(f"{where}: {_first_message(error)}") from error

    def dataset(self, name: str) -> Source:
        """The entry of a dataset; raises UserError for an unknown name."""
        if name not in self.datasets:
            raise UserError(f"unknown dataset {name!r}; {nearest(name, self.datasets)}")
        return self.datasets[name]

    def embedder_of(self, dataset: str) -> EmbedderParams | None:
        """The text encoder behind a dataset's codes; None where it uses published codes."""
        codes = self.codes[self.dataset(dataset).codes]
        return self.embedders[codes.embedder] if isinstance(codes, ResidualKMeansCodes) else None

    def resolve(self, run: Run) -> RunParams:
        """The parameters of one run: defaults, then tuned values, then the run's own overrides.

        An override's key is a field of the objective, of the training, or of the backbone.

        Raises:
            UserError: for an unknown dataset, backbone, objective or key, or a bad value.
        """
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
            "objective": _changed(objective, tuned),
            "training": recipe.training,
            "backbone": recipe.backbones[run.backbone],
        }
        for key, value in run.overrides:
            owners = [name for name, part in parts.items() if key in type(part).model_fields and key not in _FIXED]
            if not owners:
                known = {field for part in parts.values() for field in type(part).model_fields} - _FIXED
                raise UserError(f"{run}: unknown key {key!r}; {nearest(key, known)}")
            try:
                parts[owners[0]] = _changed(parts[owners[0]], {key: value})
            except ValidationError as error:
                raise UserError(f"{run}: {_first_message(error)}") from error
        try:
            resolved = RunParams(
                dataset=run.dataset,
                decoding=recipe.decoding,
                seed=run.seed,
                **{k: v.model_dump() for k, v in parts.items()},
            )
            codes = self.codes[self.datasets[run.dataset].codes]
            if isinstance(codes, ResidualKMeansCodes):
                resolved.objective.check_levels(codes.levels + (codes.collisions == "extra"))
        except (ValidationError, ValueError) as error:
            message = _first_message(error) if isinstance(error, ValidationError) else str(error)
            raise UserError(f"{run}: {message}") from error
        if resolved.decoding.eos and not resolved.objective.eos:
            raise UserError(
                f"{run}: decoding.eos is true but the objective does not train eos; "
                "set the objective's eos to true or decoding.eos to null"
            )
        return resolved

    def normalised(self, run: Run) -> Run:
        """``run`` without the overrides that say what holds anyway, so that sweeps share that run."""
        kept: tuple[tuple[str, Value], ...] = tuple(
            pair for i, pair in enumerate(run.overrides) if self.resolve(run) != self.resolve(_without(run, i))
        )
        return Run(run.dataset, run.backbone, run.objective, kept, run.seed)

    @property
    def study(self) -> Studies:
        """The studies of the chosen scale."""
        return self.studies[self.scale]


_FIXED = {"type", "tuned"}


def _without(run: Run, index: int) -> Run:
    overrides = run.overrides[:index] + run.overrides[index + 1 :]
    return Run(run.dataset, run.backbone, run.objective, overrides, run.seed)


def _changed(model: Model, values: Mapping[str, Any]) -> Model:
    """``model`` with some fields replaced, validated again."""
    return type(model).model_validate({**model.model_dump(), **values})


def _known(name: str, known: Mapping[str, object], where: str, section: str) -> None:
    if name not in known:
        raise ValueError(f"{where}: {name!r} is not defined under {section}; {nearest(name, known)}")


def load(path: Path = PARAMS_FILE, scale: str | None = None) -> Params:
    """Read and check params.yaml; ``scale`` takes the place of the file's own.

    Raises:
        UserError: naming file, line and key of the first mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; run from the project's root, or name the file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _no_duplicates(root, path)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    except RecursionError as error:
        raise UserError(f"{path}: nested too deeply") from error
    if not isinstance(data, dict):
        raise UserError(f"{path}: expected a mapping with the keys {', '.join(Params.model_fields)}")
    if scale is not None:
        data["scale"] = scale
    try:
        return Params.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        more = error.error_count() - 1
        tail = f" (and {more} more)" if more else ""
        raise UserError(f"{path}:{_line(root, first['loc'])}: {_first_message(error)}{tail}") from error


def _first_message(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] not in ("value_error", "missing") and not isinstance(first["input"], dict):
        message += f", found {first['input']!r}"
    return f"{key}: {message}" if key else message


def _line(node: yaml.Node | None, loc: tuple[int | str, ...]) -> int:
    """Line of the deepest part of ``loc`` that the file has; union tags in ``loc`` are passed over."""
    assert node is not None
    line = node.start_mark.line + 1
    for part in loc:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    node, line = value, key.start_mark.line + 1
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _no_duplicates(node: yaml.Node | None, path: Path) -> None:
    """YAML lets a later key silently replace an earlier one; here that is a mistake."""
    for mapping in _mappings(node):
        seen: dict[str, int] = {}
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise UserError(f"{path}:{line}: key {key.value!r} was given before, on line {seen[key.value]}")
            seen[key.value] = line


def _mappings(node: yaml.Node | None, seen: frozenset[int] = frozenset()) -> Iterator[yaml.MappingNode]:
    if node is None or id(node) in seen:
        return
    seen = seen | {id(node)}
    if isinstance(node, yaml.MappingNode):
        yield node
        for key, value in node.value:
            yield from _mappings(key, seen)
            yield from _mappings(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mappings(value, seen)


def schema() -> dict[str, Any]:
    """JSON schema of params.yaml, generated from the models."""
    return Params.model_json_schema()


def schema_text() -> str:
    """The schema as it is kept in the repository."""
    return json.dumps(schema(), indent=1) + "\n"
