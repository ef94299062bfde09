"""Quality of a code table: collisions, codebook usage, reconstruction error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from apao.codes.itemcodes import ItemCodes


def quality(codes: ItemCodes, errors: Sequence[float] | None = None) -> dict[str, Any]:
    """Quality measures of ``codes``, ready for JSON.

    ``items_sharing_a_code`` is the number of items whose code another item has too, ``collision_rate`` their share.
    ``shared_codes`` is the number of codes with several items, ``items_beyond_distinct_codes`` the number of items
    minus that of distinct codes. ``entropy_bits`` is the entropy of each level's tokens over the items,
    ``perplexity`` 2^entropy: the number of equally frequent tokens with the same entropy. ``prefix_counts`` are the
    numbers of distinct prefixes of length 1 .. T.

    Args:
        codes: the code table.
        errors: relative reconstruction error after each level (``Coding.relative_errors``); None without codebooks.
    """
    entropies = [_entropy(codes, level) for level in range(codes.levels)]
    sharing = int(codes.items_per_code[codes.items_per_code > 1].sum())
    return {
        "items": codes.items,
        "levels": codes.levels,
        "distinct_codes": len(codes.distinct),
        "items_sharing_a_code": sharing,
        "shared_codes": int((codes.items_per_code > 1).sum()),
        "collision_rate": sharing / codes.items,
        "items_beyond_distinct_codes": codes.items - len(codes.distinct),
        "largest_group": int(codes.items_per_code.max()),
        "codes_used": [len(np.unique(codes.codes[:, level])) for level in range(codes.levels)],
        "entropy_bits": entropies,
        "perplexity": [2**entropy for entropy in entropies],
        "prefix_counts": [len(np.unique(codes.distinct[:, : depth + 1], axis=0)) for depth in range(codes.levels)],
        "relative_reconstruction_error": None if errors is None else [float(error) for error in errors],
    }


def _entropy(codes: ItemCodes, level: int) -> float:
    counts = np.unique(codes.codes[:, level], return_counts=True)[1]
    share = counts / counts.sum()
    # The entropy of a single token is computed as -0.0.
    return abs(float(-(share * np.log2(share)).sum()))
