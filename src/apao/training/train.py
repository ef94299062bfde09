"""The stage ``train``: from a dataset's interactions and codes to a run's weights and history."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save_file

from apao.artifacts import Stage, sha256_of
from apao.devices import device_name
from apao.params import RunParams
from apao.progress import console
from apao.runs import DatasetPaths, Run
from apao.training.batches import load_dataset
from apao.training.loop import Row, Training


def train(run: Run, params: RunParams, device: torch.device) -> None:
    """Train ``run`` and write model.safetensors, config.json and history.csv into its folder.

    The weights are the best epoch's, under the key names of ``transformers``. A checkpoint is kept
    after each epoch until the end, so the same command continues a training that was stopped.
    """
    torch.set_num_threads(params.training.threads)
    paths = DatasetPaths(run.dataset)
    inputs = [paths.interactions, paths.codes]
    record = params.for_training()
    with Stage("train", run.folder, inputs, record, device_name(device)) as stage:
        histories, codes = load_dataset(paths)
        training = Training(str(run), params, histories, codes, device)
        checkpoint = run.folder / "checkpoint.safetensors"
        with _EventFiles(run.folder / "tensorboard") as events:
            trained = training.fit(checkpoint, _fingerprint(record, inputs), events.write)

        training.backbone.load_state_dict(trained.best)
        weights = {name: value.cpu().contiguous() for name, value in training.backbone.to_transformers().items()}
        with stage.output("model.safetensors") as path:
            save_file(weights, path, metadata={"format": "pt"})
        stage.output_json("config.json", params.backbone.transformers_config(len(codes.vocabulary)))
        with stage.output("history.csv") as path:
            pd.DataFrame(trained.history).astype({"epoch": int, "steps": int, "examples": int, "best": bool}).to_csv(
                path, index=False
            )
    checkpoint.unlink(missing_ok=True)
    epochs = len(trained.history)
    console.print(f"{run}: best of {epochs} epochs is {trained.best_epoch}")


def _fingerprint(record: dict[str, object], inputs: list[Path]) -> str:
    """Identity of a training: its parameters and the content of what it reads."""
    facts = {"params": record, "inputs": [sha256_of(path) for path in inputs], "torch": torch.__version__}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class _EventFiles:
    """TensorBoard event files of a run, written anew from the history when a training goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> _EventFiles:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            console.print("TensorBoard is not installed; no event files are written.")
            self._writer = None
            return self
        shutil.rmtree(self.folder, ignore_errors=True)
        self._writer = SummaryWriter(str(self.folder))
        return self

    def write(self, row: Row) -> None:
        """Add one epoch."""
        if self._writer is not None:
            for name, value in row.items():
                if name not in ("epoch", "best"):
                    kind, _, rest = name.partition("_")
                    tag = f"{kind}/{rest}" if rest else name
                    self._writer.add_scalar(tag, value, int(row["epoch"]))
            self._writer.flush()

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()
