"""Ties: a random order independent of the order of rows, and the detection of a suspicious number of ties."""

import hashlib
import random

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apao.data.base import RawTables
from apao.data.prepared import prepare
from apao.data.ties import newest_first, sorted_by_item, tied

rows_of_raw = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("pqrst"), st.integers(0, 2)), min_size=20, max_size=60
)


def prepared(rows, **rules):
    return prepare("d", RawTables(pd.DataFrame(rows, columns=["user", "item", "timestamp"]), None), 3, **rules)


def histories(rows, **rules):
    """Raw ids of items and times by raw user."""
    found = prepared(rows, **rules)
    raw_id, users = found.items["raw_id"], [rows[i][0] for i in found.rows]
    table: dict[str, list] = {}
    for user, item, time in zip(users, found.interactions["item"], found.interactions["timestamp"], strict=True):
        table.setdefault(user, []).append((raw_id[item], time))
    return table


@given(rows_of_raw, st.randoms(use_true_random=False), st.integers(0, 3))
def test_random_ties_do_not_follow_the_file(rows, shuffler, seed):
    rows = [*rows, *[(user, item, 9) for user in "abc" for item in "pqr"]]
    other = shuffler.sample(rows, len(rows))
    found = histories(rows, ties="random", ties_seed=seed)
    assert found == histories(other, ties="random", ties_seed=seed)
    for user, history in histories(rows).items():
        assert sorted(found[user]) == sorted(history)
        assert [time for _, time in found[user]] == sorted(time for _, time in history)


def test_every_order_comes_up_about_equally_often():
    """2,000 users with the same three items at one time: all six orders occur, and they depend on the seed."""
    rows = [(f"u{user}", item, 0) for user in range(2000) for item in "pqr"]
    found = histories(rows, ties="random")
    orders = pd.Series(["".join(item for item, _ in history) for history in found.values()]).value_counts()
    assert len(orders) == 6
    assert orders.between(333 - 100, 333 + 100).all(), orders  # six standard deviations of sqrt(2000 * 5/36) = 17
    assert found != histories(rows, ties="random", ties_seed=1)


def test_the_draw_is_the_same_on_every_machine():
    """Compare with Python's unbounded integers in place of 64 bits."""

    def drawn(user, item):
        hashed = [hashlib.blake2b(f"5 {each}".encode(), digest_size=8).digest() for each in (user, item)]
        whole = 1 << 64
        mixed = (int.from_bytes(hashed[0], "little") * 0x9E3779B97F4A7C15 + int.from_bytes(hashed[1], "little")) % whole
        mixed = ((mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9) % whole
        mixed = ((mixed ^ mixed >> 27) * 0x94D049BB133111EB) % whole
        return mixed ^ mixed >> 31

    rows = [(user, item, 0) for user in "abc" for item in "pqrs"]
    for user, history in histories(rows, ties="random", ties_seed=5).items():
        assert [item for item, _ in history] == sorted("pqrs", key=lambda item: drawn(user, item))


def test_ties_are_those_of_one_user():
    rows = [(user, item, time) for user in "abc" for item, time in zip("pqrs", (1, 2, 2, 3), strict=True)]
    assert tied(prepared(rows).interactions).tolist() == [False, True, True, False] * 3


def log(users=60, items=30, each=6, seed=0, clock=lambda position: 0):
    random.seed(seed)
    return [
        (f"u{user}", f"i{item:02d}", clock(position))
        for user in range(users)
        for position, item in enumerate(random.sample(range(items), each))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_an_order_by_item_is_seen_and_none_is_not(seed):
    rows = log(seed=seed)
    shuffled = random.sample(rows, len(rows))
    assert sorted_by_item(prepared(sorted(rows, key=lambda row: row[1]))) == 1.0
    assert sorted_by_item(prepared(sorted(rows, key=lambda row: row[1], reverse=True))) == 1.0
    products = random.sample([f"i{item:02d}" for item in range(30)], 30)
    assert sorted_by_item(prepared(sorted(rows, key=lambda row: products.index(row[1])))) == 1.0
    assert sorted_by_item(prepared(rows)) < 0.7
    assert sorted_by_item(prepared(shuffled)) < 0.7


def test_an_order_of_numbers_is_seen():
    """Sorted by user, then number, not by first appearance or alphabetically."""
    rows = [(user, str(int(item[1:]) * 7), time) for user, item, time in sorted(log(users=40))]
    rows.sort(key=lambda row: (row[0], int(row[1])))
    assert sorted_by_item(prepared(rows)) == 1.0
    rows.sort(key=lambda row: (row[0], -int(row[1])))
    assert sorted_by_item(prepared(rows)) == 1.0


def test_few_ties_say_nothing():
    assert sorted_by_item(prepared([(user, item, 0) for user in "abc" for item in "pqrs"])) == 0.0
    assert sorted_by_item(prepared(log(clock=lambda position: position))) == 0.0


def test_twenty_pairs_are_enough():
    """Five items of one time are four pairs; the same item twice is none."""
    assert sorted_by_item(prepared([(user, item, 0) for user in "abcde" for item in "pqrst"])) == 1.0
    assert sorted_by_item(prepared([(user, item, 0) for user in "abcde" for item in "ppqqrrsstt"])) == 1.0
    assert sorted_by_item(prepared([(user, item, user + item == "et") for user in "abcde" for item in "pqrst"])) == 0.0


def test_newest_first():
    rows = log(clock=lambda position: position // 2)
    assert newest_first(prepared(rows)) == 0.0
    assert newest_first(prepared(rows[::-1])) == 1.0
    assert 0.3 < newest_first(prepared(random.sample(rows, len(rows)))) < 0.7
