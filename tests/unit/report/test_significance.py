from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, ttest_1samp, ttest_rel

from apao.evaluation import significance
from apao.evaluation.significance import (
    UNKNOWN,
    gain_interval,
    holm,
    intervals,
    paired_p,
    seeds_interval,
    seeds_p,
    wider,
)

P_VALUES = st.lists(st.floats(0, 1) | st.just(math.nan), max_size=12)


def column(values):
    return np.asarray(values, dtype=float)[:, None]


def test_seeds_by_hand():
    # Mean 0.035, sd 0.01 / sqrt 2, so t = 3 with one degree of freedom (Cauchy): p = 1 - 2 atan(3) / pi.
    assert seeds_p([0.03, 0.04], 0.02) == pytest.approx(1 - 2 * math.atan(3) / math.pi)
    assert seeds_p([0.03, 0.04], 0.05) == pytest.approx(seeds_p([0.03, 0.04], 0.02))


def test_seeds_as_scipy():
    values = [0.031, 0.034, 0.0325, 0.0305, 0.0333]
    assert seeds_p(values, 0.0309) == pytest.approx(ttest_1samp(values, 0.0309).pvalue)
    # Seeds that differ by 0.0002 differ.
    close = [0.0310, 0.0311, 0.0312]
    assert seeds_p(close, 0.0309) == pytest.approx(ttest_1samp(close, 0.0309).pvalue)


def test_seeds_that_give_no_verdict():
    assert math.isnan(seeds_p([0.03], 0.02))
    assert math.isnan(seeds_p([], 0.02))
    assert math.isnan(seeds_p([0.03], 0.03))
    assert math.isnan(seeds_p([0.03, 0.03], 0.02))
    assert math.isnan(seeds_p([0.03, 0.03], 0.04))
    assert seeds_p([0.03, 0.03, 0.03], 0.03) == 1.0


def test_users_as_scipy():
    rng = np.random.default_rng(1)
    ours, theirs = pd.Series(rng.random(50)), pd.Series(rng.random(50))
    assert paired_p(ours, theirs) == pytest.approx(ttest_rel(ours, theirs).pvalue)
    assert paired_p(ours, ours) == 1.0
    assert math.isnan(paired_p(ours + 0.1, ours))


def test_users_are_the_same():
    with pytest.raises(AssertionError):
        paired_p(pd.Series([0.1, 0.2], [1, 2]), pd.Series([0.1, 0.2], [1, 3]))


def test_holm_by_hand():
    # Sorted: 0.005 x 4, 0.01 x 3, 0.03 x 2, 0.04 x 1, of which the last may not be below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
    found = holm([math.nan, 0.01, math.nan, 0.02])
    assert found[1::2] == pytest.approx([0.02, 0.02]) and math.isnan(found[0]) and math.isnan(found[2])


@given(P_VALUES)
def test_holm_is_monotone_and_between_p_and_bonferroni(given_p):
    found = holm(given_p)
    tests = [(p, q) for p, q in zip(given_p, found, strict=True) if not math.isnan(p)]
    assert [math.isnan(q) for q in found] == [math.isnan(p) for p in given_p]
    for p, q in tests:
        assert p <= q <= min(1, p * len(tests)) or math.isclose(q, min(1, p * len(tests)))
    ordered = [q for _, q in sorted(tests)]
    assert ordered == sorted(ordered)


@given(P_VALUES, st.randoms())
def test_holm_does_not_depend_on_the_order(given_p, random):
    order = list(range(len(given_p)))
    random.shuffle(order)
    shuffled = holm([given_p[i] for i in order])
    found = holm(given_p)
    assert shuffled == pytest.approx([found[i] for i in order], nan_ok=True)


def test_interval_as_scipy():
    values = np.random.default_rng(2).exponential(size=400)
    ours = intervals(column(values))[0]
    theirs = bootstrap(
        (values,), np.mean, n_resamples=9999, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.005)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(4)
    # 400 samples of 60 users, truth 0.3, one column each: the draws are shared, which coverage does not mind.
    samples = (rng.random((60, 400)) < 0.3).astype(float)
    low, high = intervals(samples).T
    assert 0.90 <= np.mean((low <= 0.3) & (high >= 0.3)) <= 0.985


def test_equal_users_have_no_interval():
    constant = np.full((70, 3), 0.25)
    assert intervals(constant) == pytest.approx(np.full((3, 2), 0.25))
    assert intervals(np.zeros((70, 1))).tolist() == [[0.0, 0.0]]


def test_intervals_are_the_same_again_and_for_each_column():
    values = np.random.default_rng(5).random((100, 4))
    first = intervals(values)
    assert (intervals(values) == first).all()
    assert intervals(values[:, 2:3])[0] == pytest.approx(first[2])


def test_interval_of_many_users_stays_small(monkeypatch):
    users = 60_431
    monkeypatch.setattr(significance, "RESAMPLES", 300)
    values = (np.random.default_rng(6).random((users, 24)) < 0.06).astype(float)
    tracemalloc.start()
    found = intervals(values)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120e6  # all 300 resamples at once would take 145 MB in float64 alone
    half = 1.96 * np.sqrt(0.06 * 0.94 / users)
    assert found[:, 1] - found[:, 0] == pytest.approx(2 * half, rel=0.3)


def hits(count, users):
    return np.arange(users) < count


def test_interval_over_seeds_as_scipy():
    values = [0.031, 0.034, 0.0325]
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert seeds_interval(values) == pytest.approx((expected.low, expected.high))
    # 1, 2, 3: the 97.5 % quantile of Student's t with two degrees of freedom is 4.3027, the standard error 1 / sqrt(3).
    assert seeds_interval([1, 2, 3]) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-4)


@pytest.mark.parametrize("values", [[], [0.031], [0.031, 0.034]])
def test_too_few_seeds_have_no_interval(values):
    assert np.isnan(seeds_interval(values)).all()


def test_the_wider_of_two_intervals():
    for one, other in (((0.0, 1.0), (0.5, 2.0)), (UNKNOWN, (0.5, 2.0))):
        assert wider(one, other) == wider(other, one) == (0.5, 2.0)


def test_interval_of_a_gain():
    # Every hit of theirs is one of ours too: the gain is at least 0 however the users are drawn.
    ours, theirs = hits(60, 1000).astype(float), hits(50, 1000).astype(float)
    low, high = gain_interval(ours, theirs)
    assert 0 <= low < 20 < high


def test_a_gain_over_few_hits_has_no_interval():
    """In 13.5 % of the draws (e^-2) none of the two hits is among them: the upper end is not known."""
    assert np.isnan(gain_interval(hits(10, 1000).astype(float), hits(2, 1000).astype(float))).all()
    # Of eight hits 0.03 % have none, less than a tail.
    assert np.isfinite(gain_interval(hits(10, 1000).astype(float), hits(8, 1000).astype(float))).all()


def test_gain_over_nothing_has_no_interval():
    nothing, some = np.zeros(50), hits(3, 50).astype(float)
    assert np.isnan(gain_interval(some, nothing)).all()
