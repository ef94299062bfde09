"""Training one run, read from top to bottom.

Shapes: B batch, T levels, N negatives, V vocabulary.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from apao.backbones.base import Backbone
from apao.backbones.scoring import candidate_logp, target_logits
from apao.codes.itemcodes import EOS, ItemCodes
from apao.codes.trie import Trie
from apao.data.histories import Histories
from apao.devices import autocast
from apao.errors import UserError
from apao.objectives.base import Objective, Outcome, Scores, State
from apao.params import RunParams
from apao.progress import progress
from apao.training.batches import Batch, Examples, epoch_order
from apao.training.checkpoint import Checkpoint, Tensors, load_checkpoint, save_checkpoint

STEPS_BETWEEN_CHECKS = 50
RELEASE_BATCH = 128
"""Batch of the release's validation, for ``selection: release``."""

Row = dict[str, float]


@dataclass
class Trained:
    """What a training leaves: the best epoch's weights and the record of all epochs."""

    best: Tensors
    history: list[Row]
    best_epoch: int


@dataclass
class Best:
    """The best epoch so far."""

    loss: float = math.inf
    epoch: int = 0
    weights: Tensors = field(default_factory=dict)


def score_batch(backbone: Backbone, objective: Objective, batch: Batch, prefix_counts: tuple[int, ...]) -> Scores:
    """Everything ``objective`` needs to know of ``batch``, from one reading of the histories."""
    context = backbone.encode(batch.history)
    levels = batch.targets.shape[1]
    logits = target_logits(backbone, context, batch.targets, objective.eos)
    return Scores(
        logits=logits[:, :levels],
        targets=batch.targets,
        prefix_counts=prefix_counts,
        eos_logits=logits[:, levels] if objective.eos else None,
        eos=EOS,
        negatives=batch.negatives,
        negative_logp=None if batch.negatives is None else candidate_logp(backbone, context, batch.negatives),
    )


def learning_rate(step: int, steps: int, warmup: float) -> float:
    """Factor on the learning rate: a linear rise over the first share, then half a cosine to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise if warmup else 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class Sums:
    """Example-weighted sums of named terms, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._examples = 0

    def add(self, outcome: Outcome, examples: int) -> None:
        """Count one micro-batch."""
        for name, value in {"loss": outcome.loss.detach(), **outcome.terms}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.float() * examples
        self._examples += examples

    def means(self, where: str) -> Row:
        """Means so far.

        Raises:
            UserError: naming the run, the step and the term, when one is not finite.
        """
        means = {name: value.item() / max(1, self._examples) for name, value in self._sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{where}: {name} is {value}; the training diverged. Lower lr or beta, or set precision: fp32"
                )
        return means


