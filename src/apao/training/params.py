"""Parameters of training and decoding."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator

from apao.errors import UserError
from apao.registry import Model
from apao.runs import MAX_SEED

CUTOFFS = (5, 10, 20)
"""k of Recall@k and NDCG@k."""


class TrainingParams(Model):
    """How a run is trained; defaults are the paper's recipe."""

    epochs: PositiveInt = 200
    """The cosine schedule spans all of them, also when training stops early."""
    patience: PositiveInt = 20
    """Stop after this many epochs without a better validation loss."""
    lr: PositiveFloat = 5e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of all steps in which the learning rate rises from 0."""
    weight_decay: NonNegativeFloat = 0.01
    grad_clip: PositiveFloat = 0.125
    """Largest norm of the mean gradient of a batch. The release clips the sum of 8 micro-batches' at 1.0."""
    batch_size: PositiveInt = 1024
    """Examples an optimizer step."""
    micro_batch_tokens: Literal["auto"] | PositiveInt = "auto"
    """Padded history and candidate tokens computed at once; bounds memory. ``auto``: 4,096 on a CPU, whose caches
    hold that, and 65,536 on a GPU. APAO's weights and BEAR's normalisation are those of the examples computed
    together, so that they (and nothing else) depend on it, as on the release's batch."""
    examples_per_epoch: PositiveInt | None = None
    """Train on a fresh random sample of so many examples an epoch; null: on all."""
    selection: Literal["mean", "release"] = "mean"
    """Best epoch by the mean validation loss; ``release``: as the authors' trainer does for APAO, by
    the last validation batch alone."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 autocast where the device has fast bf16 products, else fp32. Weights are fp32."""
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    """CPU threads of one training; part of the recipe since they decide the last digits."""


class DecodingParams(Model):
    """Beam search at evaluation."""

    beam: Annotated[int, Field(ge=max(CUTOFFS))] | Literal["all"] = 20
    """Number of beams: at least the largest cutoff of the metrics and at most the number of distinct codes.
    ``all``: as many as there are codes, which ranks the whole catalogue; the only choice for one with fewer
    codes than the largest cutoff."""
    eos: bool | Literal["release"] | None = None
    """Decode eos after the code and divide scores by T + 1. null: for tiger, where the objective trains eos;
    ``release``: for tiger, even where no loss has trained it; true, false: for every backbone."""
    batch_users: PositiveInt = 128
    """Users decoded at once."""

    @field_validator("beam", mode="before")
    @classmethod
    def _enough_for_every_cutoff(cls, beam: object) -> object:
        if beam == "all" or (type(beam) is int and beam >= max(CUTOFFS)):
            return beam
        raise ValueError(
            f"expected a whole number of at least {max(CUTOFFS)}, which recall@{max(CUTOFFS)} needs, or all (as many "
            f"beams as the catalogue has codes, for one that has fewer), found {beam!r}"
        )

    def width(self, codes: int) -> int:
        """Number of beams in a catalogue of ``codes`` distinct codes.

        Raises:
            UserError: when ``beam`` is larger than ``codes``.
        """
        if self.beam == "all":
            return codes
        if self.beam > codes:
            raise UserError(
                f"decoding.beam {self.beam} is more than the catalogue's {codes} distinct codes; in params.yaml set "
                "decoding.beam to all in the dataset's recipe, or in a recipe of its own: every code is ranked then"
            )
        return self.beam


Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
