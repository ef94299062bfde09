"""The next items after a history, oldest first, by their ids in catalogue.json: python example.py ID ID ..."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

folder = Path(__file__).parent
catalogue = json.loads((folder / "catalogue.json").read_text(encoding="utf-8"))
codes = {item["id"]: "".join(item["code"]) for item in catalogue["items"]}
unknown = [item for item in sys.argv[1:] if item not in codes]
if unknown or not sys.argv[1:]:
    sys.exit(f"{unknown[0]}: no id of catalogue.json" if unknown else __doc__)
with np.load(folder / "trie.npz") as trie:
    first_edge, edge_token = trie["indptr"], trie["tokens"]

seq2seq = AutoConfig.from_pretrained(folder).is_encoder_decoder
model = (AutoModelForSeq2SeqLM if seq2seq else AutoModelForCausalLM).from_pretrained(folder).eval()
tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)  # AutoTokenizer would go by the class of the model
history = [codes[item] for item in sys.argv[1:]][-catalogue["max_history"] :]
inputs = tokenizer("".join(history), return_tensors="pt")
before = 1 if seq2seq else inputs["input_ids"].shape[1]  # tokens before the code: the start token, or the history


def continuations(_: int, tokens: torch.Tensor) -> list[int]:
    """The tokens that continue a prefix to a code of the catalogue; after a whole code, eos."""
    state = 0
    for token in tokens[before:].tolist():
        begin, end = first_edge[state : state + 2]
        state = begin + np.searchsorted(edge_token[begin:end], token) + 1
    begin, end = first_edge[state : state + 2]
    return edge_token[begin:end].tolist() or [tokenizer.eos_token_id]


options = {"return_dict_in_generate": True, "output_scores": True}
found = model.generate(**inputs, prefix_allowed_tokens_fn=continuations, **options)
texts = tokenizer.batch_decode(found.sequences[:, before:], skip_special_tokens=True)
logp = dict(zip(texts, found.sequences_scores.tolist(), strict=True))
ranked = sorted((item for item in catalogue["items"] if codes[item["id"]] in logp), key=lambda i: -logp[codes[i["id"]]])
for rank, item in enumerate(ranked[:20], start=1):
    print(rank, item["id"], f"{logp[codes[item['id']]]:.4f}", item["title"], sep="\t")
