"""Parameters of a training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from apao.backbones.base import BackboneParams
from apao.objectives.base import Objective
from apao.parameters import Model, Seed


class TrainingParams(Model):
    """How a run is trained. Defaults are the paper's recipe."""

    epochs: PositiveInt = 200
    """Maximum number of epochs. The cosine schedule spans all of them, even if training stops early."""
    patience: PositiveInt = 20
    """Stop after this many epochs without a better validation loss."""
    lr: PositiveFloat = 5e-4
    """Peak learning rate, of AdamW."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of all steps in which the learning rate rises from 0."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of matrices and embeddings."""
    grad_clip: PositiveFloat = 0.125
    """Maximum norm of a batch's mean gradient. The release clips the summed gradient of 8 micro-batches at 1.0."""
    batch_size: PositiveInt = 1024
    """Examples per optimizer step."""
    micro_batch_tokens: Literal["auto"] | PositiveInt = "auto"
    """Maximum number of padded history and candidate tokens per micro-batch, which bounds memory. ``auto``: 2,048 on
    a CPU, which fits its caches, and 262,144 on a GPU, where it has at most 256 examples unless they are packed.
    APAO's weights and BEAR's normalisation are computed per micro-batch, so they depend on it, as they depend on the
    batch size of the release. So does which dropout masks and which negatives of packed examples are drawn."""
    examples_per_epoch: PositiveInt | None = None
    """Number of examples in the random sample that is drawn for each epoch; null: all examples."""
    selection: Literal["mean", "release"] = "mean"
    """How the best epoch is chosen. ``mean``: by the mean validation loss; ``release``: by the last validation batch
    alone, as the authors' trainer does for APAO."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 autocast on devices with fast bf16 matrix products, else fp32. Weights are always fp32."""
    threads: Annotated[int, Field(ge=1, le=4096)] = 1
    """CPU threads of one training; part of the recipe because they affect the last digits."""


class Setup(Model):
    """All parameters of a training."""

    backbone: BackboneParams
    objective: Objective
    training: TrainingParams = TrainingParams()
    seed: Seed = 42
