"""The k-core against removing one user or item at a time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from apao.data.kcore import k_core

pairs = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=60)


def slow_core(rows, k):
    """Indices of the rows that stay; every step drops the rows of a single user or item."""
    kept = list(range(len(rows)))
    while True:
        for side in (1, 0):
            ids = [rows[i][side] for i in kept]
            few = [name for name in ids if ids.count(name) < k]
            if few:
                kept = [i for i in kept if rows[i][side] != few[-1]]
                break
        else:
            return kept


@given(pairs, st.integers(1, 5))
def test_it_is_the_fixed_point(rows, k):
    users, items = np.array(rows, dtype=np.int64).reshape(-1, 2).T
    assert np.flatnonzero(k_core(users, items, k)).tolist() == slow_core(rows, k)


def test_a_chain_falls_link_by_link():
    """Users i and i + 1 share item i: only the ends violate the condition, but everything is removed in turn."""
    users = np.repeat(np.arange(50), 2)[1:]
    items = np.repeat(np.arange(50), 2)[:-1]
    assert not k_core(users, items, 2).any()
    ring = np.append(users, 0), np.append(items, 49)
    assert k_core(*ring, 2).all()


def test_repeated_purchases_count():
    users, items = np.array([0, 0, 0]), np.array([0, 0, 0])
    assert k_core(users, items, 3).all()
    assert not k_core(users, items, 4).any()
