"""A trained run as an object: ``apao.load("results/ml-100k/tiger/ce/seed42")``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from apao.decoding.beam import Beams, beam_search
from apao.decoding.lists import ItemList, Lister
from apao.devices import pick_device
from apao.errors import UserError
from apao.evaluation.params import DecodingParams
from apao.files import read_json, read_table, record_path
from apao.stages.trained import TrainedRun
from apao.study.run_params import RunRecord
from apao.study.runs import Run


def load(folder: str | Path, device: str = "auto") -> Recommender:
    """Load the run in ``folder``, ``.../results/<dataset>/<backbone>/<objective>/seed<N>``.

    Reads the parameters from run.json, decoding from the run's last evaluation (not from params.yaml), and the item
    codes and item table from ``data/<dataset>`` beside ``results``.

    Args:
        folder: the run's folder.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        UserError: when the folder is not that of a run, or a file is missing or damaged.
    """
    parts = Path(folder).resolve().parts
    if len(parts) < 6 or parts[-5] != "results":
        raise UserError(f"{folder}: expected the folder of a run, results/<dataset>/<backbone>/<objective>/seed<N>")
    run, root = Run.parse("/".join(parts[-4:])), Path(*parts[:-5])
    evaluation = record_path(root / run.folder, "evaluate")
    decoding = DecodingParams()
    if evaluation.exists():
        decoding = DecodingParams.model_validate(read_json(evaluation)["params"]["decoding"])
    params = RunRecord.read(run, root).decoded(decoding)
    return Recommender(TrainedRun(run, params, pick_device(device), root))


class Recommender:
    """A trained model with its catalogue.

    Attributes:
        trained: weights (``trained.backbone``), item codes (``trained.codes``), trie and parameters.
        items: the item table: ``item`` (the row's number), ``raw_id`` (the dataset's own id), ``text``.
    """

    def __init__(self, trained: TrainedRun) -> None:
        self.trained = trained
        self.items = read_table(trained.paths.items)
        self._index = {raw_id: item for item, raw_id in enumerate(self.items["raw_id"])}

    @cached_property
    def _lister(self) -> Lister:
        return Lister(self.trained.codes, self.trained.trie)

    def recommend(self, histories: Sequence[Sequence[str]], k: int = 20, keep_seen: bool = False) -> pd.DataFrame:
        """Recommend the next items for each history, by beam search over the whole catalogue.

        Args:
            histories: raw item ids per user, oldest first; the model reads the newest ``max_history`` of them.
            k: items per history.
            keep_seen: also recommend items of the history itself.

        Returns:
            Up to k rows per history (column ``history``: its index) with ``rank`` from 1, ``item`` (raw id), ``text``,
            ``code``, ``logp`` (log-probability of the code) and ``shared_by`` (number of items with that code).

        Raises:
            UserError: for missing or empty histories, an unknown item, or a k outside 1 to the number of items.
        """
        codes = self.trained.codes
        if not histories:
            raise UserError("no histories; expected a list of lists of item ids")
        if not 1 <= k <= codes.items:
            raise UserError(f"k is {k}; the catalogue has {codes.items} items, so expected 1 to {codes.items}")
        known = [self._known(history, place) for place, history in enumerate(histories)]
        lists = self._search(known, k, keep_seen)
        return pd.concat([self._frame(place, found) for place, found in enumerate(lists)], ignore_index=True)

    def _known(self, history: Sequence[str], place: int) -> list[int]:
        """Item numbers of a history."""
        if isinstance(history, str) or not history:
            raise UserError(f"history {place}: expected a list of at least one item id, found {history!r}")
        for raw_id in history:
            if raw_id not in self._index:
                example, file = next(iter(self._index)), self.trained.paths.items
                raise UserError(f"history {place}: unknown item {raw_id!r}; raw_id in {file} has ids like {example!r}")
        return [self._index[raw_id] for raw_id in history]

    def _search(self, known: list[list[int]], k: int, keep_seen: bool) -> list[ItemList]:
        """Item list of each history, in batches of similar length; the beam is doubled while it gives fewer than k."""
        params, codes = self.trained.params, len(self.trained.codes.distinct)
        lists: dict[int, ItemList] = {}
        waiting = sorted(range(len(known)), key=lambda place: len(known[place]))
        beam = min(max(self.trained.beam, k), codes)
        while waiting:
            for begin in range(0, len(waiting), params.decoding.batch_users):
                places = waiting[begin : begin + params.decoding.batch_users]
                beams = self._beams([known[place] for place in places], beam)
                without = [[] if keep_seen else known[place] for place in places]
                tokens = self.trained.codes.levels + params.decodes_eos
                lists |= zip(places, self._lister.lists(beams, tokens, k, without), strict=True)
            waiting = [place for place in waiting if len(lists[place].items) < k and beam < codes]
            beam = min(2 * beam, codes)
        return [lists[place] for place in range(len(known))]

    @torch.no_grad()
    def _beams(self, histories: list[list[int]], beam: int) -> Beams:
        trained, params = self.trained, self.trained.params
        context = trained.backbone.encode(trained.examples.history_tokens(histories))
        return beam_search(trained.backbone, context, trained.trie, beam, params.decodes_eos, params.objective.softmax)

    def _frame(self, place: int, found: ItemList) -> pd.DataFrame:
        codes = self.trained.codes
        rows = self.items.iloc[found.items]
        return pd.DataFrame(
            {
                "history": place,
                "rank": np.arange(1, len(rows) + 1),
                "item": rows["raw_id"].to_numpy(),
                "text": rows["text"].to_numpy(),
                "code": ["".join(codes.vocabulary[token] for token in codes.tokens[item]) for item in found.items],
                "logp": found.logp,
                "shared_by": codes.items_per_code[codes.code_of_item[found.items]],
            }
        )
