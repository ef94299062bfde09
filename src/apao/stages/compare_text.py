"""A comparison of two runs, or of two objectives over their seeds, as text for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from apao.evaluation.metrics import ITEM_LEVEL, MOVED, PREFIX_CUTOFF, metric_title
from apao.stages.compare import CUTOFF, Comparison, Example, MetricRow
from apao.stages.compare_seeds import SeedsComparison, SeedsRow


def as_text(found: Comparison) -> str:
    """Parameters, metrics, and users gained and lost."""
    parts = [
        _heads(found),
        _parameters(found),
        _metrics("metric", found.metrics),
        _metrics(f"exact scoring, {found.exact_users:,} users", found.exact),
        _metrics("beam search - exact scoring", found.beam),
        _prefixes(found),
        _users(found),
    ]
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part) + "\n"


def seeds_as_text(found: SeedsComparison) -> str:
    """Parameters, and metrics with the difference of every seed."""
    scored = f"exact scoring, {found.exact_users:,} users"
    parts = [
        _seeds_heads(found),
        [*_parameters(found), *_other_seeds(found)],
        _seeds_metrics("metric", found.metrics, found.seeds),
        _seeds_metrics(scored, found.exact, found.exact_seeds),
        _seeds_metrics("beam search - exact scoring", found.beam, found.exact_seeds),
    ]
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part) + "\n"


def aligned(rows: Sequence[Sequence[str]], alignment: str) -> Iterator[str]:
    """Lines of a table; ``alignment`` has ``<`` or ``>`` per column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(row, alignment, widths, strict=True)
        yield "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip()


def _heads(found: Comparison) -> Iterator[str]:
    yield f"A  {found.first}"
    yield f"B  {found.second}"
    yield f"{found.users:,} users, split {found.split}"


def _seeds_heads(found: SeedsComparison) -> Iterator[str]:
    yield f"A  {found.first}"
    yield f"B  {found.second}"
    yield f"{found.users:,} users, split {found.split}; means over the seeds {_listed(found.seeds)}"
    for name, seeds in found.seeds_of_one.items():
        yield f"Left out: {_listed(seeds)} of {name}, which the other lacks."


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _other_seeds(found: SeedsComparison) -> Iterator[str]:
    if found.other_parameters:
        yield f"Other parameters differ with the seeds {_listed(found.other_parameters)}; compare these runs singly."


def _parameters(found: Comparison | SeedsComparison) -> Iterator[str]:
    rows = [(key, *map(_value, values)) for key, values in found.parameters.items()]
    if rows:
        yield from aligned([("parameter", "A", "B"), *rows], "<<<")
    else:
        yield "Both have the same parameters."
    for path in found.other_inputs:
        yield f"They were trained on different versions of {path}."


def _value(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value)


def _metrics(what: str, rows: Sequence[MetricRow]) -> Iterator[str]:
    heads = (what, "A", "B", "B - A", "95 % interval", "p", "p (Holm)")
    if rows:
        yield from aligned([heads, *map(_metric, rows)], "<>>>>>>")


def _metric(row: MetricRow) -> tuple[str, ...]:
    return *_values(row), _p(row.p), _p(row.p_holm)


def _seeds_metrics(what: str, rows: Sequence[SeedsRow], seeds: Sequence[int]) -> Iterator[str]:
    heads = (what, "A", "B", "B - A", "95 % interval", "p (users)", "p (seeds)", *(f"seed {seed}" for seed in seeds))
    if rows:
        yield from aligned([heads, *map(_seeds_metric, rows)], "<" + ">" * (len(heads) - 1))


def _seeds_metric(row: SeedsRow) -> tuple[str, ...]:
    return *_values(row), _p(row.p_users), _p(row.p_seeds), *(f"{value:+.4f}" for value in row.by_seed)


def _values(row: MetricRow | SeedsRow) -> tuple[str, ...]:
    """Name, both values, their difference and its interval."""
    ends = f"{row.low:+.4f} to {row.high:+.4f}"
    return _name(row.metric), f"{row.first:.4f}", f"{row.second:.4f}", f"{row.difference:+.4f}", ends


def _name(metric: str) -> str:
    if metric.startswith(MOVED):
        return metric
    return metric_title(metric) + (", item level" if metric.startswith(ITEM_LEVEL) else "")


def _p(p: float | None) -> str:
    return "-" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _prefixes(found: Comparison) -> Iterator[str]:
    rows = [
        (f"first {level} token{'s' if level > 1 else ''}", f"{a:.4f}", f"{b:.4f}", f"{b - a:+.4f}")
        for level, (a, b) in enumerate(found.prefix_recall, start=1)
    ]
    if rows:
        yield from aligned([(f"prefix recall@{PREFIX_CUTOFF}", "A", "B", "B - A"), *rows], "<>>>")


def _users(found: Comparison) -> Iterator[str]:
    yield f"Among the first {CUTOFF}: {found.gained:,} users gained by B, {found.lost:,} lost."
    for what, examples in (("gained", found.examples_gained), ("lost", found.examples_lost)):
        yield from (line for example in examples for line in _example(what, example))


def _example(what: str, example: Example) -> Iterator[str]:
    ranks = f"{_rank(example.first_rank)} in A, {_rank(example.second_rank)} in B"
    if example.history:
        yield ""
    user = f"number {example.user}" if example.user_id is None else example.user_id
    yield f"{what}: user {user}, target {example.target or f'item {example.item}'}: {ranks}"
    for title in example.history or ():
        yield f"    after {title}"


def _rank(rank: int) -> str:
    return f"rank {rank}" if rank else "not found"
