import json
import math

import numpy as np
import pytest

from apao.codes.itemcodes import ItemCodes
from apao.codes.quality import quality


def test_by_hand():
    numbers = quality(ItemCodes(np.array([[0, 0], [0, 0], [0, 1], [1, 0]])), errors=[0.5, 0.25])
    entropy = 0.75 * math.log2(4 / 3) + 0.25 * 2
    assert numbers == {
        "items": 4,
        "levels": 2,
        "distinct_codes": 3,
        "items_sharing_a_code": 2,
        "shared_codes": 1,
        "collision_rate": 0.5,
        "items_beyond_distinct_codes": 1,
        "largest_group": 2,
        "codes_used": [2, 2],
        "entropy_bits": pytest.approx([entropy, entropy]),
        "perplexity": pytest.approx([2**entropy, 2**entropy]),
        "prefix_counts": [2, 3],
        "relative_reconstruction_error": [0.5, 0.25],
    }
    assert json.loads(json.dumps(numbers)) == numbers


def test_even_use_and_one_code():
    numbers = quality(ItemCodes(np.array([[0, code] for code in range(8)])))
    assert json.dumps(numbers["entropy_bits"]) == "[0.0, 3.0]"  # and not -0.0
    assert numbers["perplexity"] == [1, 8]
    assert (numbers["collision_rate"], numbers["largest_group"]) == (0, 1)
    assert numbers["relative_reconstruction_error"] is None


@pytest.mark.parametrize(
    ("name", "items", "beyond", "sharing", "largest", "prefixes"),
    [
        ("Office", 2420, 5, 10, 2, [256, 1376, 1780, 2415]),
        ("Grocery", 8713, 30, 49, 13, [256, 4089, 6461, 8683]),
        ("Beauty", 12101, 12, 23, 3, [256, 6983, 10743, 12089]),
        ("Yelp", 20033, 879, 1259, 65, [256, 8086, 16838, 19154]),
    ],
)
def test_released_codes(release, name, items, beyond, sharing, largest, prefixes):
    table = json.loads((release / name / f"{name}.index.rq-kmeans.json").read_text())
    numbers = quality(ItemCodes.from_strings(table, name))
    # Counted again from the strings.
    groups = [list(table.values()).count(code) for code in table.values()] if items < 3000 else None
    assert groups is None or sum(size > 1 for size in groups) == sharing
    assert numbers["items"] == items
    assert numbers["items_beyond_distinct_codes"] == beyond
    assert numbers["items_sharing_a_code"] == sharing
    assert numbers["largest_group"] == largest
    assert numbers["prefix_counts"] == prefixes
