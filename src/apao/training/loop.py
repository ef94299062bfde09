"""The training loop of one run.

Shapes: I items, D width of their embeddings.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from apao.checkpoint import Checkpoint, Tensors, load_checkpoint, save_checkpoint
from apao.codes.itemcodes import ItemCodes
from apao.codes.statistics import CodeStatistics
from apao.codes.trie import Trie
from apao.data.histories import Histories
from apao.devices import autocast, products
from apao.errors import Diverged, UserError
from apao.objectives.base import Outcome, State
from apao.progress import progress
from apao.training.batches import Batch, EffectiveBatch, Examples, ExampleSampler
from apao.training.optimizer import AdamW
from apao.training.packing import PackedBatch, PackedSampler
from apao.training.parallel import ALONE, Processes
from apao.training.params import Setup, TrainingParams
from apao.training.replays import GraphedReader, Pass, Replays
from apao.training.scoring import Reader, score_batch

STEPS_BETWEEN_CHECKS = 50
CPU_TOKENS, GPU_TOKENS = 2048, 262_144
RELEASE_BATCH = 128
"""Batch size of the release's validation, for ``selection: release``."""

Row = dict[str, float]


@dataclass
class Trained:
    """Result of a training: the best epoch's ``learned_state`` of the backbone, and the history of all epochs."""

    best: Tensors
    history: list[Row]
    best_epoch: int


@dataclass
class Best:
    """The best epoch so far."""

    loss: float = math.inf
    epoch: int = 0
    weights: Tensors = field(default_factory=dict)


def micro_batch_tokens(recipe: TrainingParams, device: torch.device) -> int:
    """Maximum number of tokens per micro-batch on ``device``."""
    if recipe.micro_batch_tokens != "auto":
        return recipe.micro_batch_tokens
    return CPU_TOKENS if device.type == "cpu" else GPU_TOKENS


