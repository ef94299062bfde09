"""The stage ``decoding-time``: time of beam search and of exact scoring by catalogue size."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from apao.backbones.base import Context
from apao.backbones.softmax import Softmax
from apao.codes.itemcodes import ItemCodes
from apao.codes.trie import Trie
from apao.data.histories import IntArray
from apao.decoding.beam import beam_search
from apao.decoding.exact import exact_scores
from apao.devices import device_name, wait_for
from apao.evaluation.metrics import CUTOFFS
from apao.progress import progress
from apao.stages.record import Stage
from apao.study.paths import decoding_time_file
from apao.study.run_params import TimedDecoding

SEED = 42
"""Seed of the synthetic codes, weights and histories; the time does not depend on it."""


def synthetic_codes(items: int, levels: int, clusters: int, seed: int) -> ItemCodes:
    """A catalogue of ``items`` distinct, uniformly random codes, for timing only."""
    clusters = max(clusters, int(np.ceil(items ** (1 / levels))))
    drawn = np.random.default_rng(seed).choice(clusters**levels, size=items, replace=False, shuffle=False)
    digits: list[IntArray] = [drawn // clusters**level % clusters for level in reversed(range(levels))]
    return ItemCodes(np.stack(digits, axis=1).astype(np.int64))


def decoding_time(dataset: str, backbone: str, params: TimedDecoding, device: torch.device) -> None:
    """Write decoding_time.json: seconds per user of beam search and exact scoring, by catalogue size.

    Uses synthetic codes of 4 levels and 256 clusters and an untrained model, since the time does not depend on the
    weights. For a catalogue with fewer items than the beam, the beam is the number of items.

    Args:
        dataset: dataset whose recipe has the model's sizes.
        backbone: name of these sizes in the recipe.
        params: the sizes, and the parameters of the timing.
        device: device to measure.
    """
    torch.set_num_threads(params.threads)
    path, sizes = decoding_time_file(dataset, backbone), params.timing.catalogue_sizes
    with Stage("decoding_time", path.parent, [], params.model_dump(mode="json"), device_name(device)) as stage:
        rows = []
        with progress(f"{dataset}/{backbone}: decoding time", sum(sizes)) as advance:
            for size in sizes:
                rows.append(_time_catalogue(params, synthetic_codes(size, 4, 256, SEED), device))
                advance(size)
        stage.output_json(
            path.name,
            {
                "dataset": dataset,
                "backbone": backbone,
                "beam": _timed_beam(params),
                "device": device_name(device),
                "threads": params.threads,
                "users": params.timing.users,
                "rows": rows,
            },
        )


def _timed_beam(params: TimedDecoding) -> int:
    """The recipe's beam, or the default for ``all``, which refers to the dataset's own catalogue."""
    beam = params.decoding.beam
    return max(CUTOFFS) if beam == "all" else beam


def _time_catalogue(params: TimedDecoding, codes: ItemCodes, device: torch.device) -> dict[str, float]:
    torch.manual_seed(SEED)
    backbone = params.backbone.build(len(codes.vocabulary)).to(device).eval()
    trie = Trie.of(codes, device)
    tokens = torch.as_tensor(codes.distinct_tokens, device=device)
    users, eos, beam = params.timing.users, params.decodes_eos, min(_timed_beam(params), len(tokens))
    chosen = torch.randint(len(tokens), (users, params.backbone.max_history), device=device)
    with torch.no_grad():

        def read() -> Context:
            return backbone.encode(tokens[chosen].flatten(1))

        def search() -> object:
            return beam_search(backbone, read(), trie, beam, eos, Softmax())

        def score_all() -> object:
            return exact_scores(backbone, read(), trie, tokens, eos, Softmax()).topk(beam, dim=1)

        return {
            "items": codes.items,
            "beam_seconds_per_user": _seconds(search, device) / users,
            "exact_seconds_per_user": _seconds(score_all, device) / users,
        }


def _seconds(work: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    """Median wall time of ``work`` after one warm-up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - started)
    return float(np.median(times[1:]))
