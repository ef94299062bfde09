"""RQ-VAE: its loss against a hand-computed case, its start, restarts, and a training that is interrupted."""

import json
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from torch import nn

from apao.codes.autoencoder import Autoencoder, quantise
from apao.codes.coding import nearest_codes
from apao.codes.tokenizers import rq_vae
from apao.codes.tokenizers.base import TOKENIZERS, Inputs
from apao.codes.tokenizers.rqkmeans import residual_kmeans
from apao.errors import UserError

EMBEDDINGS = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
CPU = torch.device("cpu")


def tokenizer(**changes):
    sizes = {"levels": 2, "clusters": 5, "hidden": (12,), "latent": 4, "epochs": 12, "batch_size": 32}
    return TOKENIZERS["rq-vae"](method="rq-vae", embedder="some", **{**sizes, **changes})


@pytest.fixture
def inputs(tmp_path):
    names = [str(item) for item in range(len(EMBEDDINGS))]
    return Inputs(names, Path("items.parquet"), tmp_path / "unfinished", CPU, EMBEDDINGS)


def by_hand():
    """One item, x = 3; encoder z = 2 x, decoder y = 0.25 z + 1; codebooks {5, 0} and {2, -4}."""
    model = Autoencoder(1, (), 1, [torch.tensor([[5.0], [0.0]]), torch.tensor([[2.0], [-4.0]])])
    for layer, (weight, bias) in ((model.encoder[0], (2.0, 0.0)), (model.decoder[0], (0.25, 1.0))):
        nn.init.constant_(layer.weight, weight)
        nn.init.constant_(layer.bias, bias)
    return model


def test_loss_and_gradients_by_hand():
    # z = 6: row 5, residual 1, row 2; quantised 7, decoded 2.75. Reconstruction (3 - 2.75)^2 = 1/16.
    # Codebook term and commitment both (6 - 5)^2 + (1 - 2)^2 = 2.
    model = by_hand()
    losses, found = model(torch.tensor([[3.0]]), beta=0.25)
    assert found.codes.tolist() == [[0, 0]] and found.residuals.flatten().tolist() == [6.0, 1.0]
    assert losses.reconstruction.item() == pytest.approx(1 / 16)
    assert losses.total.item() == pytest.approx(1 / 16 + 2 + 0.25 * 2)
    losses.total.backward()
    # Decoder: d/dw = 2 (2.75 - 3) 7, at the quantised latent.
    assert model.decoder[0].weight.grad.item() == pytest.approx(-3.5)
    assert model.decoder[0].bias.grad.item() == pytest.approx(-0.5)
    # Codebooks, from their own term only: 2 (5 - 6) and 2 (2 - 1); none for rows that are not used.
    assert model.codebooks[0].grad.flatten().tolist() == pytest.approx([-2.0, 0.0])
    assert model.codebooks[1].grad.flatten().tolist() == pytest.approx([2.0, 0.0])
    # Encoder: straight through 2 (2.75 - 3) 0.25, and the commitment 0.25 (2 (6 - 5) + 2 (1 - 2)) = 0; times x.
    assert model.encoder[0].weight.grad.item() == pytest.approx(-0.125 * 3)


def test_commitment_reaches_the_encoder():
    model = by_hand()
    losses, _ = model(torch.tensor([[2.6]]), beta=10.0)
    losses.total.backward()
    # z = 5.2: row 5, residual 0.2, row 2; quantised 7. Straight through 2 (2.75 - 2.6) 0.25 = 0.075, commitment
    # 10 (2 * 0.2 + 2 (0.2 - 2)) = -32; times x.
    assert model.encoder[0].weight.grad.item() == pytest.approx((0.075 - 32) * 2.6, rel=1e-5)


