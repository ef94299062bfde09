"""The stage ``pruning``: share of the exact top items that each beam step keeps."""

from __future__ import annotations

import torch

from apao.devices import device_name
from apao.stages.record import Stage
from apao.stages.trained import TrainedRun
from apao.study.paths import DatasetPaths
from apao.study.run_params import RunParams
from apao.study.runs import Run

TOP = 20


def pruning(run: Run, params: RunParams, device: torch.device) -> None:
    """Write pruning.json: the share of each test user's exact top 20 whose prefix each beam step keeps.

    The exact top 20 are the codes with the highest exact scores in the whole catalogue; ``top`` is their number, which
    is smaller for a catalogue of fewer codes.
    """
    paths = DatasetPaths(run.dataset)
    inputs = [run.record, run.model, paths.codes, paths.interactions]
    with Stage("pruning", run.folder, inputs, params.for_evaluation(), device_name(device)) as stage:
        trained = TrainedRun(run, params, device)
        codes = torch.as_tensor(trained.codes.distinct_tokens, device=device)
        kept = torch.zeros(trained.codes.levels, dtype=torch.float64)
        for decoded in trained.decode("test"):
            scores = trained.scores(decoded.context, codes)
            best = scores.topk(min(TOP, len(codes)), dim=1).indices
            prefixes = trained.trie.walk(codes[best])
            kept += torch.stack(
                [
                    (prefixes[..., level, None] == step[:, None]).any(dim=-1).double().mean(dim=1).sum()
                    for level, step in enumerate(decoded.beams.states)
                ]
            ).cpu()
        stage.output_json(
            "pruning.json",
            {
                "run": str(run),
                "beam": trained.beam,
                "top": min(TOP, len(codes)),
                "users": trained.users,
                "kept": (kept / trained.users).tolist(),
            },
        )
