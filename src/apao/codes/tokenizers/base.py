"""The contract every tokenizer keeps.

Shapes: I items, T levels, D width.

A tokenizer is one entry under ``codes`` in params.yaml: its hyper-parameters (a parameter model) and ``fit``,
which gives every item a code. What it reads it declares as facts of its class; stages and engines derive the
files from them. What happens to items that share a code is a second step, the same for all tokenizers
(``codes.collisions``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeVar

from apao.codes.coding import Coding
from apao.codes.collisions import CollisionPolicy
from apao.codes.embeddings import Vectors
from apao.parameters import Model, Registry

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Inputs:
    """What a tokenizer works with; of the last two only what its class declares is there.

    Attributes:
        raw_ids: (I,) the dataset's own ids of the items, in the order of the items.
        items_file: the table that holds them, for errors to name.
        folder: where a fit may leave what it resumes from when it was interrupted. It belongs to these inputs
            and parameters alone, is made by the tokenizer that uses it, and is removed once the codes are written.
        device: where to compute; a GPU only for a tokenizer that declares ``uses_gpu``.
        vectors: the items' embeddings.
        codes_file: the codes that the source publishes.
    """

    raw_ids: Sequence[str]
    items_file: Path
    folder: Path
    device: torch.device
    vectors: Vectors | None = None
    codes_file: Path | None = None

    @property
    def embeddings(self) -> Vectors:
        """(I, D) of the items, for a class with ``reads_embeddings``."""
        return _declared(self.vectors, "reads_embeddings")

    @property
    def published(self) -> Path:
        """The file of codes that the source publishes, for a class with ``reads_published``."""
        return _declared(self.codes_file, "reads_published")


def _declared(value: T | None, fact: str) -> T:
    if value is None:
        raise ValueError(f"the tokenizer's class must declare {fact} = True")
    return value


class Tokenizer(Model, ABC):
    """Hyper-parameters of one way to give items codes.

    A tokenizer whose coding has no codebooks leaves ``reassign`` out of the values of ``collisions``.
    """

    method: str
    embedder: str | None = None
    """Entry under ``embedders`` for objectives that need the items' embeddings beside the codes."""
    collisions: CollisionPolicy = "keep"
    """What happens to items that share a code."""

    reads_embeddings: ClassVar[bool] = False
    """Whether ``fit`` reads the items' embeddings; ``embedder`` is then a required key."""
    reads_published: ClassVar[bool] = False
    """Whether ``fit`` reads the codes that the source publishes; only datasets whose source does can use it."""
    uses_gpu: ClassVar[bool] = False
    """Whether ``fit`` computes on a GPU where there is one."""
    enlarged_by: ClassVar[str | None] = None
    """Key that, raised, makes more codes; None where there is none."""

    def own_files(self) -> tuple[Path, ...]:
        """Files of the user that ``fit`` reads: when they change, so do the codes."""
        return ()

    @property
    def sizes(self) -> tuple[int, ...] | None:
        """Most codes that each level can have before the collision policy; None where only fitting tells."""
        return None

    @property
    def depth(self) -> int | None:
        """Levels of the final codes; None where only fitting tells."""
        return None if self.sizes is None else len(self.sizes) + (self.collisions == "extra")

    @property
    def capacity(self) -> int | None:
        """Most distinct codes there can be; None where only fitting tells."""
        return None if self.sizes is None or self.collisions == "extra" else prod(self.sizes)

    @abstractmethod
    def fit(self, inputs: Inputs) -> Coding:
        """A code for every item; the same for the same inputs and parameters, its seed among them.

        Raises:
            UserError: when a file of the user or the source does not hold a code for every item.
        """


TOKENIZERS: Registry[Tokenizer] = Registry("tokenizer", "apao.codes.tokenizers", tag="method")
