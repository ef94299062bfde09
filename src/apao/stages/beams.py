"""The stage ``beams``: metrics and decoding time at several beam sizes."""

from __future__ import annotations

import torch

from apao.devices import device_name
from apao.stages.evaluate import evaluate_split
from apao.stages.record import Stage
from apao.stages.trained import TrainedRun
from apao.study.paths import DatasetPaths
from apao.study.run_params import RunParams
from apao.study.runs import Run


def beams(run: Run, params: RunParams, sizes: tuple[int, ...], device: torch.device) -> None:
    """Write beams.json: test metrics, and decoding time of all users in seconds, per beam size.

    A metric with a cutoff larger than the beam is null, unless the beam contains all codes of the catalogue.
    """
    paths = DatasetPaths(run.dataset)
    inputs = [run.record, run.model, paths.codes, paths.interactions]
    record = {**params.for_evaluation(), "beams": sizes}
    with Stage("beams", run.folder, inputs, record, device_name(device)) as stage:
        trained = TrainedRun(run, params, device)
        rows = []
        for beam in sizes:
            _, metrics, seconds = evaluate_split(trained, "test", beam)
            rows.append({"beam": beam, "seconds": round(seconds, 3), **metrics})
        stage.output_json(
            "beams.json",
            {
                "run": str(run),
                "split": "test",
                "users": trained.users,
                "codes": len(trained.codes.distinct),
                "device": device_name(device),
                "threads": params.training.threads,
                "beams": rows,
            },
        )
