"""The backbone ``hf-causal`` against ``transformers``' own forward pass, on tiny models with random weights."""

import json
import sys

import huggingface_hub
import pytest
import torch
import transformers
from helpers import language_models
from helpers.language_models import CONFIGS, PROMPT, ROWS
from helpers.models import padded, shaken
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from apao.backbones.hf_causal import AT_ONCE, HfCausal, HfCausalParams
from apao.backbones.pretrained import adapted_layers
from apao.errors import UserError

VOCABULARY, LEVELS = 23, 3
HISTORIES = [[5, 9, 12], [3, 8, 11, 18, 4, 9, 13, 16, 5], [6]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
GROUPED = {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2}
OTHERS = {
    **dict.fromkeys(("mistral", "olmo2", "phi", "phi3", "smollm3"), GROUPED),
    **{kind: {**GROUPED, "head_dim": 8} for kind in ("gemma", "gemma3_text", "qwen3")},
    "gpt_neox": {**SIZES, "intermediate_size": 48},
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "opt": {**SIZES, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
}
every_kind = pytest.mark.parametrize("kind", CONFIGS)


@pytest.fixture
def folder(tmp_path):
    """A folder of a pre-trained Llama."""
    return language_models.write_model(tmp_path / "base")


def built(folder, seed=0, **more) -> HfCausal:
    torch.manual_seed(seed)
    return HfCausalParams(type="hf-causal", model=str(folder), **more).build(VOCABULARY).eval()


def in_transformers(backbone, folder):
    """The model that ``transformers`` loads from the files of a run."""
    folder.mkdir()
    save_file(backbone.to_transformers(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(backbone.transformers_config()))
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def candidates(count):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(3, VOCABULARY, (len(HISTORIES), count, LEVELS), generator=generator)


def one_by_one(model, codes, before=None):
    """Logits (B, C, T + 1, V) by a forward pass over each history with each code, without padding or cache."""
    found = []
    for history, rows in zip(HISTORIES, codes.tolist(), strict=True):
        for code in rows:
            x = model.get_input_embeddings()(torch.tensor([[*history, *code]]))
            x = x if before is None else torch.cat([before[None], x], dim=1)
            found.append(model(inputs_embeds=x, use_cache=False).logits[0, -LEVELS - 1 :])
    return torch.stack(found).unflatten(0, codes.shape[:2])


def ours(backbone, codes):
    """The same from a single encoding of the padded histories, with the code in two steps."""
    context = backbone.encode(padded(HISTORIES))
    first, past = backbone.extend(context, codes[..., :1])
    rest, _ = backbone.extend(context, codes[..., 1:], past)
    start = context.start[:, None, None].expand(-1, codes.shape[1], -1, -1)
    return backbone.logits(torch.cat([start, first, rest], dim=2))


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@every_kind
@torch.no_grad()
def test_candidates_have_the_logits_of_a_plain_forward_pass(kind, tmp_path):
    backbone = built(language_models.write_model(tmp_path / "base", kind))
    shaken(backbone)
    codes = candidates(4)
    expected = one_by_one(in_transformers(backbone, tmp_path / "run"), codes)
    assert expected.std() > 0.2  # random enough for an error to show
    close(ours(backbone, codes), expected)
    # In training the target and the candidates are given to encode.
    context = backbone.encode(padded(HISTORIES), codes[:, 0], codes[:, 1:])
    close(backbone.logits(context.along), expected[:, 0])
    close(backbone.logits(context.after), expected[:, 1:, 1:])


@pytest.mark.parametrize("kind", OTHERS)
@torch.no_grad()
def test_other_classes(kind, tmp_path):
    backbone = built(language_models.write_model(tmp_path / "base", kind, **OTHERS[kind]))
    expected = one_by_one(backbone.model, candidates(3))
    assert expected.std() > 0.05
    close(ours(backbone, candidates(3)), expected)


@torch.no_grad()
def test_more_candidates_than_are_read_at_once(folder):
    backbone = built(folder)
    shaken(backbone)
    codes = candidates(AT_ONCE + 5)
    found = ours(backbone, codes)
    for some in (slice(3), slice(AT_ONCE - 1, AT_ONCE + 2)):
        close(found[:, some], ours(backbone, codes[:, some]))


@torch.no_grad()
def test_the_prompt_is_read_before_every_history(folder, tmp_path):
    backbone = built(folder, prompt=PROMPT)
    base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    words = transformers.AutoTokenizer.from_pretrained(folder)(PROMPT)["input_ids"]
    assert len(words) == len(PROMPT.split()) and 2 not in words
    before = base.get_input_embeddings().weight[words]
    # The same layers with the new vocabulary, and no prompt of ours.
    plain = built(folder, prompt="")
    plain.load_transformers({name: value for name, value in backbone.to_transformers().items() if name != "prompt"})
    codes = candidates(4)
    close(ours(backbone, codes), one_by_one(plain.model, codes, before))
    assert (ours(backbone, codes) - ours(plain, codes)).abs().max() > 0.01


@every_kind
def test_all_but_the_vocabulary_is_pretrained(kind, tmp_path):
    folder = language_models.write_model(tmp_path / "base", kind, hidden_size=32)
    base, found = load_file(folder / "model.safetensors"), built(folder).to_transformers()
    assert base.keys() == found.keys()
    new = [name for name in base if base[name].shape != found[name].shape]
    assert {base[name].shape[0] for name in new} == {ROWS} and {found[name].shape[0] for name in new} == {VOCABULARY}
    assert len(new) == (1 if base.keys().isdisjoint({"lm_head.weight"}) else 2)
    assert all(torch.equal(base[name], found[name]) for name in base.keys() - set(new))


def test_new_rows_are_spread_as_the_pretrained(folder):
    weights = load_file(folder / "model.safetensors")
    means, scales = torch.linspace(-1, 1, 32), torch.linspace(0.1, 2, 32)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = means + scales * torch.randn(ROWS, 32)
        means = means.flip(0)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    found = HfCausalParams(type="hf-causal", model=str(folder)).build(4000).to_transformers()
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        std = weights[name].std(dim=0)
        assert ((found[name].mean(dim=0) - weights[name].mean(dim=0)) / std).abs().max() < 0.1
        assert (found[name].std(dim=0) / std - 1).abs().max() < 0.1


@every_kind
def test_lora_trains_adapters_and_the_new_vocabulary_only(kind, tmp_path):
    folder = language_models.write_model(tmp_path / "base", kind)
    plain, backbone = built(folder, seed=1), built(folder, seed=1, lora={"rank": 2})
    with torch.no_grad():
        # Adapters begin as no change.
        close(ours(backbone, candidates(3)), ours(plain, candidates(3)))
    learned = backbone.learned_state()
    vocabulary = {f"model.{name}" for name, value in plain.to_transformers().items() if len(value) == VOCABULARY}
    assert {name for name in learned if ".lora_" not in name} == vocabulary
    assert {
        tuple(value.shape)[0 if ".lora_A." in name else 1] for name, value in learned.items() if ".lora" in name
    } == {2}
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=0.1)
    for _ in range(2):
        context = backbone.encode(padded(HISTORIES), candidates(2)[:, 0], candidates(2)[:, 1:])
        (backbone.logits(context.along).exp().mean() + backbone.logits(context.after).exp().mean()).backward()
        optimizer.step()
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert changed & learned.keys() == learned.keys()
    assert {name for name in changed if ".base_layer." in name or "norm" in name} == set()


@every_kind
@torch.no_grad()
def test_merged_adapters_compute_the_same(kind, tmp_path):
    backbone = built(language_models.write_model(tmp_path / "base", kind), lora={"rank": 2, "alpha": 3})
    base = {name: value.clone() for name, value in backbone.to_transformers().items()}
    assert adapted_layers(backbone.model)
    shaken(backbone)
    codes = candidates(3)
    expected = ours(backbone, codes)
    merged = backbone.to_transformers()
    assert merged.keys() == base.keys()
    close(one_by_one(in_transformers(backbone, tmp_path / "run"), codes), expected)
    # Whoever starts from these weights has them in the layers, and adapters that begin anew.
    backbone.load_transformers(merged)
    close(ours(backbone, codes), expected)
    assert all(not layer.lora_B["default"].weight.any() for layer in adapted_layers(backbone.model).values())


def test_lora_of_named_layers(folder):
    backbone = built(folder, lora={"targets": ["q_proj", "v_proj"]})
    assert {name.rpartition(".")[2] for name in adapted_layers(backbone.model)} == {"q_proj", "v_proj"}


def test_learned_state_round_trip(folder):
    one, other = (built(folder, seed=seed, lora={"rank": 2}) for seed in (0, 1))
    one.load_learned_state(other.learned_state())
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key"):
        one.load_learned_state(dict(list(other.learned_state().items())[1:]))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        one.load_learned_state({**other.learned_state(), "more": torch.zeros(1)})


def test_a_changed_model_is_another_input(folder):
    files = HfCausalParams(type="hf-causal", model=str(folder)).own_files()
    assert [path.name for path in files] == ["config.json", "model.safetensors"]
    files = HfCausalParams(type="hf-causal", model=str(folder), prompt="What").own_files()
    assert {"tokenizer.json", "tokenizer_config.json"} < {path.name for path in files}
    assert HfCausalParams(type="hf-causal", model="some/model", revision=COMMIT).own_files() == ()


# --- errors ----------------------------------------------------------------------------------------------------------


def refused(folder, **more) -> str:
    with pytest.raises(UserError) as error:
        HfCausalParams(type="hf-causal", model=str(folder), **more).build(VOCABULARY)
    message = str(error.value)
    assert message.startswith("backbone hf-causal") and "\n" not in message
    return message


def test_a_folder_that_is_not_there(tmp_path):
    assert "no folder with a config.json; name the folder" in refused(tmp_path / "nowhere")


def test_a_model_of_the_hub_without_network(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert "download it elsewhere and name its folder" in refused("some/model", revision=COMMIT)


@pytest.mark.parametrize("revision", ["main", COMMIT[:7]])
def test_a_revision_that_may_move(revision):
    with pytest.raises(ValidationError, match="revision"):
        HfCausalParams(type="hf-causal", model="some/model", revision=revision)


def test_pickled_weights_are_not_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "weights as safetensors" in refused(folder)


def test_code_of_a_model_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    assert "a causal language model of transformers itself" in refused(folder)
    assert not (folder / "ran").exists()


def test_a_kernel_that_a_config_names_is_not_fetched(folder):
    config = json.loads((folder / "config.json").read_text())
    for key in ("attn_implementation", "_attn_implementation"):
        (folder / "config.json").write_text(json.dumps({**config, key: "someone/kernel"}))
        assert built(folder).model.config._attn_implementation == "sdpa"


def test_missing_weights_are_not_drawn(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "its files have no weights for ['model.layers.1.mlp.up_proj.weight']" in refused(folder)


def test_adapters_and_quantised_weights(folder):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    assert "has quantised weights" in refused(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "holds adapters of another model" in refused(folder)


REFUSED = {
    # ALiBi.
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},
    # Recurrent.
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    # Rescaled logits.
    "gemma2": {**GROUPED, "head_dim": 8},
    "granite": {**GROUPED, "logits_scaling": 4.0},
    "cohere": GROUPED,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_models_that_compute_something_else(kind, tmp_path):
    message = refused(language_models.write_model(tmp_path / "base", kind, **REFUSED[kind]))
    assert "cannot read candidates side by side" in message


@pytest.mark.parametrize("key", ["max_position_embeddings", "sliding_window"])
def test_a_history_beyond_the_models_positions(key, tmp_path):
    kind = "llama" if key == "max_position_embeddings" else "mistral"
    sizes = {**CONFIGS["llama"], key: 12}
    backbone = built(language_models.write_model(tmp_path / "base", kind, **sizes))
    backbone.encode(torch.full((1, 12), 3))
    with pytest.raises(UserError, match=r"reads 12 tokens, too few for 13 .* smaller max_history"):
        backbone.encode(torch.full((1, 13), 3))
    with pytest.raises(UserError, match="too few for 14"):
        backbone.extend(backbone.encode(torch.full((1, 12), 3)), torch.full((1, 1, 2), 3))


def test_lora_targets_that_the_model_lacks(folder):
    message = refused(folder, lora={"targets": ["c_attn"]})
    assert "lora.targets ['c_attn']: " in message and "layers of LlamaForCausalLM are ['down_proj', 'gate" in message
    assert "new and trained whole" in refused(folder, lora={"targets": ["q_proj", "lm_head"]})


def test_lora_without_peft(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert 'pip install "apao[hf]"' in refused(folder, lora={})


def test_without_transformers(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "needs transformers" in refused(folder)