def learning_rate(done: float, warmup: float) -> float:
    """Factor on the learning rate: a linear rise, then half a cosine to 0; arguments are shares of the training."""
    if done < warmup:
        return done / warmup
    return 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def stream_seed(*numbers: int) -> int:
    """A seed derived from ``numbers``; different numbers give independent random streams."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class Sums:
    """Example-weighted sums of named terms, kept on the device until ``means`` is called."""

    def __init__(self, processes: Processes = ALONE) -> None:
        self.processes = processes
        self._sums: dict[str, Tensor] = {}
        self._examples = 0

    def add(self, outcome: Outcome, examples: int) -> None:
        """Count one micro-batch of this process."""
        for name, value in {"loss": outcome.loss.detach(), **outcome.terms}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.float() * examples
        self._examples += examples

    def means(self, where: str) -> Row:
        """Means so far, over all processes.

        Raises:
            Diverged: naming the run, the step and the term, when one is not finite.
        """
        own = {name: value.item() for name, value in self._sums.items()}
        everyone: list[tuple[int, Row]] = self.processes.gather((self._examples, own))
        examples = max(1, sum(count for count, _ in everyone))
        # A process without a micro-batch has no terms. The first process always has the first micro-batch.
        means = {name: sum(sums.get(name, 0.0) for _, sums in everyone) / examples for name in everyone[0][1]}
        for name, value in means.items():
            if not math.isfinite(value):
                raise Diverged(
                    f"{where}: {name} is {value}; the training diverged. Lower lr or beta, or set precision: fp32"
                )
        return means


class Training:
    """The training of one run on this process's device. ``fit`` resumes from a matching checkpoint."""

    def __init__(
        self,
        run: str,
        params: Setup,
        histories: Histories,
        codes: ItemCodes,
        device: torch.device,
        start: Tensors | None = None,
        embeddings: NDArray[np.float32] | None = None,
        processes: Processes = ALONE,
    ) -> None:
        """Build model, data and optimizer, seeded by ``params.seed``.

        Args:
            run: name for messages.
            params: parameters of the backbone, the objective and the training.
            histories: all interactions of the dataset.
            codes: codes of all its items.
            device: where to train.
            start: trained weights under the key names of ``transformers``, if the objective has ``start``.
            embeddings: of the items (I, D), if the objective declares them in ``needs``.
            processes: those that share the work, each with its own ``Training``.

        Raises:
            UserError: when the objective does not fit the codes, there is nothing to train on, or ``start`` does
                not fit the backbone.
        """
        self.run, self.params, self.device, self.processes = run, params, device, processes
        self.objective, self.recipe = params.objective, params.training
        needs = self.objective.needs()
        try:
            self.objective.check_levels(codes.levels)
        except ValueError as error:
            raise UserError(f"{run}: {error}") from error
        trie = Trie.of(codes, device)
        examples = Examples(histories, codes, params.backbone.max_history, trie)
        self.statistics = CodeStatistics(codes, trie, histories.training_targets(), embeddings)
        supply = (examples, histories, needs.negatives, micro_batch_tokens(self.recipe, device))
        # On a GPU passes are recorded and replayed (``training.replays``). A CPU gains nothing from that.
        self.recording = device.type == "cuda" and params.backbone.recordable
        self.validation = ExampleSampler(*supply, repeating=self.recording)
        self.sampler: ExampleSampler | PackedSampler = (
            PackedSampler(*supply, repeating=self.recording) if params.backbone.packs else self.validation
        )
        if not self.sampler.examples:
            raise UserError(f"{run}: no user has a training history of two items; nothing to train on")
        self.valid_users = histories.evaluated("valid")
        self.valid_positions = histories.evaluation_targets("valid")[self.valid_users]

        torch.manual_seed(params.seed)
        self.generator = torch.Generator().manual_seed(params.seed)
        self.backbone = params.backbone.build(len(codes.vocabulary)).to(device)
        if start is not None:
            try:
                self.backbone.load_transformers(start)
            except UserError as error:
                raise UserError(f"{run}: cannot start from {params.objective.start}: {error}") from error
        self.reference = copy.deepcopy(self.backbone).eval().requires_grad_(False) if needs.reference else None
        self.state: State = self.objective.initial_state(codes.levels, device)
        learned = [value for value in self.state.values() if isinstance(value, nn.Parameter)]
        weights = [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]
        self.parameters = weights + learned
        self.steps = 0
        self.learn: Pass = self._learn
        self.judge: Pass = self._judge
        self.read: Reader | None = None
        if self.recording:
            self._record_passes()
        self.optimizer = self._optimizer()

    def _record_passes(self) -> None:
        self.learn, self.judge = Replays(self._learn), Replays(self._judge)
        if self.params.backbone.packs:
            self.read = GraphedReader(self.backbone, self.recipe.precision, self.device)
        # A recorded pass adds to the gradients that it was recorded with, so they must exist and stay.
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)

    def _optimizer(self) -> AdamW:
        """AdamW on all that is trained; only what the backbone says decays."""
        decayed = [parameter for parameter in self.backbone.decayed() if parameter.requires_grad]
        known = {id(parameter) for parameter in decayed}
        others = [parameter for parameter in self.parameters if id(parameter) not in known]
        return AdamW([(decayed, self.recipe.weight_decay), (others, 0.0)], self.recipe.lr)

    @property
    def epoch_examples(self) -> int:
        """Number of examples per epoch."""
        return min(self.sampler.examples, self.recipe.examples_per_epoch or self.sampler.examples)

    def fit(self, checkpoint: Path, fingerprint: str, on_epoch: Callable[[Row], None] = lambda row: None) -> Trained:
        """Train until the epochs or the patience run out.

        Args:
            checkpoint: file to resume from, and to write after each epoch.
            fingerprint: identifies parameters, inputs and code; a checkpoint with another one is ignored.
            on_epoch: called with every row of the history, those of the checkpoint included.

        Raises:
            UserError: when the checkpoint is damaged, or processes disagree or fail.
            Diverged: when the loss is not finite.
        """
        history: list[Row] = []
        best = Best()
        saved = load_checkpoint(checkpoint, fingerprint)
        if saved is not None:
            try:
                history, best = self._restore(saved)
            except (LookupError, TypeError, ValueError, RuntimeError) as error:
                raise UserError(
                    f"{checkpoint}: was written for this run by an incompatible version of apao ({error}); "
                    "delete it to train this run from the start"
                ) from error
        first = len(history)
        if {(fingerprint, first)} != set(self.processes.gather((fingerprint, first))):
            raise UserError(
                f"{self.run}: its processes see different parameters, inputs or checkpoints; start all of them in the "
                "same folder, which must be a shared one on several machines"
            )
        for row in history:
            on_epoch(row)
        with progress(self.run, self.recipe.epochs * self.epoch_examples, first * self.epoch_examples) as advance:
            for epoch in range(first, self.recipe.epochs):
                if epoch - best.epoch >= self.recipe.patience:
                    break
                row = self._train_epoch(epoch, advance)
                row |= {f"valid_{name}": value for name, value in self.validate(epoch).items()}
                if row["valid_loss"] < best.loss:
                    weights = {name: value.detach().clone() for name, value in self.backbone.learned_state().items()}
                    best = Best(row["valid_loss"], epoch + 1, weights)
                row["best"] = float(best.epoch == epoch + 1)
                history.append(row)
                if self.processes.is_first:
                    save_checkpoint(checkpoint, self._snapshot(history, best), fingerprint)
                on_epoch(row)
        return Trained(best.weights, history, best.epoch)

    def _train_epoch(self, epoch: int, advance: Callable[..., None]) -> Row:
        started = time.perf_counter()
        self.backbone.train()
        wanted = self.epoch_examples
        sums = Sums(self.processes)
        seen, rate = 0, 0.0
        batches: Iterable[EffectiveBatch[Batch] | EffectiveBatch[PackedBatch]] = self.sampler.epoch(
            wanted, self.recipe.batch_size, self.generator
        )
        for step, batch in enumerate(batches, start=1):
            # The learning rate at the middle of the step, so that neither the first nor the last step has 0.
            done = (epoch + (seen + batch.examples / 2) / wanted) / self.recipe.epochs
            rate = self.recipe.lr * learning_rate(min(done, 1.0), self.recipe.warmup)
            self.optimizer.lr = rate
            self.step(batch, sums)
            seen += batch.examples
            shown = ""
            if step % STEPS_BETWEEN_CHECKS == 0:
                means = sums.means(f"{self.run}, epoch {epoch + 1}, step {step}")
                shown = " ".join(f"{name} {means[name]:.4f}" for name in ("loss", "ce", "prefix") if name in means)
            advance(batch.examples, shown)
        means = sums.means(f"{self.run}, epoch {epoch + 1}, step {step}")
        return {
            "epoch": epoch + 1,
            "steps": step,
            "seconds": round(time.perf_counter() - started, 3),
            "examples": seen,
            "lr": rate,
            **{f"train_{name}": value for name, value in means.items()},
        }

    def step(self, batch: EffectiveBatch[Batch] | EffectiveBatch[PackedBatch], sums: Sums) -> None:
        """One optimizer step on the mean loss of the batch's examples. The processes share the micro-batches."""
        self.optimizer.zero_grad(set_to_none=not self.recording)
        # Learned state is updated by AdamW; all other state becomes its example-weighted mean over the micro-batches.
        buffers = {name: value for name, value in self.state.items() if not isinstance(value, nn.Parameter)}
        mean_buffers = {name: torch.zeros_like(value) for name, value in buffers.items()}
        micro_batches: Iterator[tuple[int, Batch | PackedBatch]] = self.processes.share(enumerate(batch.parts))
        with products(self.recipe.precision, self.device):
            for index, micro_batch in micro_batches:
                # Seeded per micro-batch: dropout masks do not depend on which process computes it.
                torch.manual_seed(stream_seed(self.params.seed, self.steps, index))
                outcome = self.learn(micro_batch, self.state, batch.examples)
                for name in mean_buffers:
                    mean_buffers[name] += len(micro_batch) / batch.examples * outcome.state[name]
                sums.add(outcome, len(micro_batch))
        self.processes.add_up(self.parameters, mean_buffers.values())
        self.state = {**self.state, **mean_buffers}
        nn.utils.clip_grad_norm_(self.parameters, self.recipe.grad_clip)
        self.optimizer.step()
        self.steps += 1

    def _learn(self, batch: Batch | PackedBatch, state: State, step_examples: int | None) -> Outcome:
        """Add the gradient of the batch's share in the step's mean loss."""
        assert step_examples is not None
        outcome = self._outcome(batch, state, step_examples)
        (len(batch) / step_examples * outcome.loss).backward()
        return outcome._replace(loss=outcome.loss.detach())

    @torch.no_grad()
    def _judge(self, batch: Batch | PackedBatch, state: State, step_examples: int | None) -> Outcome:
        return self._outcome(batch, state, step_examples)

    def _outcome(self, batch: Batch | PackedBatch, state: State, step_examples: int | None) -> Outcome:
        with autocast(self.recipe.precision, self.device):
            eos = self.objective.trains_eos
            scores = score_batch(self.backbone, batch, eos, self.statistics, step_examples, self.read)
            if self.reference is not None:
                with torch.no_grad():
                    reference = score_batch(self.reference, batch, False, self.statistics)
                scores = replace(scores, reference=reference)
        return self.objective(scores, state)

    @torch.no_grad()
    def validate(self, epoch: int) -> Row:
        """Mean loss and terms over the validation items, with the same negatives in every epoch."""
        self.backbone.eval()
        users, positions = self.valid_users, self.valid_positions
        if self.recipe.selection == "release" and self.objective.release_selects_on_last_batch:
            last = (len(users) - 1) // RELEASE_BATCH * RELEASE_BATCH
            users, positions = users[last:], positions[last:]
        sums = Sums(self.processes)
        parts = self.validation.parts(users, positions, torch.Generator().manual_seed(self.params.seed))
        with products(self.recipe.precision, self.device):
            for batch in self.processes.share(parts):
                sums.add(self.judge(batch, self.state, None), len(batch))
        return sums.means(f"{self.run}, validation after epoch {epoch + 1}")

    def _snapshot(self, history: list[Row], best: Best) -> Checkpoint:
        return Checkpoint(
            tensors={
                "model": self.backbone.learned_state(),
                "best": best.weights,
                "optimizer": self.optimizer.tensors(),
                "objective": dict(self.state),
                "random": {"sampler": self.generator.get_state()},
            },
            progress={"history": history, "best_loss": best.loss, "best_epoch": best.epoch},
        )

    def _restore(self, saved: Checkpoint) -> tuple[list[Row], Best]:
        """Load a snapshot; returns the history and the best epoch so far."""
        self.backbone.load_learned_state(saved.tensors["model"])
        self.optimizer.restore(saved.tensors["optimizer"])
        self.state = self._restored_state(saved.tensors.get("objective", {}))
        self.generator.set_state(saved.tensors["random"]["sampler"])
        weights = {name: value.to(self.device) for name, value in saved.tensors["best"].items()}
        progress_made = saved.progress
        self.steps = sum(row["steps"] for row in progress_made["history"])
        return progress_made["history"], Best(progress_made["best_loss"], progress_made["best_epoch"], weights)

    def _restored_state(self, saved: Mapping[str, Tensor]) -> State:
        state = dict(self.state)
        for name, value in saved.items():
            known = state[name]
            if isinstance(known, nn.Parameter):
                # In place, because the optimizer refers to this tensor.
                known.data.copy_(value)
            else:
                state[name] = value.to(self.device)
        return state
