"""Result files of stages, read as numbers.

A file without the expected content raises an error that names it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from apao.data.histories import FloatArray
from apao.errors import UserError
from apao.evaluation.list_metrics import LIST_METRICS
from apao.evaluation.metrics import PREFIX, PREFIX_RECALL, user_metrics
from apao.evaluation.significance import (
    FEWEST_SEEDS,
    RESAMPLES,
    UNKNOWN,
    Ends,
    intervals,
    seeds_interval,
    wider,
)
from apao.files import read_json, read_table, verified
from apao.report.values import entry, number, numbers, unexpected
from apao.study.paths import OWN, Collection, DatasetPaths
from apao.study.runs import RECORD_FILE, Run, parse_value

if TYPE_CHECKING:
    from apao.study.params import Params
    from apao.study.studies import Study

ESTIMATE = ("value", "sd", "low", "high")
"""Columns of the CSV file of a figure that stand for an ``Estimate``."""
RANKS = ["rank", "items_before", "group"]


@dataclass(frozen=True)
class Estimate:
    """One quantity of an experiment, with one value per seed; NaN if there is none."""

    values: tuple[float, ...]
    over_users: Ends = UNKNOWN
    """95 % interval of the mean over the test users, where it is known."""

    @property
    def interval(self) -> Ends:
        """95 % interval: over the test users, or, where it is known and wider, over the seeds."""
        return wider(self.over_users, seeds_interval(self.values))

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def sd(self) -> float:
        """Sample standard deviation over the seeds (n - 1); NaN for a single seed, or if a value is NaN."""
        known = len(self.values) > 1 and not any(map(math.isnan, self.values))
        return statistics.stdev(self.values) if known else math.nan

    def numbers(self) -> tuple[float, float, float, float]:
        """Mean, SD, and the ends of the interval: columns ``ESTIMATE`` of the CSV files."""
        return (self.mean, self.sd, *self.interval)


def few(runs: Sequence[object]) -> bool:
    """Whether there are too few seeds for an interval over them."""
    return len(runs) < FEWEST_SEEDS


class Results:
    """The result files of a project. Each JSON file is read at most once.

    An experiment is the list of its runs, one per seed. Runs are normalised: overrides equal to the value in
    params.yaml are dropped, so that studies share trainings. In a collection that may have gaps, an experiment has
    only the existing runs and may be empty.
    """

    def __init__(self, params: Params, collection: Collection = OWN, files: Sequence[str] = ("metrics.json",)) -> None:
        """``files`` are those that the study reads of each run; a run without all of them counts as absent."""
        self._params = params
        self.scale = params.scale
        self.collection, self.files = collection, files
        self._read: dict[Path, Any] = {}
        self._rows: dict[Path, pd.DataFrame] = {}
        self._users: dict[str, tuple[Path, pd.Index[Any]]] = {}

    def normalised(self, run: Run) -> Run:
        """``run`` without the overrides that equal the values in params.yaml."""
        return self._params.normalised(run)

    def role(self, run: Run) -> str:
        """The role in the paper of the run's objective."""
        return self._params.objectives[run.objective].role

    def tuned_by(self, run: Run) -> str:
        """How the hyper-parameters of a run were tuned for its dataset; empty if they were not."""
        return _tuned_by(self._params, run, self._trained_values(run))

    def _trained_values(self, run: Run) -> dict[str, Any]:
        """Hyper-parameters with which a run was trained: of its backbone, its training and its objective."""
        path = self.file(run, RECORD_FILE)
        parts = ("backbone", "training", "objective")
        return {key: value for part in parts for key, value in entry(path, self.json(path), part).items()}

    def experiment(self, dataset: str, backbone: str, objective: str, seeds: Sequence[int]) -> list[Run]:
        """The normalised, existing runs of ``objective`` (spelled as in a study, with overrides), one per seed."""
        runs = [self.normalised(Run.of(dataset, backbone, objective, seed)) for seed in seeds]
        return [run for run in runs if self.has(run)]

    def name_in_paper(self, dataset: str, backbone: str, objective: str) -> str:
        """``objective`` without the overrides that equal params.yaml's values, which are the paper's."""
        return self.normalised(Run.of(dataset, backbone, objective, 0)).spelled_objective

    def has(self, run: Run) -> bool:
        """Whether a run exists; always true without gaps, where reading a missing run is an error."""
        return not self.collection.gaps or self.collection.has(run, self.files)

    def file(self, run: Run, name: str) -> Path:
        """Path of a file of a run."""
        return self.collection.place(run.folder / name)

    def json(self, path: Path) -> dict[str, Any]:
        """Content of a JSON file."""
        if path not in self._read:
            self._read[path] = read_json(verified(path))
        return self._read[path]

    def metric(self, runs: Iterable[Run], split: str, name: str) -> Estimate:
        """The metric ``name`` of an experiment on the split ``valid`` or ``test``."""
        paths = [self.file(run, "metrics.json") for run in runs]
        return Estimate(tuple(number(path, self.json(path), split, name) for path in paths))

    def list_metrics(self, runs: Sequence[Run]) -> dict[str, Estimate]:
        """Properties of the lists of the test users (``evaluation.list_metrics``), those that all the runs have.

        Earlier evaluations have none, and the recall of a group without targets is null.
        """
        paths = [self.file(run, "metrics.json") for run in runs]
        found = [entry(path, self.json(path), "test") for path in paths]
        known = [name for name in LIST_METRICS if runs and all(test.get(name) is not None for test in found)]
        return {name: self.metric(runs, "test", name) for name in known}

    def test_metric(self, runs: Sequence[Run], name: str) -> Estimate:
        """A metric on the test items with its interval, for studies that read ranks.parquet."""
        found = self.metric(runs, "test", name)
        if not runs:
            return found
        return replace(found, over_users=mean_interval(self.user_scores(runs)[name].to_numpy()))

    def prefix_recall(self, runs: Sequence[Run]) -> list[Estimate]:
        """The recall on the test items of every prefix with its interval."""
        found = self.levels(runs, "metrics.json", "test", PREFIX_RECALL)
        if not runs:
            return found
        kept = self.user_prefixes(runs)
        return [replace(one, over_users=mean_interval(kept[:, m])) for m, one in enumerate(found)]

    def user_prefixes(self, runs: Sequence[Run]) -> FloatArray:
        """In which share of the runs the prefix of each length of each test user's target was kept (users, levels)."""
        kept = [self._test_rows(run).filter(like=PREFIX).to_numpy(dtype=np.float64) for run in runs]
        means: FloatArray = np.mean(kept, axis=0)
        return means

    def levels(self, runs: Iterable[Run], file: str, *keys: str) -> list[Estimate]:
        """A list with one number per level at ``keys`` of a JSON file, such as ``test``, ``prefix_recall@20``."""
        rows: list[list[float]] = []
        for run in runs:
            path = self.file(run, file)
            values = numbers(path, self.json(path), *keys)
            if rows and len(values) != len(rows[0]):
                raise unexpected(path, keys, "a list with one number per level")
            rows.append(values)
        return [Estimate(column) for column in zip(*rows, strict=True)]

    def baselines(self, dataset: str) -> dict[str, Any]:
        """Test metrics of the untrained baselines of a dataset, by the baseline's name."""
        path = self.collection.place(DatasetPaths(dataset).baselines)
        if self.collection.gaps and not path.exists():
            return {}
        found = self.json(path)
        if not isinstance(found, dict) or not found:
            raise unexpected(path, (), "an object with one entry per baseline")
        return found

    def history(self, run: Run) -> pd.DataFrame:
        """Training history of a run: one row per epoch, ``best`` as bool.

        Raises:
            UserError: when the file is not such a table, or marks no epoch as the best one.
        """
        path = self.file(run, "history.csv")
        try:
            frame = pd.read_csv(path, dtype={"epoch": int, "seconds": float, "best": bool})
            best = frame[["epoch", "seconds", "best"]]["best"]
        except (ValueError, KeyError, OSError, OverflowError) as error:
            raise UserError(f"{path}: not a training history ({error}); delete it and train the run again.") from error
        if not np.isfinite(frame["seconds"]).all():
            raise UserError(f"{path}: an epoch has no number of seconds; delete it and train the run again.")
        if not best.any():
            raise UserError(f"{path}: no epoch is marked as the best one; delete it and train the run again.")
        return frame

    def test_ranks(self, run: Run) -> pd.DataFrame:
        """Ranks of every test user's target: columns rank, items_before and group, index user.

        Raises:
            UserError: when the file is not such a table, or has other users than that of another run on the dataset.
        """
        return self._test_rows(run)[RANKS]

    def _test_rows(self, run: Run) -> pd.DataFrame:
        """The rows of the test users (index) in ranks.parquet."""
        path = self.file(run, "ranks.parquet")
        if path not in self._rows:
            table = read_table(path, what="table of ranks")
            if lacking := [name for name in ("split", "user", *RANKS, f"{PREFIX}1") if name not in table]:
                raise UserError(
                    f"{path}: not a table of ranks, without {', '.join(lacking)}; delete it and evaluate the run again."
                )
            rows = table[table["split"] == "test"].set_index("user").sort_index()
            users = self._users.setdefault(run.dataset, (path, rows.index))
            if not rows.index.equals(users[1]) or rows.empty:
                raise UserError(
                    f"{path}: has other test users than {users[0]}; delete both and evaluate the runs again."
                )
            self._rows[path] = rows
        return self._rows[path]

    def user_scores(self, runs: Sequence[Run]) -> pd.DataFrame:
        """Metrics (columns) of every test user (index), means over the runs; raises as ``test_ranks``."""
        ranks = [self.test_ranks(run) for run in runs]
        metrics = [user_metrics(one) for one in ranks]
        means = {name: np.mean([one[name] for one in metrics], axis=0) for name in metrics[0]}
        return pd.DataFrame(means, index=ranks[0].index)

    def origin(self, study: Study, objectives: Sequence[str] = ()) -> str:
        """A sentence that describes the runs of a study.

        ``objectives`` are named instead of those of the runs, where these are too many.
        """
        listed = list(dict.fromkeys(self.normalised(run) for run in study.runs()))
        runs = [run for run in listed if self.has(run)]
        if not runs:
            return f"None of its {len(listed)} runs is published."
        absent = self.absent(study)
        parts = [
            "Published runs" if self.collection.gaps else f"Scale {self.scale}",
            _listed("dataset", (run.dataset for run in runs)),
            _listed("backbone", (run.backbone for run in runs)),
            _listed("objective", objectives or (run.spelled_objective for run in runs)),
            _listed("seed", (str(run.seed) for run in runs)),
            f"{len(runs)} run{'s' if len(runs) > 1 else ''}",
        ]
        gaps = f" Not run, and so a gap or fewer seeds: {'; '.join(absent)}." if absent else ""
        return "; ".join(parts) + "." + gaps

    def error_bars(self, study: Study, seeds: Sequence[int], over_users: bool = True) -> str:
        """A sentence on the error bars of a figure of a study with ``seeds``.

        ``over_users``: whether intervals over the test users are known.
        """
        of_seeds = f"the 95 % t-interval of that mean with {FEWEST_SEEDS} seeds or more"
        of_users = f"95 % bootstrap intervals over the test users ({RESAMPLES:,} resamples)"
        means = self._means_over(study, seeds)
        if not few(seeds):
            if over_users:
                return f"{means}; error bars are {of_users}, or {of_seeds}, if that is wider."
            return f"{means}; error bars are {of_seeds}."
        spread = "so no spread over seeds is known" if len(seeds) == 1 else "too few for an interval over seeds"
        return f"{means}, {spread}{f'; error bars are {of_users}' if over_users else ''}."

    def seeds_sentence(self, study: Study, seeds: Sequence[int]) -> str:
        """A sentence on the spread over seeds in a table."""
        if len(seeds) == 1:
            return "One seed, so the spread over seeds is unknown."
        return f"{self._means_over(study, seeds)}; ± is the sample standard deviation over them."

    def _means_over(self, study: Study, seeds: Sequence[int]) -> str:
        if len(seeds) == 1:
            return "One seed"
        return f"Means over {len(seeds)} seeds{', or those of them that were run' if self.absent(study) else ''}"

    def gaps(
        self, places: Iterable[tuple[str, str]], objectives: Sequence[str], seeds: Sequence[int]
    ) -> tuple[list[str], dict[tuple[str, str], list[str]]]:
        """What was not run: the objectives that were nowhere, and of the others those of each (dataset, backbone)."""
        missing = {place: [name for name in objectives if not self.experiment(*place, name, seeds)] for place in places}
        nowhere = [name for name in objectives if all(name in names for names in missing.values())]
        return nowhere, {place: [name for name in names if name not in nowhere] for place, names in missing.items()}

    def machines(self, runs: Iterable[Run]) -> list[str]:
        """Machines that computed published runs; own runs have them in the records of their stages."""
        paths = [self.file(run, name) for run in runs for name in self.collection.records]
        return list(dict.fromkeys(entry(path, self.json(path), "machine") for path in paths if path.exists()))

    def absent(self, study: Study) -> list[str]:
        """The missing runs of a study, as ``dataset/backbone, seeds: objective, objective``."""
        seeds: dict[tuple[str, str], list[int]] = {}
        for run in dict.fromkeys(self.normalised(run) for run in study.runs()):
            if not self.has(run):
                seeds.setdefault((f"{run.dataset}/{run.backbone}", run.spelled_objective), []).append(run.seed)
        places: dict[str, list[str]] = {}
        for (place, objective), missing in seeds.items():
            places.setdefault(f"{place}, {_listed('seed', map(str, sorted(missing)))}", []).append(objective)
        return [f"{place}: {', '.join(objectives)}" for place, objectives in places.items()]


