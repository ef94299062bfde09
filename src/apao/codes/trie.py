"""The catalogue's prefix tree as tensors.

Shapes: V vocabulary, E edges (prefixes of every length except the root), U distinct codes, T levels, ``...`` any.

A state is a prefix, numbered breadth first: the root is 0, then all prefixes of length 1 in lexicographic order of
their tokens, then those of length 2, and so on. Edge e leads to state e + 1, so the children of a state are one run
of consecutive edges (compressed sparse rows).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor

from apao.codes.itemcodes import ItemCodes


@dataclass(frozen=True, eq=False)
class Trie:
    """Legal continuations of every prefix.

    Attributes:
        indptr: (states + 1,) first edge of each state's children.
        tokens: (E,) the token on each edge, ascending within a state.
        vocabulary: V.
        prefix_counts: number of distinct prefixes of length 1 .. T.
        widths: largest number of children of a prefix of length 0 .. T - 1. These bounds fix all tensor shapes of
            decoding, so it never synchronises with the device to find the number of children.
        prefixes: (U, T) state of each prefix of the distinct codes, rows as in ``ItemCodes.distinct``.
        allowed: (states,) bool, the prefixes that a search may reach; None: all. ``prefix_counts`` counts these.
    """

    indptr: Tensor
    tokens: Tensor
    vocabulary: int
    prefix_counts: tuple[int, ...]
    widths: tuple[int, ...]
    prefixes: Tensor
    allowed: Tensor | None = None

    @classmethod
    def of(cls, codes: ItemCodes, device: torch.device | str = "cpu") -> Self:
        """Tree of a catalogue's codes, with token ids on the edges."""
        order = np.lexsort(codes.distinct_tokens.T[::-1])
        prefixes = np.empty_like(codes.distinct_tokens)
        edge_tokens, children, counts = [], [], []
        parent = np.zeros(len(order), dtype=np.int64)
        parents = states = 1
        for level in range(codes.levels):
            # Rows are sorted, so a new prefix starts wherever the parent or the token changes.
            token = codes.distinct_tokens[order, level]
            first = np.r_[True, (parent[1:] != parent[:-1]) | (token[1:] != token[:-1])]
            edge_tokens.append(token[first])
            children.append(np.bincount(parent[first], minlength=parents))
            parent = np.cumsum(first) - 1
            prefixes[order, level] = states + parent
            parents = int(first.sum())
            states += parents
            counts.append(parents)
        children.append(np.zeros(parents, dtype=np.int64))
        indptr = np.r_[0, np.cumsum(np.concatenate(children))]
        return cls(
            indptr=torch.as_tensor(indptr, device=device),
            tokens=torch.as_tensor(np.concatenate(edge_tokens), device=device),
            vocabulary=len(codes.vocabulary),
            prefix_counts=tuple(counts),
            widths=tuple(int(number.max()) for number in children[:-1]),
            prefixes=torch.as_tensor(prefixes, device=device),
        )

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.tokens.device

    @property
    def states(self) -> int:
        """Number of states, including the root."""
        return len(self.indptr) - 1

    def part(self, leaves: Tensor) -> Trie:
        """The part of the trie with the codes that end in the states ``leaves`` (N,).

        States and legal tokens, and therefore probabilities, remain those of the whole catalogue, but a search
        reaches only these codes and their prefixes.
        """
        allowed = torch.zeros(self.states, dtype=torch.bool, device=leaves.device)
        states, counts = leaves.unique(), []
        for _ in self.prefix_counts:
            allowed[states] = True
            counts.append(len(states))
            states = self._parents[states - 1].unique()
        return replace(self, allowed=allowed, prefix_counts=tuple(reversed(counts)))

    @cached_property
    def _parents(self) -> Tensor:
        """(E,) state from which each edge leads."""
        return torch.repeat_interleave(torch.arange(self.states, device=self.device), self.indptr.diff())

    @cached_property
    def _edge_keys(self) -> Tensor:
        """(E,) parent state * V + token: ascending, so an edge is found by binary search."""
        return self._parents * self.vocabulary + self.tokens

    def children(self, states: Tensor, width: int) -> tuple[Tensor, Tensor, Tensor]:
        """Next tokens of ``states`` (...), padded to ``width``, an upper bound of their number per state.

        Returns:
            Tokens (..., width), the states after them (..., width), and the mask (..., width) of those that exist,
            which come first.
        """
        first = self.indptr[states][..., None]
        within = torch.arange(width, device=states.device)
        exists = within < self.indptr[states + 1][..., None] - first
        edges = (first + within).clamp(max=len(self.tokens) - 1)
        return self.tokens[edges], edges + 1, exists

    def legal(self, states: Tensor) -> Tensor:
        """Mask (..., V) of the legal next tokens of ``states`` (...); none for complete codes and the state -1."""
        # Replace -1 by the last state, a complete code.
        tokens, _, exists = self.children(torch.where(states < 0, self.states - 1, states), max(self.widths))
        mask = torch.zeros(*states.shape, self.vocabulary + 1, dtype=torch.bool, device=states.device)
        # Padding is scattered into an extra column, which is cut off.
        return mask.scatter_(-1, tokens.where(exists, self.vocabulary), True)[..., : self.vocabulary]

    def advance(self, states: Tensor, tokens: Tensor) -> Tensor:
        """States after one more token; -1 where the token is not legal or the state was -1."""
        keys = states * self.vocabulary + tokens
        edge = torch.searchsorted(self._edge_keys, keys).clamp(max=len(self.tokens) - 1)
        # The key of a token outside the vocabulary could equal that of another state's edge.
        found = (self._edge_keys[edge] == keys) & (states >= 0) & (tokens >= 0) & (tokens < self.vocabulary)
        return torch.where(found, edge + 1, -1)

    def walk(self, tokens: Tensor) -> Tensor:
        """States (..., T) after each prefix of the codes ``tokens`` (..., T)."""
        state = torch.zeros_like(tokens[..., 0])
        states = []
        for level in range(tokens.shape[-1]):
            state = self.advance(state, tokens[..., level])
            states.append(state)
        return torch.stack(states, dim=-1)
