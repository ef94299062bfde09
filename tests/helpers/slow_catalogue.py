"""A second implementation of the catalogue's statistics: plain loops over tuples of token ids, one per item."""

import math
from itertools import pairwise


def prefixes(items):
    """All prefixes, sorted by length and then by tokens, as the trie numbers its states."""
    found = {item[:depth] for item in items for depth in range(len(item) + 1)}
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def legal_tokens(items, prefix):
    """The legal tokens after a prefix."""
    return {item[len(prefix)] for item in items if len(item) > len(prefix) and item[: len(prefix)] == prefix}


def token_count(items, targets, token):
    """Number of training targets that contain a token."""
    return sum(items[target].count(token) for target in targets)


def targets_below(items, targets, prefix):
    """Number of training targets per code, for the codes that begin with the prefix and have any."""
    found = {}
    for target in targets:
        if items[target][: len(prefix)] == prefix:
            found[items[target]] = found.get(items[target], 0) + 1
    return found


def entropy(items, targets, prefix):
    """Entropy of the code after the prefix, in bits."""
    counts = targets_below(items, targets, prefix).values()
    return -sum(n / sum(counts) * math.log2(n / sum(counts)) for n in counts)


def information_gain(items, targets, prefix):
    """Information gain of the prefix's last token, in bits."""
    return entropy(items, targets, prefix[:-1]) - entropy(items, targets, prefix) if prefix else 0.0


def group_distance(items, embeddings, depth):
    """Mean distance to the centroid of the prefix group, weighted by the size of the groups."""
    total = 0.0
    for prefix in {item[:depth] for item in items}:
        members = [point for item, point in zip(items, embeddings, strict=True) if item[:depth] == prefix]
        centroid = [sum(values) / len(members) for values in zip(*members, strict=True)]
        within = sum(math.dist(point, centroid) for point in members) / len(members)
        total += len(members) / len(items) * within
    return total


def level_gains(items, embeddings):
    """g_l, l = 1 .. T: the decrease of that distance at each level."""
    distance = [group_distance(items, embeddings, depth) for depth in range(len(items[0]) + 1)]
    return [before - after for before, after in pairwise(distance)]
