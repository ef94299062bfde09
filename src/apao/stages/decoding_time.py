"""The stage ``decoding-time``: beam search against full sorting as the catalogue grows (Figure 1b)."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from apao.backbones.base import Context
from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.data.histories import IntArray
from apao.decoding.beam import beam_search
from apao.decoding.fullsort import full_sort_scores
from apao.devices import device_name
from apao.evaluation.metrics import CUTOFFS
from apao.progress import progress
from apao.stages.record import Stage
from apao.study.run_params import RunParams
from apao.study.runs import Run
from apao.study.studies import decoding_time_file


def synthetic_codes(items: int, levels: int, clusters: int, seed: int) -> ItemCodes:
    """A catalogue of ``items`` distinct uniformly random codes, for timing alone."""
    clusters = max(clusters, int(np.ceil(items ** (1 / levels))))
    drawn = np.random.default_rng(seed).choice(clusters**levels, size=items, replace=False, shuffle=False)
    digits: list[IntArray] = [drawn // clusters**level % clusters for level in reversed(range(levels))]
    return ItemCodes(np.stack(digits, axis=1).astype(np.int64))


def decoding_time(run: Run, params: RunParams, sizes: tuple[int, ...], users: int, device: torch.device) -> None:
    """Write decoding_time.json: seconds a user of beam search and full sorting as the catalogue grows.

    Synthetic codes of 4 levels and 256 clusters and an untrained model of the run's sizes: the time
    does not depend on the weights (Figure 1b). A catalogue with fewer items than beams is searched with as
    many beams as items.
    """
    torch.set_num_threads(params.training.threads)
    path = decoding_time_file(run.dataset, run.backbone)
    record = {"backbone": params.backbone.model_dump(), **params.for_evaluation(), "sizes": sizes, "users": users}
    with Stage("decoding_time", path.parent, [], record, device_name(device)) as stage:
        rows = []
        with progress(f"{run.dataset}/{run.backbone}: decoding time", sum(sizes)) as advance:
            for size in sizes:
                rows.append(_time_catalogue(params, synthetic_codes(size, 4, 256, params.seed), users, device))
                advance(size)
        stage.output_json(
            path.name,
            {
                "dataset": run.dataset,
                "backbone": run.backbone,
                "beam": _timed_beam(params),
                "device": device_name(device),
                "threads": params.training.threads,
                "users": users,
                "rows": rows,
            },
        )


def _timed_beam(params: RunParams) -> int:
    """The run's beam; ``all`` is of its own catalogue, so synthetic ones are searched with the default."""
    beam = params.decoding.beam
    return max(CUTOFFS) if beam == "all" else beam


def _time_catalogue(params: RunParams, codes: ItemCodes, users: int, device: torch.device) -> dict[str, float]:
    torch.manual_seed(params.seed)
    backbone = params.backbone.build(len(codes.vocabulary)).to(device).eval()
    trie = Trie.of(codes, device)
    tokens = torch.as_tensor(codes.distinct_tokens, device=device)
    chosen = torch.randint(len(tokens), (users, params.backbone.max_history), device=device)
    ways, beam = (params.decodes_eos, params.objective.softmax), min(_timed_beam(params), len(tokens))
    with torch.no_grad():

        def read() -> Context:
            return backbone.encode(tokens[chosen].flatten(1))

        def search() -> object:
            return beam_search(backbone, read(), trie, beam, *ways)

        def sort() -> object:
            return full_sort_scores(backbone, read(), trie, tokens, *ways).topk(beam, dim=1)

        return {
            "items": codes.items,
            "beam_seconds_per_user": _seconds(search, device) / users,
            "full_sort_seconds_per_user": _seconds(sort, device) / users,
        }


def _seconds(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median wall time of ``work`` after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))
