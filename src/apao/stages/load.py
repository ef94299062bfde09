"""A trained run as an object: ``apao.load("results/ml-100k/tiger/ce/seed42")``."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from pydantic import ValidationError

from apao.codes.items import ItemTable
from apao.devices import pick_device
from apao.errors import UserError
from apao.evaluation.metrics import CUTOFFS
from apao.evaluation.params import DecodingParams
from apao.files import PUBLISHED_RECORD, read_json, read_record, record_path, sha256_of, verified
from apao.stages.dataset import item_table, load_dataset
from apao.stages.named import project_folder_of
from apao.stages.recommender import Recommender
from apao.stages.trained import TrainedModel, warn_of_changes
from apao.study.paths import RESULTS, DatasetPaths
from apao.study.run_params import RunRecord
from apao.study.runs import CATALOGUE_FILE, MODEL_FILE, RECORD_FILE, Run


def load(folder: str | Path, device: str = "auto", new_items: str | Path | None = None) -> Recommender:
    """Load a trained run for recommendation.

    Needs only the run's folder, wherever it is: parameters are read from run.json, items and codes from
    catalogue.parquet, decoding from the run's last evaluation. A folder of an earlier version, without
    catalogue.parquet, needs ``data/<dataset>`` of its project folder.

    Args:
        folder: the run's folder, such as ``results/<dataset>/<backbone>/<objective>/seed<N>``.
        device: ``auto``, ``cpu`` or ``cuda``.
        new_items: table of items that are not in the training data, written by ``apao codes DATASET --items FILE``.

    Raises:
        UserError: when the folder is not that of a run, or a file is missing or damaged.
    """
    folder = Path(folder)
    if not (folder / RECORD_FILE).exists():
        ours = folder.parts[:1] == RESULTS.parts
        train = f", or train this one: snakemake -c2 {quote(str(folder / MODEL_FILE))}" if ours else ""
        raise UserError(f"{folder}: has no {RECORD_FILE}; name the folder of a trained run{train}")
    record = RunRecord.at(folder / RECORD_FILE)
    run = Run.parse(record.run)
    if (folder / PUBLISHED_RECORD).exists():
        raise UserError(f"{folder}: is a published run, without weights; train it here: apao train {quote(str(run))}")
    root = project_folder_of(folder)
    items = _items(folder, run, record, root)
    params = record.decoded(_decoding(folder, record, len(items.codes.distinct)))
    if new_items is not None:
        items = items.with_new(_new_items(Path(new_items), record), Path(new_items))
    trained = TrainedModel(run, params, items.codes, folder / MODEL_FILE, pick_device(device))
    return Recommender(trained, items, folder, root)


def _items(folder: Path, run: Run, record: RunRecord, root: Path) -> ItemTable:
    path = folder / CATALOGUE_FILE
    if path.exists():
        return ItemTable.read(path)
    paths = DatasetPaths(run.dataset, root)
    if not paths.codes.exists():
        raise UserError(f"{path}: not found, and neither is {paths.codes}; one of them is needed for the items' codes")
    warn_of_changes(run, record, root)
    return item_table(paths, *load_dataset(paths))


def _new_items(path: Path, record: RunRecord) -> ItemTable:
    """New items, which must have been coded beside the codes that the run was trained on."""
    again = f"apao codes {record.dataset} --items FILE"
    if path.suffix != ".parquet" or not path.is_file():
        raise UserError(f"{path}: expected a file new_items.parquet, which codes new items for a run; make it: {again}")
    written, codes = record_path(path.parent, "new_items"), str(DatasetPaths(record.dataset).codes)
    beside = read_record(written)["inputs"].get(codes) if written.exists() else None
    if beside not in (None, record.inputs.get(codes)):
        now = path.parent / Path(codes).name
        if now.is_file() and sha256_of(now) != record.inputs.get(codes):
            raise UserError(
                f"{path}: was coded beside the codes in {now}, which are others than those that {record.run} was "
                "trained on; train the run again, or restore the codes and code the items again"
            )
        raise UserError(
            f"{path}: was coded beside other codes than those that {record.run} was trained on; code the items "
            f"again: {again}"
        )
    return ItemTable.read(path)


def _decoding(folder: Path, record: RunRecord, codes: int) -> DecodingParams:
    """Decoding parameters of the run's last evaluation, from its record or metrics.json; else the defaults."""
    written = record_path(folder, "evaluate")
    if written.exists():
        return DecodingParams.model_validate(read_record(written)["params"]["decoding"])
    path = folder / "metrics.json"
    metrics = read_json(verified(path)) if path.exists() else {}
    beam, eos = metrics.get("beam", DecodingParams().beam), metrics.get("eos")
    # metrics.json has the resolved values: the number of codes for "all", true for "release".
    try:
        return DecodingParams(
            beam=beam if max(CUTOFFS) <= beam <= codes else "all",
            eos="release" if eos and record.backbone.release_decodes_eos else eos,
        )
    except (TypeError, ValidationError) as error:
        raise UserError(
            f"{path}: expected the decoding of an evaluation, found beam {beam!r} and eos {eos!r}; delete it, and "
            "evaluate the run again for its metrics"
        ) from error
