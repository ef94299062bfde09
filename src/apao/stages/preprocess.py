"""The stage ``preprocess``: the prepared dataset and its statistics."""

from __future__ import annotations

from apao.data.base import Source
from apao.data.prepared import prepare
from apao.data.summary import check_items, statistics, summary
from apao.errors import UserError
from apao.progress import console, warn
from apao.stages.download import changed_hashes, check_raw
from apao.stages.record import Stage
from apao.study.paths import DatasetPaths


def preprocess(dataset: str, source: Source) -> None:
    """Write the tables of interactions, items and users, and ``stats.json``, of a downloaded dataset.

    Raises:
        UserError: when a raw file is damaged or has too many malformed records, no item of the interactions is in
            the item table, or the filter drops all interactions.
    """
    paths = DatasetPaths(dataset)
    params = source.model_dump(mode="json", exclude={"recipe", "codes"})
    if not paths.manifest.exists():
        raise UserError(f"{paths.manifest}: not found; run: apao download {dataset}")
    with Stage("preprocess", paths.folder, [paths.manifest], params) as stage:
        for line in changed_hashes([paths]):
            raise UserError(f"{line}; run: apao download {dataset}")
        check_raw(dataset, source)
        raw = source.read(paths.raw)
        prepared = prepare(dataset, raw, source.core, source.duplicates, source.ties, source.ties_seed, source.split)
        check_items(dataset, raw, prepared)
        with stage.output(paths.interactions.name) as path:
            prepared.interactions.to_parquet(path, index=False)
        with stage.output(paths.items.name) as path:
            prepared.items.to_parquet(path, index=False)
        with stage.output(paths.users.name) as path:
            prepared.users.to_parquet(path, index=False)
        stats = statistics(dataset, source, raw, prepared)
        stage.output_json(paths.stats.name, stats)
    for line in summary(stats):
        console.print(line)
    for line in stats["warnings"]:
        warn(line)
