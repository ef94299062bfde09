"""Parameters of evaluation and of further measurements."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, field_validator

from apao.errors import UserError
from apao.evaluation.metrics import CUTOFFS
from apao.parameters import Model


class DecodingParams(Model):
    """Beam search at evaluation."""

    beam: Annotated[int, Field(ge=max(CUTOFFS))] | Literal["all"] = 20
    """Number of beams: at least the largest cutoff of the metrics and at most the number of distinct codes.
    ``all``: as many as there are codes, which ranks the whole catalogue; required for catalogues with fewer codes
    than the largest cutoff."""
    eos: bool | Literal["release"] | None = None
    """Decode eos after the code and divide scores by T + 1. null: with tiger, if the objective trains eos;
    ``release``: with tiger, whether or not eos was trained; true, false: with every backbone."""
    batch_users: PositiveInt = 128
    """Users decoded at once."""

    @field_validator("beam", mode="before")
    @classmethod
    def _enough_for_every_cutoff(cls, beam: object) -> object:
        if beam == "all" or (type(beam) is int and beam >= max(CUTOFFS)):
            return beam
        raise ValueError(
            f"expected a whole number of at least {max(CUTOFFS)}, which recall@{max(CUTOFFS)} needs, or all (one beam "
            f"per code, for smaller catalogues), found {beam!r}"
        )

    def decodes_eos(self, by_release: bool, trained: bool) -> bool:
        """Whether beam search decodes eos after the code.

        Args:
            by_release: whether the release decodes eos with this backbone (``release_decodes_eos``).
            trained: whether the objective trains eos.
        """
        match self.eos:
            case None:
                return by_release and trained
            case "release":
                return by_release
            case given:
                return given

    def width(self, codes: int) -> int:
        """Number of beams for a catalogue of ``codes`` distinct codes.

        Raises:
            UserError: when ``beam`` is larger than ``codes``.
        """
        if self.beam == "all":
            return codes
        if self.beam > codes:
            raise UserError(
                f"decoding.beam {self.beam} is more than the catalogue's {codes} distinct codes; in params.yaml set "
                "decoding.beam to all in the dataset's recipe, or in a new recipe for it, to rank every code"
            )
        return self.beam


CatalogueSize = Annotated[int, Field(ge=2, le=2_000_000)]


class TimingParams(Model):
    """Synthetic catalogues for measuring decoding time."""

    catalogue_sizes: Annotated[tuple[CatalogueSize, ...], Field(min_length=1)] = (1000, 10_000, 100_000)
    """Items of each catalogue."""
    users: PositiveInt = 8
    """Users decoded at once."""


class MeasureParams(Model):
    """Parameters of measurements besides the metrics, by subcommand; measured only for studies that need them."""

    beams: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (5, 10, 20, 50, 100)
    """Beam sizes at which a trained run is evaluated and timed."""
    exact: PositiveInt = 1000
    """Test users, drawn at random, for whom every code of the catalogue is scored."""
    decoding_time: TimingParams = TimingParams()
    """Time of beam search and exact scoring with an untrained model."""
