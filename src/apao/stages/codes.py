"""The stage ``codes``: the catalogue's code table, from embeddings or existing codes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from apao.codes.coding import FloatMatrix
from apao.codes.collisions import apply_policy
from apao.codes.embeddings import read_embeddings
from apao.codes.given import own_file
from apao.codes.itemcodes import ItemCodes
from apao.codes.quality import quality
from apao.codes.summaries import code_summary, example_of_largest_group
from apao.codes.tokenizers.base import Inputs, Tokenizer
from apao.data.base import Source
from apao.devices import device_name
from apao.errors import UserError
from apao.files import again, digest_of, read_table, verified
from apao.stages.record import Stage
from apao.study.paths import DatasetPaths

if TYPE_CHECKING:
    from apao.evaluation.params import DecodingParams

ENCODER = "encoder."
"""Begins the names of the encoder's tensors in ``codebooks.safetensors``."""


def build_codes(
    dataset: str, source: Source, tokenizer: Tokenizer, decoding: DecodingParams, device: torch.device
) -> None:
    """Write ``codes.parquet``, ``codebooks.safetensors`` and ``code_quality.json`` of a dataset.

    The codebooks are tensors ``level_1`` .. ``level_T`` (tokens, width), float32, as the tokenizer fitted them; there
    are none for a tokenizer without codebooks, none for the level that ``extra`` adds, and no rows for the tokens that
    ``reassign`` adds to the last level. Beside them are the tensors of the encoder whose
    output they approximate, if there is one, as ``encoder.NAME``. ``code_quality.json`` has:

    - ``collision_policy``, and ``items_moved``, the number of items whose code it changed (moved, or numbered above 0);
    - the measures of ``quality``;
    - ``largest_group_example``: the code that most items share, with some of the items;
    - ``before_collision_policy``: the measures of ``quality`` before the policy if it changed a code, else null;
    - the tokenizer's ``facts``.

    Prints a summary of it.

    Raises:
        UserError: when an input is missing or belongs to another catalogue, or there are fewer codes than the beam of
            ``decoding``, which evaluation would refuse only after the training.
    """
    paths, params = DatasetPaths(dataset), tokenizer.model_dump(mode="json")
    unfinished = paths.folder / "codes.unfinished"
    embeddings = paths.embeddings if tokenizer.reads_embeddings else None
    published = source.published_codes(paths.raw) if tokenizer.reads_published else None
    given = [path for path in (embeddings, published) if path is not None]
    files = [paths.items, *given, *map(own_file, tokenizer.own_files())]
    with Stage("codes", paths.folder, files, params, device_name(device)) as stage:
        raw_ids = read_table(paths.items, ["raw_id"])["raw_id"].tolist()
        folder = unfinished / digest_of({"params": params, "inputs": stage.inputs})[:16]
        vectors = None if embeddings is None else read_embeddings(embeddings, paths.items)
        fitted = tokenizer.fit(Inputs(raw_ids, paths.items, folder, device, vectors, published))
        final, moved = apply_policy(fitted, tokenizer.collisions, tokenizer.sizes)
        table = ItemCodes(final.codes)
        try:
            decoding.width(len(table.distinct))
        except UserError as error:
            raise UserError(f"{dataset}: {error}") from error
        with stage.output(paths.codes.name) as path:
            table.write(path)
        with stage.output(paths.codebooks.name) as path:
            books = {f"level_{i}": book.astype(np.float32) for i, book in enumerate(final.codebooks, 1)}
            save_file(books | {f"{ENCODER}{name}": value for name, value in final.encoder.items()}, path)
        before = quality(ItemCodes(fitted.codes), fitted.relative_errors) if moved.any() else None
        report = {
            "collision_policy": tokenizer.collisions,
            "items_moved": int(moved.sum()),
            **quality(table, final.relative_errors),
            "largest_group_example": example_of_largest_group(table, raw_ids),
            "before_collision_policy": before,
            **fitted.facts,
        }
        stage.output_json(paths.code_quality.name, report)
    shutil.rmtree(unfinished, ignore_errors=True)
    summary = code_summary(report, f"codes.{source.codes}", _remedy(tokenizer, paths, source.codes))
    summary.lines[:0] = fitted.notes
    summary.print(dataset)


def read_codebooks(path: Path) -> tuple[list[FloatMatrix], dict[str, NDArray[np.float32]]]:
    """Codebooks (tokens, width) of the levels and the encoder's tensors by name, from ``codebooks.safetensors``.

    Raises:
        UserError: when the file is missing or damaged.
    """
    try:
        tensors = load_file(verified(path))
        encoder = {name.removeprefix(ENCODER): tensors.pop(name) for name in list(tensors) if name.startswith(ENCODER)}
        return [tensors[f"level_{level}"].astype(np.float64) for level in range(1, len(tensors) + 1)], encoder
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path}: not the codebooks of a tokenizer ({error}); {again(path)}.") from error


def _remedy(tokenizer: Tokenizer, paths: DatasetPaths, entry: str) -> str:
    """Advice if many items share a code."""
    remedies = []
    if tokenizer.reads_embeddings:
        remedies.append(f"look in {paths.embedding_facts} for items without text or with the same text")
    if tokenizer.enlarged_by is not None:
        remedies.append(f"raise codes.{entry}.{tokenizer.enlarged_by}")
    return ", or ".join(remedies) or "check how the codes were computed"
