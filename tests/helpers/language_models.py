"""Folders of tiny language models with random weights, as ``transformers`` saves pre-trained ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

WORDS = ("<pad>", "</s>", "<unk>", "What", "comes", "next", "after", ":")
ROWS = 40
"""Rows of the pre-trained vocabulary."""
PROMPT = "What comes next after :"

CONFIGS: dict[str, dict[str, Any]] = {
    # Learned positions, projections as Conv1D, a bias everywhere, tied weights.
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
    | dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    # Grouped heads, and an output layer of its own.
    "llama": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    | {"num_hidden_layers": 2, "max_position_embeddings": 256, "tie_word_embeddings": False},
    # Biases of queries, keys and values; tied weights.
    "qwen2": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    | {"num_hidden_layers": 2, "max_position_embeddings": 256, "tie_word_embeddings": True},
}


def model_of(kind: str, **changes: object) -> Any:
    """An untrained model of ``transformers``, the same at every call."""
    own = {"vocab_size": ROWS, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    config = AutoConfig.for_model(kind, **{**own, **CONFIGS.get(kind, {}), **changes})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            # Wider than fresh ones, as those of a trained model are.
            for parameter in model.parameters():
                if parameter.dim() == 2:
                    parameter.normal_(std=parameter.shape[-1] ** -0.5)
    return model.eval()


def write_model(folder: Path, kind: str = "llama", **changes: object) -> Path:
    """Save ``model_of`` the arguments and a tokenizer of ``WORDS`` in ``folder``."""
    disable_progress_bar()
    model_of(kind, **changes).save_pretrained(folder)
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    words = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": word, **special} for i, word in enumerate(WORDS[:3])],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(WORDS)}, "unk_token": WORDS[2]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(words))
    kind_of_tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": WORDS[2], "eos_token": WORDS[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind_of_tokenizer))
    return folder
