"""The stage ``beams``: metrics and decoding time at several beam sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from apao.devices import device_name
from apao.evaluation.metrics import user_metrics
from apao.evaluation.significance import intervals
from apao.stages.evaluate import evaluate_split
from apao.stages.trained import measuring
from apao.study.run_params import RunParams
from apao.study.runs import Run


def beams(run: Run, params: RunParams, sizes: tuple[int, ...], device: torch.device) -> None:
    """Write beams.json: test metrics with 95 % intervals over users, and decoding time in seconds, per beam size.

    A metric with a cutoff larger than the beam is null, unless the beam contains all codes of the catalogue.
    """
    with measuring("beams", run, params, device, beams=sizes) as (stage, trained):
        rows = []
        for beam in sizes:
            found = evaluate_split(trained, "test", beam)
            row = {"beam": beam, "seconds": round(found.seconds, 3), **found.metrics}
            rows.append(row | {"intervals": _intervals(found.ranks, found.metrics)})
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


def _intervals(table: pd.DataFrame, metrics: Mapping[str, Any]) -> dict[str, list[float] | None]:
    """Bootstrap interval of every metric over ranks, None where the metric is."""
    values = user_metrics(table)
    ends = intervals(np.column_stack(list(values.values()))).tolist()
    return {name: None if metrics[name] is None else pair for name, pair in zip(values, ends, strict=True)}
