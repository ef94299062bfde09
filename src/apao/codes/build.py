"""The stage ``codes``: from published codes or embeddings to the catalogue's code table."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file

from apao.artifacts import Stage, read_json, read_table
from apao.codes.collisions import reassigned, with_extra_level
from apao.codes.embed import read_embeddings
from apao.codes.itemcodes import IntArray, ItemCodes
from apao.codes.params import PublishedCodes, ResidualKMeansCodes
from apao.codes.quality import quality
from apao.codes.rqkmeans import FloatMatrix, relative_errors, residual_kmeans
from apao.data.base import Source
from apao.errors import UserError
from apao.runs import DatasetPaths


class _Coding(NamedTuple):
    """A code table (I, T) with its codebooks and errors, which published codes lack."""

    codes: IntArray
    codebooks: list[FloatMatrix]
    errors: list[float] | None


def build_codes(dataset: str, source: Source, params: PublishedCodes | ResidualKMeansCodes) -> None:
    """Write ``codes.parquet``, ``codebooks.safetensors`` and ``code_quality.json`` of a dataset.

    The codebooks are ``level_1`` .. ``level_T`` (clusters, width), float32; the file holds no tensor
    where the codes are published, and none for the level that ``extra`` adds. The report has
    ``collision_policy``, ``items_moved`` (items whose code the policy changed: moved to another, or
    numbered above 0), the numbers of ``quality``, and, if an item was moved, the same numbers
    ``before_collision_policy`` (else null).

    Raises:
        UserError: when an input is missing or belongs to another catalogue.
    """
    paths = DatasetPaths(dataset)
    given = source.published_codes(paths.raw) if isinstance(params, PublishedCodes) else paths.embeddings
    with Stage("codes", paths.folder, [paths.items, given], params.model_dump(mode="json")) as stage:
        if isinstance(params, PublishedCodes):
            found = _published(paths, source)
        else:
            embeddings = read_embeddings(paths)
            found = _Coding(
                *residual_kmeans(
                    embeddings, params.levels, params.clusters, params.restarts, params.iterations, params.seed
                )
            )
        final, moved = found, np.zeros(len(found.codes), dtype=bool)
        if params.collisions == "extra":
            final = found._replace(codes=with_extra_level(found.codes))
            moved = final.codes[:, -1] > 0
        elif isinstance(params, ResidualKMeansCodes) and params.collisions == "reassign":
            codes, codebooks = reassigned(found.codes, embeddings, found.codebooks, params.clusters)
            final = _Coding(codes, codebooks, relative_errors(embeddings, codes, codebooks))
            moved = codes[:, -1] != found.codes[:, -1]

        table = ItemCodes(final.codes)
        with stage.output(paths.codes.name) as path:
            table.write(path)
        with stage.output(paths.codebooks.name) as path:
            save_file({f"level_{i}": book.astype(np.float32) for i, book in enumerate(final.codebooks, 1)}, path)
        report = {
            "collision_policy": params.collisions,
            "items_moved": int(moved.sum()),
            **quality(table, final.errors),
            "before_collision_policy": quality(ItemCodes(found.codes), found.errors) if moved.any() else None,
        }
        stage.output_json(paths.code_quality.name, report)


def _published(paths: DatasetPaths, source: Source) -> _Coding:
    """The source's codes, in the order of the item table; they must be of exactly its items."""
    file = source.published_codes(paths.raw)
    codes_of = read_json(file)
    if not isinstance(codes_of, dict):
        raise UserError(f"{file}: expected a JSON object of item ids and codes, found a {type(codes_of).__name__}")
    raw_ids = read_table(paths.items, ["raw_id"])["raw_id"].tolist()
    lacking = [raw for raw in raw_ids if raw not in codes_of]
    unknown = sorted(set(codes_of) - set(raw_ids))
    if lacking or unknown:
        example = f"item {lacking[0]} has no code" if lacking else f"code of {unknown[0]}, which is no item"
        raise UserError(
            f"{file}: its {len(codes_of)} codes are not those of the {len(raw_ids)} items in {paths.items} "
            f"({example}); published codes need the released items: leave datasets.{paths.name}.core at 5, "
            "or name an rq-kmeans entry of codes"
        )
    table = {str(item): codes_of[raw] for item, raw in enumerate(raw_ids)}
    return _Coding(ItemCodes.from_strings(table, str(file)).codes, [], None)
