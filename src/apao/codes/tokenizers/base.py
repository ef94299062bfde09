"""The contract of a tokenizer.

Shapes: I items, T levels, D width.

A tokenizer is one entry under ``codes`` in params.yaml: its hyper-parameters (a parameter model) and ``fit``, which
assigns a code to every item. Class attributes declare its inputs; stages and engines derive the files from them.
Items that share a code are handled in a second step, the same for all tokenizers (``codes.collisions``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from apao.codes.coding import Coding, FloatMatrix, Matrix, nearest_codes
from apao.codes.collisions import CollisionPolicy
from apao.data.histories import IntArray
from apao.errors import UserError
from apao.parameters import Model, Registry

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """Inputs of a tokenizer. ``vectors`` and ``codes_file`` are None unless its class declares that it reads them.

    Attributes:
        raw_ids: (I,) the dataset's own item ids, in item order.
        items_file: the table of these ids, for error messages.
        folder: folder for the state from which an interrupted fit resumes. It is specific to these inputs and
            parameters, is created by the tokenizer if it needs it, and is removed after the codes are written.
        device: device to compute on; a GPU only if the tokenizer declares ``uses_gpu``.
        vectors: (I, D) item embeddings.
        codes_file: path of the codes that the source publishes.
    """

    raw_ids: Sequence[str]
    items_file: Path
    folder: Path
    device: torch.device
    vectors: Matrix | None = None
    codes_file: Path | None = None

    @property
    def embeddings(self) -> Matrix:
        """Item embeddings (I, D), for a class with ``reads_embeddings``; raises ValueError otherwise."""
        return _declared(self.vectors, "reads_embeddings")

    @property
    def published(self) -> Path:
        """Path of the source's published codes, for a class with ``reads_published``; raises ValueError otherwise."""
        return _declared(self.codes_file, "reads_published")


def _declared(value: T | None, fact: str) -> T:
    if value is None:
        raise ValueError(f"the tokenizer's class must declare {fact} = True")
    return value


class Tokenizer(Model, ABC):
    """Hyper-parameters of a method that assigns codes to items.

    A tokenizer without codebooks must exclude ``reassign`` from the values of ``collisions``.
    """

    method: str
    embedder: str | None = None
    """Entry under ``embedders``, for objectives that need the items' embeddings as well as the codes."""
    collisions: CollisionPolicy = "keep"
    """Collision policy: what to do about items that share a code."""

    reads_embeddings: ClassVar[bool] = False
    """Whether ``fit`` reads the items' embeddings; ``embedder`` is then a required key."""
    reads_published: ClassVar[bool] = False
    """Whether ``fit`` reads the source's published codes; the dataset's source must publish some."""
    uses_gpu: ClassVar[bool] = False
    """Whether ``fit`` uses a GPU if there is one."""
    enlarged_by: ClassVar[str | None] = None
    """Key whose increase gives more codes, if there is one."""

    def own_files(self) -> tuple[Path, ...]:
        """The user's own files that ``fit`` reads; the codes are built again when they change."""
        return ()

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """Maximum number of tokens per level before the collision policy; None if unknown before fitting."""
        return None

    @property
    def depth(self) -> int | None:
        """Number of levels of the final codes; None if unknown before fitting."""
        return None if self.sizes is None else len(self.sizes) + (self.collisions == "extra")

    @property
    def capacity(self) -> int | None:
        """Maximum number of distinct codes; None if unknown before fitting."""
        return None if self.sizes is None or self.collisions == "extra" else prod(self.sizes)

    @abstractmethod
    def fit(self, inputs: Inputs) -> Coding:
        """Assign a code to every item; deterministic given the inputs and parameters (including the seed).

        Raises:
            UserError: when a file of codes has no code for an item.
        """

    def encoded(self, embeddings: Matrix, encoder: Mapping[str, NDArray[np.float32]]) -> Matrix:
        """Vectors (I, d) that the codebooks approximate, of any items' ``embeddings`` (I, D).

        They are the embeddings, unless the tokenizer has learned an ``encoder`` (that of its ``Coding``).
        """
        return embeddings

    def code_new(self, inputs: Inputs, codebooks: Sequence[FloatMatrix]) -> IntArray:
        """Assign codes (I, T) to items that ``fit`` did not have, before the collision policy.

        ``codebooks`` are those of the dataset's codes, and ``inputs.vectors`` what they approximate (of ``encoded``, if
        the tokenizer reads embeddings). Each level takes the nearest row of its codebook.

        Raises:
            UserError: when there are no codebooks, or a file of codes has no code for an item.
        """
        if codebooks:
            return nearest_codes(inputs.embeddings, codebooks)
        raise UserError(
            f"codes by {self.method!r} cannot be given to new items; use a tokenizer with codebooks (rq-kmeans), or "
            "make codes for them where the others were made and add both with method file"
        )


class LevelledTokenizer(Tokenizer, ABC):
    """A tokenizer whose levels have the same number of tokens."""

    levels: Annotated[int, Field(ge=1, le=25)] = 4
    """Number of levels: tokens per code."""
    clusters: Annotated[int, Field(ge=1, le=65536)] = 256
    """Number of tokens of each level; fewer where a level has fewer distinct values to tell apart."""

    enlarged_by = "clusters"

    @property
    @override
    def sizes(self) -> tuple[int, ...]:
        return (self.clusters,) * self.levels


TOKENIZERS: Registry[Tokenizer] = Registry("tokenizer", "apao.codes.tokenizers", tag="method")
