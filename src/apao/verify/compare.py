"""Recomputing the values of a golden folder with the code that trains and decodes.

Indices in remarks are counted from 0, as in the file.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from apao.backbones.base import Backbone
from apao.codes.itemcodes import ItemCodes
from apao.codes.statistics import CodeStatistics
from apao.codes.trie import Trie
from apao.data.histories import Histories
from apao.decoding.beam import beam_search
from apao.errors import AtKey, UserError
from apao.objectives.base import OBJECTIVES, Scores
from apao.parameters import Key, first_mistake, spelled
from apao.training.batches import Examples
from apao.training.packing import PackedSampler, Rows
from apao.training.scoring import score_batch
from apao.verify.golden import BeamValues, Expected, check_shape, load_backbone, read_expected

CPU = torch.device("cpu")
USUAL_HISTORY = 20
"""Maximum items of the histories for beam search, unless an example has a longer history."""
STRENGTH = {"msl": "tau", "apao-pointwise": "eta", "apao-pairwise": "eta"}
"""Parameter by which the values of an objective are indexed."""
MAX_WHOLE = 1 << 53
"""Largest whole number that is exact in float64; JSON allows larger ones."""
AXES = ("example", "position")
"""Names of the axes of a table; a list has the last one."""


@dataclass(frozen=True)
class Quantity:
    """One line of the report.

    Attributes:
        backbone: backbone that computed the values; ``-`` for values that depend only on the catalogue.
        name: name of the values.
        difference: largest absolute difference; for codes of beams, the number of different ranks.
        agrees: whether the difference is within the tolerance; false for NaN.
        remark: position of the largest difference, or what was accepted.
    """

    backbone: str
    name: str
    difference: float
    agrees: bool
    remark: str


def report(quantities: Sequence[Quantity], tolerance: float) -> Iterator[str]:
    """The quantities as aligned lines of text, and a summary line."""
    backbone = max(len(each.backbone) for each in quantities)
    name = max(len(each.name) for each in quantities)
    for each in quantities:
        verdict = ("ok" if each.agrees else "DIFFERS") + (f" ({each.remark})" if each.remark else "")
        yield f"{each.backbone:<{backbone}}  {each.name:<{name}}  {each.difference:7.1e}  {verdict}"
    wrong = sum(not each.agrees for each in quantities)
    largest = np.max([each.difference for each in quantities])
    verdict = f"{wrong} differ{'s' if wrong == 1 else ''}" if wrong else "all agree"
    bound = f"{tolerance:.0e}" if float(f"{tolerance:.0e}") == tolerance else f"{tolerance:g}"
    yield f"{len(quantities)} quantities, largest difference {largest:.1e}, tolerance {bound}: {verdict}"


@torch.no_grad()
def verify(folder: Path, tolerance: float, device: torch.device = CPU) -> list[Quantity]:
    """Recompute all values of a golden folder, in fp32 on ``device``.

    Raises:
        UserError: when a file is missing or damaged, a value is malformed, a model is not supported, or there is
            nothing to verify.
    """
    path = folder / "expected.json"
    expected = read_expected(path)
    codes = ItemCodes.from_strings(expected.codes, f"{path}: codes")
    try:
        found = list(_Verification(folder, expected, codes, tolerance, device).quantities())
    except AtKey as error:
        raise UserError(f"{path}: {spelled(str(error), error.key)}") from error
    if not found:
        raise UserError(f"{path}: nothing to verify; it has no values under backbones, vocabulary or valid_prefixes")
    return found


def spelled_index(index: Sequence[int]) -> str:
    """Prefix of a remark: ``example 3, position 1: `` in a table, ``position 1: `` in a list, empty for a number."""
    axes = AXES[len(AXES) - len(index) :]
    named = ", ".join(f"{axis} {i}" for axis, i in zip(axes, index, strict=True))
    return f"{named}: " if named else ""


class _Verification:
    """Recomputes the values of one ``expected.json``."""

    def __init__(
        self, folder: Path, expected: Expected, codes: ItemCodes, tolerance: float, device: torch.device
    ) -> None:
        self.folder, self.expected, self.codes, self.tolerance = folder, expected, codes, tolerance
        self.device, self.trie = device, Trie.of(codes, device)
        # No value of the file depends on training targets.
        self.statistics = CodeStatistics(codes, self.trie, targets=np.empty(0, dtype=np.int64))
        self.longest = max((len(example.history) for example in expected.examples), default=1)

    def quantities(self) -> Iterator[Quantity]:
        ours, theirs, counts = self.codes.vocabulary, self.expected.vocabulary, self.expected.valid_prefixes
        if theirs is not None:
            tokens = [*ours, *sorted(set(theirs) - set(ours))]
            found = torch.tensor([i if i < len(ours) else torch.nan for i in range(len(tokens))])
            ids = [theirs.get(token, torch.nan) for token in tokens]
            key = ("vocabulary",)
            yield self._compared("-", "vocabulary", found, ids, key, lambda index: f"{tokens[index[0]]}: ", exact=True)
        if counts is not None:
            found = torch.tensor(self.trie.prefix_counts)
            yield self._compared("-", "valid_prefixes", found, counts, ("valid_prefixes",), exact=True)
        for name, values in self.expected.backbones.items():
            losses = list(values.losses())
            if not losses and not values.beam:
                continue
            backbone = load_backbone(self.folder, name, len(ours)).to(self.device)
            for label, scores in self._scores(backbone, bool(values.pairwise)) if losses else ():
                for kind, strength, each in losses:
                    yield from self._objective(label, scores, kind, strength, each, ("backbones", name, kind))
            if values.beam:
                yield from self._beams(backbone, values.beam, ("backbones", name, "beam"))

    def _scores(self, backbone: Backbone, with_negatives: bool) -> Iterator[tuple[str, Scores]]:
        """Yield the scores of the examples for each form of batch that training uses: padded, and packed for llama."""
        name, given = backbone.params.type, self.expected.examples
        # Targets are repeated because leave-one-out holds out two items per user, which are not read here.
        histories = _histories([[*example.history, *3 * [example.target]] for example in given])
        examples = Examples(histories, self.codes, self.longest, self.trie)
        positions = histories.train_end(np.arange(len(given))) - 1
        negatives = None
        if with_negatives:
            negatives = torch.as_tensor(self.codes.code_of_item[np.array(self.expected.negatives, dtype=np.int64)])
        batch = examples.batch(np.arange(len(given)), positions, negatives)
        # As in the release, the loss includes the eos step after the code.
        yield name, score_batch(backbone, batch, True, self.statistics)
        if name == "llama":
            rows = Rows(histories.offsets[:-1], positions + 1, np.ones_like(positions))
            packed = PackedSampler(examples, histories, negatives=0, budget=1).batch(rows, torch.Generator())
            if negatives is not None:
                tokens, prefixes = examples.codes_of(negatives[:, None])
                packed = replace(packed, negatives=tokens, negative_prefixes=prefixes)
            yield f"{name}, packed", score_batch(backbone, packed, True, self.statistics)

    def _objective(
        self, label: str, scores: Scores, kind: str, strength: str | None, values: dict[str, Any], key: Key
    ) -> Iterator[Quantity]:
        params: dict[str, Any] = {"type": kind}
        if strength is not None:
            params[STRENGTH[kind]], key = strength, (*key, strength)
        if kind.startswith("apao"):
            params["beta"] = self.expected.beta
        try:
            objective = OBJECTIVES[kind].model_validate(params)
        except ValidationError as error:
            raise AtKey(first_mistake(error)[0], *key) from error
        loss, terms, _ = objective(scores, {})
        # The release logs the loss of msl also as ce.
        found = {"loss": loss} | ({"ce": terms.get("ce", loss)} if kind != "msl" or "ce" in values else {})
        if kind == "ce":
            found["token_logp"] = torch.cat([scores.target_logp, scores.eos_logp[:, None]], dim=1)
        if kind.startswith("apao"):
            for field, term in (("prefix_losses", "prefix_loss"), ("weights", "prefix_weight")):
                found[field] = torch.stack([terms[f"{term}_{m + 1}"] for m in range(self.codes.levels)])
        name = kind if strength is None else f"{kind} {STRENGTH[kind]}={strength}"
        for field, value in found.items():
            if field not in values:
                raise AtKey("required, but not given", *key, field)
            yield self._compared(label, f"{name} {field}", value, values[field], (*key, field))

    def _beams(self, backbone: Backbone, values: BeamValues, key: Key) -> Iterator[Quantity]:
        name, users = backbone.params.type, values.users
        histories = _histories([self.expected.interactions[str(user)] for user in users])
        examples = Examples(histories, self.codes, max(USUAL_HISTORY, self.longest), self.trie)
        batch = examples.batch(np.arange(len(users)), histories.evaluation_targets("test"))
        context = backbone.encode(batch.history)
        beams = beam_search(backbone, context, self.trie, values.beam_size, backbone.params.release_decodes_eos)
        check_shape(values.codes, beams.tokens.shape, *key, "codes")
        check_shape(values.scores, beams.scores.shape, *key, "scores")
        scores, swapped, wrong = beams.scores.clone(), 0, []
        for u, (theirs, their_scores) in enumerate(zip(values.codes, values.scores, strict=True)):
            for rank, tokens in enumerate(beams.tokens[u].tolist()):
                code = [self.codes.vocabulary[token] for token in tokens]
                their_rank = theirs.index(code) if code in theirs else -1
                if their_rank == rank:
                    continue
                if their_rank >= 0 and abs(their_scores[their_rank] - their_scores[rank]) < self.tolerance:
                    swapped += 1
                    # Compare the scores of the same code.
                    scores[u, their_rank] = beams.scores[u, rank]
                else:
                    both = f"found {''.join(code)}, expected {''.join(theirs[rank])}"
                    wrong.append(f"user {users[u]}, rank {rank}: {both}")
        remark = wrong[0] if wrong else f"{swapped} at another rank, among equal scores" if swapped else ""
        yield Quantity(name, "beam codes", len(wrong), not wrong, remark)
        yield self._compared(
            name,
            "beam scores",
            scores,
            values.scores,
            (*key, "scores"),
            lambda index: f"user {users[index[0]]}, rank {index[1]}: ",
        )

    def _compared(
        self,
        backbone: str,
        name: str,
        found: Tensor,
        expected: Any,
        key: Key,
        place: Callable[[Sequence[int]], str] = spelled_index,
        exact: bool = False,
    ) -> Quantity:
        """Compare values of any shape with those of the file.

        Args:
            backbone: backbone that computed the values.
            name: name of the values.
            found: our values.
            expected: nested lists of the file's values, or a number.
            key: key of these values in the file.
            place: prefix of the remark for an index into the values.
            exact: accept no difference, regardless of the tolerance.

        Raises:
            AtKey: when the expected values are not numbers of that shape.
        """
        check_shape(expected, found.shape, *key)
        found = found.cpu()
        flat = np.array(expected, dtype=object).reshape(-1).tolist() if found.dim() else [expected]
        for value in flat:
            if type(value) not in (int, float) or (type(value) is int and abs(value) > MAX_WHOLE):
                raise AtKey(f"expected a number, found {textwrap.shorten(repr(value), 80)}", *key)
        wanted = torch.tensor(flat, dtype=torch.float64).reshape(found.shape)
        gap = (found - wanted).abs()
        # argmax returns the index of a NaN if there is one.
        at = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
        difference = gap[at].item()
        agrees = difference <= (0 if exact else self.tolerance)
        remark = f"{place(at)}found {found[at].item():.7g}, expected {wanted[at].item():.7g}"
        return Quantity(backbone, name, difference, agrees, "" if agrees else remark)


def _histories(rows: list[list[int]]) -> Histories:
    return Histories(np.cumsum([0, *map(len, rows)]), np.concatenate([np.array(row, dtype=np.int64) for row in rows]))
