"""The catalogue's statistics once more: plain loops over tuples of token ids, one an item."""

import math
from itertools import pairwise


def prefixes(items):
    """All prefixes, by length and then by their tokens: the numbering of the trie's states."""
    found = {item[:depth] for item in items for depth in range(len(item) + 1)}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def legal_tokens(items, prefix):
    """What may follow a prefix."""
    return {item[len(prefix)] for item in items if len(item) > len(prefix) and item[: len(prefix)] == prefix}


def token_count(items, targets, token):
    """How often a token is part of a training target."""
    return sum(items[target].count(token) for target in targets)


def targets_below(items, targets, prefix):
    """Code -> its training targets, for the codes that begin with the prefix and have any."""
    found = {}
    for target in targets:
        if items[target][: len(prefix)] == prefix:
            found[items[target]] = found.get(items[target], 0) + 1
    return found


def entropy(items, targets, prefix):
    """Bits left to know of the code after the prefix."""
    counts = targets_below(items, targets, prefix).values()
    return -sum(n / sum(counts) * math.log2(n / sum(counts)) for n in counts)


def information_gain(items, targets, prefix):
    """Bits by which the prefix's last token narrows the code down."""
    return entropy(items, targets, prefix[:-1]) - entropy(items, targets, prefix) if prefix else 0.0


def group_distance(items, embeddings, depth):
    """Distance to the centroid of the prefix group: the mean within each group, weighed by the group's size."""
    total = 0.0
    for prefix in {item[:depth] for item in items}:
        members = [point for item, point in zip(items, embeddings, strict=True) if item[:depth] == prefix]
        centroid = [sum(values) / len(members) for values in zip(*members, strict=True)]
        within = sum(math.dist(point, centroid) for point in members) / len(members)
        total += len(members) / len(items) * within
    return total


def level_gains(items, embeddings):
    """g_l, l = 1 .. T: what each level takes off that distance."""
    distance = [group_distance(items, embeddings, depth) for depth in range(len(items[0]) + 1)]
    return [before - after for before, after in pairwise(distance)]
