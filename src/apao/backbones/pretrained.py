"""Pre-trained causal language models: finding and loading them, a vocabulary of item codes, LoRA adapters.

Shapes: V vocabulary, N rows of the pre-trained embedding, D width, P tokens of the prompt.

``transformers`` and ``peft`` are imported where they are used; a model is one of ``transformers``' own classes for
causal language models. Only safetensors are read, and no code of a model's author is run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from apao.backbones.exchange import MAX_SIZE, probability
from apao.codes.encoder import MODEL_FILES
from apao.codes.vocabulary import EOS, PAD
from apao.errors import UserError, first_line
from apao.files import read_json, verified
from apao.parameters import Model

WEIGHT_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")
MAX_LAYERS = 256
INSTALL = 'pip install "apao[hf]"'
ADAPTER = "default"
"""Name of the adapters, as ``peft`` names them."""


class Lora(Model):
    """Low-rank adapters in place of full fine-tuning (Hu et al. 2021, arXiv 2106.09685)."""

    rank: PositiveInt = 8
    alpha: PositiveInt = 16
    """The adapters' output is multiplied by ``alpha`` / ``rank``."""
    dropout: probability = 0.05
    """Dropout on the adapters' input."""
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Names of the layers that get an adapter, such as ``[q_proj, v_proj]``; ``all-linear``: all linear layers but the
    output layer."""


def files_of(folder: Path, tokenizer: bool) -> tuple[Path, ...]:
    """The files of a model's folder that determine a training; with ``tokenizer`` also those of its tokenizer."""
    patterns = MODEL_FILES if tokenizer else WEIGHT_FILES
    return tuple(sorted({path for pattern in patterns for path in folder.glob(pattern)}))


def model_folder(model: str, revision: str | None) -> Path:
    """The folder ``model``, or with a ``revision`` that of a download of this commit of the hub's ``model``.

    Raises:
        UserError: when there is no such folder.
    """
    if revision is None:
        folder = Path(model).expanduser()
        if not (folder / "config.json").is_file():
            raise UserError(
                f"model {model}: no folder with a config.json; name the folder of a model of transformers, or for a "
                "model of the hub also its commit (revision)"
            )
    else:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(model, revision=revision, allow_patterns=MODEL_FILES))
    if (folder / "adapter_config.json").exists():
        raise UserError(f"model {model}: holds adapters of another model; merge them into it and save the whole model")
    return folder


def load_model(folder: Path) -> Any:
    """The pre-trained model in ``folder``, in fp32.

    Raises:
        UserError: when it is quantised, or its files lack weights.
    """
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # the bars of loading would fill a log file
    local = {"trust_remote_code": False, "local_files_only": True}
    config = AutoConfig.from_pretrained(folder, **local)
    if getattr(config, "quantization_config", None) is not None:
        raise UserError(f"model {folder}: has quantised weights, which cannot be trained here; name the plain model")
    options = {**local, "dtype": torch.float32, "use_safetensors": True, "output_loading_info": True}
    model, report = _with_attention(
        lambda attention: AutoModelForCausalLM.from_pretrained(
            folder, config=config, attn_implementation=attention, **options
        )
    )
    absent = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if absent:
        # transformers would draw these at random.
        raise UserError(f"model {folder}: its files have no weights for {absent[:3]} of {type(model).__name__}")
    return model


def empty_model(path: Path) -> Any:
    """An untrained model with the sizes in the ``config.json`` at ``path``, which ``recorded_config`` has written.

    Raises:
        UserError: when the file is missing or damaged, or not that of a causal language model.
    """
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError as error:
        raise UserError(f"backbone hf-causal needs transformers ({error}): {INSTALL}") from error
    values = read_json(verified(path))
    try:
        too_large = sorted(key for key, size in _whole_numbers(values) if size > MAX_SIZE and "theta" not in key)
        if too_large:
            raise ValueError(f"{too_large[0]}: larger than {MAX_SIZE}")
        config = AutoConfig.for_model(**values)
        if not 1 <= config.num_hidden_layers <= MAX_LAYERS:
            raise ValueError(f"it has {config.num_hidden_layers} layers; at most {MAX_LAYERS} are supported")
        return _with_attention(
            lambda attention: AutoModelForCausalLM.from_config(
                config, attn_implementation=attention, trust_remote_code=False, dtype=torch.float32
            )
        )
    except Exception as error:
        why = first_line(error)
        raise UserError(f"{path}: not the config of a causal language model of transformers ({why})") from error


