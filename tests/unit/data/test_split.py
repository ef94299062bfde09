"""The two rules of the split, against plain Python."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from apao.data.base import RawTables
from apao.data.histories import PARTS, Histories, Targets
from apao.data.prepared import prepare
from apao.data.split import TRAIN_SHARE, VALID_SHARE, by_time, leave_one_out
from apao.errors import UserError
from apao.training.packing import plan_rows

histories = st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=9).map(sorted), min_size=1, max_size=8)


def arrays(rows):
    """User and time of each interaction."""
    user = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return user, np.array([time for row in rows for time in row])


def slow_labels(rows):
    """The split by time, one user at a time."""
    ordered = sorted(time for row in rows for time in row)
    valid_from, test_from = (ordered[int(share * len(ordered))] for share in (TRAIN_SHARE, TRAIN_SHARE + VALID_SHARE))
    labels = []
    for row in rows:
        seen = set()
        for place, time in enumerate(row):
            period = "test" if time >= test_from else "valid" if time >= valid_from else "train"
            target = period != "train" and place > 0 and period not in seen
            labels.append(period if period == "train" or target else "rest")
            seen |= {period} if target else set()
    return labels


@given(histories)
def test_by_time(rows):
    labels = [PARTS[label] for label in by_time(*arrays(rows))]
    assert labels == slow_labels(rows)


@given(histories)
def test_nothing_that_trains_is_as_late_as_a_target(rows):
    user, time = arrays(rows)
    labels = by_time(user, time)
    assert not (labels != 0).any() or time[labels == 0].max(initial=-1) < time[labels != 0].min()


@given(st.lists(st.integers(3, 9), min_size=1, max_size=6))
def test_leave_one_out(lengths):
    user = np.repeat(np.arange(len(lengths)), lengths)
    labels = [PARTS[label] for label in leave_one_out(user)]
    assert labels == [part for n in lengths for part in ["train"] * (n - 2) + ["valid", "test"]]
    assert_same(Targets.of_labels(leave_one_out(user), user), Targets.leave_one_out(np.array(lengths)))


def assert_same(one, other):
    for name in ("training", "valid", "test"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@given(histories)
def test_examples_of_a_split_by_time(rows):
    """Targets, training examples, popularity and packed rows are those that the labels say."""
    user, time = arrays(rows)
    labels = by_time(user, time)
    items = np.arange(len(user)) % 5
    lengths = np.bincount(user)
    found = Histories(np.r_[0, np.cumsum(lengths)], items, Targets.of_labels(labels, user))
    assert found.train_popularity(5).tolist() == np.bincount(items[labels == 0], minlength=5).tolist()
    for number, split in ((1, "valid"), (2, "test")):
        rows_of_split = np.flatnonzero(labels == number)
        assert found.evaluated(split).tolist() == user[rows_of_split].tolist()
        assert found.target_items(split, found.evaluated(split)).tolist() == items[rows_of_split].tolist()
    trains = [(u, p) for u in range(len(rows)) for p in range(1, int((labels[user == u] == 0).sum()))]
    assert list(zip(*(part.tolist() for part in found.training_examples()), strict=True)) == trains
    planned = plan_rows(found, 3)
    targets = [
        first + length - examples + slot
        for first, length, examples in zip(planned.first, planned.length, planned.examples, strict=True)
        for slot in range(examples)
    ]
    assert sorted(targets) == [found.offsets[u] + p for u, p in trains]


def table_of(rows):
    return pd.DataFrame(rows, columns=["user", "item", "timestamp"])


def test_prepared_and_loaded(tmp_path):
    """Ten interactions: eight train, then one period each; the file tells by which rule it was split."""
    rows = [(user, str(n // 2 % 2), n) for n, user in enumerate("ababababab")]
    prepared = prepare("shop", RawTables(table_of(rows), None), 3, split="time")
    # Users alternate: b's last interaction is the only one of the test period, a's of the validation period.
    assert prepared.interactions["split"].tolist() == ["train"] * 4 + ["valid"] + ["train"] * 4 + ["test"]
    prepared.interactions.to_parquet(tmp_path / "interactions.parquet")
    found = Histories.load(tmp_path / "interactions.parquet")
    assert found.evaluated("valid").tolist() == [0] and found.evaluated("test").tolist() == [1]
    assert found.train_end(np.arange(2)).tolist() == [4, 4]


def test_a_source_without_a_clock_is_refused():
    rows = [("a", str(n % 3), n) for n in range(6)] + [("b", str(n % 3), n) for n in range(6)]
    raw = RawTables(table_of(rows), None, times="positions", clocked=False)
    with pytest.raises(UserError, match=r"shop: split: time needs times .* \(positions\); set split: leave-one-out"):
        prepare("shop", raw, 3, split="time")


def test_times_that_leave_no_target_are_refused():
    rows = [(user, str(n % 3), 5) for user in "abc" for n in range(4)]
    with pytest.raises(UserError, match="finds no user with an interaction in the period of valid"):
        prepare("shop", RawTables(table_of(rows), None), 3, split="time")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, -1, 2], "belongs to no part"),
        ([0, 3, 0], "trains follows one that does not"),
        ([0, 1, 1], "two interactions of the part valid"),
        ([0, 2, 2], "two interactions of the part test"),
        ([1, 2, 3], "a target of the part valid has no history"),
    ],
)
def test_each_damage_of_labels_is_named(labels, said):
    with pytest.raises(ValueError, match=said):
        Targets.of_labels(np.array(labels), np.zeros(3, dtype=np.int64))


@given(histories, st.integers(0, 100))
def test_damaged_labels_are_refused(rows, seed):
    user, time = arrays(rows)
    labels = by_time(user, time)
    shuffled = np.random.default_rng(seed).permutation(labels)
    trains = shuffled == 0
    broken = any((np.diff(trains[user == u].astype(int)) > 0).any() for u in range(len(rows)))
    twice = any((shuffled[user == u] == part).sum() > 1 for u in range(len(rows)) for part in (1, 2))
    bare = any(shuffled[user == u][0] in (1, 2) for u in range(len(rows)))
    assume(broken or twice or bare)
    with pytest.raises(
        ValueError, match=r"trains follows one that does not|two interactions of the part|has no history"
    ):
        Targets.of_labels(shuffled, user)
