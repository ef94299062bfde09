"""What the page of ``show`` draws: one history, the search through its prefixes, and both lists.

Shapes: T levels, U distinct codes, m length of a prefix. A prefix is a tuple of tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from apao.codes.itemcodes import ItemCodes
from apao.data.histories import IntArray
from apao.decoding.exact import code_logp
from apao.decoding.trace import Step, trace
from apao.stages.exact import TOP
from apao.stages.trained import TrainedRun

Prefix = tuple[int, ...]

HISTORY_SHOWN = 8
"""Number of newest items of a history on the page."""
ROWS_SHOWN = 24
"""Number of kept prefixes of a step on the page; those that lead to an item of a list are shown in any case."""


class Names:
    """Names of items and tokens."""

    def __init__(self, codes: ItemCodes, titles: Sequence[str]) -> None:
        self.codes, self.titles = codes, titles
        self._items: dict[Prefix, list[int]] = {}
        for item, code in enumerate(codes.tokens.tolist()):
            self._items.setdefault(tuple(code), []).append(item)

    def items(self, code: Prefix) -> list[str]:
        """Titles of the items that have the code."""
        return [self.titles[item] for item in self._items[code]]

    def token(self, token: int) -> str:
        """``a_17`` of ``<a_17>``."""
        return self.codes.vocabulary[token].strip("<>")

    def spelled(self, prefix: Prefix) -> list[str]:
        """All tokens of a prefix."""
        return [self.token(token) for token in prefix]


@dataclass(frozen=True)
class ShownSearch:
    """The search after one history, and the exact scores of all codes.

    Attributes:
        steps: the candidates of each step.
        scores: log-probability of every distinct code, decoded tokens summed.
        prefix_logp: log-probability of each prefix of the codes of interest: the exact top and the target.
        target: code of the target, if it is known.
    """

    steps: list[Step]
    scores: dict[Prefix, float]
    prefix_logp: dict[Prefix, float]
    target: Prefix | None

    @classmethod
    def of(cls, trained: TrainedRun, history: Sequence[int], target: int | None) -> ShownSearch:
        """Search after a history of item numbers; ``target`` is the item to be found, if it is known."""
        softmax = trained.params.objective.softmax
        backbone, trie, codes = trained.backbone, trained.trie, trained.codes
        with torch.no_grad():
            context = trained.encode(np.array([history[-trained.params.backbone.max_history :]]))
            exact = trained.scores(context)[0].double() * trained.decoded_tokens
        scores = dict(zip(map(tuple, codes.distinct_tokens.tolist()), exact.tolist(), strict=True))
        wanted = _best(scores)
        goal = None if target is None else tuple(codes.tokens[target].tolist())
        chosen = wanted if goal is None or goal in wanted else [*wanted, goal]
        logp = code_logp(backbone, context, trie, torch.tensor([chosen], device=trained.device), False, softmax)
        sums = logp[0].double().cumsum(dim=-1).tolist()
        prefixes = {
            code[:length]: row[length - 1]
            for code, row in zip(chosen, sums, strict=True)
            for length in range(1, codes.levels + 1)
        }
        return cls(trace(backbone, context, trie, trained.beam, softmax), scores, prefixes, goal)

    @cached_property
    def kept(self) -> list[dict[Prefix, float]]:
        """Log-probabilities of the prefixes in the beam after each step, best first."""
        return [
            dict(zip(map(tuple, step.prefixes[: step.kept].tolist()), step.logp[: step.kept].tolist(), strict=True))
            for step in self.steps
        ]

    @cached_property
    def exact(self) -> list[Prefix]:
        """The most probable codes."""
        return _best(self.scores)

    @cached_property
    def found(self) -> list[Prefix]:
        """The codes that the search returns first."""
        return _best({code: self.scores[code] for code in self.kept[-1]})

    def rank(self, code: Prefix) -> int:
        """Exact rank of a code, from 1."""
        return 1 + sum(score > self.scores[code] for score in self.scores.values())

    def lost_at(self, prefix: Prefix) -> int | None:
        """The first step, from 1, that dropped a beginning of this prefix; None if the prefix is kept."""
        lengths = range(1, len(prefix) + 1)
        return next((m for m in lengths if prefix[:m] not in self.kept[m - 1]), None)

    def place(self, prefix: Prefix) -> int:
        """Rank, from 1, of a prefix among the candidates of its step."""
        candidates = self.steps[len(prefix) - 1].prefixes.tolist()
        return candidates.index(list(prefix)) + 1


def _best(scores: dict[Prefix, float]) -> list[Prefix]:
    """The ``TOP`` most probable codes."""
    return sorted(scores, key=lambda code: -scores[code])[:TOP]


def page_case(search: ShownSearch, names: Names, label: str, history: Sequence[int], read: int) -> dict[str, Any]:
    """One history for the page, ready for JSON. The model reads the newest ``read`` items."""
    newest = [names.titles[item] for item in history[-HISTORY_SHOWN:]]
    return {
        "label": label,
        "history": {"titles": newest, "earlier": len(history) - len(newest), "read": min(read, len(history))},
        "target": None if search.target is None else _listed(search, names, search.target),
        "codes": len(search.scores),
        "steps": [_step(search, names, level) for level in range(1, len(search.steps) + 1)],
        "found": [_listed(search, names, code) for code in search.found],
        "exact": [_listed(search, names, code) for code in search.exact],
    }


def _listed(search: ShownSearch, names: Names, code: Prefix) -> dict[str, Any]:
    """A code of one of the lists: its ranks in both, and the step that lost it."""
    lost = search.lost_at(code)
    return {
        "path": _path(code),
        "code": names.spelled(code),
        "titles": names.items(code),
        "logp": search.scores[code],
        "exactRank": search.rank(code),
        "foundRank": search.found.index(code) + 1 if code in search.found else None,
        "target": code == search.target,
        "lost": None if lost is None else _loss(search, code[:lost]),
    }


def _loss(search: ShownSearch, prefix: Prefix) -> dict[str, Any]:
    """How far a prefix was from being kept."""
    step = search.steps[len(prefix) - 1]
    return {
        "step": len(prefix),
        "place": search.place(prefix),
        "candidates": len(step.prefixes),
        "kept": step.kept,
        "logp": search.prefix_logp[prefix],
        "lastKept": float(step.logp[step.kept - 1]),
    }


def _step(search: ShownSearch, names: Names, level: int) -> dict[str, Any]:
    """A column of the tree: kept prefixes, then those of the exact top and the target that are not."""
    step, kept = search.steps[level - 1], search.kept[level - 1]
    listed = {code[:level] for code in (*search.exact, *search.found)}
    shown = [prefix for place, prefix in enumerate(kept) if place < ROWS_SHOWN or prefix in listed]
    lost = sorted(
        {prefix for prefix in search.prefix_logp if len(prefix) == level and prefix not in kept},
        key=lambda prefix: -search.prefix_logp[prefix],
    )
    return {
        "candidates": len(step.prefixes),
        "kept": step.kept,
        "hidden": len(kept) - len(shown),
        "rows": [_row(search, names, prefix, kept[prefix]) for prefix in shown]
        + [_row(search, names, prefix, search.prefix_logp[prefix]) for prefix in lost],
    }


def _row(search: ShownSearch, names: Names, prefix: Prefix, logp: float) -> dict[str, Any]:
    """A prefix. Its fate: ``kept``, ``cut`` at this step, or ``gone`` since an earlier one."""
    lost, whole = search.lost_at(prefix), len(prefix) == len(search.steps)
    fate = "kept" if lost is None else "cut" if lost == len(prefix) else "gone"
    return {
        "path": _path(prefix),
        "token": names.token(prefix[-1]),
        "titles": names.items(prefix) if whole else [],
        "logp": logp,
        "fate": fate,
        "place": None if fate == "gone" else search.place(prefix),
        "top": sum(code[: len(prefix)] == prefix for code in search.exact),
        "target": search.target is not None and search.target[: len(prefix)] == prefix,
    }


def _path(prefix: Iterable[int]) -> str:
    return ".".join(map(str, prefix))


def user_history(trained: TrainedRun, user: int) -> tuple[IntArray, int]:
    """Item numbers before a user's test item, and that item, which the user must have."""
    histories = trained.histories
    begin, position = histories.offsets[user], histories.evaluation_targets("test")[user]
    return histories.items[begin : begin + position], int(histories.items[begin + position])
