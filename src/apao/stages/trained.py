"""A trained run, loaded for decoding."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from apao.backbones.base import Backbone, Context
from apao.backbones.exchange import check_sizes, read_weights
from apao.data.histories import IntArray
from apao.decoding.beam import Beams, beam_search
from apao.errors import UserError
from apao.progress import console, progress
from apao.stages.dataset import load_dataset
from apao.study.paths import DatasetPaths
from apao.study.run_params import RunParams, RunRecord
from apao.study.runs import Run
from apao.training.batches import Examples

Split = Literal["valid", "test"]
SPLITS: tuple[Split, Split] = ("valid", "test")


@dataclass(frozen=True)
class Decoded:
    """Results of beam search for a batch of users; all attributes have one row per user."""

    users: IntArray
    targets: Tensor
    context: Context
    beams: Beams


class TrainedRun:
    """Weights, catalogue and histories of a run, on a device, for evaluation in fp32."""

    def __init__(self, run: Run, params: RunParams, device: torch.device, root: Path = Path()) -> None:
        """``params`` are those of run.json with the decoding; ``root`` is the root folder of the study."""
        self.run, self.params, self.device = run, params, device
        torch.set_num_threads(params.training.threads)
        self.paths = DatasetPaths(run.dataset, root)
        self.histories, self.codes = load_dataset(self.paths)
        for path in RunRecord.read(run, root).changed_inputs(root):
            console.print(f"{run} was trained on another {path}: its hash is not the one in {run.record.name}")
        self.examples = Examples(self.histories, self.codes, params.backbone.max_history, device)
        self.trie = self.examples.trie
        try:
            self.beam = params.decoding.width(len(self.codes.distinct))
        except UserError as error:
            raise UserError(f"{run}: {error}") from error
        self.backbone = self._backbone(root / run.model)

    def _backbone(self, path: Path) -> Backbone:
        weights = read_weights(path)
        vocabulary = len(self.codes.vocabulary)
        try:
            check_sizes(self.params.backbone, vocabulary, weights)
            backbone = self.params.backbone.build(vocabulary)
            backbone.load_transformers(weights)
        except UserError as error:
            raise UserError(
                f"{path}: {error}; the run was trained with other parameters or codes: train it again"
            ) from error
        return backbone.to(self.device).eval()

    @property
    def users(self) -> int:
        """Number of users."""
        return self.histories.users

    def decode(self, split: Split, beam: int | None = None, users: IntArray | None = None) -> Iterator[Decoded]:
        """Decode ``users``, by default all of them, by beam search, in batches sorted by history length."""
        beam = beam or self.beam
        positions = self.histories.evaluation_targets(split)
        users = np.arange(self.users) if users is None else users
        lengths = np.minimum(positions[users], self.params.backbone.max_history)
        chosen = users[np.argsort(lengths, kind="stable")]
        with torch.no_grad(), progress(f"{self.run} {split}, beam {beam}", len(chosen)) as advance:
            for begin in range(0, len(chosen), self.params.decoding.batch_users):
                rows = chosen[begin : begin + self.params.decoding.batch_users]
                batch = self.examples.batch(rows, positions[rows])
                context = self.backbone.encode(batch.history)
                eos, softmax = self.params.decodes_eos, self.params.objective.softmax
                beams = beam_search(self.backbone, context, self.trie, beam, eos, softmax)
                yield Decoded(rows, batch.targets, context, beams)
                advance(len(rows))