def _listed(what: str, names: Iterable[str]) -> str:
    distinct = list(dict.fromkeys(names))
    return f"{what}{'s' if len(distinct) > 1 else ''} {', '.join(distinct)}"


def _tuned_by(params: Params, run: Run, trained: Mapping[str, Any]) -> str:
    """How the hyper-parameters of a run were tuned for its dataset; empty if they were not.

    Only values with which the run was trained count: ``trained`` are its hyper-parameters in run.json. A run may
    override a tuned value, or be older than the tuning.
    """

    def used(values: Mapping[str, Mapping[str, Any]]) -> list[str]:
        tuned = {**values.get(run.dataset, {}), **values.get(f"{run.dataset}/{run.backbone}", {})}
        return sorted(
            key
            for key, value in tuned.items()
            if key not in dict(run.overrides)
            # YAML reads 1e-3, without a point, as a word.
            and trained.get(key) == (parse_value(value) if isinstance(value, str) else value)
        )

    ways = [(used(one.values), one.chosen_by) for one in params.tuned.get(run.objective, ())]
    ways.append((used(params.objectives[run.objective].tuned), "params.yaml"))
    return "; ".join(f"{', '.join(keys)} by {by}" for keys, by in ways if keys)


def machine(path: Path, data: Any) -> str:
    """Device and threads of the times in a JSON file, such as ``cpu, 1 thread``."""
    threads = number(path, data, "threads")
    return f"{entry(path, data, 'device')}, {threads:.0f} thread{'' if threads == 1 else 's'}"


def seed_list(seeds: Iterable[int]) -> str:
    """Seeds as they are listed: ``42 43``."""
    return " ".join(map(str, seeds))


def with_seeds(name: str, runs: Sequence[Run], seeds: Sequence[int]) -> str:
    """``name`` with the number of its runs, in a study of several seeds, of which some may be missing."""
    if len(seeds) == 1 or not runs:
        return name
    return f"{name} ({len(runs)} seed{'s' if len(runs) > 1 else ''})"


def seeds_of(runs: Iterable[Run]) -> str:
    """The seeds of the runs that there are, which may be fewer than a study's."""
    return seed_list(run.seed for run in runs)


def mean_interval(values: FloatArray) -> Ends:
    """Bootstrap interval of the mean of one value per user (users,)."""
    low, high = intervals(values[:, None])[0].tolist()
    return low, high
