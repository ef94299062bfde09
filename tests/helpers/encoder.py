"""A text encoder with a few thousand weights, in a folder as on the Hugging Face Hub."""

from collections.abc import Sequence
from pathlib import Path

import torch

SPECIAL = ["<s>", "</s>", "<unk>"]


def write_encoder(folder: Path, words: Sequence[str]) -> Path:
    """Write a Llama with the vocabulary ``words``: no padding token, a chat template, bos before a text."""
    import tokenizers
    import transformers

    vocabulary = [*SPECIAL, *words]
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=0, eos_token_id=1, initializer_range=0.5,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    ids = {word: i for i, word in enumerate(vocabulary)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = "{% for message in messages %}red red {{ message['content'] }} red{% endfor %}"
    fast.save_pretrained(folder)
    return folder
