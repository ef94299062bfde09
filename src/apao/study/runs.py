"""A run and its canonical name: ``dataset/backbone/objective[+key=value...]/seedN``.

The name is used in paths, Snakemake targets, on the command line and in figure legends. This module converts it to a
typed value and back, and defines the paths of a run's files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from apao.errors import UserError
from apao.parameters import NAME, OBJECTIVE
from apao.study.paths import RESULTS

RECORD_FILE, MODEL_FILE, CATALOGUE_FILE = "run.json", "model.safetensors", "catalogue.parquet"
Value = bool | int | float | str

SEED = r"0|[1-9][0-9]{0,8}"
_RUN = re.compile(rf"({NAME})/({NAME})/({OBJECTIVE})/seed({SEED})")
_SHAPE = "dataset/backbone/objective[+key=value...]/seedN, such as office/tiger/apao-pairwise+beta=0.2/seed42"


def parse_value(text: str) -> Value:
    """Parse the value of an override: ``true``/``false``, an integer, a decimal number, or else a word."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        # "nan" and "inf" are words here: no parameter takes them.
        if abs(value) < float("inf"):
            return value
    return text


def format_value(value: Value) -> str:
    """Canonical spelling of a value: shortest digits, no trailing ``.0``, exponents without padding."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # Zero without its sign: "-0" would be parsed as the integer 0.
        text = repr(value or 0.0).removesuffix(".0")
        return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", text)
    return str(value)


@dataclass(frozen=True)
class Run:
    """One training and its evaluation: data, model, loss, overrides of params.yaml, and seed."""

    dataset: str
    backbone: str
    objective: str
    overrides: tuple[tuple[str, Value], ...] = ()
    seed: int = 42

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a run's name.

        Raises:
            UserError: when it is not a run name, or not the canonical one (keys out of order, ``3.0e-05`` for
                ``3e-5``): two names would cause two trainings of the same run.
        """
        match = _RUN.fullmatch(text.removeprefix("results/").rstrip("/"))
        if match is None:
            raise UserError(f"{text!r} does not name a run; expected {_SHAPE}")
        dataset, backbone, spelled, seed = match.groups()
        run = cls.of(dataset, backbone, spelled, int(seed))
        if run.spelled_objective != spelled:
            raise UserError(f"{text!r}: write it as {run}; a run has one spelling")
        return run

    @classmethod
    def of(cls, dataset: str, backbone: str, spelled_objective: str, seed: int) -> Self:
        """Run of an objective that is spelled with its overrides, as in the studies of params.yaml.

        Raises:
            UserError: when the objective is malformed or has a repeated key.
        """
        if re.fullmatch(OBJECTIVE, spelled_objective) is None:
            raise UserError(f"{spelled_objective!r} does not name an objective; expected name[+key=value...]")
        # Splitting at "+" is safe: the pattern excludes values with a plus (1e+3).
        parts = spelled_objective.split("+")
        objective = "+".join(part for part in parts if "=" not in part)
        items = [part.split("=", 1) for part in parts if "=" in part]
        overrides = {key: parse_value(value) for key, value in items}
        if len(overrides) < len(items):
            raise UserError(f"{spelled_objective!r} gives a key twice")
        return cls(dataset, backbone, objective, tuple(sorted(overrides.items())), seed)

    def with_overrides(self, **more: Value) -> Run:
        """Copy of the run with further overrides."""
        return replace(self, overrides=tuple(sorted({**dict(self.overrides), **more}.items())))

    @property
    def spelled_objective(self) -> str:
        """Objective and overrides, as in the run's name."""
        return "+".join([self.objective, *(f"{key}={format_value(value)}" for key, value in self.overrides)])

    def __str__(self) -> str:
        return f"{self.dataset}/{self.backbone}/{self.spelled_objective}/seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Folder of the run's files."""
        return RESULTS / str(self)

    @property
    def record(self) -> Path:
        """Path of run.json, the parameters and inputs of the training (``run_params.RunRecord``)."""
        return self.folder / RECORD_FILE

    @property
    def model(self) -> Path:
        """Path of the trained weights."""
        return self.folder / MODEL_FILE

    @property
    def checkpoint(self) -> Path:
        """State of an unfinished training."""
        return self.folder / "checkpoint.safetensors"

    @property
    def catalogue(self) -> Path:
        """Path of the table of the run's items, with titles and codes (``codes.items.ItemTable``)."""
        return self.folder / CATALOGUE_FILE
