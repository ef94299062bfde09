"""The stage ``embed``: a vector for every item, encoded from its text or read from the user's file.

Each distinct text is encoded once, so equal texts have bit-equal vectors regardless of batching; otherwise residual
K-means would treat rounding noise as structure. The longest texts are encoded first, which reduces padding and lets
an out-of-memory error occur at the start. Finished shards stay on disk until the stage ends; an interrupted stage
resumes from them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from apao.codes.embedders import EmbedderParams, VectorFile
from apao.codes.embeddings import Vectors
from apao.codes.encoder import encode_batch, is_bf16, load_encoder, package_folder, token_lengths
from apao.codes.given import joined, own_file
from apao.codes.summaries import Summary, text_facts, text_summary, vector_facts, vector_summary
from apao.codes.vectors import read_vectors
from apao.devices import device_name
from apao.errors import UserError
from apao.files import atomic_path, read_table
from apao.progress import progress
from apao.stages.record import Stage
from apao.study.paths import DatasetPaths

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


def embed(dataset: str, params: EmbedderParams | VectorFile, device: torch.device) -> None:
    """Write ``embeddings.safetensors`` (``embeddings``: items x width, float32) of a dataset.

    ``embeddings.json`` and a printed summary describe the inputs: items without text, texts of several items,
    truncated tokens; for a file of vectors, its rows without an item.

    Raises:
        UserError: when no item has a text, the model cannot be obtained, or the device runs out of memory; when the
            file of vectors lacks an item or is malformed.
    """
    paths = DatasetPaths(dataset)
    files = [own_file(path) for path in params.own_files()]
    inputs, record = [paths.items, *files], params.model_dump(mode="json")
    with Stage("embed", paths.folder, inputs, record, device_name(device)) as stage:
        items = read_table(paths.items, ["raw_id", "text"])
        if isinstance(params, VectorFile):
            table, facts, summary = _from_file(items, params, paths)
        else:
            table, facts, summary = _from_texts(items, params, device.type, paths)
        with stage.output(paths.embeddings.name) as path:
            save_file({"embeddings": table}, path)
        stage.output_json(paths.embedding_facts.name, facts)
    shutil.rmtree(_shards(paths), ignore_errors=True)
    summary.print(dataset)


Embedded = tuple[Vectors, dict[str, Any], Summary]
"""Vectors (I, D) of the items, statistics of the inputs, and a summary of these."""


def _shards(paths: DatasetPaths) -> Path:
    return paths.folder / "embeddings.shards"


def _from_file(items: pd.DataFrame, params: VectorFile, paths: DatasetPaths) -> Embedded:
    """Vectors from the user's file."""
    ids, vectors = read_vectors(params)
    join = joined(ids, items["raw_id"].tolist(), params.file, paths.items)
    table = vectors[join.rows]
    facts = vector_facts(table, items["raw_id"]) | join.report(params.file)
    summary = vector_summary(facts)
    summary.lines.insert(0, join.summary(params.file))
    return table, facts, summary


def _from_texts(items: pd.DataFrame, params: EmbedderParams, device: str, paths: DatasetPaths) -> Embedded:
    """Vectors of the items' texts; an item without text gets the mean vector of the others."""
    texts = items["text"].fillna("").str.strip()
    known = texts[texts != ""]
    if known.empty:
        raise UserError(
            f"{paths.items}: no item has a text, so there is nothing to embed; choose other columns "
            f"in datasets.{paths.name}.text, or provide your own vectors or codes (docs/codes.md)"
        )
    index, distinct = pd.factorize(known)
    encoder = load_encoder(params, device)
    lengths = token_lengths(encoder, list(distinct))
    vectors = _encoded(list(distinct), encoder, params, device, _shards(paths))[index]
    table = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
    table[texts != ""] = vectors
    table[texts == ""] = vectors.mean(axis=0, dtype=np.float64)
    assert encoder.max_seq_length is not None  # load_encoder sets it
    facts = text_facts(texts, items["raw_id"], lengths, encoder.max_seq_length)
    return table, facts | {"width": table.shape[1]}, text_summary(facts, paths.name)


def _encoded(
    texts: Sequence[str], encoder: SentenceTransformer, params: EmbedderParams, device: str, folder: Path
) -> Vectors:
    """Vectors of ``texts``, in their order; shards in ``folder`` are reused and added."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    parts = [order[first : first + params.shard_items] for first in range(0, len(order), params.shard_items)]
    mark = _fingerprint(texts, params, device)
    files = [folder / mark / f"{number:06d}.safetensors" for number in range(len(parts))]
    blocks = {
        number: block
        for number, (file, part) in enumerate(zip(files, parts, strict=True))
        if (block := _read_shard(file, len(part))) is not None
    }
    done = sum(len(block) for block in blocks.values())
    with progress("embed items", total=len(texts), done=done) as advance:
        for number, part in enumerate(parts):
            if number in blocks:
                continue
            batches = []
            for first in range(0, len(part), params.batch_size):
                batch = [texts[i] for i in part[first : first + params.batch_size]]
                batches.append(encode_batch(encoder, batch, params))
                advance(len(batch))
            blocks[number] = np.concatenate(batches)
            with atomic_path(files[number]) as path:
                save_file({"embeddings": blocks[number]}, path, metadata={"sha256": _sha256(blocks[number])})
    vectors = np.empty((len(texts), blocks[0].shape[1]), dtype=np.float32)
    vectors[order] = np.concatenate([blocks[number] for number in range(len(parts))])
    return vectors


def _sha256(block: Vectors) -> str:
    return hashlib.sha256(np.ascontiguousarray(block).tobytes()).hexdigest()


def _read_shard(file: Path, rows: int) -> Vectors | None:
    """A shard of an earlier, interrupted call; None if it is missing or damaged."""
    try:
        with safe_open(file, framework="numpy") as shard:
            recorded = (shard.metadata() or {}).get("sha256")
            block: Vectors = shard.get_tensor("embeddings")
    except (FileNotFoundError, SafetensorError):
        return None
    return block if block.ndim == 2 and len(block) == rows and _sha256(block) == recorded else None


def _fingerprint(texts: Sequence[str], params: EmbedderParams, device: str) -> str:
    """Hash that identifies the content of shards: texts, model, and all parameters that change the vectors."""
    if params.package is not None:
        model = [params.package, str(package_folder(params.package))]
    else:
        assert params.model is not None
        model = [params.model]
        for file in params.own_files():
            status = file.stat()
            model += [str(file), str(status.st_size), str(status.st_mtime_ns)]
    how = [params.pooling, params.max_tokens, params.shard_items, is_bf16(params, device)]
    return hashlib.sha256(json.dumps([model, how, list(texts)]).encode()).hexdigest()[:16]
