"""Where a command has its parameters from: params.yaml, or JSON text that the rule which calls it hands over.

Snakemake compares the text of a rule's ``params`` with that of the last time, so a rule of the runs hands
that very text over (``--resolved``): what is recorded is what is used, whatever becomes of params.yaml in the
meantime. A command that a user gives resolves its own run from params.yaml, and no other one.
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

M = TypeVar("M", bound=Model)


def from_text(model: type[M], text: str) -> M:
    """Parameters that ``--resolved`` hands over.

    Raises:
        UserError: when the text is not JSON or not of that model.
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

    def params(self) -> Params:
        """params.yaml, checked with every run that a study lists."""
        return load(self.file, self.scale)

    def job_params(self) -> Params:
        """params.yaml for one job, which resolves the runs that it needs."""
        return load(self.file, self.scale, check_runs=False)

    def published_params(self) -> Params:
        """The same for what is drawn from the published runs."""
        return load(self.file, PUBLISHED_SCALE, check_runs=False)

    def tuned_file(self) -> Path:
        """The file of tunings that params.yaml names.

        Raises:
            UserError: when it names none.
        """
        data, *_ = read_yaml(self.file)
        name = data.get("tuned") if isinstance(data, dict) else None
        if not isinstance(name, str):
            raise UserError(f"{self.file}: names no file of tunings; add the key: tuned: tuned.yaml")
        return self.file.parent / name

    def to_train(self, run: Run, resolved: str | None) -> TrainedParams:
        """What a run is to be trained with."""
        if resolved is None:
            stated = self.job_params()
            stated.say_what_is_absent()
            return stated.resolve(run)
        params = from_text(TrainedParams, resolved)
        if (params.dataset, params.seed) != (run.dataset, run.seed):
            raise UserError(f"--resolved: holds dataset {params.dataset} and seed {params.seed}, not those of {run}")
        return params

    def to_evaluate(self, run: Run, resolved: str | None) -> RunParams:
        """What a run was trained with, and the decoding that is handed over or that of params.yaml."""
        if resolved is not None:
            return RunRecord.read(run).decoded(from_text(DecodingParams, resolved))
        return self._trained(run, self.job_params())

    def to_measure(self, run: Run, resolved: str | None) -> tuple[RunParams, MeasureParams]:
        """The same, and what is measured of runs."""
        if resolved is not None:
            given = from_text(Measuring, resolved)
            return RunRecord.read(run).decoded(given.decoding), given.measure
        params = self.job_params()
        return self._trained(run, params), params.recipe_of(run.dataset).measure

    def _trained(self, run: Run, params: Params) -> RunParams:
        """From run.json; one line says so where params.yaml has other parameters for the run."""
        if not run.record.exists():
            params.resolve(run)  # a misspelt run is a clearer error than a missing file
        record = RunRecord.read(run)
        try:
            difference = record.difference(params.resolve(run))
        except UserError as error:
            console.print(f"{error}; {run} is evaluated as it was trained")
        else:
            if difference is not None:
                console.print(f"{run} is evaluated as it was trained: with {difference} as in {self.file}")
        return record.decoded(params.decoding_of(run.dataset))
