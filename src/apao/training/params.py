"""Parameters of a training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from apao.backbones.base import BackboneParams
from apao.objectives.base import Objective
from apao.parameters import Model, Seed


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
    """Examples per optimizer step."""
    micro_batch_tokens: Literal["auto"] | PositiveInt = "auto"
    """Padded history and candidate tokens computed at once; bounds memory. ``auto``: 4,096 on a CPU, whose caches
    hold that, and 65,536 on a GPU. APAO's weights and BEAR's normalisation are those of the examples computed
    together, so that they (and nothing else) depend on it, as on the release's batch."""
    examples_per_epoch: PositiveInt | None = None
    """Train on a fresh random sample of so many examples per epoch; null: on all."""
    selection: Literal["mean", "release"] = "mean"
    """Best epoch by the mean validation loss; ``release``: as the authors' trainer does for APAO, by
    the last validation batch alone."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 autocast where the device has fast bf16 products, else fp32. Weights are fp32."""
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    """CPU threads of one training; part of the recipe since they decide the last digits."""


class Setup(Model):
    """Everything that decides a training but the data."""

    backbone: BackboneParams
    objective: Objective
    training: TrainingParams = TrainingParams()
    seed: Seed = 42
