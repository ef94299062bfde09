"""Beam search and exact scoring against slow searches that score one prefix at a time."""

import numpy as np
import pytest
import torch
from helpers.models import BOTH, SlowModel, backbone_of, padded, random_codes
from hypothesis import given, settings
from hypothesis import strategies as st

from apao.backbones.softmax import Softmax
from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.codes.vocabulary import EOS
from apao.decoding import exact
from apao.decoding.beam import beam_search
from apao.decoding.exact import exact_scores

# Few continuations under some prefixes, many under others; "10" sorts before "2" in the vocabulary.
SKEWED = np.array([[0, 0, 0], [1, 2, 0], [1, 10, 3], *([2, 10, i] for i in range(11)), [10, 1, 1], [10, 1, 2]])
CATALOGUES = {
    "one item": ItemCodes(np.array([[4, 2, 0]])),
    "one item, one level": ItemCodes(np.array([[3]])),
    "one level": ItemCodes(np.arange(12)[::-1, None].copy()),
    "skewed": ItemCodes(SKEWED),
    "shared codes": random_codes(20, 2, 3),
    "four levels": random_codes(15, 4, 3),
}


class Slow:
    """Searches in plain Python over tuples of tokens."""

    def __init__(self, backbone, codes):
        self.model = SlowModel(backbone)
        self.codes = {tuple(code) for code in codes.tokens.tolist()}
        self.levels = codes.levels
        prefixes = {code[:m] for code in self.codes for m in range(codes.levels + 1)}
        # Trie states are numbered breadth first.
        self.state_of = {p: i for i, p in enumerate(sorted(prefixes, key=lambda prefix: (len(prefix), prefix)))}

    def rank_all(self, history, eos):
        """Every code and its score, best first."""
        return sorted(((self.model.score(history, code, eos), code) for code in self.codes), reverse=True)

    def beam(self, history, width, eos):
        """Best codes by beam search, and the states after each step."""
        beams, states = [(0.0, ())], []
        for level in range(self.levels):
            grown = [
                (score + self.model.next_logp(history, prefix)[token], (*prefix, token))
                for score, prefix in beams
                for token in {code[level] for code in self.codes if code[:level] == prefix}
            ]
            beams = sorted(grown, reverse=True)[:width]
            states.append([self.state_of[prefix] for _, prefix in beams])
        if eos:
            beams = sorted(((s + self.model.next_logp(history, p)[EOS], p) for s, p in beams), reverse=True)
        return [(score / (self.levels + eos), prefix) for score, prefix in beams], states


def histories_for(codes, count=3):
    """Histories of different lengths, in tokens."""
    rng = np.random.default_rng(1)
    return [codes.tokens[rng.integers(0, codes.items, 1 + 2 * i)].ravel().tolist() for i in range(count)]


def setting(name, codes):
    backbone = backbone_of(name, len(codes.vocabulary), seed=3)
    histories = histories_for(codes)
    with torch.no_grad():
        context = backbone.encode(padded(histories))
    return backbone, histories, context, Trie.of(codes), Slow(backbone, codes)


