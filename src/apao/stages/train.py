"""The stage ``train``: a run's weights and history, from a dataset's interactions and codes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pandas as pd
import torch
from safetensors.torch import save_file

from apao.backbones.exchange import read_weights
from apao.codes.embeddings import read_embeddings
from apao.devices import device_name
from apao.files import digest_of
from apao.progress import console
from apao.stages.dataset import item_table, load_dataset
from apao.stages.record import Stage
from apao.study.paths import RESULTS, DatasetPaths
from apao.study.run_params import TrainedParams
from apao.study.runs import Run
from apao.trackers.base import Tracked, Tracker, tracking
from apao.training.loop import Row, Training
from apao.training.parallel import ALONE, Processes


def train(
    run: Run,
    params: TrainedParams,
    device: torch.device,
    processes: Processes = ALONE,
    code: str = "",
    on_epoch: Callable[[Row], None] = lambda row: None,
    tracker: Tracker | None = None,
) -> None:
    """Train ``run`` and write run.json, model.safetensors, config.json, catalogue.parquet and history.csv.

    run.json (``run_params.RunRecord``) contains ``params``, the values that are used here, and the hashes of the
    inputs. The weights are those of the best epoch, with the key names of ``transformers``. A checkpoint is written
    after each epoch and removed at the end, so the same command resumes an interrupted training.

    Args:
        run: the run.
        params: its parameters.
        device: device of this process.
        processes: the processes that train together; the first of them writes the files.
        code: version of the code; a checkpoint of another version is not resumed.
        on_epoch: called by the first process with every row of the history, also those before an interruption. An
            exception from it ends the training and leaves the checkpoint.
        tracker: gets every row of the history as well; if it fails, the training goes on without it.
    """
    torch.set_num_threads(params.training.threads)
    paths = DatasetPaths(run.dataset)
    record = params.for_training()
    devices = device_name(device) if processes.size == 1 else f"{processes.size} x {device_name(device)}"
    inputs = params.training_inputs()
    # The item table only describes the result: a change of titles makes no other weights.
    stage = Stage("train", run.folder, [*inputs, paths.items], record, devices, code)
    decisive = {path: stage.inputs[path] for path in map(str, inputs)}
    with stage if processes.is_first else nullcontext():
        histories, codes = load_dataset(paths)
        items = item_table(paths, histories, codes)
        embeddings = read_embeddings(paths.embeddings, paths.items) if params.objective.needs().embeddings else None
        start = None if params.start is None else read_weights(Run.parse(params.start.run).model)
        training = Training(str(run), params, histories, codes, device, start, embeddings, processes)
        fingerprint = digest_of(
            {"params": record, "inputs": list(decisive.values()), "code": code, "torch": torch.__version__}
        )
        if not processes.is_first:
            training.fit(run.checkpoint, fingerprint)
            return
        with tracking(tracker, Tracked(str(run), run.folder, RESULTS, record, fingerprint)) as feed:

            def after_epoch(row: Row) -> None:
                feed.epoch(row)
                on_epoch(row)

            trained = training.fit(run.checkpoint, fingerprint, after_epoch)

        stage.output_json(run.record.name, {"run": str(run), **record, "inputs": decisive})
        training.backbone.load_learned_state(trained.best)
        weights = {name: value.cpu().contiguous() for name, value in training.backbone.to_transformers().items()}
        with stage.output(run.model.name) as path:
            save_file(weights, path, metadata={"format": "pt"})
        with stage.output(run.catalogue.name) as path:
            items.write(path)
        stage.output_json("config.json", training.backbone.transformers_config())
        with stage.output("history.csv") as path:
            pd.DataFrame(trained.history).astype({"epoch": int, "steps": int, "examples": int, "best": bool}).to_csv(
                path, index=False
            )
    run.checkpoint.unlink(missing_ok=True)
    epochs = len(trained.history)
    console.print(f"{run}: best of {epochs} epochs is {trained.best_epoch}")
