"""What holds on a GPU, for every registered objective and every backbone; skipped where there is none."""

from itertools import islice

import pytest
import torch
from helpers.models import SIZES, backbone_of, random_codes, random_histories, run_params

from apao.codes.trie import Trie
from apao.decoding.beam import beam_search
from apao.decoding.exact import exact_scores
from apao.training.loop import Sums, Training

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
CODES = random_codes(40, 3, 4)
HISTORIES = random_histories([5, 9, 4, 12, 3, 7, 8, 6] * 4, CODES.items)
FORMS = {
    "tiger": {"dropout": 0.0},
    "llama": {"pack": True},
    "sasrec": {"dropout": 0.0, "pack": True},
    "gru4rec": {"dropout": 0.0},
}


@pytest.fixture(autouse=True)
def fp32(monkeypatch):
    """By default torch lets cuDNN compute a GRU in TF32, whose products have 10 bits."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(params=[*sorted(SIZES), "hf-causal"])
def backbone(request, tmp_path_factory):
    """The backbone's name; its pre-trained model, if it has one, is in the folder that ``FORMS`` names."""
    if request.param == "hf-causal":
        pytest.importorskip("transformers")
        from helpers.language_models import write_model

        FORMS["hf-causal"] = {"model": str(write_model(tmp_path_factory.mktemp("model"))), "pack": True}
    return request.param


def training_on(device, backbone, objective, **sizes):
    embeddings = torch.randn(CODES.items, 8, generator=torch.Generator().manual_seed(0)).numpy()
    params = run_params(backbone, objective, sizes=FORMS[backbone] | sizes)
    return Training("toy/run", params, HISTORIES, CODES, torch.device(device), embeddings=embeddings)


def steps_of(training, count):
    """Do the first ``count`` steps of an epoch; yields the sums after each."""
    training.backbone.train()
    sums = Sums()
    batches = (batch for _ in range(count) for batch in training.sampler.epoch(10**6, 16, training.generator))
    for batch in islice(batches, count):
        training.step(batch, sums)
        yield sums


def test_a_step_equals_that_of_the_processor(objective, backbone):
    found = []
    for device in ("cpu", "cuda"):
        training = training_on(device, backbone, objective)
        (sums,) = steps_of(training, 1)
        gradients = {name: value.grad.cpu() for name, value in training.backbone.named_parameters()}
        found.append((sums.means("toy"), gradients))
    (here, here_gradients), (there, there_gradients) = found
    # At the start every reward relative to the reference is 0, and which is larger is rounding.
    assert here.pop("preferred", 0.0) == pytest.approx(there.pop("preferred", 0.0), abs=0.1)
    assert there == pytest.approx(here, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(there_gradients, here_gradients, atol=1e-5, rtol=1e-3)


def test_a_step_never_waits_for_the_device(objective, backbone):
    """Else the device idles after every step until the next one is prepared."""
    if backbone == "hf-causal":
        pytest.skip("the code of transformers may wait")
    steps = steps_of(training_on("cuda", backbone, objective), 3)
    next(steps)  # computes the facts about the catalogue
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in steps:
            pass
    finally:
        torch.cuda.set_sync_debug_mode("default")


# Of packed rows only the reading is recorded, and recording it draws numbers itself, so that masks differ.
@pytest.mark.parametrize("sizes", [{"dropout": 0.1}, {"pack": True}], ids=["tiger", "llama"])
def test_steps_from_recorded_passes_equal_plain_ones(objective, sizes):
    """With dropout, where all of a pass is recorded: a replayed one draws the numbers that a plain one draws."""
    found = []
    for plain in (True, False):
        training = training_on("cuda", "llama" if "pack" in sizes else "tiger", objective, **sizes)
        if plain:
            training.learn, training.read = training._learn, None
        *_, sums = steps_of(training, 12)
        found.append((sums.means("toy"), training.backbone.state_dict()))
        if not plain and "pack" in sizes:
            assert training.read._graphed or training.objective.needs().negatives
        elif not plain:
            assert training.learn._recorded
    (means, weights), (replayed_means, replayed_weights) = found
    assert replayed_means == pytest.approx(means, rel=1e-4, abs=1e-6)
    # Sums of gradients of embeddings have no fixed order on a GPU.
    torch.testing.assert_close(replayed_weights, weights, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_decoding_equals_that_of_the_processor(backbone):
    codes, found = torch.as_tensor(CODES.distinct_tokens), []
    for device in ("cpu", "cuda"):
        model = backbone_of(backbone, len(CODES.vocabulary), **FORMS[backbone]).to(device)
        trie = Trie.of(CODES, device)
        context = model.encode(codes[:8].reshape(4, -1).to(device))
        exact = exact_scores(model, context, trie, codes.to(device), True)
        searched = beam_search(model, context, trie, 10, True)
        found.append([exact.cpu(), searched.scores.cpu(), searched.tokens.cpu()])
    torch.testing.assert_close(found[1], found[0], atol=1e-4, rtol=0)
