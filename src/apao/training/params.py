"""Parameters of training and decoding."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from apao.registry import Model
from apao.runs import MAX_SEED


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
    grad_clip: PositiveFloat = 1.0
    batch_size: PositiveInt = 1024
    """Examples an optimizer step."""
    micro_batch_tokens: PositiveInt = 16_384
    """Padded history and candidate tokens computed at once; bounds memory. APAO's weights and
    BEAR's normalisation are those of the examples computed together, so that they (and nothing else) depend
    on it, as on the release's batch."""
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

    beam: PositiveInt = 20
    eos: bool | None = None
    """Decode eos after the code and divide scores by T + 1; null: as the release, yes for tiger."""
    batch_users: PositiveInt = 128
    """Users decoded at once."""


Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]
