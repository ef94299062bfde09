"""Parameters of the item embeddings: the entries under ``embedders`` in params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, PositiveInt, Tag, model_validator

from apao.codes.given import checked_suffix
from apao.parameters import Model

VECTOR_FILES = (".npy", ".parquet", ".safetensors")
ID_FILES = (".txt", ".json", ".npy")


class EmbedderParams(Model):
    """A text encoder, loaded with sentence-transformers."""

    model: str | None = None
    """Hub name or local folder of the model."""
    package: str | None = None
    """PyPI package that contains the model's files."""
    pooling: Literal["model", "mean"] = "model"
    """``model``: as configured in the model's files; ``mean``: mean of the last hidden states."""
    max_tokens: PositiveInt = 256
    """Longer texts are truncated; the model's own limit applies if it is lower."""
    batch_size: PositiveInt = 64
    """Texts encoded at once."""
    shard_items: PositiveInt = 4096
    """Texts per shard, the unit from which an interrupted ``embed`` resumes."""
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
        """The user's own files that the embeddings depend on: those of a model in a local folder."""
        folder = self.folder
        return () if folder is None else tuple(sorted(path for path in folder.rglob("*") if path.is_file()))

    @property
    def folder(self) -> Path | None:
        """The local folder that ``model`` names; None if it is a name of the hub."""
        folder = None if self.model is None else Path(self.model).expanduser()
        return folder if folder is not None and folder.is_dir() else None


class VectorFile(Model):
    """Precomputed vectors of the items, joined by the dataset's raw item ids."""

    file: Path
    """``.npy`` of shape (items, width); ``.parquet`` with a column of item ids and either one column of lists or
    float columns; ``.safetensors`` with one matrix."""
    ids: Path | None = None
    """Item ids of the rows, in order: ``.txt`` with one per line, ``.json`` with a list, or ``.npy`` of strings or
    whole numbers. Required for ``.npy``, and for ``.safetensors`` without a JSON list ``ids`` in its metadata."""
    item: str = "item"
    """Name of the column of item ids in a parquet file."""

    @model_validator(mode="after")
    def _readable(self) -> VectorFile:
        checked_suffix(self.file, VECTOR_FILES)
        if self.ids is not None:
            checked_suffix(self.ids, ID_FILES)
        if (self.ids is None) and self.file.suffix == ".npy":
            raise ValueError(f"a .npy file has no item ids; name a file of ids in the key ids ({', '.join(ID_FILES)})")
        if (self.ids is not None) and self.file.suffix == ".parquet":
            raise ValueError("a parquet file has its ids in a column; remove the key ids and name the column in item")
        return self

    def own_files(self) -> tuple[Path, ...]:
        """The user's own files that the embeddings depend on."""
        return tuple(path.expanduser() for path in (self.file, self.ids) if path is not None)


def _kind_of_embedder(entry: Any) -> str:
    return "[file]" if isinstance(entry, VectorFile) or (isinstance(entry, dict) and "file" in entry) else "[encoder]"


AnyEmbedder = Annotated[
    Annotated[EmbedderParams, Tag("[encoder]")] | Annotated[VectorFile, Tag("[file]")],
    Discriminator(_kind_of_embedder),
]
"""Either kind, distinguished by the key ``file``."""
