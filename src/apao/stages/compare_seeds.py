"""The command ``compare`` for two objectives instead of two runs: all seeds that both have, pair by pair."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from apao.data.histories import FloatArray, Split
from apao.errors import UserError
from apao.evaluation.metrics import code_metrics, moved, user_metrics
from apao.evaluation.significance import FEWEST_SEEDS, intervals, paired_p, seeds_interval, seeds_p, wider
from apao.stages.compare import Evaluated, check_same_users, different_parameters, or_none, other_inputs
from apao.study.paths import RESULTS
from apao.study.runs import RECORD_FILE


@dataclass(frozen=True)
class SeedsRow:
    """A metric of both, means over the seeds.

    ``low`` and ``high`` are the ends of the 95 % interval of the difference: over the users, or, of three seeds or more
    and where it is wider, over the seeds. ``p_users`` and ``p_seeds`` are of paired t-tests, None where undefined.
    """

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p_users: float | None
    p_seeds: float | None
    by_seed: list[float]
    """The difference of each seed."""


@dataclass(frozen=True)
class SeedsComparison:
    """Result of a comparison, ready for JSON."""

    first: str
    second: str
    split: Split
    users: int
    seeds: list[int]
    """Those that both have."""
    seeds_of_one: dict[str, list[int]]
    """Seeds that only one of them has, which are left out."""
    parameters: dict[str, list[Any]]
    """Key to the values of both, with the first seed."""
    other_parameters: list[int]
    """Seeds with which other parameters differ than with the first."""
    other_inputs: list[str]
    """Files of which some pair was trained on different versions."""
    metrics: list[SeedsRow]
    exact_seeds: list[int]
    """Those of the seeds with which both were scored exactly, for the same users."""
    exact_users: int
    exact: list[SeedsRow]
    """Metrics of exact scoring, at code level."""
    beam: list[SeedsRow]
    """Metrics of beam search minus those of exact scoring, and the shares ``lost@k`` and ``won@k`` of which recall's
    consists."""

    def json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)


def seed_folders(name: str) -> dict[int, Path]:
    """Folders of the runs of ``DATASET/BACKBONE/OBJECTIVE``, or of a folder like it, by seed; empty if it has none."""
    folder = next((path for path in (Path(name), RESULTS / name) if path.is_dir()), Path(name))
    found = {
        int(match[1]): path
        for path in folder.glob("seed*")
        if (match := re.fullmatch(r"seed(\d+)", path.name)) and (path / RECORD_FILE).exists()
    }
    return dict(sorted(found.items()))


def compare_seeds(first: str, second: str, split: Split) -> SeedsComparison:
    """Compare two objectives, each by its name or folder, over all seeds that both have.

    Raises:
        UserError: when they have no seed in common, a file is missing, or the runs are of other datasets, users or
            targets.
    """
    ours, theirs = seed_folders(first), seed_folders(second)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        raise UserError(
            f"no seed with which both {first} and {second} were trained (the first has {_listed(ours)}, the second "
            f"{_listed(theirs)}); train one of them with a seed of the other, or name two runs"
        )
    pairs = [[Evaluated.read(str(runs[seed]), split) for runs in (ours, theirs)] for seed in seeds]
    for pair in pairs:
        for run in pair:
            check_same_users(pairs[0][0], run)
    parameters = [different_parameters(*pair) for pair in pairs]
    names = [one.name.rpartition("/")[0] for one in pairs[0]]
    exact = _scored_alike(dict(zip(seeds, pairs, strict=True)))
    return SeedsComparison(
        first=names[0],
        second=names[1],
        split=split,
        users=len(pairs[0][0].ranks),
        seeds=seeds,
        seeds_of_one={
            name: left
            for name, runs in zip(names, (ours, theirs), strict=True)
            if (left := sorted(runs.keys() - set(seeds)))
        },
        parameters=parameters[0],
        other_parameters=[seed for seed, these in zip(seeds, parameters, strict=True) if these != parameters[0]],
        other_inputs=list(dict.fromkeys(path for pair in pairs for path in other_inputs(*pair))),
        metrics=_rows([[_metrics(run.ranks) for run in pair] for pair in pairs]),
        exact_seeds=list(exact),
        exact_users=len(next(iter(exact.values()))[0]) if exact else 0,
        exact=_rows([[_scored(run) for run in pair] for pair in exact.values()]),
        beam=_rows([[_searched(run) for run in pair] for pair in exact.values()]),
    )


def _scored_alike(pairs: dict[int, list[Evaluated]]) -> dict[int, list[pd.DataFrame]]:
    """The exact ranks of the pairs that have them, for the users of the first such pair."""
    scored = {seed: [run.exact for run in pair if run.exact is not None] for seed, pair in pairs.items()}
    whole = {seed: both for seed, both in scored.items() if len(both) == len(pairs[seed])}
    users = next((both[0].index for both in whole.values()), None)
    return {seed: both for seed, both in whole.items() if all(one.index.equals(users) for one in both)}


def _metrics(ranks: pd.DataFrame) -> pd.DataFrame:
    """Every metric (columns) of each user."""
    return pd.DataFrame(user_metrics(ranks), index=ranks.index)


def _scored(ranks: pd.DataFrame) -> pd.DataFrame:
    """Code-level metrics of exact scoring of each user."""
    return pd.DataFrame(code_metrics(ranks["exact"].to_numpy()), index=ranks.index)


def _searched(ranks: pd.DataFrame) -> pd.DataFrame:
    """Code-level metrics of beam search minus those of exact scoring, and what each user loses and wins."""
    beam, exact = ranks["beam"].to_numpy(), ranks["exact"].to_numpy()
    difference = pd.DataFrame(code_metrics(beam), index=ranks.index) - _scored(ranks)
    return difference.assign(**moved(beam, exact))


def _rows(pairs: Sequence[Sequence[pd.DataFrame]]) -> list[SeedsRow]:
    """One row per column of the users' values (rows) of two runs, a pair per seed."""
    if not pairs:
        return []
    index, names = pairs[0][0].index, list(pairs[0][0].columns)
    # (pair, run, user, metric)
    values: FloatArray = np.array([[run[names].to_numpy() for run in pair] for pair in pairs])
    means = values.mean(axis=2)
    by_seed = means[:, 1] - means[:, 0]
    first, second = (pd.DataFrame(values[:, run].mean(axis=0), index=index, columns=names) for run in (0, 1))
    over_users = intervals((second - first).to_numpy()).tolist()
    rows = []
    for m, name in enumerate(names):
        differences = by_seed[:, m].tolist()
        low, high = wider(tuple(over_users[m]), seeds_interval(differences))
        rows.append(
            SeedsRow(
                metric=name,
                first=float(means[:, 0, m].mean()),
                second=float(means[:, 1, m].mean()),
                difference=float(by_seed[:, m].mean()),
                low=low,
                high=high,
                p_users=or_none(paired_p(second[name], first[name])),
                p_seeds=or_none(seeds_p(differences, 0.0)) if len(pairs) >= FEWEST_SEEDS else None,
                by_seed=differences,
            )
        )
    return rows


def _listed(runs: dict[int, Path]) -> str:
    return ", ".join(map(str, runs)) or "none"