def _whole_numbers(values: Any, key: str = "") -> Iterator[tuple[str, int]]:
    """All whole numbers in JSON values, with the key of each."""
    if type(values) is int:
        yield key, values
    elif isinstance(values, dict | list):
        for name, value in values.items() if isinstance(values, dict) else ((key, value) for value in values):
            yield from _whole_numbers(value, name)


def _with_attention(load: Callable[[str], Any]) -> Any:
    """A model with torch's fused attention, or its own where it has no other.

    Always named: a config may name a kernel that transformers would download and run.
    """
    try:
        return load("sdpa")
    except (ValueError, ImportError):
        return load("eager")


def recorded_config(model: Any) -> dict[str, Any]:
    """The model's config, as in a ``config.json`` that ``transformers`` reads."""
    config: dict[str, Any] = json.loads(model.config.to_json_string(use_diff=False))
    config.pop("_name_or_path", None)
    return {**config, "architectures": [type(model).__name__]}


def prompt_embeddings(model: Any, folder: Path, text: str) -> Tensor | None:
    """Pre-trained embeddings (P, D) of the tokens of ``text``; None without text. The tokenizer is that in ``folder``.

    As the tokenizer encodes it, so with the model's own token for the beginning of a text, if it has one.
    """
    if not text:
        return None
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    tokens = torch.tensor(tokenizer(text)["input_ids"], dtype=torch.long)
    with torch.no_grad():
        embedded: Tensor = model.get_input_embeddings()(tokens)
    return embedded.clone()


@torch.no_grad()
def renew_vocabulary(model: Any, size: int) -> None:
    """Replace the model's vocabulary by V new tokens, in place.

    Each dimension of a new row of the embedding, and of the output layer if it has its own weights, is drawn from the
    normal distribution with the mean and the standard deviation of this dimension in the N pre-trained rows.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is embedding.weight
    rows, outputs = _alike(embedding.weight, size), None if tied else _alike(head.weight, size)
    bias = None if head.bias is None else head.bias.mean().expand(size)
    model.resize_token_embeddings(size, mean_resizing=False)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    embedding.weight.copy_(rows)
    # Otherwise the row with the number of the old padding token would not be trained.
    embedding.padding_idx = None
    if outputs is not None:
        head.weight.copy_(outputs)
    if bias is not None:
        head.bias.copy_(bias)
    model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id = PAD, None, EOS


def _alike(rows: Tensor, size: int) -> Tensor:
    """New rows (V, D) with the mean and spread of ``rows`` (N, D)."""
    return rows.mean(dim=0) + rows.std(dim=0) * torch.randn(size, rows.shape[1])


def add_adapters(model: Any, lora: Lora) -> None:
    """Give the model adapters, in place. Only these and the new rows of embedding and output layer stay trainable.

    Raises:
        UserError: when ``peft`` is missing or a target is no layer of the model.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(f"lora needs peft ({error}): {INSTALL}") from error
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    linear = sorted({name.rpartition(".")[2] for name, part in model.named_modules() if _is_linear(part)})
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        fan_in_fan_out=any(map(_is_transposed, model.modules())),
    )
    try:
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    except ValueError as error:
        name, why = type(model).__name__, first_line(error)
        raise UserError(f"lora.targets {targets}: {why} The linear layers of {name} are {linear}") from error
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        if hasattr(layer, "base_layer"):
            raise UserError(
                f"lora.targets {targets}: embedding and output layer are new and trained whole; leave them out"
            )
        layer.requires_grad_(True)


def _is_transposed(module: nn.Module) -> bool:
    """Whether it is GPT-2's kind of linear layer, whose weight is (inputs, outputs)."""
    return type(module).__name__ == "Conv1D"


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or _is_transposed(module)


def adapted_layers(model: nn.Module) -> Mapping[str, Any]:
    """The layers that have an adapter, by name."""
    return {
        name: part for name, part in model.named_modules() if hasattr(part, "lora_B") and hasattr(part, "base_layer")
    }
