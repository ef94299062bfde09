"""The command ``compare``: two evaluated runs on the same interactions, side by side.

A run's folder is enough (run.json, metrics.json, ranks.parquet), also one of ``results/published``. Exact scoring is
compared where both have exact.json; titles and histories are added where the project folder has the dataset.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from apao.data.histories import Histories, IntArray, Split
from apao.errors import UserError
from apao.evaluation.metrics import CODE_LEVEL, ITEM_LEVEL, PREFIX_RECALL, code_metrics, metric_names, user_metrics
from apao.evaluation.significance import holm, intervals, paired_p
from apao.files import read_json, read_table, verified
from apao.stages.named import Users, project_folder_of, run_folder, titles
from apao.study.paths import DatasetPaths
from apao.study.run_params import RunRecord
from apao.study.runs import RECORD_FILE

CUTOFF = 10
"""Length of the list: a user is gained or lost if the target enters or leaves it."""
EXAMPLES = 3
"""Maximum number of users that are shown of those gained, and of those lost."""
NEWEST = 5
"""Number of newest items of a history that are shown."""


@dataclass(frozen=True)
class Evaluated:
    """An evaluated run, read from its folder.

    Attributes:
        name: the run's name.
        folder: the run's folder.
        record: run.json.
        decoding: beam and eos of the evaluation.
        metrics: the metrics of a split.
        ranks: table item, rank, items_before, group of the targets of that split; index user.
        exact: ranks beam and exact of the targets of the users that were scored exactly; index user. None without.
    """

    name: str
    folder: Path
    record: RunRecord
    decoding: Mapping[str, Any]
    metrics: Mapping[str, Any]
    ranks: pd.DataFrame
    exact: pd.DataFrame | None

    @classmethod
    def read(cls, run: str, split: Split) -> Evaluated:
        """A run by its name or folder.

        Raises:
            UserError: when a file is missing, damaged, or lacks the split.
        """
        folder = run_folder(run)
        record, metrics = RunRecord.at(folder / RECORD_FILE), read_json(verified(folder / "metrics.json"))
        columns = ["split", "user", "item", "rank", "items_before", "group"]
        ranks = read_table(folder / "ranks.parquet", columns, "table of ranks")
        ranks = ranks[ranks["split"] == split].drop(columns="split").set_index("user").sort_index()
        if ranks.empty or not isinstance(metrics.get(split), dict):
            raise UserError(f"{folder}: holds no ranks of the split {split}; evaluate the run again")
        decoding = {key: metrics.get(key) for key in ("beam", "eos")}
        exact = _exact_ranks(folder / "exact.json", split)
        return cls(record.run, folder, record, decoding, metrics[split], ranks, exact)

    @property
    def interactions(self) -> str | None:
        """Hash of the interactions that the run was trained on, whatever their folder is called."""
        inputs = self.record.inputs.items()
        return next((value for name, value in inputs if Path(name).name == "interactions.parquet"), None)

    @property
    def parameters(self) -> dict[str, Any]:
        """All parameters of training and decoding, also those that run.json is too old to have."""
        return {**self.record.for_training(), "decoding": self.decoding}


def _exact_ranks(file: Path, split: Split) -> pd.DataFrame | None:
    if not file.exists():
        return None
    found = read_json(verified(file))
    try:
        ranks = pd.DataFrame(found["ranks"])[["user", "beam", "exact"]].set_index("user")
        return ranks if found["split"] == split else None
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: not the ranks of exact scoring ({error}); delete it, or score the run again"
        ) from error


@dataclass(frozen=True)
class MetricRow:
    """A metric of both runs; ``difference`` is the second minus the first, with its bootstrap interval over users.

    ``p`` is of the paired t-test over users and ``p_holm`` the same, corrected for the number of metrics of a level;
    both are None if they are undefined.
    """

    metric: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class Example:
    """A user whose target enters or leaves the first codes. Rank 0: not found.

    Raw id, titles and history are None without the data of the project folder.
    """

    user: int
    user_id: str | None
    item: int
    first_rank: int
    second_rank: int
    target: str | None
    history: list[str] | None


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison, ready for JSON."""

    first: str
    second: str
    split: Split
    users: int
    parameters: dict[str, list[Any]]
    """Key to the values of both; None where a run lacks the key."""
    other_inputs: list[str]
    """Files of which the runs were trained on different versions."""
    metrics: list[MetricRow]
    exact_users: int
    """Number of users that both runs were scored exactly for, with ``apao exact``; 0 without."""
    exact: list[MetricRow]
    """Metrics of exact scoring, at code level."""
    beam: list[MetricRow]
    """Metrics of beam search minus those of exact scoring: what the beam adds or loses."""
    prefix_recall: list[list[float]]
    """Per level the share of users whose target's prefix is in the beam, of both runs. Empty where a run has none."""
    gained: int
    lost: int
    examples_gained: list[Example]
    examples_lost: list[Example]

    def json(self) -> str:
        """As text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)


def compare(first: str, second: str, split: Split) -> Comparison:
    """Compare two runs, each by its name or folder.

    Raises:
        UserError: when a file is missing, or the runs are of other datasets, users or targets.
    """
    ours, theirs = Evaluated.read(first, split), Evaluated.read(second, split)
    check_same_users(ours, theirs)
    gained, lost = _changed(ours, theirs), _changed(theirs, ours)
    exact_users, exact, beam = _exactly(ours.exact, theirs.exact)
    known = _Titles.find(ours, split)
    return Comparison(
        first=ours.name,
        second=theirs.name,
        split=split,
        users=len(ours.ranks),
        parameters=different_parameters(ours, theirs),
        other_inputs=other_inputs(ours, theirs),
        metrics=metric_rows(ours.ranks, theirs.ranks),
        exact_users=exact_users,
        exact=exact,
        beam=beam,
        prefix_recall=_prefix_recall(ours, theirs),
        gained=len(gained),
        lost=len(lost),
        examples_gained=[_example(user, ours, theirs, known) for user in gained[:EXAMPLES]],
        examples_lost=[_example(user, ours, theirs, known) for user in lost[:EXAMPLES]],
    )


def check_same_users(first: Evaluated, second: Evaluated) -> None:
    """Raise UserError for runs of other datasets, users or targets."""
    datasets = [one.record.dataset for one in (first, second)]
    if datasets[0] != datasets[1] and (first.interactions is None or first.interactions != second.interactions):
        raise UserError(
            f"{first.name} is of {datasets[0]}, {second.name} of {datasets[1]}; compare runs of one dataset, or of two "
            "with the same interactions and other codes"
        )
    if not first.ranks["item"].equals(second.ranks["item"]):
        raise UserError(
            f"{second.folder}: its ranks are of other users or targets than those of {first.folder}; evaluate both "
            "runs on the same data"
        )


def different_parameters(first: Evaluated, second: Evaluated) -> dict[str, list[Any]]:
    """Keys whose values differ, such as ``training.lr``, with both values."""
    flat = [dict(_flat(run.parameters)) for run in (first, second)]
    keys = [key for key in dict.fromkeys([*flat[0], *flat[1]]) if flat[0].get(key) != flat[1].get(key)]
    return {key: [values.get(key) for values in flat] for key in keys}


def _flat(record: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in record.items():
        match f"{above}{key}", value:
            case "start.training", _:
                pass
            case path, dict():
                yield from _flat(value, f"{path}.")
            case path, _:
                yield path, value


def other_inputs(first: Evaluated, second: Evaluated) -> list[str]:
    """Files of which two runs were trained on different versions."""
    ours, theirs = (run.record.inputs for run in (first, second))
    return [name for name in ours if name in theirs and ours[name] != theirs[name]]


def metric_rows(first: pd.DataFrame, second: pd.DataFrame) -> list[MetricRow]:
    """Every metric of both runs; the item level only if it differs from the code level in one of them."""
    ours, theirs = (pd.DataFrame(user_metrics(ranks), index=ranks.index) for ranks in (first, second))
    shared = any((ranks["group"] > 1).any() for ranks in (first, second))
    levels = (CODE_LEVEL, ITEM_LEVEL) if shared else (CODE_LEVEL,)
    return [row for level in levels for row in _rows(metric_names(levels=[level]), ours, theirs)]


def _rows(names: Sequence[str], first: pd.DataFrame, second: pd.DataFrame) -> list[MetricRow]:
    """The columns ``names``, values of each user (row); the tests are corrected for their number."""
    differences = (second[names] - first[names]).to_numpy()
    p = [paired_p(second[name], first[name]) for name in names]
    cells = zip(names, differences.mean(axis=0), intervals(differences), p, holm(p), strict=True)
    return [
        MetricRow(name, first[name].mean(), second[name].mean(), float(mean), *map(float, ends), *map(or_none, tests))
        for name, mean, ends, *tests in cells
    ]


def _exactly(first: pd.DataFrame | None, second: pd.DataFrame | None) -> tuple[int, list[MetricRow], list[MetricRow]]:
    """Users, metrics of exact scoring, and of beam search minus these; nothing unless both have the same users."""
    if first is None or second is None or not first.index.equals(second.index):
        return 0, [], []
    names = metric_names(levels=[CODE_LEVEL])
    exact, beam = (
        [pd.DataFrame(code_metrics(ranks[way].to_numpy()), index=ranks.index) for ranks in (first, second)]
        for way in ("exact", "beam")
    )
    lost = [searched - scored for searched, scored in zip(beam, exact, strict=True)]
    return len(first), _rows(names, *exact), _rows(names, *lost)


def or_none(p: float) -> float | None:
    """``p``, or None, which JSON can say, for NaN."""
    return None if np.isnan(p) else p


def _prefix_recall(first: Evaluated, second: Evaluated) -> list[list[float]]:
    name = PREFIX_RECALL
    ours, theirs = (one.metrics.get(name) for one in (first, second))
    if ours is None or theirs is None or len(ours) != len(theirs):
        return []
    return [list(pair) for pair in zip(ours, theirs, strict=True)]


def _changed(before: Evaluated, after: Evaluated) -> IntArray:
    """Users whose target is among the first codes of ``after`` only; the clearest first."""
    old, new = (_places(one.ranks["rank"]) for one in (before, after))
    entered = (new <= CUTOFF) & (old > CUTOFF)
    order = np.lexsort((-old[entered], new[entered]))
    return before.ranks.index.to_numpy()[entered][order]


def _places(rank: pd.Series[int]) -> IntArray:
    """Ranks, with those not found behind all others."""
    return np.where(rank > 0, rank, np.iinfo(np.int64).max).astype(np.int64)


@dataclass(frozen=True)
class _Titles:
    """Titles, user ids and histories, if the project folder has the dataset that the runs were evaluated on."""

    names: Sequence[str]
    users: pd.Index
    histories: Histories
    positions: IntArray

    @classmethod
    def find(cls, run: Evaluated, split: Split) -> _Titles | None:
        """None if the data is missing, or numbers users and items differently."""
        paths = DatasetPaths(run.record.dataset, project_folder_of(run.folder))
        if not all(path.exists() for path in (paths.interactions, paths.items, paths.users)):
            return None
        histories = Histories.load(paths.interactions)
        positions, users = histories.evaluation_targets(split), run.ranks.index.to_numpy()
        if not np.array_equal(histories.evaluated(split), users):
            return None
        if not np.array_equal(histories.target_items(split, users), run.ranks["item"]):
            return None
        return cls(titles(read_table(paths.items)).tolist(), Users.read(paths).raw_ids, histories, positions)

    def history(self, user: int) -> list[str]:
        """The newest items before the target, oldest first."""
        begin = self.histories.offsets[user]
        items = self.histories.items[begin : begin + self.positions[user]][-NEWEST:]
        return [self.names[item] for item in items]


def _example(user: int, first: Evaluated, second: Evaluated, known: _Titles | None) -> Example:
    item = int(first.ranks["item"].loc[user])
    return Example(
        user=int(user),
        user_id=None if known is None else known.users[user],
        item=item,
        first_rank=int(first.ranks["rank"].loc[user]),
        second_rank=int(second.ranks["rank"].loc[user]),
        target=None if known is None else known.names[item],
        history=None if known is None else known.history(user),
    )
