"""The command ``codes --items``: codes for items that a dataset does not have, by the codebooks it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from apao.codes.coding import Matrix, squared_errors
from apao.codes.collisions import placed
from apao.codes.embedders import EmbedderParams, VectorFile
from apao.codes.embeddings import Vectors, read_embeddings
from apao.codes.encoder import encode_batch, load_encoder
from apao.codes.given import joined, own_file
from apao.codes.itemcodes import ItemCodes
from apao.codes.items import ItemTable
from apao.codes.tokenizers.base import Inputs, Tokenizer
from apao.codes.vectors import read_vectors
from apao.data.delimited import SEPARATORS, quoted_by_default, read_rows
from apao.data.prepared import joined_text, single_line
from apao.devices import device_name
from apao.errors import UserError
from apao.files import read_table
from apao.progress import console, warn
from apao.stages.codes import read_codebooks
from apao.stages.record import Stage
from apao.study.paths import DatasetPaths


def code_new_items(
    dataset: str,
    columns: Sequence[str],
    tokenizer: Tokenizer,
    embedder: EmbedderParams | VectorFile | None,
    file: Path,
    device: torch.device,
) -> None:
    """Write new_items.parquet (``ItemTable``) of a dataset: items of ``file`` with codes.

    They are embedded and coded as the dataset's items were, by the codebooks that these gave, and moved by the same
    collision policy; the codes of the dataset's items stay as they are.

    Args:
        dataset: whose items, codes and codebooks are there.
        columns: of texts, the dataset's ``text``.
        tokenizer: of the dataset.
        embedder: of the dataset, if its tokenizer reads embeddings.
        file: table with the column ``item`` and ``columns``, a row per new item.
        device: where to embed.

    Raises:
        UserError: naming file and line, for an item that the dataset has or that has no text; when the tokenizer
            cannot code new items.
    """
    paths = DatasetPaths(dataset)
    raw_ids = read_table(paths.items, ["raw_id"])["raw_id"]
    table = _read(
        file,
        columns,
        frozenset(raw_ids),
        needs_text=tokenizer.reads_embeddings and isinstance(embedder, EmbedderParams),
    )
    params = tokenizer.model_dump(mode="json")
    read = [file, paths.items, paths.codes, paths.codebooks, *map(own_file, tokenizer.own_files())]
    if tokenizer.reads_embeddings:
        read += [paths.embeddings, *map(own_file, embedder.own_files() if embedder else ())]
    with Stage("new_items", paths.folder, read, params, device_name(device)) as stage:
        known = ItemCodes.read(paths.codes)
        codebooks, encoder = read_codebooks(paths.codebooks)
        vectors: Matrix | None = None
        if tokenizer.reads_embeddings:
            old = tokenizer.encoded(read_embeddings(paths.embeddings, paths.items), encoder)
            vectors = tokenizer.encoded(_vectors(table, embedder, file, device.type), encoder)
        new = tokenizer.code_new(Inputs(table["item"].tolist(), file, paths.folder, device, vectors), codebooks)
        codes = placed(new, known.codes, tokenizer.collisions, vectors, codebooks)
        _check_tokens(codes, known, table["item"], file)
        items = ItemTable(
            table["item"].to_numpy(object),
            table["title"].to_numpy(object),
            ItemCodes(codes),
            np.zeros(len(table), dtype=np.int64),
        )
        with stage.output(paths.new_items.name) as path:
            items.write(path)
    together = ItemCodes(np.concatenate([known.codes, codes]))
    shared = int((together.items_per_code[together.code_of_item[known.items :]] > 1).sum())
    console.print(f"{dataset}: {len(table):,} new items, of which {shared:,} share their code with other items")
    if vectors is not None:
        ours, theirs = (
            squared_errors(rows, rows_codes, codebooks)[-1]
            for rows, rows_codes in ((vectors, codes), (old, known.codes))
        )
        console.print(f"{dataset}: mean squared error of the codes {ours:.3g}; of the dataset's own items {theirs:.3g}")
    console.print(str(paths.new_items))


def _read(file: Path, columns: Sequence[str], known: frozenset[str], needs_text: bool) -> pd.DataFrame:
    """Table of the new items: item (raw id), title, text."""
    if file.suffix not in SEPARATORS:
        raise UserError(f"{file}: expected a table that ends in {' or '.join(SEPARATORS)}")
    if not file.is_file():
        raise UserError(f"{file}: not found; --items names an existing table of new items")
    separator, warnings = SEPARATORS[file.suffix], list[str]()
    rows: dict[str, tuple[str, str]] = {}
    for line, (raw_id, *texts) in read_rows(
        file, separator, ("item", *columns), quoted_by_default(separator), warnings
    ):
        item, text = raw_id.strip(), joined_text(texts)
        if not item or item in known or item in rows:
            why = "is in the dataset already" if item in known else "has a row above" if item else "is no id"
            raise UserError(f"{file}:{line}: item {item!r} {why}; expected one row per new item")
        if needs_text and not text:
            raise UserError(f"{file}:{line}: item {item!r} has no text in {', '.join(columns)}, so nothing to embed")
        rows[item] = (single_line(texts[0]) if texts else "", text)
    for warning in warnings:
        warn(warning)
    if not rows:
        raise UserError(f"{file}: holds no items")
    return pd.DataFrame([(item, *texts) for item, texts in rows.items()], columns=["item", "title", "text"])


def _vectors(table: pd.DataFrame, embedder: EmbedderParams | VectorFile | None, file: Path, device: str) -> Vectors:
    """Embeddings (I, D) of the new items; equal texts have equal ones."""
    assert embedder is not None
    if isinstance(embedder, VectorFile):
        ids, vectors = read_vectors(embedder)
        return vectors[joined(ids, table["item"].tolist(), embedder.file, file).rows]
    encoder = load_encoder(embedder, device)
    index, texts = pd.factorize(table["text"])
    size = embedder.batch_size
    batches = [list(texts[begin : begin + size]) for begin in range(0, len(texts), size)]
    return np.concatenate([encode_batch(encoder, batch, embedder) for batch in batches])[index]


def _check_tokens(codes: np.ndarray, known: ItemCodes, raw_ids: pd.Series, file: Path) -> None:
    """Refuse codes with a token that the dataset's codes lack, which no trained model knows."""
    if codes.shape[1] != known.levels:
        raise UserError(
            f"{file}: the codes of the new items have {codes.shape[1]} levels, the dataset's {known.levels}"
        )
    for level in range(known.levels):
        strange = ~np.isin(codes[:, level], known.codes[:, level])
        if strange.any():
            item, token = raw_ids[int(strange.argmax())], codes[strange.argmax(), level]
            raise UserError(
                f"{file}: item {item!r} has token {token} at level {level + 1}, which no item of the dataset has, so "
                "a trained model does not know it"
            )
