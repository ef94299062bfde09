"""What a tokenizer gives: the items' codes, and the codebooks that the codes are places in.

Shapes: I items, T levels, D width, k_l codes of level l.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apao.data.histories import IntArray

Matrix = NDArray[np.floating]
FloatMatrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Coding:
    """A code for every item, before or after the collision policy.

    Codebooks are additive: the sum of an item's rows, one of each level's codebook, approximates its vector.

    Attributes:
        codes: (I, T) from 0.
        codebooks: (k_l, D) of each level, none for the level that the policy ``extra`` adds; empty where the
            tokenizer has none.
        vectors: (I, D) what the codebooks approximate: the embeddings, or what an encoder made of them. None
            without codebooks.
        facts: how the codes came about, ready for JSON; a part of ``code_quality.json``.
        notes: lines about that for the terminal.
    """

    codes: IntArray
    codebooks: Sequence[FloatMatrix] = ()
    vectors: Matrix | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @cached_property
    def relative_errors(self) -> list[float] | None:
        """Relative reconstruction error after each level; None without codebooks."""
        return None if self.vectors is None else relative_errors(self.vectors, self.codes, self.codebooks)


def residuals(vectors: Matrix, codes: IntArray, codebooks: Sequence[FloatMatrix]) -> FloatMatrix:
    """What the first levels, those of ``codebooks``, leave of ``vectors``: (I, D)."""
    left = np.array(vectors, dtype=np.float64)
    for level, codebook in enumerate(codebooks):
        left -= codebook[codes[:, level]]
    return left


def relative_errors(vectors: Matrix, codes: IntArray, codebooks: Sequence[FloatMatrix]) -> list[float]:
    """Mean squared residual after each level, over the mean squared centred vector (0 to 1).

    Vectors that are all equal have no spread to explain; their error is 0.
    """
    spread = mean_square(vectors - vectors.mean(axis=0, dtype=np.float64))
    if spread == 0:
        return [0.0] * len(codebooks)
    depths = range(1, len(codebooks) + 1)
    return [mean_square(residuals(vectors, codes, codebooks[:depth])) / spread for depth in depths]


def mean_square(rows: FloatMatrix) -> float:
    """Mean over the rows of their squared length."""
    return float(np.square(rows).sum(axis=1).mean())
