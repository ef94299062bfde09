"""Collision policies, applied after any tokenizer to items that share a code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from apao.codes.coding import Coding, FloatMatrix, Matrix, pieces, residuals, squared_lengths
from apao.data.histories import IntArray
from apao.errors import UserError

CollisionPolicy = Literal["keep", "extra", "reassign"]
"""``keep`` collisions (the paper), number the items of a code on an ``extra`` level (TIGER), or ``reassign`` items
to the nearest free token of the last level, which needs codebooks."""


def apply_policy(
    coding: Coding, policy: CollisionPolicy, sizes: tuple[int, ...] | None = None
) -> tuple[Coding, NDArray[np.bool_]]:
    """Apply a collision policy.

    Args:
        coding: the codes of a tokenizer.
        policy: what to do about collisions.
        sizes: maximum number of tokens per level; None: as many as its codebook has.

    Returns:
        The coding after the policy, and a mask (I,) of the items whose code changed: moved, or numbered above 0.

    Raises:
        UserError: when the policy is ``reassign`` and there are no codebooks.
    """
    match policy:
        case "keep":
            return coding, np.zeros(len(coding.codes), dtype=bool)
        case "extra":
            codes = with_extra_level(coding.codes)
            return replace(coding, codes=codes), codes[:, -1] > 0
        case "reassign":
            if coding.vectors is None:
                raise UserError("collisions: reassign needs codebooks, which these codes lack; use keep or extra")
            most = sizes[-1] if sizes else len(coding.codebooks[-1])
            codes = reassigned(coding.codes, coding.vectors, coding.codebooks, most)
            return replace(coding, codes=codes), codes[:, -1] != coding.codes[:, -1]


def placed(
    new: IntArray,
    known: IntArray,
    policy: CollisionPolicy,
    vectors: Matrix | None = None,
    codebooks: Sequence[FloatMatrix] = (),
) -> IntArray:
    """Codes of new items after the policy, beside those of a catalogue, which stay as they are.

    Only tokens that the catalogue has are used, so a trained model knows them all. Where none is free, a new item
    shares the code of others: under ``extra`` that with the highest number, under ``reassign`` its own.

    Args:
        new: (N, T) before the policy, without its extra level.
        known: (I, T) or (I, T + 1) of the catalogue, after the policy.
        policy: the catalogue's.
        vectors: (N, D) what the codebooks approximate; for ``reassign``, where the first items choose first.
        codebooks: for ``reassign``.
    """
    match policy:
        case "keep":
            return new
        case "extra":
            numbers = with_extra_level(np.vstack([known[:, :-1], new]))[len(known) :, -1]
            return np.column_stack([new, np.minimum(numbers, known[:, -1].max())])
        case "reassign":
            assert vectors is not None
            return _moved_to_free(new, known, residuals(vectors, new, codebooks[:-1]), codebooks[-1])


def _moved_to_free(new: IntArray, known: IntArray, wanted: FloatMatrix, last: FloatMatrix) -> IntArray:
    """Move each of ``new`` whose code is taken to the nearest free code of the last level, if there is one.

    Tokens beyond ``last`` stand for no vector and come after all others.
    """
    codes, taken = new.copy(), {row.tobytes() for row in known}
    tokens = np.unique(known[:, -1])
    fitted, beyond = tokens[tokens < len(last)], tokens[tokens >= len(last)]
    norms = np.square(last[fitted]).sum(axis=1)
    with threadpool_limits(limits=1):
        for item in range(len(codes)):
            code = codes[item].copy()
            if code.tobytes() in taken:
                by_distance = fitted[np.argsort(norms - 2 * (last[fitted] @ wanted[item]), kind="stable")]
                for token in chain(by_distance, beyond):
                    code[-1] = token
                    if code.tobytes() not in taken:
                        codes[item] = code
                        break
            taken.add(codes[item].tobytes())
    return codes


def with_extra_level(codes: IntArray) -> IntArray:
    """Codes (I, T + 1) with an extra level that numbers the items of a code from 0, by item number (TIGER).

    All codes are then distinct.
    """
    number = pd.DataFrame(codes).groupby(list(range(codes.shape[1])), sort=False).cumcount()
    return np.column_stack([codes, number])


def reassigned(codes: IntArray, vectors: Matrix, codebooks: Sequence[FloatMatrix], most: int) -> IntArray:
    """Move items that share a code to the nearest free token of the last level, keeping their prefix.

    Of the items that share a code, the one nearest to it keeps it (ties: the lower item number). The others are
    moved in the order of their distance to the shared code (ties: item number), each to the nearest last-level
    centroid that no item with its prefix uses (ties: the lower token). If all centroids are in use under the prefix,
    an item gets the lowest unused number below ``most``; such a token stands for no vector, and the codebook has no
    row for it. Items still share codes only if more than ``most`` have the same prefix. No other item's code changes.

    Args:
        codes: (I, T).
        vectors: (I, D) vectors that the codebooks approximate.
        codebooks: T arrays (k_l, D).
        most: maximum number of tokens of the last level, at least k_T.

    Returns:
        The new codes (I, T).
    """
    codes, last = codes.copy(), codebooks[-1]
    distance = np.empty(len(codes))
    for part in pieces(len(codes)):
        # The residuals that the last level quantises, without what it makes of them.
        wanted = residuals(vectors[part], codes[part], codebooks[:-1])
        distance[part] = squared_lengths(wanted - last[codes[part, -1]])
    shared = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort((distance, shared))  # stable: ties stay in the order of the items
    keeps = np.r_[True, np.diff(shared[order]) != 0]
    leaving = np.sort(order[~keeps])
    leaving = leaving[np.argsort(distance[leaving], kind="stable")]

    # Of large catalogues most prefixes have no item that leaves its code.
    used: dict[bytes, set[int]] = {codes[item, :-1].tobytes(): set() for item in leaving}
    for row in codes:
        if (prefix := row[:-1].tobytes()) in used:
            used[prefix].add(int(row[-1]))
    norms = np.square(last).sum(axis=1)
    with threadpool_limits(limits=1):
        for part in pieces(len(leaving)):
            movers = leaving[part]
            for item, wanted in zip(movers, residuals(vectors[movers], codes[movers], codebooks[:-1]), strict=True):
                taken = used[codes[item, :-1].tobytes()]
                by_distance = np.argsort(norms - 2 * (last @ wanted), kind="stable")
                beyond = range(len(last), most)
                free = next((int(code) for code in chain(by_distance, beyond) if code not in taken), None)
                if free is not None:
                    codes[item, -1] = free
                    taken.add(free)
    return codes
