"""A golden folder: values computed by another implementation, with the weights it used.

Shapes: B examples, T levels, N negatives, U users, K beams.

``expected.json`` contains a catalogue, training examples with negatives, users' interactions, and the values computed
from them. Weights and configs are beside it, in the format of ``transformers``. Every section of values is optional.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file

from apao.backbones.base import BACKBONES, Backbone
from apao.backbones.exchange import check_sizes
from apao.errors import AtKey, UserError, nearest
from apao.parameters import first_mistake, spelled

OUR_NAME = {"t5": "tiger", "llama": "llama"}
SECTIONS = ("ce", "msl", "apao-pointwise", "apao-pairwise", "beam")


class Section(BaseModel):
    """Part of ``expected.json``. Types are strict (no number as a string); unknown keys are ignored as remarks."""

    model_config = ConfigDict(strict=True)


class Example(Section):
    """One training example."""

    history: list[int] = Field(min_length=1, max_length=1_000)
    target: int


class BeamValues(Section):
    """Results of beam search for test histories of some users: token strings (U, K, T) and scores (U, K)."""

    beam_size: PositiveInt
    users: list[int] = Field(min_length=1)
    codes: list[list[list[str]]]
    scores: list[list[float]]


class BackboneValues(Section):
    """Values computed with one backbone, by objective, and for some objectives by tau or eta."""

    model_config = ConfigDict(extra="allow")

    ce: dict[str, Any] | None = None
    msl: dict[str, dict[str, Any]] = {}
    pointwise: dict[str, dict[str, Any]] = Field({}, alias="apao-pointwise")
    pairwise: dict[str, dict[str, Any]] = Field({}, alias="apao-pairwise")
    beam: BeamValues | None = None

    @model_validator(mode="after")
    def _no_unchecked_values(self) -> BackboneValues:
        for key, value in (self.model_extra or {}).items():
            # A string is a remark. Other values are refused: no comparison uses them, so they would seem to agree.
            if not isinstance(value, str):
                raise AtKey(f"no such section; {nearest(key, SECTIONS)}", key)
        return self

    def losses(self) -> Iterator[tuple[str, str | None, dict[str, Any]]]:
        """Yield each objective with its tau or eta and its values by name (scalars, lists or tables)."""
        if self.ce is not None:
            yield "ce", None, self.ce
        by_kind = {"msl": self.msl, "apao-pointwise": self.pointwise, "apao-pairwise": self.pairwise}
        for kind, by_strength in by_kind.items():
            for strength, values in by_strength.items():
                yield kind, strength, values


class Expected(Section):
    """The content of ``expected.json``."""

    codes: dict[str, list[str]] = Field(min_length=1)
    vocabulary: dict[str, int] | None = None
    valid_prefixes: list[int] | None = None
    examples: list[Example] = []
    negatives: list[list[int]] | None = None
    beta: FiniteFloat | None = Field(None, ge=0)
    interactions: dict[str, list[int]] = {}
    backbones: dict[Literal["t5", "llama"], BackboneValues] = {}

    @model_validator(mode="after")
    def _fits_together(self) -> Expected:
        for i, example in enumerate(self.examples):
            self._check_items([*example.history, example.target], "examples", i)
        for i, items in enumerate(self.negatives or []):
            self._check_items(items, "negatives", i)
        for name, items in self.interactions.items():
            self._check_items(items, "interactions", name)
        for name, values in self.backbones.items():
            prefix = values.pointwise or values.pairwise
            needed = {"examples": list(values.losses()), "beta": prefix, "negatives": values.pairwise}
            for key, wanted in needed.items():
                if wanted and getattr(self, key) in (None, []):
                    raise AtKey(f"required by backbones.{name}, but not given", key)
            for user in values.beam.users if values.beam else []:
                if len(self.interactions.get(str(user), [])) < 2:
                    raise AtKey(f"backbones.{name}.beam needs two items or more of this user", "interactions", user)
        if self.negatives and self.examples:
            check_shape(self.negatives, (len(self.examples), len(self.negatives[0])), "negatives")
        return self

    def _check_items(self, items: Sequence[int], *key: str | int) -> None:
        for item in items:
            if str(item) not in self.codes:
                raise AtKey(f"item {item} has no code; codes has {len(self.codes)} items", *key)


def check_shape(values: Any, shape: Sequence[int], *key: str | int) -> None:
    """Check that ``values`` are nested lists of that shape.

    Raises:
        AtKey: when they are not.
    """
    if shape and (not isinstance(values, list) or len(values) != shape[0]):
        found = len(values) if isinstance(values, list) else repr(values)
        raise AtKey(f"expected {shape[0]} entries, found {found}", *key)
    for i in range(shape[0] if shape else 0):
        check_shape(values[i], shape[1:], *key, i)


def read_expected(path: Path) -> Expected:
    """Read and check ``expected.json``.

    Raises:
        UserError: when it is missing or broken, or its parts do not fit together.
    """
    try:
        return Expected.model_validate(_read(path))
    except ValidationError as error:
        message, key = first_mistake(error)
        raise UserError(f"{path}: {spelled(textwrap.shorten(message, 200), key)}") from error


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: not found; a golden folder needs it") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from error


def load_backbone(folder: Path, key: str, vocabulary: int) -> Backbone:
    """Load the only model of type ``key`` in the folder; a config without a type has that of its file's name.

    Raises:
        UserError: when there is no single one, a file is damaged, or it is not a supported model with that vocabulary.
    """
    models = []
    for path in sorted(folder.glob("*.safetensors")):
        file = path.with_suffix(".config.json")
        config = _read(file) if file.exists() or path.name.startswith(key) else None
        if isinstance(config, dict) and config.get("model_type", path.name[: len(key)]) == key:
            models.append((path, file, config))
    if len(models) != 1:
        names = ", ".join(path.name for path, *_ in models) or "none"
        raise UserError(f"{folder}: backbones.{key} needs one {key}*.safetensors with its .config.json; found {names}")
    ((path, file, config),) = models
    at = file
    try:
        params = BACKBONES[OUR_NAME[key]].from_transformers_config(config)
        if config.get("vocab_size", vocabulary) != vocabulary:
            found = config["vocab_size"]
            raise UserError(f"vocab_size: {found!r} does not match the codes, which have {vocabulary} tokens")
        at = path
        weights = load_file(path)
        check_sizes(params, vocabulary, weights)
        backbone = params.build(vocabulary)
        backbone.load_transformers(weights)
    except ValidationError as error:
        raise UserError(f"{at}: {spelled(*first_mistake(error))}") from error
    except SafetensorError as error:
        raise UserError(f"{at}: not a whole safetensors file ({error})") from error
    except UserError as error:
        raise UserError(f"{at}: {error}") from error
    return backbone.eval()
