"""A run and its one spelling: ``dataset/backbone/objective[+key=value...]/seedN``.

The spelling is used in paths, Snakemake targets, on the command line and in figure legends; this
module turns it into a typed value and back, and knows where the files of a run and a dataset lie.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from apao.errors import UserError

Value = bool | int | float | str

NAME = r"[A-Za-z0-9][A-Za-z0-9_.>-]*"
KEY = r"[a-z][a-z0-9_]*"
VALUE = r"[A-Za-z0-9-][A-Za-z0-9.>-]*"
OBJECTIVE_NAME = rf"{NAME}(?:\+{NAME})*"
"""May hold a plus (``ce+s-dpo``): what stands before the first ``key=value`` is the name."""
OBJECTIVE = rf"{OBJECTIVE_NAME}(?:\+{KEY}={VALUE})*"
SpelledObjective = Annotated[str, Field(pattern=rf"^{OBJECTIVE}$")]
"""An objective with its overrides, as in a run, where params.yaml names one."""
SEED = r"0|[1-9][0-9]{0,8}"
MAX_SEED = 999_999_999
_RUN = re.compile(rf"({NAME})/({NAME})/({OBJECTIVE})/seed({SEED})")
_SHAPE = "dataset/backbone/objective[+key=value...]/seedN, such as office/tiger/apao-pairwise+beta=0.2/seed42"


def parse_value(text: str) -> Value:
    """Read an override's value: ``true``/``false``, an integer, a decimal number, else a word."""
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
    """The one spelling of a value: shortest digits, no trailing ``.0``, exponents without padding."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        # A zero has no sign here: "-0" would be read as the integer 0.
        text = repr(value or 0.0).removesuffix(".0")
        return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", text)
    return str(value)


@dataclass(frozen=True, order=True)
class Run:
    """One training: which data, model and loss, with which departures from params.yaml, which seed."""

    dataset: str
    backbone: str
    objective: str
    overrides: tuple[tuple[str, Value], ...] = ()
    seed: int = 42

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a spelling.

        Raises:
            UserError: when it has another shape, or is another spelling of a run (keys out of
                order, ``3.0e-05`` for ``3e-5``); two spellings would be two trainings of one thing.
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
        """A run from an objective with its overrides, as studies in params.yaml write it."""
        if re.fullmatch(OBJECTIVE, spelled_objective) is None:
            raise UserError(f"{spelled_objective!r} does not name an objective; expected name[+key=value...]")
        # An exponent may hold a plus of its own (1e+3); the pattern has no such value, so none is split.
        parts = spelled_objective.split("+")
        objective = "+".join(part for part in parts if "=" not in part)
        items = [part.split("=", 1) for part in parts if "=" in part]
        overrides = {key: parse_value(value) for key, value in items}
        if len(overrides) < len(items):
            raise UserError(f"{spelled_objective!r} gives a key twice")
        return cls(dataset, backbone, objective, tuple(sorted(overrides.items())), seed)

    def with_overrides(self, **more: Value) -> Run:
        """The same run with further keys set."""
        return replace(self, overrides=tuple(sorted({**dict(self.overrides), **more}.items())))

    @property
    def spelled_objective(self) -> str:
        """Objective and overrides, as in the path."""
        return "+".join([self.objective, *(f"{key}={format_value(value)}" for key, value in self.overrides)])

    def __str__(self) -> str:
        return f"{self.dataset}/{self.backbone}/{self.spelled_objective}/seed{self.seed}"

    @property
    def folder(self) -> Path:
        """Where the run's files are."""
        return RESULTS / str(self)

    @property
    def record(self) -> Path:
        """All that decided the training (``run_params.RunRecord``)."""
        return self.folder / "run.json"

    @property
    def model(self) -> Path:
        """The run's trained weights."""
        return self.folder / "model.safetensors"


DATA = Path("data")
RESULTS = Path("results")
FIGURES = Path("figures")
TABLES = RESULTS / "tables"


@dataclass(frozen=True)
class DatasetPaths:
    """Where the files of a dataset lie, all below ``data/<name>``."""

    name: str

    @property
    def folder(self) -> Path:
        """``data/<name>``."""
        return DATA / self.name

    @property
    def raw(self) -> Path:
        """Folder of the downloaded files and their ``manifest.json``."""
        return self.folder / "raw"

    @property
    def raw_hash(self) -> Path:
        """The manifest's hash, for ``sha256sum --check``: the folder's content as one file beside it."""
        return self.folder / "raw.sha256"

    @property
    def arriving(self) -> Path:
        """The same folder until the last file is there."""
        return self.folder / "raw.part"

    @property
    def manifest(self) -> Path:
        """List of the downloaded files with their hashes."""
        return self.raw / "manifest.json"

    @property
    def interactions(self) -> Path:
        """Table user, item, timestamp, split."""
        return self.folder / "interactions.parquet"

    @property
    def items(self) -> Path:
        """Table item, raw_id, text."""
        return self.folder / "items.parquet"

    @property
    def stats(self) -> Path:
        """Sizes, as in the paper's Table 2."""
        return self.folder / "stats.json"

    @property
    def embeddings(self) -> Path:
        """Tensor ``embeddings`` (items, width)."""
        return self.folder / "embeddings.safetensors"

    @property
    def embedding_facts(self) -> Path:
        """What the embeddings were made from: items without text, repeated texts, tokens that were cut."""
        return self.folder / "embeddings.json"

    @property
    def codes(self) -> Path:
        """Table item, level_1 .. level_T."""
        return self.folder / "codes.parquet"

    @property
    def codebooks(self) -> Path:
        """Tensors ``level_1`` .. ``level_T`` (clusters, width)."""
        return self.folder / "codebooks.safetensors"

    @property
    def code_quality(self) -> Path:
        """Collisions, usage, entropy, reconstruction error, prefix counts a level."""
        return self.folder / "code_quality.json"

    @property
    def baselines(self) -> Path:
        """Metrics of the untrained baselines."""
        return RESULTS / self.name / "baselines" / "metrics.json"