class Training:
    """One run on one device; ``fit`` goes on from the checkpoint at ``path`` if there is a matching one."""

    def __init__(
        self, run: str, params: RunParams, histories: Histories, codes: ItemCodes, device: torch.device
    ) -> None:
        self.run, self.params, self.device = run, params, device
        self.objective, self.recipe = params.objective, params.training
        try:
            self.objective.check_levels(codes.levels)
        except ValueError as error:
            raise UserError(f"{run}: {error}") from error
        self.examples = Examples(histories, codes, self.recipe.max_history, device)
        self.prefix_counts = Trie.of(codes).prefix_counts
        self.train_users, self.train_positions = histories.training_examples()
        if not len(self.train_users):
            raise UserError(f"{run}: no user has a training history of two items; nothing to train on")
        self.valid_positions = histories.evaluation_targets("valid")

        torch.manual_seed(params.seed)
        self.generator = torch.Generator().manual_seed(params.seed)
        self.backbone = params.backbone.build(len(codes.vocabulary)).to(device)
        self.state: State = self.objective.initial_state(codes.levels, device)
        learned = [value for value in self.state.values() if isinstance(value, nn.Parameter)]
        weights = list(self.backbone.parameters())
        groups = [
            {"params": [p for p in weights if p.dim() > 1], "weight_decay": self.recipe.weight_decay},
            # Norm scales and an objective's own parameters are not pulled to zero.
            {"params": [p for p in weights if p.dim() <= 1] + learned, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.recipe.lr, betas=(0.9, 0.999), fused=True)

    @property
    def epoch_examples(self) -> int:
        """Examples trained on in one epoch."""
        return min(len(self.train_users), self.recipe.examples_per_epoch or len(self.train_users))

    @property
    def epoch_steps(self) -> int:
        """Optimizer steps of one epoch."""
        return math.ceil(self.epoch_examples / self.recipe.batch_size)

    def fit(self, checkpoint: Path, fingerprint: str, on_epoch: Callable[[Row], None] = lambda row: None) -> Trained:
        """Train until the epochs or the patience run out; call ``on_epoch`` with every row of the history."""
        history: list[Row] = []
        best = Best()
        saved = load_checkpoint(checkpoint, fingerprint)
        if saved is not None:
            history, best = self._restore(saved)
        for row in history:
            on_epoch(row)
        first = len(history)
        with progress(self.run, self.recipe.epochs * self.epoch_steps, first * self.epoch_steps) as advance:
            for epoch in range(first, self.recipe.epochs):
                if epoch - best.epoch >= self.recipe.patience and history:
                    break
                row = self._train_epoch(epoch, advance)
                row |= {f"valid_{name}": value for name, value in self.validate(epoch).items()}
                if row["valid_loss"] < best.loss:
                    weights = {name: value.detach().clone() for name, value in self.backbone.state_dict().items()}
                    best = Best(row["valid_loss"], epoch + 1, weights)
                row["best"] = float(best.epoch == epoch + 1)
                history.append(row)
                save_checkpoint(checkpoint, self._snapshot(history, best), fingerprint)
                on_epoch(row)
        return Trained(best.weights, history, best.epoch)

    def _train_epoch(self, epoch: int, advance: Callable[..., None]) -> Row:
        started = time.perf_counter()
        self.backbone.train()
        order = epoch_order(len(self.train_users), self.recipe.examples_per_epoch, self.generator)
        steps = self.recipe.epochs * self.epoch_steps
        sums = Sums()
        for i, begin in enumerate(range(0, len(order), self.recipe.batch_size)):
            step = epoch * self.epoch_steps + i
            rate = self.recipe.lr * learning_rate(step, steps, self.recipe.warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self._step(order[begin : begin + self.recipe.batch_size], sums)
            shown = ""
            if (i + 1) % STEPS_BETWEEN_CHECKS == 0 or begin + self.recipe.batch_size >= len(order):
                means = sums.means(f"{self.run}, epoch {epoch + 1}, step {step + 1}")
                shown = f"epoch {epoch + 1} " + " ".join(
                    f"{name} {means[name]:.4f}" for name in ("loss", "ce", "prefix") if name in means
                )
            advance(1, shown)
        return {
            "epoch": epoch + 1,
            "step": (epoch + 1) * self.epoch_steps,
            "seconds": round(time.perf_counter() - started, 3),
            "examples": len(order),
            "lr": rate,
            **{f"train_{name}": value for name, value in means.items()},
        }

    def _step(self, chosen: np.ndarray, sums: Sums) -> None:
        """One optimizer step on the mean loss of the examples ``chosen``."""
        users, positions = self.train_users[chosen], self.train_positions[chosen]
        self.optimizer.zero_grad(set_to_none=True)
        for batch in self._micro_batches(users, positions, self.generator):
            outcome = self._outcome(batch)
            (outcome.loss * (len(batch) / len(chosen))).backward()
            self.state = outcome.state
            sums.add(outcome, len(batch))
        nn.utils.clip_grad_norm_(self.backbone.parameters(), self.recipe.grad_clip)
        self.optimizer.step()

    def _micro_batches(self, users: np.ndarray, positions: np.ndarray, generator: torch.Generator) -> Iterable[Batch]:
        negatives = None
        if "negatives" in self.objective.needs:
            negatives = self.examples.sample_negatives(len(users), self.objective.negatives_per_example(), generator)
        return self.examples.micro_batches(users, positions, negatives, self.recipe.micro_batch_tokens)

    def _outcome(self, batch: Batch) -> Outcome:
        with autocast(self.recipe.precision, self.device):
            scores = score_batch(self.backbone, self.objective, batch, self.prefix_counts)
        return self.objective(scores, self.state)

    @torch.no_grad()
    def validate(self, epoch: int) -> Row:
        """Mean loss and terms over the validation items, with the same negatives every epoch."""
        self.backbone.eval()
        users, positions = np.arange(len(self.valid_positions)), self.valid_positions
        if self.recipe.selection == "release" and self.objective.release_selects_on_last_batch:
            last = (len(users) - 1) // RELEASE_BATCH * RELEASE_BATCH
            users, positions = users[last:], positions[last:]
        sums = Sums()
        for batch in self._micro_batches(users, positions, torch.Generator().manual_seed(self.params.seed)):
            sums.add(self._outcome(batch), len(batch))
        return sums.means(f"{self.run}, validation after epoch {epoch + 1}")

    def _snapshot(self, history: list[Row], best: Best) -> Checkpoint:
        moments = {
            f"{index}.{name}": value
            for index, state in self.optimizer.state_dict()["state"].items()
            for name, value in state.items()
        }
        random = {"sampler": self.generator.get_state(), "torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        return Checkpoint(
            tensors={
                "model": self.backbone.state_dict(),
                "best": best.weights,
                "optimizer": moments,
                "objective": dict(self.state),
                "random": random,
            },
            progress={"history": history, "best_loss": best.loss, "best_epoch": best.epoch},
        )

    def _restore(self, saved: Checkpoint) -> tuple[list[Row], Best]:
        """Take up a snapshot; returns the history and the best epoch so far."""
        self.backbone.load_state_dict(saved.tensors["model"])
        moments: dict[int, dict[str, Any]] = {}
        for key, value in saved.tensors["optimizer"].items():
            index, _, name = key.partition(".")
            moments.setdefault(int(index), {})[name] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.state = self._restored_state(saved.tensors.get("objective", {}))
        self.generator.set_state(saved.tensors["random"]["sampler"])
        torch.set_rng_state(saved.tensors["random"]["torch"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(saved.tensors["random"]["cuda"], self.device)
        weights = {name: value.to(self.device) for name, value in saved.tensors["best"].items()}
        progress_made = saved.progress
        return progress_made["history"], Best(progress_made["best_loss"], progress_made["best_epoch"], weights)

    def _restored_state(self, saved: Mapping[str, Tensor]) -> State:
        state = dict(self.state)
        for name, value in saved.items():
            known = state[name]
            if isinstance(known, nn.Parameter):
                # The optimizer holds this very tensor.
                known.data.copy_(value)
            else:
                state[name] = value.to(self.device)
        return state