def assert_ranked(tokens, scores, expected):
    assert [tuple(code) for code in tokens.tolist()] == [code for _, code in expected]
    assert scores.tolist() == pytest.approx([score for score, _ in expected], abs=1e-4)


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("codes", CATALOGUES.values(), ids=CATALOGUES.keys())
@pytest.mark.parametrize("name", BOTH)
def test_a_beam_as_wide_as_the_catalogue_ranks_everything(name, codes, eos):
    backbone, histories, context, trie, slow = setting(name, codes)
    for width in (len(codes.distinct), len(codes.distinct) + 7):
        beams = beam_search(backbone, context, trie, width, eos)
        assert beams.scores.shape == (len(histories), len(codes.distinct))
        for i, history in enumerate(histories):
            assert_ranked(beams.tokens[i], beams.scores[i], slow.rank_all(history, eos))


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("codes", CATALOGUES.values(), ids=CATALOGUES.keys())
@pytest.mark.parametrize("name", BOTH)
def test_exact_scores_of_all_codes(name, codes, eos, monkeypatch):
    backbone, histories, context, trie, slow = setting(name, codes)
    tokens = torch.as_tensor(codes.distinct_tokens)
    expected = [[slow.model.score(history, tuple(code), eos) for code in tokens.tolist()] for history in histories]
    # All codes at once, and in pieces that split prefixes and leave a remainder.
    for at_once in (8192, 4 * len(histories), 1):
        monkeypatch.setattr(exact, "CPU_CANDIDATES", at_once)
        scores = exact_scores(backbone, context, trie, tokens, eos)
        torch.testing.assert_close(scores, torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("eos", [True, False])
@pytest.mark.parametrize("codes", CATALOGUES.values(), ids=CATALOGUES.keys())
@pytest.mark.parametrize("name", BOTH)
def test_narrow_beams_prune_as_the_slow_search_does(name, codes, eos):
    backbone, histories, context, trie, slow = setting(name, codes)
    for width in (1, 2, 5):
        beams = beam_search(backbone, context, trie, width, eos)
        for i, history in enumerate(histories):
            expected, states = slow.beam(history, width, eos)
            assert_ranked(beams.tokens[i], beams.scores[i], expected)
            assert [step[i].tolist() for step in beams.states] == states


@given(
    table=st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12),
    width=st.integers(1, 14),
    eos=st.booleans(),
)
# Always the same examples, because scores that differ by a rounding error may be ranked either way.
@settings(max_examples=25, derandomize=True)
def test_any_catalogue_and_width(table, width, eos):
    """Every beam is filled, legal, distinct and sorted, and equal to the slow search's."""
    codes = ItemCodes(np.array(table))
    backbone, histories, context, trie, slow = setting("llama", codes)
    beams = beam_search(backbone, context, trie, width, eos)
    assert beams.tokens.shape == (len(histories), min(width, len(codes.distinct)), 3)
    assert beams.scores.isfinite().all() and (beams.scores.diff(dim=1) <= 0).all()
    for i, history in enumerate(histories):
        found = [tuple(code) for code in beams.tokens[i].tolist()]
        assert set(found) <= slow.codes and len(set(found)) == len(found)
        expected, states = slow.beam(history, width, eos)
        assert beams.scores[i].tolist() == pytest.approx([score for score, _ in expected], abs=1e-4)
        assert [step[i].tolist() for step in beams.states] == states


def test_scores_are_not_renormalised_over_legal_codes():
    """A model that puts probability on illegal tokens gives all codes together less than 1."""
    codes = random_codes(6, 3, 4)
    backbone, _, context, trie, _ = setting("llama", codes)
    beams = beam_search(backbone, context, trie, 6, eos=False)
    assert ((beams.scores * 3).exp().sum(dim=1) < 0.9).all()


def test_one_level_with_every_token_legal_sums_to_the_level():
    """Only the probability of pad, eos and unk is missing from 1."""
    codes = ItemCodes(np.arange(5)[:, None])
    backbone, _, context, trie, _ = setting("tiger", codes)
    beams = beam_search(backbone, context, trie, 5, eos=False)
    special = backbone.logits(context.start).softmax(-1)[:, :3].sum(dim=1)
    torch.testing.assert_close(beams.scores.exp().sum(dim=1), 1 - special)


@pytest.mark.parametrize("name", BOTH)
def test_eos_among_legal_tokens_is_counted_but_not_computed(name, monkeypatch):
    """Nothing else is legal after a code, so the log-probability of eos is 0."""
    codes = CATALOGUES["skewed"]
    backbone, _, context, trie, _ = setting(name, codes)
    tokens, softmax, passes = torch.as_tensor(codes.distinct_tokens), Softmax(legal_only=True), []
    extend = backbone.extend
    monkeypatch.setattr(backbone, "extend", lambda *given: passes.append(1) or extend(*given))
    with_eos, without = (beam_search(backbone, context, trie, 5, eos, softmax) for eos in (True, False))
    assert len(passes) == 2 * (codes.levels - 1)
    assert torch.equal(with_eos.tokens, without.tokens)
    torch.testing.assert_close(4 * with_eos.scores, 3 * without.scores)
    sorted_with, sorted_without = (exact_scores(backbone, context, trie, tokens, eos, softmax) for eos in (True, False))
    torch.testing.assert_close(4 * sorted_with, 3 * sorted_without)


def test_searching_leaves_no_graph():
    codes = random_codes(6, 2, 4)
    backbone = backbone_of("tiger", len(codes.vocabulary))
    context = backbone.encode(padded(histories_for(codes)))
    trie = Trie.of(codes)
    assert not beam_search(backbone, context, trie, 3, eos=True).scores.requires_grad
    tokens = torch.as_tensor(codes.distinct_tokens)
    assert not exact_scores(backbone, context, trie, tokens, eos=True).requires_grad
