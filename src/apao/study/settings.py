"""Source of a command's parameters: params.yaml, or JSON text passed by a workflow rule.

Snakemake records the text of a rule's ``params``, and reruns the rule when it changes. The rules of runs pass that
text to the command (``--resolved``), so the recorded values are those that are used, even if params.yaml is edited in
the meantime. A command started by a user resolves its own run, and no other, from params.yaml.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from apao.errors import UserError
from apao.evaluation.params import DecodingParams, MeasureParams
from apao.parameters import Model, first_mistake, spelled
from apao.progress import console
from apao.study.params import PUBLISHED_SCALE, Params, load
from apao.study.paths import PARAMS_FILE
from apao.study.run_params import Measuring, RunParams, RunRecord, TrainedParams
from apao.study.runs import Run
from apao.study.yaml_lines import read_yaml
from apao.trackers.base import AUTO, Tracker, tracker_of

M = TypeVar("M", bound=Model)


def from_text(model: type[M], text: str) -> M:
    """Parse the parameters passed by ``--resolved``.

    Raises:
        UserError: when the text is not JSON or not valid for ``model``.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"--resolved: not valid JSON ({error})") from error
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"--resolved: {spelled(*first_mistake(error, values))}") from error


@dataclass
class Settings:
    """Options given before the subcommand."""

    file: Path = PARAMS_FILE
    scale: str | None = None
    tracker: str = AUTO

    def params(self) -> Params:
        """params.yaml, validated with every run of its studies."""
        return load(self.file, self.scale)

    def job_params(self) -> Params:
        """params.yaml for one job, which resolves only the runs it needs."""
        return load(self.file, self.scale, check_runs=False)

    def published_params(self) -> Params:
        """params.yaml with the scale of the published runs, for drawing their tables and figures."""
        return load(self.file, PUBLISHED_SCALE, check_runs=False)

    def tuned_file(self) -> Path:
        """Path of the file that params.yaml names under ``tuned``.

        Raises:
            UserError: when it names none.
        """
        data, *_ = read_yaml(self.file)
        name = data.get("tuned") if isinstance(data, dict) else None
        if not isinstance(name, str):
            raise UserError(f"{self.file}: names no file for tuned values; add the key: tuned: tuned.yaml")
        return self.file.parent / name

    def chosen_tracker(self) -> Tracker | None:
        """The tracker of trainings and evaluations, which is no parameter of theirs."""
        return tracker_of(self.tracker)

    def to_train(self, run: Run, resolved: str | None) -> TrainedParams:
        """Training parameters of ``run``, from ``resolved`` or from params.yaml."""
        if resolved is None:
            stated = self.job_params()
            stated.note_missing_tunings()
            return stated.resolve(run)
        params = from_text(TrainedParams, resolved)
        if (params.dataset, params.seed) != (run.dataset, run.seed):
            raise UserError(f"--resolved: has dataset {params.dataset} and seed {params.seed}, not those of {run}")
        return params

    def to_evaluate(self, run: Run, resolved: str | None) -> RunParams:
        """Parameters that ``run`` was trained with, and decoding from ``resolved`` or params.yaml."""
        if resolved is not None:
            return RunRecord.read(run).decoded(from_text(DecodingParams, resolved))
        return self._trained(run, self.job_params())

    def to_measure(self, run: Run, resolved: str | None) -> tuple[RunParams, MeasureParams]:
        """The same parameters, and those of measurements."""
        if resolved is not None:
            given = from_text(Measuring, resolved)
            return RunRecord.read(run).decoded(given.decoding), given.measure
        params = self.job_params()
        return self._trained(run, params), params.recipe_of(run.dataset).measure

    def _trained(self, run: Run, params: Params) -> RunParams:
        """Parameters from run.json; prints a line if those of params.yaml differ."""
        if not run.record.exists():
            params.resolve(run)  # for a misspelt run this error is clearer than that of a missing file
        record = RunRecord.read(run)
        try:
            difference = record.difference(params.resolve(run))
        except UserError as error:
            console.print(f"{error}; {run} is evaluated as it was trained")
        else:
            if difference is not None:
                console.print(f"{run} is evaluated as it was trained: with {difference} as in {self.file}")
        return record.decoded(params.decoding_of(run.dataset))
