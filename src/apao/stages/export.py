"""The command ``export``: a trained run as a folder that ``transformers`` loads, without any code of ours."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from apao.backbones.base import Backbone
from apao.backbones.hf_causal import HfCausal
from apao.codes.vocabulary import EOS, PAD, SPECIAL_TOKENS, UNK
from apao.errors import UserError
from apao.files import atomic_folder, atomic_path, write_json
from apao.progress import console
from apao.stages.load import load
from apao.stages.model_card import model_card, try_it
from apao.stages.named import run_folder, titles
from apao.stages.recommender import Recommender

EXAMPLE = Path(__file__).parent / "assets" / "example.py"
LISTED = 20
"""Minimum number of items that the exported model returns, if the catalogue has as many."""


@dataclass(frozen=True)
class Family:
    """How ``transformers`` feeds the models of one class.

    Attributes:
        final_norm: the weight of the norm before the logits; None where the model itself divides its logits.
        closes_history: whether eos is appended to a history.
        padding_side: where a batch of histories is padded.
    """

    final_norm: str | None
    closes_history: bool
    padding_side: str


FAMILIES = {
    "T5ForConditionalGeneration": Family("decoder.final_layer_norm.weight", True, "right"),
    "LlamaForCausalLM": Family("model.norm.weight", False, "left"),
}
"""By the class that a backbone's ``transformers_config`` names."""
LANGUAGE_MODEL = Family(None, False, "left")
"""Any class, with the backbone ``hf-causal``."""


def export(run: str, target: Path) -> None:
    """Write the folder ``target``: config, weights, tokenizer, catalogue, trie, model card and example.py.

    ``generate`` of the loaded model, restricted to the trie, returns the codes that our beam search finds, with their
    log-probabilities as scores.

    Args:
        run: a run's name or folder.
        target: a folder that does not exist or is empty.

    Raises:
        UserError: when the run is missing, ``target`` holds files, or ``transformers`` has no such model.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target}: exists; name a new or empty folder, or delete it first")
    if target.resolve() == Path.cwd():
        raise UserError(f"{target}: the shell's own folder would be replaced; name another one")
    folder = run_folder(run)
    model = load(folder, device="cpu")
    family = _family(run, model.trained.backbone)
    weights, config = _weights_and_config(model, family)
    # Whole or not at all: a folder of half the files would load and be wrong.
    with atomic_folder(target.absolute()) as new:
        write_json(new / "config.json", config)
        with atomic_path(new / "model.safetensors") as path:
            save_file(weights, path, metadata={"format": "pt"})
        write_json(new / "generation_config.json", generation_config(model, config))
        write_json(new / "tokenizer.json", tokenizer(model.trained.codes.vocabulary, family))
        write_json(new / "tokenizer_config.json", tokenizer_config(family))
        write_json(new / "catalogue.json", catalogue(model))
        trie = model.trained.trie
        np.savez_compressed(new / "trie.npz", indptr=trie.indptr.numpy(), tokens=trie.tokens.numpy())
        shutil.copyfile(EXAMPLE, new / EXAMPLE.name)
        (new / "README.md").write_text(model_card(model, folder), encoding="utf-8")
    console.print(f"{target}: try it with {try_it(target / EXAMPLE.name, model)}")


def _family(run: str, backbone: Backbone) -> Family:
    if isinstance(backbone, HfCausal):
        if backbone.prompt is not None:
            raise UserError(f"{run}: has a prompt, which is not text of its vocabulary; only runs without are exported")
        return LANGUAGE_MODEL
    (architecture,) = backbone.transformers_config().get("architectures", ["none"])
    if architecture not in FAMILIES:
        known = f"{', '.join(FAMILIES)} and hf-causal"
        raise UserError(
            f"{run}: transformers has no class for backbone {backbone.params.type}; only {known} can be exported"
        )
    return FAMILIES[architecture]


def _weights_and_config(model: Recommender, family: Family) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and config with the logits that the run is decoded with: a temperature divides the last norm."""
    backbone, temperature = model.trained.backbone, model.trained.params.objective.softmax.temperature
    if isinstance(backbone, HfCausal):
        weights, config = backbone.divided(temperature)
    else:
        assert family.final_norm is not None
        weights, config = backbone.to_transformers(), backbone.transformers_config()
        weights[family.final_norm] = weights[family.final_norm] / temperature
    return {name: value.contiguous() for name, value in weights.items()}, config


def generation_config(model: Recommender, config: Mapping[str, Any]) -> dict[str, Any]:
    """Beam search as the run is evaluated. Without a length penalty scores are sums: a code's log-probability."""
    trained = model.trained
    beam = min(max(trained.beam, LISTED), len(trained.codes.distinct))
    special = {key: value for key, value in config.items() if key.endswith("_token_id") and value is not None}
    return {
        **special,
        "do_sample": False,
        "num_beams": beam,
        "num_return_sequences": beam,
        "max_new_tokens": trained.codes.levels + trained.params.decodes_eos,
        "length_penalty": 0.0,
        # After the trie's mask: a softmax over the legal tokens alone.
        "renormalize_logits": trained.params.objective.softmax.legal_only,
        # transformers makes the cache of T5's decoder with as many layers as the encoder has.
        "use_cache": config.get("num_layers") == config.get("num_decoder_layers"),
    }


def tokenizer(vocabulary: tuple[str, ...], family: Family) -> dict[str, Any]:
    """tokenizer.json: one token per level of a code, written without separators: ``<a_17><b_3>``."""
    eos = SPECIAL_TOKENS[EOS]
    closing = [{"SpecialToken": {"id": eos, "type_id": 0}}] if family.closes_history else []
    texts = [[{"Sequence": {"id": name, "type_id": 0}}, *closing] for name in "AB"]
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": content, **added} for i, content in enumerate(SPECIAL_TOKENS)],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "WhitespaceSplit"},
                {"type": "Split", "pattern": {"Regex": "<[^<>]*>"}, "behavior": "Isolated", "invert": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": texts[0],
            "pair": [*texts[0], *texts[1]],
            "special_tokens": {eos: {"id": eos, "ids": [EOS], "tokens": [eos]}},
        },
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {token: i for i, token in enumerate(vocabulary)},
            "unk_token": SPECIAL_TOKENS[UNK],
        },
    }


def tokenizer_config(family: Family) -> dict[str, Any]:
    """tokenizer_config.json, for the class of ``transformers`` that reads any tokenizer.json."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": SPECIAL_TOKENS[PAD],
        "eos_token": SPECIAL_TOKENS[EOS],
        "unk_token": SPECIAL_TOKENS[UNK],
        "padding_side": family.padding_side,
        "truncation_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }


def catalogue(model: Recommender) -> dict[str, Any]:
    """catalogue.json: every item's own id, title and code, in the order in which items of one code are listed."""
    trained = model.trained
    tokens = np.array(trained.codes.vocabulary, dtype=object)[trained.codes.tokens].tolist()
    rows = zip(model.items["raw_id"], titles(model.items), tokens, strict=True)
    return {
        "run": str(trained.run),
        "max_history": trained.params.backbone.max_history,
        "levels": trained.codes.levels,
        "items": [{"id": raw_id, "title": title, "code": code} for raw_id, title, code in rows],
    }