def test_quantises_as_faiss():
    """Its ResidualQuantizer with the same codebooks, which keeps one beam: the same codes and sums of rows."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(200, 6, generator=generator)
    books = [torch.randn(8, 6, generator=generator) / 2**level for level in range(3)]
    other = faiss.ResidualQuantizer(6, 3, 3)
    faiss.copy_array_to_vector(torch.stack(books).numpy().ravel(), other.codebooks)
    other.max_beam_size, other.is_trained = 1, True
    packed = other.compute_codes(latents.numpy())
    bits = np.unpackbits(packed, axis=1, bitorder="little")[:, :9].reshape(-1, 3, 3)
    found = quantise(latents, books)
    assert (found.codes.numpy() == bits @ [1, 2, 4]).all()
    np.testing.assert_allclose(found.rows.sum(dim=1), other.decode(packed), atol=1e-5)


def test_codebooks_start_with_residual_kmeans_of_the_latents(inputs):
    params = tokenizer()
    training = rq_vae._Training(params, inputs)
    with torch.no_grad():
        latents = training.model.encoder(torch.from_numpy(EMBEDDINGS)).numpy()
    expected = residual_kmeans(latents, 2, 5, seed=params.seed)
    for book, other in zip(training.model.codebooks, expected.codebooks, strict=True):
        np.testing.assert_allclose(book.detach().numpy(), other, rtol=1e-6)


def test_dead_codes_restart_at_residuals_of_items(inputs):
    training = rq_vae._Training(tokenizer(), inputs)
    training._one_epoch()
    model = training.model
    with torch.no_grad():
        model.codebooks[1][3] = 1e6  # no residual is near it
    training.epoch = 1
    before = training.restarted[1]
    training._one_epoch()
    assert training.restarted[1] > before
    residuals = quantise(model.encoder(training.rows), model.codebooks).residuals[:, 1]
    assert (residuals - model.codebooks[1][3]).norm(dim=1).min() < 1e-5
    assert not training.optimizer.state[model.codebooks[1]]["exp_avg"][3].any()


def test_without_restarts_a_dead_code_is_reported(inputs, monkeypatch):
    def start(self):
        weights = unchanged(self)
        weights["codebooks.0"][2] = 1e6
        return weights

    unchanged = rq_vae._Training._start
    monkeypatch.setattr(rq_vae._Training, "_start", start)
    coding = tokenizer(restart=False).fit(inputs)
    facts = coding.facts["rq_vae"]
    assert facts["codes_restarted"] == [0, 0] and facts["codes_unused"][0] >= 1
    used = 5 - facts["codes_unused"][0]
    assert len(coding.codebooks[0]) == used == len(np.unique(coding.codes[:, 0]))
    assert f"{used} of 5" in coding.notes[0]
    restarted = tokenizer().fit(replace(inputs, folder=inputs.folder / "other"))
    assert restarted.facts["rq_vae"]["codes_restarted"][0] >= 1


def test_training_reduces_the_error(inputs):
    """Embeddings on a line of eight dimensions: as good as the codes of its latents once it is trained."""
    rows = np.random.default_rng(1).uniform(-1, 1, (60, 1)).astype(np.float32) * np.ones(8, dtype=np.float32)
    inputs = replace(inputs, vectors=rows)
    short, long = (
        tokenizer(epochs=epochs, lr=0.01).fit(replace(inputs, folder=inputs.folder / str(epochs)))
        for epochs in (1, 300)
    )
    errors = [coding.facts["rq_vae"]["relative_decoding_error"] for coding in (short, long)]
    assert errors[1] < 0.1 < errors[0]


def test_an_interrupted_training_gives_the_same_codes(inputs, monkeypatch):
    params = tokenizer()
    whole = params.fit(replace(inputs, folder=inputs.folder / "whole"))
    monkeypatch.setattr(rq_vae, "SECONDS_BETWEEN_SAVES", 0)
    epoch, epochs = rq_vae._Training._one_epoch, []

    def killed(self):
        epochs.append(self.epoch)
        if epochs == [0, 1, 2, 3, 4, 5, 6]:
            raise KeyboardInterrupt
        return epoch(self)

    monkeypatch.setattr(rq_vae._Training, "_one_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        params.fit(inputs)
    again = params.fit(inputs)
    assert epochs == [*range(7), *range(6, params.epochs)]
    assert np.array_equal(again.codes, whole.codes) and json.dumps(again.facts) == json.dumps(whole.facts)
    assert all(np.array_equal(*both) for both in zip(again.codebooks, whole.codebooks, strict=True))
    assert np.array_equal(again.vectors, whole.vectors)


def test_equal_items_have_equal_codes_and_threads_change_nothing(inputs):
    rows = np.repeat(EMBEDDINGS[:20], 3, axis=0)
    threads, codings = torch.get_num_threads(), []
    for number in (1, 2):
        torch.set_num_threads(number)
        codings.append(tokenizer().fit(replace(inputs, vectors=rows, folder=inputs.folder / str(number))))
        assert torch.get_num_threads() == number
    torch.set_num_threads(threads)
    assert np.array_equal(codings[0].codes, codings[1].codes)
    assert all((triple == triple[0]).all() for triple in codings[0].codes.reshape(20, 3, -1))
    equal = tokenizer(epochs=1).fit(replace(inputs, vectors=np.ones((60, 8), np.float32)))
    assert not equal.codes.any() and equal.facts["rq_vae"]["relative_decoding_error"] == 0


def test_the_encoder_codes_other_items(inputs):
    coding = tokenizer().fit(inputs)
    latents = tokenizer().encoded(EMBEDDINGS[::-1], coding.encoder)
    np.testing.assert_allclose(latents[::-1], coding.vectors)
    one, other = (
        {key: coding.encoder[f"{layer}.{key}"].astype(float) for key in ("weight", "bias")} for layer in (0, 2)
    )
    state = np.maximum(EMBEDDINGS @ one["weight"].T + one["bias"], 0) @ other["weight"].T + other["bias"]
    np.testing.assert_allclose(state, coding.vectors, atol=1e-10)
    assert np.array_equal(nearest_codes(latents, coding.codebooks)[::-1], coding.codes)
    with pytest.raises(UserError, match="does not fit the embeddings"):
        tokenizer(latent=3).encoded(EMBEDDINGS, coding.encoder)


def test_a_diverging_training_says_so(inputs):
    with pytest.raises(UserError, match=r"reconstruction loss is (nan|inf) in epoch .*; lower lr"):
        tokenizer(lr=1e20, epochs=200).fit(inputs)


def test_each_epoch_has_its_own_order(inputs, monkeypatch):
    seen, forward = [], Autoencoder.forward
    monkeypatch.setattr(Autoencoder, "forward", lambda self, rows, beta: seen.append(rows) or forward(self, rows, beta))
    rq_vae._Training(tokenizer(epochs=2), inputs).run()
    first, second = torch.cat(seen[:2]), torch.cat(seen[2:])
    assert not torch.equal(first, second)
    assert torch.equal(first.sort(dim=0).values, second.sort(dim=0).values)
