"""``python -m benchmarks COMMAND``: speed, and what it may be compared with; ``--help`` lists the commands.

``scale`` takes a catalogue of a million items through all stages, ``recbole`` compares ``sasrec`` with another one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import torch
import typer
from torch.autograd import DeviceType

from apao.cli import Commands
from apao.devices import keep_freed_memory, pick_device
from apao.errors import UserError, nearest
from apao.files import read_json
from apao.progress import console
from apao.study.runs import Run
from benchmarks import measure, precision, recbole, start
from benchmarks.cases import Case, cases
from benchmarks.measure import IDLE, Watch, machine, matrix_rate
from benchmarks.report import draw_curves, results_table, table1_cost, table4
from benchmarks.scale import FULL, QUICK, kmeans, whole_study

SAME_RATE = 0.1
"""Change of a machine's rate of matrix products that says nothing."""
RESULTS = Path(__file__).parent / "results"
Scope = Literal["quick", "full", "gpu"]

app = typer.Typer(cls=Commands, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def run(
    scope: Scope,
    only: Annotated[str, typer.Option(help="Part of the names to measure.")] = "",
    seconds: Annotated[float, typer.Option(help="Time for the repeats of one case.")] = 8.0,
    threads: Annotated[int, typer.Option(help="Threads that the machine is rated with.")] = 2,
) -> None:
    """Measure every case in a process of its own, so that each has its own peak memory."""
    device = pick_device("cuda" if scope == "gpu" else "cpu")
    report: dict[str, Any] = {"machine": machine(device, threads), "scope": scope, "results": []}
    console.print(json.dumps(report["machine"]))
    RESULTS.mkdir(exist_ok=True)
    chosen = [name for name in cases(scope) if only in name]
    if not chosen:
        raise UserError(f"--only {only}: no case of {scope} has this in its name; {nearest(only, cases(scope))}")
    failed = []
    for name in chosen:
        watch = Watch()
        try:
            with neighbours(point(name, "neighbours")):
                row = together([measured(scope, name, seconds) for _ in range(point(name, "runs") or 1)])
        except subprocess.CalledProcessError as error:
            console.print(f"{name}: failed\n{error.stderr}", style="bold red")
            failed.append(name)
            continue
        row["others"] = watch.others()
        report["results"].append(row)
        beside = f", beside {row['others']} busy cores" if (row["others"] or 0) > IDLE else ""
        console.print(f"{name:<40} {row['value']:>10} {row['unit']}  ({row['low']} to {row['high']}{beside})")
        # After each case: a run that is cut off keeps what it has.
        (RESULTS / "latest.json").write_text(json.dumps(report, indent=1) + "\n")
    if failed:
        kept = f"; the others are in {RESULTS / 'latest.json'}" if report["results"] else ""
        raise UserError(f"{len(failed)} of {len(chosen)} cases failed: {', '.join(failed)}{kept}")
    tables = (results_table(report), table4(report["results"]), table1_cost(report["results"]))
    (RESULTS / "latest.md").write_text("\n".join(tables))
    draw_curves(report["results"], RESULTS / "scaling.png")


def point(name: str, key: str) -> int:
    """The number after ``@key=`` in a case's name, else 0: of processes that run at the same time."""
    return int(name.partition(f"@{key}=")[2] or 0)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """So many processes that compute without pause, as long as the block runs."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measured(scope: Scope, name: str, seconds: float) -> subprocess.Popen[str]:
    """A process that measures one case."""
    command = [sys.executable, "-m", "benchmarks", "case", scope, name, "--seconds", str(seconds)]
    # As the command line sets it (apao.__main__).
    settings = {"GOMP_SPINCOUNT": "0", **os.environ}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=settings)


def together(processes: list[subprocess.Popen[str]]) -> dict[str, Any]:
    """What they measured, side by side: rates and memory are sums.

    Raises:
        CalledProcessError: when one of them failed.
    """
    rows = []
    try:
        for process in processes:
            printed, complaint = process.communicate()
            if process.returncode:
                raise subprocess.CalledProcessError(process.returncode, process.args, printed, complaint)
            rows.append(json.loads(printed.splitlines()[-1]))
    finally:
        # Those beside one that failed would go on beside the next case.
        for process in processes:
            process.kill()
    first, *others = rows
    for key in ("value", "low", "high", "gflop_per_s", "peak_memory_mb"):
        for other in others:
            if first[key] is not None:
                first[key] = round(first[key] + other[key], 3)
    return first


@app.command()
def case(
    scope: Scope,
    name: str,
    seconds: float = 8.0,
    keep: Annotated[bool, typer.Option(help="Keep freed memory, as the command line does.")] = True,
    processor: Annotated[
        bool, typer.Option("--processor", help="Processor time, for a machine that is not idle.")
    ] = False,
) -> None:
    """Measure one case here and print its row as JSON; ``train/llama/ce+precision=fp32`` is one with an override."""
    if keep:
        keep_freed_memory()
    if processor:
        measure.timer = time.process_time
    device = pick_device("cuda" if scope == "gpu" else "cpu")
    torch.manual_seed(0)
    threads, before = torch.get_num_threads(), matrix_rate(torch.float32, device)
    plain, *overrides = name.split("+")
    given = dict(Run.of("office", "llama", "+".join(["ce", *overrides]), 42).overrides)
    if given and plain in cases(scope) and plain not in cases(scope, given):
        raise UserError(f"{name}: {plain} has no recipe, and so nothing to override")
    row = _known(plain, cases(scope, given))(seconds, device).row(name)
    # A case has the number of threads of its recipe.
    torch.set_num_threads(threads)
    typer.echo(json.dumps({**row, "rated": [before, matrix_rate(torch.float32, device)]}))


def _known(name: str, found: dict[str, Case]) -> Case:
    if name not in found:
        raise UserError(f"{name}: no case of this name; {nearest(name, found)}")
    return found[name]


@app.command()
def profile(scope: Scope, name: str, rows: Annotated[int, typer.Option(help="Kernels to list.")] = 15) -> None:
    """Run one case and print, as Markdown, which kernels its time goes to."""
    keep_freed_memory()
    device = pick_device("cuda" if scope == "gpu" else "cpu")
    torch.manual_seed(0)
    with torch.profiler.profile() as profiler:
        _known(name, cases(scope))(0.0, device)
    # On a GPU the rows of operators repeat the time of the kernels that they start.
    spent = {
        row.key: row.self_device_time_total if device.type == "cuda" else row.self_cpu_time_total
        for row in profiler.key_averages()
        if device.type == "cpu" or row.device_type == DeviceType.CUDA
    }
    total = sum(spent.values())
    typer.echo(f"{name}, {total / 1e6:.1f} s\n\n| kernel | share |\n| --- | ---: |")
    for kernel, took in sorted(spent.items(), key=lambda pair: -pair[1])[:rows]:
        typer.echo(f"| {kernel} | {100 * took / total:.1f} % |")


@app.command(name="start")
def starting(run: str, repeats: int = 5) -> None:
    """Processor time of ``apao --help``, and of ``apao train RUN`` until its first step begins."""
    typer.echo(json.dumps(start.measured(run, repeats)))


@app.command()
def table1(
    rates: Annotated[list[str], typer.Argument(metavar="NAME=EXAMPLES/S", help="Such as tiger/ce=138.4.")],
) -> None:
    """Hours of training that Table 1 needs at given rates: those of ``ce`` and ``apao-pairwise`` on each backbone."""
    rows: list[dict[str, Any]] = []
    for rate in rates:
        name, _, value = rate.rpartition("=")
        try:
            rows.append({"name": f"train/{name}", "value": float(value)})
        except ValueError:
            raise UserError(f"{rate}: expected a case and its examples per second, such as tiger/ce=138.4") from None
    table = table1_cost(rows)
    if not table:
        raise UserError(f"{' '.join(rates)}: expected the rates of ce and of apao-pairwise on each backbone of Table 1")
    typer.echo(table)


@app.command()
def bf16(run: str, device: str = "cpu") -> None:
    """Decode users of a trained run in fp32 and in bf16: how many lists differ, and how much faster it is."""
    typer.echo(json.dumps(precision.compared(run, pick_device(device)), indent=1))


@app.command(name="recbole")
def beside_recbole(dataset: str = "ml-100k-item-id", seeds: str = "42,43") -> None:
    """Train ``sasrec`` and the SASRec of RecBole on the same examples; both results, per seed."""
    if not all(map(str.isdecimal, seeds.split(","))):
        raise UserError(f"--seeds {seeds}: expected numbers separated by commas")
    for found in recbole.compared(dataset, [int(seed) for seed in seeds.split(",")]):
        typer.echo(json.dumps(found))


@app.command()
def compare(before: Path, after: Path = RESULTS / "latest.json") -> None:
    """The change of every figure that two runs have; only meaningful for runs on the same machine."""
    for path in (before, after):
        if not path.is_file():
            raise UserError(f"{path}: not found; `python -m benchmarks run quick` writes {RESULTS / 'latest.json'}")
    old, new = (read_json(path) for path in (before, after))
    for key, was in old["machine"].items():
        now = new["machine"].get(key)
        rate = key.endswith("gflop_per_s")
        if now != was and not (rate and now and abs(now / was - 1) < SAME_RATE):
            console.print(f"The machines differ: {key} was {was}, and is {now}")
    known = {row["name"]: row for row in old["results"]}
    for row in new["results"]:
        if row["name"] in known:
            was = known[row["name"]]
            change = 100 * (row["value"] / was["value"] - 1)
            overlap = row["low"] <= was["high"] and was["low"] <= row["high"]
            figures = f"{was['value']:>10} -> {row['value']:>10} {row['unit']}  {change:+.1f} %"
            typer.echo(f"{row['name']:<40} {figures}{'  within the spread' if overlap else ''}")


@app.command()
def scale(
    size: Literal["quick", "full"],
    exact: Annotated[bool, typer.Option(help="RQ-K-means on all items instead of on mini-batches.")] = False,
    items: Annotated[int | None, typer.Option(help="Another number of items.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Existing folder for the files, which stay there.")] = None,
) -> None:
    """Take a large random catalogue from its files to metrics; time and peak memory of every stage."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"--folder {folder}: no such folder")
    whole = QUICK if size == "quick" else FULL
    whole = whole._replace(items=items or whole.items, mini_batches=None if exact else whole.mini_batches)
    with TemporaryDirectory() if folder is None else nullcontext(folder) as place:
        whole_study(Path(place), whole)


@app.command(name="kmeans")
def one_kmeans(
    items: int,
    levels: int = 4,
    exact: Annotated[bool, typer.Option(help="On all items instead of on mini-batches.")] = False,
) -> None:
    """Fit RQ-K-means to random vectors of that many items; time, peak memory and quality."""
    kmeans(items, levels, None if exact else FULL.mini_batches)


if __name__ == "__main__":
    app()
