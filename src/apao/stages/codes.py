"""The stage ``codes``: from given codes or embeddings to the catalogue's code table."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import save_file

from apao.codes.codefile import given_codes
from apao.codes.collisions import reassigned, with_extra_level
from apao.codes.embeddings import read_embeddings
from apao.codes.given import Join, own_file
from apao.codes.itemcodes import ItemCodes
from apao.codes.params import AnyCodes, FileCodes, PublishedCodes, ResidualKMeansCodes
from apao.codes.quality import quality
from apao.codes.rqkmeans import FloatMatrix, relative_errors, residual_kmeans
from apao.codes.summaries import code_summary, example_of_largest_group
from apao.data.base import Source
from apao.data.histories import IntArray
from apao.errors import UserError
from apao.evaluation.params import DecodingParams
from apao.files import read_table
from apao.stages.record import Stage
from apao.study.paths import DatasetPaths


class _Coding(NamedTuple):
    """A code table (I, T) with its codebooks and errors, which given codes lack."""

    codes: IntArray
    codebooks: list[FloatMatrix]
    errors: list[float] | None


def build_codes(dataset: str, source: Source, params: AnyCodes, decoding: DecodingParams) -> None:
    """Write ``codes.parquet``, ``codebooks.safetensors`` and ``code_quality.json`` of a dataset.

    The codebooks are ``level_1`` .. ``level_T`` (clusters, width), float32; the file holds no tensor
    where the codes are given, and none for the level that ``extra`` adds. The report has
    ``collision_policy``, ``items_moved`` (items whose code the policy changed: moved to another, or
    numbered above 0), the numbers of ``quality``, the code that most items share with some of them, and, if an
    item was moved, the numbers of ``quality`` ``before_collision_policy`` (else null). What a file of codes
    holds beside those of the items is under ``file``. A summary of it is printed.

    Raises:
        UserError: when an input is missing or belongs to another catalogue, or there are fewer codes than the
            beams of ``decoding``, which evaluation would refuse after the training has been paid for.
    """
    paths = DatasetPaths(dataset)
    given = _given(source, params, paths)
    inputs = [paths.items, paths.embeddings if given is None else given]
    with Stage("codes", paths.folder, inputs, params.model_dump(mode="json")) as stage:
        raw_ids = read_table(paths.items, ["raw_id"])["raw_id"].tolist()
        join: Join | None = None
        if given is not None:
            codes, join = given_codes(given, params.item if isinstance(params, FileCodes) else "", paths)
            found = _Coding(codes, [], None)
        else:
            assert isinstance(params, ResidualKMeansCodes)
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
        try:
            decoding.width(len(table.distinct))
        except UserError as error:
            raise UserError(f"{dataset}: {error}") from error
        with stage.output(paths.codes.name) as path:
            table.write(path)
        with stage.output(paths.codebooks.name) as path:
            save_file({f"level_{i}": book.astype(np.float32) for i, book in enumerate(final.codebooks, 1)}, path)
        report = {
            "collision_policy": params.collisions,
            "items_moved": int(moved.sum()),
            **quality(table, final.errors),
            "largest_group_example": example_of_largest_group(table, raw_ids),
            "before_collision_policy": quality(ItemCodes(found.codes), found.errors) if moved.any() else None,
            "file": None if given is None or join is None else join.report(given),
        }
        stage.output_json(paths.code_quality.name, report)
    summary = code_summary(report, params, dataset, source.codes)
    if given is not None and join is not None:
        summary.lines.insert(0, join.said(given))
    summary.print(dataset)


def _given(source: Source, params: AnyCodes, paths: DatasetPaths) -> Path | None:
    """The file that holds the codes; None where they are made here."""
    if isinstance(params, PublishedCodes):
        return source.published_codes(paths.raw)
    if isinstance(params, FileCodes):
        return own_file(params.path.expanduser())
    return None
