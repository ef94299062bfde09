"""RQ-VAE, the tokenizer of TIGER: residual codes of a latent that an autoencoder learns together with them.

Shapes: I items, T levels, D width, d latent width, k_l codes of level l.

Trained in float32, on the CPU by one thread: sums whose order depends on the number of threads are rounded
differently, which a long training turns into other codes. The codes are computed at the end in float64 from the trained
weights, with each distinct embedding encoded once, so that equal ones have equal codes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from typing_extensions import override

from apao.checkpoint import Checkpoint, Tensors, load_checkpoint, save_checkpoint
from apao.codes.autoencoder import Autoencoder, quantise
from apao.codes.coding import Coding, FloatMatrix, Matrix, nearest_codes
from apao.codes.collisions import CollisionPolicy
from apao.codes.tokenizers.base import TOKENIZERS, Inputs, LevelledTokenizer
from apao.codes.tokenizers.rqkmeans import residual_kmeans
from apao.data.histories import IntArray
from apao.errors import UserError
from apao.parameters import Seed
from apao.progress import progress

SECONDS_BETWEEN_SAVES = 15.0
FORMAT = "rq-vae 1"
"""Fingerprint of the saved state, whose folder is already specific to inputs and parameters."""


@TOKENIZERS.register
class ResidualVAE(LevelledTokenizer):
    """Residual quantisation in the latent space of an autoencoder of the items' embeddings (RQ-VAE, TIGER)."""

    method: Literal["rq-vae"]
    embedder: str
    """Name of an entry under ``embedders``."""
    levels: Annotated[int, Field(ge=1, le=25)] = 3
    """Number of levels: tokens per code."""
    collisions: CollisionPolicy = "extra"
    """Policy for items that share a code: ``keep`` the codes, add an ``extra`` level that numbers the items (as in
    TIGER), or ``reassign`` them to the nearest free token of the last level."""
    hidden: Annotated[tuple[PositiveInt, ...], Field(max_length=16)] = (512, 256, 128)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    latent: PositiveInt = 32
    """Width of the latents and of the codebooks."""
    beta: NonNegativeFloat = 0.25
    """Weight of the commitment loss."""
    epochs: PositiveInt = 20_000
    """Passes over the items."""
    batch_size: PositiveInt = 1024
    """Items per step."""
    lr: PositiveFloat = 1e-3
    """Learning rate of Adam. (TIGER has Adagrad with 0.4.)"""
    restart: bool = True
    """Whether a code that no item had in a whole epoch is set to the residual of a random item."""
    seed: Seed = 42
    """Seed of the weights, the k-means start, the order of the items and the restarts."""

    reads_embeddings = True
    uses_gpu = True

    @override
    def fit(self, inputs: Inputs) -> Coding:
        with _one_thread():
            training = _Training(self, inputs)
            training.run()
            model = training.model.cpu()
        encoder = {name: value.numpy() for name, value in model.encoder.state_dict().items()}
        vectors = self.encoded(inputs.embeddings, encoder)
        codebooks = [book.detach().double().numpy() for book in model.codebooks]
        codes = nearest_codes(vectors, codebooks)
        sizes = [len(book) for book in codebooks]
        # Without the rows that no item has: new items could get one of them, which no model was trained with.
        for level, book in enumerate(codebooks):
            used, codes[:, level] = np.unique(codes[:, level], return_inverse=True)
            codebooks[level] = book[used]
        unused = [size - len(book) for size, book in zip(sizes, codebooks, strict=True)]
        facts: dict[str, Any] = {
            "epochs": self.epochs,
            "codebook_sizes": sizes,
            "codes_unused": unused,
            "codes_restarted": training.restarted,
            **self._decoded(model, inputs.embeddings, codes, codebooks),
        }
        share = " / ".join(f"{len(book):,} of {size:,}" for book, size in zip(codebooks, sizes, strict=True))
        note = (
            f"RQ-VAE: codes in use per level {share}; {sum(training.restarted):,} restarts of dead codes in "
            f"{self.epochs:,} epochs; relative reconstruction error of the embeddings "
            f"{facts['relative_decoding_error']:.3f}"
        )
        return Coding(codes, codebooks, vectors, {"rq_vae": facts}, (note,), encoder)

    @override
    def encoded(self, embeddings: Matrix, encoder: Mapping[str, NDArray[np.float32]]) -> Matrix:
        with _one_thread():
            model = Autoencoder(embeddings.shape[1], self.hidden, self.latent)
            try:
                model.encoder.load_state_dict({name: torch.from_numpy(value) for name, value in encoder.items()})
            except RuntimeError as error:
                raise UserError(
                    "the encoder saved with the codebooks does not fit the embeddings and the parameters of rq-vae; "
                    "run `apao codes` again"
                ) from error
            distinct, index = np.unique(embeddings, axis=0, return_inverse=True)
            with torch.no_grad():
                latents: FloatMatrix = model.encoder.double()(torch.from_numpy(distinct).double()).numpy()
        return latents[index.reshape(-1)]

    @staticmethod
    def _decoded(
        model: Autoencoder, embeddings: Matrix, codes: IntArray, codebooks: Sequence[FloatMatrix]
    ) -> dict[str, float]:
        """Mean squared error of the embeddings decoded from the codes, and relative to that of their mean."""
        rows = np.sum([book[codes[:, level]] for level, book in enumerate(codebooks)], axis=0)
        with _one_thread(), torch.no_grad():
            decoded = model.decoder.double()(torch.from_numpy(rows)).numpy()
        error, spread = (
            float(np.square(embeddings - other).sum(axis=1).mean())
            for other in (decoded, embeddings.mean(axis=0, dtype=np.float64))
        )
        return {"reconstruction_loss": error, "relative_decoding_error": error / spread if spread else 0.0}


