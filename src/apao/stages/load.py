"""A trained run as an object: ``apao.load("results/ml-100k/tiger/ce/seed42")``."""

from __future__ import annotations

from pathlib import Path

from apao.codes.items import ItemTable
from apao.devices import pick_device
from apao.errors import UserError
from apao.evaluation.metrics import CUTOFFS
from apao.evaluation.params import DecodingParams
from apao.files import read_json, record_path
from apao.stages.dataset import item_table, load_dataset
from apao.stages.recommender import Recommender
from apao.stages.trained import TrainedModel, warn_of_changes
from apao.study.paths import DatasetPaths
from apao.study.run_params import RunRecord
from apao.study.runs import CATALOGUE_FILE, MODEL_FILE, RECORD_FILE, Run


def load(folder: str | Path, device: str = "auto", new_items: str | Path | None = None) -> Recommender:
    """A trained run, ready to recommend.

    The folder is enough: parameters are those of run.json, items and codes those of catalogue.parquet, decoding that
    of the run's last evaluation. It may lie anywhere. A folder without catalogue.parquet, which earlier versions
    left, needs ``data/<dataset>`` of its study.

    Args:
        folder: the run's folder, such as ``results/<dataset>/<backbone>/<objective>/seed<N>``.
        device: ``auto``, ``cpu`` or ``cuda``.
        new_items: items that training did not have, as ``apao codes DATASET --items FILE`` writes them.

    Raises:
        UserError: when the folder is not that of a run, or a file is missing or damaged.
    """
    folder = Path(folder)
    if not (folder / RECORD_FILE).exists():
        raise UserError(f"{folder}: has no {RECORD_FILE}; name the folder of a trained run")
    record = RunRecord.at(folder / RECORD_FILE)
    run = Run.parse(record.run)
    root = study_of(folder, run)
    items = _items(folder, run, record, root)
    params = record.decoded(_decoding(folder, record, len(items.codes.distinct)))
    if new_items is not None:
        items = items.with_new(ItemTable.read(Path(new_items)), Path(new_items))
    trained = TrainedModel(run, params, items.codes, folder / MODEL_FILE, pick_device(device))
    return Recommender(trained, items, folder, root)


def study_of(folder: Path, run: Run) -> Path:
    """The folder of the study that a run's folder is in; the working directory for a folder that was moved."""
    full = folder.resolve()
    depth = len(run.folder.parts)
    return full.parents[depth - 1] if full.parts[-depth:] == run.folder.parts else Path()


def _items(folder: Path, run: Run, record: RunRecord, root: Path) -> ItemTable:
    path = folder / CATALOGUE_FILE
    if path.exists():
        return ItemTable.read(path)
    paths = DatasetPaths(run.dataset, root)
    if not paths.codes.exists():
        raise UserError(f"{path}: not found, and neither is {paths.codes}; one of them has to say the items' codes")
    warn_of_changes(run, record, root)
    return item_table(paths, *load_dataset(paths))


def _decoding(folder: Path, record: RunRecord, codes: int) -> DecodingParams:
    """How the run was last evaluated: by the record of that, else by metrics.json, else the defaults."""
    written = record_path(folder, "evaluate")
    if written.exists():
        return DecodingParams.model_validate(read_json(written)["params"]["decoding"])
    metrics = folder / "metrics.json"
    found = read_json(metrics) if metrics.exists() else {}
    beam, eos = found.get("beam", DecodingParams().beam), found.get("eos")
    # metrics.json has what came of the parameters: "all" as a number of codes, "release" as true.
    return DecodingParams(
        beam=beam if max(CUTOFFS) <= beam <= codes else "all",
        eos="release" if eos and record.backbone.decodes_eos else eos,
    )
