"""The residual-quantised autoencoder (RQ-VAE) of TIGER: network, quantisation and loss.

Rajput et al. 2023, Recommender Systems with Generative Retrieval, section 3.1; the quantiser is that of Zeghidour et
al. 2021 (SoundStream) and Lee et al. 2022.

Shapes: B batch, T levels, D width, d latent width, k_l codes of level l.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override


class Quantised(NamedTuple):
    """Latents in their codes.

    Attributes:
        codes: (B, T) the nearest row of each level's codebook to what the levels before it leave.
        residuals: (B, T, d) what each level quantises; their gradient reaches the latents, not the codebooks.
        rows: (B, T, d) the rows of the codes, whose sum approximates the latents.
    """

    codes: Tensor
    residuals: Tensor
    rows: Tensor


def quantise(latents: Tensor, codebooks: Iterable[Tensor]) -> Quantised:
    """Quantise ``latents`` (B, d) by ``codebooks`` (k_l, d), each level what the ones before it leave."""
    left, codes, residuals, rows = latents, [], [], []
    for book in codebooks:
        with torch.no_grad():
            chosen = (book.square().sum(dim=1) - 2 * left @ book.T).argmin(dim=1)
        # The gradient of a product is summed in a fixed order on a GPU, too, which that of indexing is not.
        row = F.one_hot(chosen, len(book)).to(book.dtype) @ book
        codes.append(chosen)
        residuals.append(left)
        rows.append(row)
        left = left - row.detach()
    return Quantised(torch.stack(codes, dim=1), torch.stack(residuals, dim=1), torch.stack(rows, dim=1))


class Losses(NamedTuple):
    """Means over the batch: the loss, and the squared error of the reconstruction in it."""

    total: Tensor
    reconstruction: Tensor


class Autoencoder(nn.Module):
    """An encoder and a decoder with ReLU between their layers, and the codebooks between them.

    Args:
        width: of the embeddings, D.
        hidden: widths of the encoder's layers; the decoder has them in reverse.
        latent: width of the latents, d.
        codebooks: one per level, (k_l, d).
    """

    def __init__(self, width: int, hidden: Sequence[int], latent: int, codebooks: Iterable[Tensor] = ()) -> None:
        super().__init__()
        sizes = (width, *hidden, latent)
        self.encoder = _layers(sizes)
        self.decoder = _layers(sizes[::-1])
        self.codebooks = nn.ParameterList(nn.Parameter(book) for book in codebooks)

    @override
    def forward(self, embeddings: Tensor, beta: float) -> tuple[Losses, Quantised]:
        """Loss of ``embeddings`` (B, D), and their codes.

        With residuals r_l of the latents, rows e_l and sg the stop-gradient:

            |x - decoder(sum_l e_l)|^2 + sum_l |sg(r_l) - e_l|^2 + beta |r_l - sg(e_l)|^2

        The decoder's gradient goes past the quantisation to the encoder (straight-through).
        """
        latents = self.encoder(embeddings)
        found = quantise(latents, self.codebooks)
        passed = latents + (found.rows.sum(dim=1) - latents).detach()
        reconstruction = _squared(embeddings - self.decoder(passed))
        codebook = _squared(found.residuals.detach() - found.rows)
        commitment = _squared(found.residuals - found.rows.detach())
        return Losses(reconstruction + codebook + beta * commitment, reconstruction.detach()), found


def _layers(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _squared(differences: Tensor) -> Tensor:
    """Squared length, summed over all axes but the first and averaged over that."""
    return differences.square().flatten(1).sum(dim=1).mean()
