"""The parameters of one run, and run.json: the file beside its weights that keeps those it was trained with.

run.json holds all that decides a training: the run's spelling, its resolved parameters with those of the run
it starts from, and the hashes of its input files. The training writes it; evaluation and reports read it, so
a run is evaluated as it was trained, whatever params.yaml has come to say. How a run is decoded is not in it,
because changing that trains nothing again; metrics.json says how its numbers were decoded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pydantic import PositiveInt, ValidationError, model_validator

from apao.backbones.base import BACKBONES, BackboneParams
from apao.errors import UserError
from apao.evaluation.params import DecodingParams, MeasureParams, TimingParams
from apao.files import read_json, sha256_of, verified
from apao.objectives.base import OBJECTIVES, Objective
from apao.parameters import Model, Seed, first_mistake, one_of, spelled
from apao.study.paths import DatasetPaths
from apao.study.runs import Run
from apao.training.params import Setup, TrainingParams

if TYPE_CHECKING:
    AnyBackbone: TypeAlias = BackboneParams
    AnyObjective: TypeAlias = Objective
else:
    AnyBackbone, AnyObjective = one_of(BACKBONES), one_of(OBJECTIVES)


class Start(Model):
    """The trained run that another one starts from."""

    run: str
    training: dict[str, Any]
    """What its training depends on: a part of what the later run is."""


class TrainedParams(Setup):
    """Everything that the training of one run depends on: params.yaml resolved for it."""

    dataset: str
    backbone: AnyBackbone
    objective: AnyObjective
    training: TrainingParams
    seed: Seed
    start: Start | None = None

    def for_training(self) -> dict[str, Any]:
        """These parameters as JSON values, without the objective's ``tuned`` ones: they hold the chosen value."""
        return self.model_dump(mode="json", include=set(TrainedParams.model_fields), exclude={"objective": {"tuned"}})

    def training_inputs(self) -> list[Path]:
        """Files that training reads."""
        paths = DatasetPaths(self.dataset)
        files = [paths.interactions, paths.codes]
        if self.objective.needs().embeddings:
            files.append(paths.embeddings)
        if self.start is not None:
            files.append(Run.parse(self.start.run).model)
        return files


class RunParams(TrainedParams):
    """A run's training and how it is evaluated."""

    decoding: DecodingParams

    @model_validator(mode="after")
    def _eos_is_trained(self) -> RunParams:
        if self.decoding.eos is True and not self.objective.trains_eos:
            raise ValueError(
                "decoding.eos is true but the objective does not train eos; set decoding.eos to null, "
                "or to release to decode an untrained eos as the release does"
            )
        return self

    @property
    def decodes_eos(self) -> bool:
        """Whether beam search decodes eos after the code."""
        return self.decoding.decodes_eos(self.backbone.decodes_eos, self.objective.trains_eos)

    def for_evaluation(self) -> dict[str, Any]:
        """The subtree that evaluation depends on, beyond the trained model."""
        return {
            "decoding": self.decoding.model_dump(mode="json"),
            "eos": self.decodes_eos,
            "softmax": self.objective.softmax._asdict(),
        }


class Measuring(Model):
    """What a measurement of a trained run depends on beyond it, as a rule hands it over."""

    decoding: DecodingParams
    measure: MeasureParams
    """The measuring command reads its own entry; others may be left out."""


class TimedDecoding(Model):
    """What a timing of decoding depends on: no run, but an untrained model of some sizes and how it decodes."""

    backbone: AnyBackbone
    decoding: DecodingParams
    threads: PositiveInt
    timing: TimingParams

    @property
    def decodes_eos(self) -> bool:
        """Whether beam search decodes eos after the code, as if it were trained."""
        return self.decoding.decodes_eos(self.backbone.decodes_eos, trained=True)


class RunRecord(TrainedParams):
    """The content of run.json."""

    run: str
    """The run's spelling."""
    inputs: dict[str, str]
    """Path to SHA-256 of every file that the training read."""

    @classmethod
    def read(cls, run: Run, root: Path = Path()) -> Self:
        """The run.json of a trained run of the study in ``root``; errors as of ``at``."""
        return cls.at(root / run.record, run)

    @classmethod
    def at(cls, path: Path, run: Run) -> Self:
        """The run.json of ``run`` that lies at ``path``.

        Raises:
            UserError: when it is missing, damaged, or another run's.
        """
        again = f"delete it and train the run again (snakemake -c2 {path})"
        values = read_json(verified(path))
        try:
            record = cls.model_validate(values)
        except ValidationError as error:
            raise UserError(f"{path}: {spelled(*first_mistake(error, values))}; {again}") from error
        if (record.run, record.dataset, record.seed) != (str(run), run.dataset, run.seed):
            found = f"{record.run}, dataset {record.dataset}, seed {record.seed}"
            raise UserError(f"{path}: expected the record of {run}, found that of {found}; {again}")
        return record

    def decoded(self, decoding: DecodingParams) -> RunParams:
        """The run's parameters for an evaluation.

        Raises:
            UserError: when ``decoding`` asks for what the run was not trained for.
        """
        try:
            return RunParams.model_validate({**self.for_training(), "decoding": decoding})
        except ValidationError as error:
            raise UserError(f"{self.run}: {spelled(*first_mistake(error))}") from error

    def changed_inputs(self, root: Path = Path()) -> list[Path]:
        """Those of the dataset's files whose content is no longer what the run was trained on."""
        paths = DatasetPaths(self.dataset)
        files = [path for path in (paths.interactions, paths.codes) if (root / path).exists()]
        return [path for path in files if sha256_of(root / path) != self.inputs.get(str(path))]

    def difference(self, params: TrainedParams) -> str | None:
        """The first parameter that has another value in ``params``, with both values; None where all agree."""
        return first_difference(self.for_training(), params.for_training())


def first_difference(recorded: Any, stated: Any) -> str | None:
    """The first key, by its path, whose values differ, with both of them; None where all agree."""
    if recorded == stated:
        return None
    path = []
    while isinstance(recorded, dict) and isinstance(stated, dict):
        path.append(next(key for key in [*recorded, *stated] if recorded.get(key) != stated.get(key)))
        recorded, stated = recorded.get(path[-1]), stated.get(path[-1])
    return f"{'.'.join(path)} {json.dumps(recorded)}, not {json.dumps(stated)}"
