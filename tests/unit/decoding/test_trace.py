"""The traced search against the fast one, and token by token against a model asked for one prefix at a time."""

import pytest
import torch
from helpers.models import BOTH, SlowModel, backbone_of, padded, random_codes

from apao.backbones.softmax import Softmax
from apao.codes.trie import Trie
from apao.decoding.beam import beam_search
from apao.decoding.exact import code_logp, exact_scores
from apao.decoding.trace import trace

CODES = random_codes(60, 3, 5, seed=3)
TRIE = Trie.of(CODES)
HISTORY = [4, 9, 15, 5, 10, 14]
SOFTMAXES = (Softmax(), Softmax(legal_only=True, temperature=2.0))


@pytest.fixture(params=BOTH)
def backbone(request):
    return backbone_of(request.param, len(CODES.vocabulary), seed=1)


@pytest.mark.parametrize("softmax", SOFTMAXES)
@pytest.mark.parametrize("beam", [1, 4, 100])
def test_the_beams_are_those_of_beam_search(backbone, beam, softmax):
    context = backbone.encode(padded([HISTORY]))
    steps = trace(backbone, context, TRIE, beam, softmax)
    beams = beam_search(backbone, context, TRIE, beam, False, softmax)
    for step, states in zip(steps, beams.states, strict=True):
        assert torch.equal(TRIE.walk(step.prefixes[: step.kept])[:, -1], states[0]) and step.kept == states.shape[1]
    last = steps[-1]
    assert torch.equal(last.prefixes[: last.kept], beams.tokens[0])
    torch.testing.assert_close(last.logp[: last.kept] / CODES.levels, beams.scores[0], atol=1e-5, rtol=0)


def test_candidates_are_all_continuations_of_what_was_kept(backbone):
    steps = trace(backbone, backbone.encode(padded([HISTORY])), TRIE, 3)
    kept = {()}
    for level, step in enumerate(steps, start=1):
        every = {tuple(code[:level]) for code in CODES.tokens.tolist() if tuple(code[: level - 1]) in kept}
        assert {tuple(prefix) for prefix in step.prefixes.tolist()} == every and len(step.prefixes) == len(every)
        assert step.logp.diff().max() <= 0 and step.kept == min(3, len(every))
        kept = {tuple(prefix) for prefix in step.prefixes[: step.kept].tolist()}


def test_probabilities_of_prefixes(backbone):
    slow = SlowModel(backbone)
    for step in trace(backbone, backbone.encode(padded([HISTORY])), TRIE, 2):
        for prefix, logp in zip(step.prefixes.tolist(), step.logp.tolist(), strict=True):
            assert logp == pytest.approx(slow.score(HISTORY, tuple(prefix), eos=False) * len(prefix), abs=1e-4)


@pytest.mark.parametrize("softmax", SOFTMAXES)
@pytest.mark.parametrize("eos", [False, True])
def test_token_log_probabilities_sum_to_exact_scores(backbone, eos, softmax):
    context = backbone.encode(padded([HISTORY, HISTORY[:3]]))
    codes = torch.as_tensor(CODES.distinct_tokens)
    found = code_logp(backbone, context, TRIE, codes.expand(2, -1, -1), eos, softmax)
    assert found.shape == (2, len(codes), 3 + eos) and (found <= 0).all()
    exact = exact_scores(backbone, context, TRIE, codes, eos, softmax)
    torch.testing.assert_close(found.mean(dim=-1), exact, atol=1e-5, rtol=0)