class _Training:
    """Training of the autoencoder. ``run`` resumes from the state in the tokenizer's folder, if there is one."""

    def __init__(self, params: ResidualVAE, inputs: Inputs) -> None:
        self.params, self.file = params, inputs.folder / "rq-vae.safetensors"
        self.rows = torch.from_numpy(inputs.embeddings.astype(np.float32)).to(inputs.device)
        saved = load_checkpoint(self.file, FORMAT)
        self.epoch: int = saved.progress["epoch"] if saved else 0
        weights = saved.tensors["model"] if saved else self._start()
        books = [weights[f"codebooks.{level}"] for level in range(params.levels)]
        self.restarted: list[int] = saved.progress["restarted"] if saved else [0] * params.levels
        self.model = Autoencoder(self.rows.shape[1], params.hidden, params.latent, books)
        self.model.load_state_dict(weights)
        self.model.to(inputs.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=params.lr)
        if saved:
            _restore(self.optimizer, saved.tensors["optimizer"])

    def _start(self) -> dict[str, Tensor]:
        """Random weights, and codebooks by residual K-means of their latents."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.params.seed)
            model = Autoencoder(self.rows.shape[1], self.params.hidden, self.params.latent)
        with torch.no_grad():
            latents = model.encoder(self.rows.cpu()).numpy()
        start = residual_kmeans(latents, self.params.levels, self.params.clusters, seed=self.params.seed)
        books = {f"codebooks.{level}": torch.from_numpy(book).float() for level, book in enumerate(start.codebooks)}
        return {**model.state_dict(), **books}

    def run(self) -> None:
        """Train for the epochs that are left."""
        last = time.monotonic()
        with progress("RQ-VAE epochs", total=self.params.epochs, done=self.epoch) as advance:
            while self.epoch < self.params.epochs:
                loss = self._one_epoch()
                self.epoch += 1
                if time.monotonic() - last >= SECONDS_BETWEEN_SAVES or self.epoch == self.params.epochs:
                    self._save()
                    last = time.monotonic()
                advance(1, f"reconstruction loss {loss:.4g}")

    def _one_epoch(self) -> float:
        """One pass, then restarts; returns the mean reconstruction loss. Random numbers depend on seed and epoch."""
        rng = np.random.default_rng([self.params.seed, self.epoch])
        order = torch.from_numpy(rng.permutation(len(self.rows))).to(self.rows.device)
        counts = [torch.zeros(len(book), device=self.rows.device) for book in self.model.codebooks]
        total = torch.zeros((), device=self.rows.device)
        for batch in order.split(self.params.batch_size):
            self.optimizer.zero_grad(set_to_none=True)
            losses, found = self.model(self.rows[batch], self.params.beta)
            losses.total.backward()
            self.optimizer.step()
            total += losses.reconstruction * len(batch)
            for level, count in enumerate(counts):
                count.add_(torch.bincount(found.codes[:, level], minlength=len(count)))
        loss = float(total) / len(self.rows)
        if not np.isfinite(loss):
            raise UserError(f"rq-vae: the reconstruction loss is {loss} in epoch {self.epoch + 1}; lower lr")
        if self.params.restart:
            dead = [count.cpu().numpy() == 0 for count in counts]
            self._restart(dead, self.rows[order[: self.params.batch_size]], rng)
        return loss

    @torch.no_grad()
    def _restart(self, dead: Sequence[NDArray[np.bool_]], rows: Tensor, rng: np.random.Generator) -> None:
        """Set dead codes to residuals of random ``rows`` at their level, as if they had never been trained."""
        if not any(level.any() for level in dead):
            return
        for level, numbers in enumerate(map(np.flatnonzero, dead)):
            if not len(numbers):
                continue
            # Quantised again for each level, because restarts change the residuals of the levels after them.
            residuals = quantise(self.model.encoder(rows), self.model.codebooks).residuals[:, level]
            few = min(len(numbers), len(rows))
            chosen, book = rng.permutation(len(rows))[:few], self.model.codebooks[level]
            book[numbers[:few]] = residuals[chosen]
            state = self.optimizer.state[book]
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment][numbers[:few]] = 0.0
            self.restarted[level] += few

    def _save(self) -> None:
        tensors = {"model": dict(self.model.state_dict()), "optimizer": _moments(self.optimizer)}
        save_checkpoint(self.file, Checkpoint(tensors, {"epoch": self.epoch, "restarted": self.restarted}), FORMAT)


def _moments(optimizer: torch.optim.Adam) -> Tensors:
    """State of the optimizer by parameter number and name, such as ``3.exp_avg``."""
    return {
        f"{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
    }


def _restore(optimizer: torch.optim.Adam, moments: Tensors) -> None:
    state: dict[int, Tensors] = {}
    for key, value in moments.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
