"""The parameters of one run, and run.json, the file beside its weights that records those it was trained with.

run.json contains everything that determines a training: the run's name, its resolved parameters with those of the
run it starts from, and the hashes of its input files. The training writes it; evaluation and reports read it, so a
run is evaluated as it was trained, even if params.yaml was edited since. Decoding parameters are not in it, because
changing them requires no training; metrics.json records those of its numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pydantic import PositiveInt, ValidationError, model_validator

from apao.backbones.base import BACKBONES, BackboneParams
from apao.errors import UserError
from apao.evaluation.params import DecodingParams, MeasureParams, TimingParams
from apao.files import again, read_json, sha256_of, verified
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
    """The trained run whose weights another run starts from."""

    run: str
    """Name of the run."""
    training: dict[str, Any]
    """Its training parameters, on which the later run depends too."""


class TrainedParams(Setup):
    """All parameters that determine the training of one run: params.yaml resolved for it."""

    dataset: str
    backbone: AnyBackbone
    objective: AnyObjective
    training: TrainingParams
    seed: Seed
    start: Start | None = None

    def for_training(self) -> dict[str, Any]:
        """These parameters as JSON values, without the objective's ``tuned``, which has been applied already."""
        return self.model_dump(mode="json", include=set(TrainedParams.model_fields), exclude={"objective": {"tuned"}})

    def training_inputs(self) -> list[Path]:
        """Files that the training reads."""
        paths = DatasetPaths(self.dataset)
        files = [paths.interactions, paths.codes, *self.backbone.own_files()]
        if self.objective.needs().embeddings:
            files.append(paths.embeddings)
        if self.start is not None:
            files.append(Run.parse(self.start.run).model)
        return files


class RunParams(TrainedParams):
    """Training and decoding parameters of a run."""

    decoding: DecodingParams

    @model_validator(mode="after")
    def _eos_is_trained(self) -> RunParams:
        if self.decoding.eos is True and not self.objective.trains_eos:
            raise ValueError(
                "decoding.eos is true but the objective does not train eos; set decoding.eos to null, "
                "or to release, which decodes an untrained eos as the authors' release does"
            )
        return self

    @property
    def decodes_eos(self) -> bool:
        """Whether beam search decodes eos after the code."""
        return self.decoding.decodes_eos(self.backbone.release_decodes_eos, self.objective.trains_eos)

    def for_evaluation(self) -> dict[str, Any]:
        """Parameters of the evaluation as JSON values, besides those of the trained model."""
        return {
            "decoding": self.decoding.model_dump(mode="json"),
            "eos": self.decodes_eos,
            "softmax": self.objective.softmax._asdict(),
        }


class Measuring(Model):
    """Parameters of a measurement of a trained run, as passed by a workflow rule."""

    decoding: DecodingParams
    measure: MeasureParams
    """Each measuring command reads only its own entry; the others may be missing."""


class TimedDecoding(Model):
    """Parameters of a timing of decoding, which uses an untrained model instead of a run."""

    backbone: AnyBackbone
    decoding: DecodingParams
    threads: PositiveInt
    timing: TimingParams

    @property
    def decodes_eos(self) -> bool:
        """Whether beam search decodes eos after the code, assuming that eos is trained."""
        return self.decoding.decodes_eos(self.backbone.release_decodes_eos, trained=True)


class RunRecord(TrainedParams):
    """The content of run.json."""

    run: str
    """Name of the run."""
    inputs: dict[str, str]
    """SHA-256 by path of every file that the training read."""

    @classmethod
    def read(cls, run: Run) -> Self:
        """Read run.json of a trained run; raises the errors of ``at``."""
        return cls.at(run.record, run)

    @classmethod
    def at(cls, path: Path, run: Run | None = None) -> Self:
        """Read the run.json at ``path``; if ``run`` is given, it must be that run's.

        Raises:
            UserError: when it is missing, damaged, or belongs to another run.
        """
        values = read_json(verified(path))
        try:
            record = cls.model_validate(values)
        except ValidationError as error:
            raise UserError(
                f"{path}: {spelled(*first_mistake(error, values))}; this version of apao cannot read it: use the one "
                "that trained the run, or train it again"
            ) from error
        run = run or Run.parse(record.run)
        if (record.run, record.dataset, record.seed) != (str(run), run.dataset, run.seed):
            found = f"{record.run}, dataset {record.dataset}, seed {record.seed}"
            raise UserError(f"{path}: expected the record of {run}, found that of {found}; {again(path)}")
        return record

    def decoded(self, decoding: DecodingParams) -> RunParams:
        """The run's parameters with those of its decoding.

        Raises:
            UserError: when ``decoding`` does not suit the training.
        """
        try:
            return RunParams.model_validate({**self.for_training(), "decoding": decoding})
        except ValidationError as error:
            raise UserError(f"{self.run}: {spelled(*first_mistake(error))}") from error

    def changed_inputs(self, root: Path) -> list[Path]:
        """Files of the dataset whose content has changed since the training."""
        paths = DatasetPaths(self.dataset)
        files = [path for path in (paths.interactions, paths.codes) if (root / path).exists()]
        return [path for path in files if sha256_of(root / path) != self.inputs.get(str(path))]

    def difference(self, params: TrainedParams) -> str | None:
        """The first parameter that differs in ``params``, with both values; None if all are equal."""
        return first_difference(self.for_training(), params.for_training())


ABSENT = object()
"""In place of the value of a key that is not there."""


def first_difference(recorded: Any, stated: Any) -> str | None:
    """The path of the first key whose values differ, with both values; None if all are equal."""
    if recorded == stated:
        return None
    path = []
    while isinstance(recorded, dict) and isinstance(stated, dict):
        # Older files lack keys that were added later.
        path.append(next(key for key in [*recorded, *stated] if recorded.get(key, ABSENT) != stated.get(key, ABSENT)))
        recorded, stated = recorded.get(path[-1], ABSENT), stated.get(path[-1], ABSENT)
    old, new = ("absent" if value is ABSENT else json.dumps(value) for value in (recorded, stated))
    return f"{'.'.join(path)} {old}, not {new}"
