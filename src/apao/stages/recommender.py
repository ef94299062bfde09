"""Recommendations of a trained run for given histories.

Shapes: B histories of a batch, K ranked codes, C codes of a part, I items.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from apao.backbones.base import Context
from apao.codes.items import ItemTable
from apao.codes.trie import Trie
from apao.data.histories import FloatArray, Histories, IntArray, Split, by_length
from apao.decoding.lists import ItemLists, Lister, log_probabilities
from apao.errors import UserError
from apao.stages.evaluate import evaluate_split
from apao.stages.trained import TrainedModel, TrainedRun

RawHistories = Sequence[Sequence[str]]

PARTS_KEPT = 8
"""Parts of the catalogue that are remembered: in a large one finding the part takes as long as a search."""


@dataclass(frozen=True)
class Part:
    """The part of the catalogue that may be recommended.

    Attributes:
        trie: trie in which a search reaches only codes of allowed items.
        codes: (C,) indices of these codes in ``ItemCodes.distinct``.
        allowed: (I,) mask of the allowed items; None if all are.
        items: number of allowed items.
    """

    trie: Trie
    codes: IntArray
    allowed: NDArray[np.bool_] | None
    items: int


@dataclass(frozen=True)
class Query:
    """A request for ``k`` items of ``part`` for each of the ``known`` histories."""

    known: Histories
    part: Part
    k: int
    keep_seen: bool


class Recommender:
    """A trained model with its catalogue.

    Attributes:
        trained: weights (``trained.backbone``), item codes (``trained.codes``), trie and parameters.
        catalogue: the items by raw id.
        folder: folder of the run.
        root: project folder, whose data ``evaluate`` reads.
    """

    def __init__(self, trained: TrainedModel, catalogue: ItemTable, folder: Path, root: Path) -> None:
        self.trained, self.catalogue = trained, catalogue
        self.folder, self.root = folder, root
        self._part = lru_cache(PARTS_KEPT)(self._find_part)

    @property
    def items(self) -> pd.DataFrame:
        """The item table: ``item`` (number), ``raw_id``, ``title``, ``train_count``."""
        table = self.catalogue
        columns = {"raw_id": table.raw_ids, "title": table.titles, "train_count": table.train_counts}
        return pd.DataFrame(columns).rename_axis("item").reset_index()

    @cached_property
    def _lister(self) -> Lister:
        return Lister(self.trained.codes, self.trained.trie)

    def recommend(
        self,
        histories: RawHistories,
        k: int = 20,
        beam: int | None = None,
        exact: bool = False,
        keep_seen: bool = False,
        only: Collection[str] | None = None,
        without: Collection[str] | None = None,
    ) -> pd.DataFrame:
        """Recommend the next items for each history.

        Args:
            histories: raw item ids per user, oldest first; the model reads the newest ``max_history`` of them.
            k: number of items per history.
            beam: beam size. None: that of the run's evaluation, increased if it gives fewer than k items.
            exact: score every item instead of searching.
            keep_seen: also recommend items of the history itself.
            only: raw ids of the items that may be recommended; the search is restricted to their codes.
            without: raw ids of items that must not be recommended.

        Returns:
            Up to k rows per history (column ``history``: its index) with ``rank`` from 1, ``item`` (raw id), ``title``,
            ``code``, ``logp`` (log-probability of the code) and ``shared_by`` (number of items with that code).

        Raises:
            UserError: for missing or empty histories, an unknown item, or a k outside 1 to the number of all items.
        """
        known, part = self._known(histories), self._part(_hashable(only), _hashable(without) or None)
        items = len(self.catalogue.raw_ids)
        if not 1 <= k <= items:
            raise UserError(f"k is {k}; of {items} items expected 1 to {items}")
        query = Query(known, part, min(k, part.items), keep_seen)
        if beam is not None and (exact or beam < 1):
            raise UserError(f"beam is {beam}; expected 1 or more, and none with exact, which scores every item")
        with torch.no_grad():
            return self._frame(self._ranked(query) if exact else self._searched(query, beam))

    def reachable_codes(self, only: Collection[str] | None = None, without: Collection[str] | None = None) -> int:
        """Number of distinct codes that a recommendation with these parts of the catalogue can reach."""
        return len(self._part(_hashable(only), _hashable(without) or None).codes)

    def score(self, histories: RawHistories, items: Sequence[str]) -> pd.DataFrame:
        """Exact log-probability of each item's code after each history: one row per history, one column per item.

        Args:
            histories: as for ``recommend``.
            items: raw ids.

        Raises:
            UserError: for missing or empty histories, or an unknown item.
        """
        known, numbers = self._known(histories), self._numbers(items, "items")
        codes, place = np.unique(self.trained.codes.code_of_item[numbers], return_inverse=True)
        table = np.empty((known.users, len(items)))
        with torch.no_grad():
            for users in self._batches(known, np.arange(known.users)):
                scores = self._scores(known, users, codes)
                table[users] = log_probabilities(scores, self.trained.decoded_tokens)[:, place]
        return pd.DataFrame(table, columns=list(items))

    def evaluate(self, split: Split = "test") -> dict[str, Any]:
        """Recompute the metrics of the run on ``valid`` or ``test``, with the keys of metrics.json.

        Reads ``data/<dataset>`` of the run's project folder, or of the working directory if the run's folder was moved.

        Raises:
            UserError: for another split, or when a file is missing or damaged.
        """
        if split not in get_args(Split):
            raise UserError(f"split {split!r}: expected {' or '.join(get_args(Split))}")
        model = self.trained
        run = TrainedRun(model.run, model.params, model.device, self.root, self.folder, model.backbone)
        return evaluate_split(run, split).metrics

    def _known(self, histories: RawHistories) -> Histories:
        """The histories with item numbers instead of raw ids."""
        _check_list(histories, "histories", "history")
        for place, history in enumerate(histories):
            _check_list(history, f"history {place}", "item id")
        offsets = np.concatenate([[0], np.cumsum([len(history) for history in histories])])
        flat = list(chain.from_iterable(histories))
        numbers = self.catalogue.numbers(flat)
        if (numbers < 0).any():
            first = int(np.argmax(numbers < 0))
            place = int(np.searchsorted(offsets, first, side="right")) - 1
            raise self._unknown(f"history {place}", flat[first])
        return Histories(offsets, numbers)

    def _numbers(self, raw_ids: Collection[str], what: str) -> IntArray:
        """Item numbers of raw ids; ``what`` names the argument in error messages."""
        _check_list(raw_ids, what, "item id")
        ids = list(raw_ids)
        numbers = self.catalogue.numbers(ids)
        if (numbers < 0).any():
            raise self._unknown(what, ids[int(np.argmax(numbers < 0))])
        return numbers

    def _unknown(self, where: str, raw_id: object) -> UserError:
        return UserError(f"{where}: unknown item {raw_id!r}; the catalogue has ids like {self.catalogue.raw_ids[0]!r}")

    def _find_part(self, only: Collection[str] | None, without: Collection[str] | None) -> Part:
        codes, trie = self.trained.codes, self.trained.trie
        if only is None and without is None:
            return Part(trie, np.arange(len(codes.distinct)), None, codes.items)
        allowed = np.full(codes.items, only is None)
        if only is not None:
            allowed[self._numbers(only, "only")] = True
        if without is not None:
            allowed[self._numbers(without, "without")] = False
        chosen = np.unique(codes.code_of_item[allowed])
        if not len(chosen):
            raise UserError("only and without exclude all items; allow at least one")
        leaves = trie.prefixes[torch.as_tensor(chosen, device=trie.device), -1]
        return Part(trie.part(leaves), chosen, allowed, int(allowed.sum()))

    def _batches(self, known: Histories, users: IntArray) -> Iterator[IntArray]:
        """``users`` in batches of histories of similar length."""
        lengths = np.minimum(np.diff(known.offsets)[users], self.trained.params.backbone.max_history)
        return by_length(users, lengths, self.trained.params.decoding.batch_users)

    def _context(self, known: Histories, users: IntArray) -> Context:
        return self.trained.encode(known.newest(users, self.trained.params.backbone.max_history))

    def _scores(self, known: Histories, users: IntArray, codes: IntArray) -> Tensor:
        """Exact scores (B, C) of distinct codes by index."""
        chosen = torch.as_tensor(codes, device=self.trained.device)
        return self.trained.scores(self._context(known, users), self.trained.distinct_tokens[chosen])

    def _searched(self, query: Query, beam: int | None) -> ItemLists:
        """Lists by beam search. If ``beam`` is None, the beam is doubled for histories with fewer than k items."""
        codes, found = len(query.part.codes), []
        width = min(beam or max(self.trained.beam, query.k), codes)
        waiting = np.arange(query.known.users)
        while len(waiting):
            last, short = beam is not None or width == codes, []
            for users in self._batches(query.known, waiting):
                beams = self.trained.search(self._context(query.known, users), width, query.part.trie)
                lists = self._lists(query, users, *self._lister.ranked(beams, self.trained.decoded_tokens))
                full = last | (np.bincount(lists.users, minlength=len(users)) >= query.k)
                found.append(lists.renumbered(users, full))
                short.append(users[~full])
            waiting, width = np.concatenate(short), min(2 * width, codes)
        return ItemLists.merged(found)

    def _ranked(self, query: Query) -> ItemLists:
        """Lists by exact scores of all codes."""
        found = []
        for users in self._batches(query.known, np.arange(query.known.users)):
            # Each code has at least one item, so this many codes have k items besides those of the history.
            longest = 0 if query.keep_seen else int(np.diff(query.known.offsets)[users].max())
            scores = self._scores(query.known, users, query.part.codes)
            scores, best = scores.topk(min(query.k + longest, len(query.part.codes)), dim=1)
            logp = log_probabilities(scores, self.trained.decoded_tokens)
            found.append(self._lists(query, users, query.part.codes[best.cpu().numpy()], logp).renumbered(users))
        return ItemLists.merged(found)

    def _lists(self, query: Query, users: IntArray, codes: IntArray, logp: FloatArray) -> ItemLists:
        """Item lists of a batch from ranked codes (B, K); its users are numbered from 0."""
        seen = None if query.keep_seen else query.known.rows_of(users)
        return self._lister.lists(codes, logp, query.k, seen, query.part.allowed)

    def _frame(self, found: ItemLists) -> pd.DataFrame:
        codes, table = self.trained.codes, self.catalogue
        tokens = np.array(codes.vocabulary, dtype=object)[codes.tokens[found.items]]
        return pd.DataFrame(
            {
                "history": found.users,
                "rank": found.ranks,
                "item": table.raw_ids[found.items],
                "title": table.titles[found.items],
                "code": tokens.sum(axis=1) if len(tokens) else [],
                "logp": found.logp,
                "shared_by": codes.items_per_code[codes.code_of_item[found.items]],
            }
        )


def _check_list(values: object, where: str, of: str) -> None:
    if isinstance(values, str) or not isinstance(values, Collection) or not len(values):
        raise UserError(f"{where}: expected a list of at least one {of}, found {values!r}")


def _hashable(raw_ids: Collection[str] | None) -> tuple[str, ...] | str | None:
    """The ids as a key of the parts that are kept. A string, which is a mistake, stays one."""
    return raw_ids if raw_ids is None or isinstance(raw_ids, str) else tuple(raw_ids)
