"""The two rules that say which interactions train and which are targets of validation and test.

Shapes: N interactions, sorted by user, then time. Labels are indices into ``histories.PARTS``.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from apao.data.histories import PARTS, REST, TRAIN, IntArray, positions

Rule = Literal["leave-one-out", "time"]

TRAIN_SHARE, VALID_SHARE = 0.8, 0.1
"""Of all interactions in the order of their times, for ``time``; the remaining ones are the period of the test."""


def leave_one_out(user: IntArray) -> IntArray:
    """Labels (N,): a user's last interaction is the test target, the one before it the validation target."""
    left = np.bincount(user)[user] - positions(user)  # 1 for the last interaction
    return np.maximum(3 - left, TRAIN)


def by_time(user: IntArray, time: IntArray) -> IntArray:
    """Labels (N,) of a global temporal split: nothing that trains is later than the targets of another user.

    Two times divide all interactions into the periods of training, validation and test. A user's target in a period
    is the first interaction there that has a history. Users without one are not evaluated in that period.
    """
    ordered = np.sort(time)
    starts = [ordered[int(share * len(ordered))] for share in (TRAIN_SHARE, TRAIN_SHARE + VALID_SHARE)]
    period = (time >= starts[0]).astype(np.int64) + (time >= starts[1])
    labels = np.where(period == TRAIN, TRAIN, REST)
    possible = np.flatnonzero((period != TRAIN) & (positions(user) > 0))
    first = possible[np.unique(user[possible] * len(PARTS) + period[possible], return_index=True)[1]]
    labels[first] = period[first]
    return labels
