"""A trained run, loaded for decoding.

Shapes: B users, T levels, U distinct codes, L items of a history.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apao.backbones.base import Backbone, Context
from apao.backbones.exchange import check_sizes, read_weights
from apao.codes.itemcodes import ItemCodes
from apao.codes.items import ItemTable
from apao.codes.trie import Trie
from apao.data.histories import IntArray, Split, by_length
from apao.decoding.beam import Beams, beam_search
from apao.decoding.exact import exact_scores
from apao.devices import device_name, wait_for
from apao.errors import UserError
from apao.progress import console, progress
from apao.stages.dataset import item_table, load_dataset
from apao.stages.record import Stage
from apao.study.paths import DatasetPaths
from apao.study.run_params import RunParams, RunRecord
from apao.study.runs import CATALOGUE_FILE, MODEL_FILE, RECORD_FILE, Run
from apao.training.batches import Examples

SPLITS: tuple[Split, Split] = ("valid", "test")


def warn_of_changes(run: Run, record: RunRecord, root: Path) -> list[Path]:
    """Print a line for each file of the dataset that has changed since the run was trained, and return them."""
    changed = record.changed_inputs(root)
    for path in changed:
        console.print(f"{run} was trained on another {path}: its hash is not the one in {run.record.name}")
    return changed


class TrainedModel:
    """Weights and catalogue of a run, on a device, in fp32."""

    def __init__(
        self,
        run: Run,
        params: RunParams,
        codes: ItemCodes,
        weights: Path,
        device: torch.device,
        backbone: Backbone | None = None,
    ) -> None:
        """``params`` are those of run.json with the decoding; ``weights`` is the path of the weights.

        They are not read if the ``backbone`` that has them is given.
        """
        self.run, self.params, self.codes, self.device = run, params, codes, device
        torch.set_num_threads(params.training.threads)
        self.trie = Trie.of(codes, device)
        try:
            self.beam = params.decoding.width(len(codes.distinct))
        except UserError as error:
            raise UserError(f"{run}: {error}") from error
        self.backbone = backbone or self._backbone(weights)
        self._tokens = torch.as_tensor(codes.padded_tokens, device=device)

    @cached_property
    def distinct_tokens(self) -> Tensor:
        """(U, T) tokens of the distinct codes, on the device."""
        return torch.as_tensor(self.codes.distinct_tokens, device=self.device)

    def _backbone(self, path: Path) -> Backbone:
        weights = read_weights(path)
        vocabulary = len(self.codes.vocabulary)
        try:
            check_sizes(self.params.backbone, vocabulary, weights, path.parent)
            backbone = self.params.backbone.to_load(vocabulary, path.parent)
            backbone.load_transformers(weights)
        except UserError as error:
            raise UserError(
                f"{path}: {error}; the run was trained with other parameters or codes: train it again"
            ) from error
        return backbone.to(self.device).eval()

    def encode(self, items: IntArray) -> Context:
        """Encode histories (B, L) of item numbers, oldest first, padded with -1 on the right."""
        return self.backbone.encode(self._tokens[torch.as_tensor(items, device=self.device)].flatten(1))

    def search(self, context: Context, beam: int, trie: Trie | None = None) -> Beams:
        """Beam search over the catalogue, or over the part in ``trie``."""
        eos, softmax = self.params.decodes_eos, self.params.objective.softmax
        return beam_search(self.backbone, context, trie or self.trie, beam, eos, softmax)

    def scores(self, context: Context, codes: Tensor | None = None) -> Tensor:
        """Exact scores (B, U) of all distinct codes, or of those given as token ids (U, T)."""
        eos, softmax = self.params.decodes_eos, self.params.objective.softmax
        tokens = self.distinct_tokens if codes is None else codes
        return exact_scores(self.backbone, context, self.trie, tokens, eos, softmax)

    @property
    def decoded_tokens(self) -> int:
        """Number of tokens per code over which scores are averaged."""
        return self.codes.levels + self.params.decodes_eos


@dataclass(frozen=True)
class Decoded:
    """Results of beam search for a batch of users: one row per user.

    Attributes:
        users: (B,) their numbers.
        targets: (B, T) tokens of their targets.
        prefixes: (B, T) trie states of the targets' prefixes.
        context: what the model read.
        beams: what the search found.
        seconds: how long encoding and search took.
    """

    users: IntArray
    targets: Tensor
    prefixes: Tensor
    context: Context
    beams: Beams
    seconds: float


@contextmanager
def measuring(
    stage: str, run: Run, params: RunParams, device: torch.device, **more: Any
) -> Iterator[tuple[Stage, TrainedRun]]:
    """The record of a stage that decodes with a run, and the run; ``more`` are parameters of the stage."""
    paths = DatasetPaths(run.dataset)
    inputs = [run.record, run.model, paths.codes, paths.interactions]
    with Stage(stage, run.folder, inputs, {**params.for_evaluation(), **more}, device_name(device)) as record:
        yield record, TrainedRun(run, params, device)


class TrainedRun(TrainedModel):
    """A model and the histories of its dataset, for evaluation."""

    def __init__(
        self,
        run: Run,
        params: RunParams,
        device: torch.device,
        root: Path = Path(),
        folder: Path | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        """``params`` are those of run.json with the decoding; ``root`` is the project folder.

        ``folder`` is the run's folder if it is not there, ``backbone`` the model if it is loaded.
        """
        folder = folder or root / run.folder
        paths = DatasetPaths(run.dataset, root)
        self.histories, codes = load_dataset(paths)
        changed = warn_of_changes(run, RunRecord.at(folder / RECORD_FILE), root)
        table = folder / CATALOGUE_FILE
        if changed and not ItemTable.read(table).has_items_of(item_table(paths, self.histories, codes)):
            raise UserError(
                f"{paths.codes}: has other items or codes than those that {run} was trained on ({table}); train the "
                "run again, or restore the dataset"
            )
        super().__init__(run, params, codes, folder / MODEL_FILE, device, backbone)
        self.examples = Examples(self.histories, codes, params.backbone.max_history, self.trie)

    @property
    def users(self) -> int:
        """Number of users with a test item."""
        return len(self.histories.evaluated("test"))

    def decode(self, split: Split, beam: int | None = None, users: IntArray | None = None) -> Iterator[Decoded]:
        """Decode ``users``, by default all with a target, by beam search, in batches sorted by history length."""
        beam = beam or self.beam
        positions = self.histories.evaluation_targets(split)
        users = self.histories.evaluated(split) if users is None else users
        lengths = np.minimum(positions[users], self.params.backbone.max_history)
        with torch.no_grad(), progress(f"{self.run} {split}, beam {beam}", len(users)) as advance:
            for rows in by_length(users, lengths, self.params.decoding.batch_users):
                batch = self.examples.batch(rows, positions[rows])
                wait_for(self.device)
                started = perf_counter()
                context = self.backbone.encode(batch.history)
                beams = self.search(context, beam)
                wait_for(self.device)
                seconds = perf_counter() - started
                yield Decoded(rows, batch.targets, batch.prefixes, context, beams, seconds)
                advance(len(rows))
