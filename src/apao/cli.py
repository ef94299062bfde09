"""The command line: one subcommand per stage, each of which only reads and writes files.

Snakemake and DVC call these commands; users can call them directly. Each command imports the libraries that only
it needs, which keeps ``apao --help`` and the light stages fast.
"""

from __future__ import annotations

import errno
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
import typer.core
from typing_extensions import override

from apao.errors import UserError, first_line, one_line
from apao.progress import console
from apao.study.paths import PARAMS_FILE
from apao.study.runs import Run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from apao.study.settings import Settings
    from apao.study.tuned import Tuning

_interrupts: list[int] = []
"""Signal number of each Ctrl-C received so far."""


def _on_interrupt(number: int, frame: FrameType | None) -> NoReturn:
    _interrupts.append(number)
    signal.default_int_handler(number, frame)


class Commands(typer.core.TyperGroup):
    """Group of subcommands that reports a user error in one line and exits with a non-zero status."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            _interrupted()
        except Exception as error:
            # safetensors converts a KeyboardInterrupt that arrives during a read into an exception of its own.
            if _interrupts:
                _interrupted()
            _explain(error)
            raise
        finally:
            # The command is done and only interpreter shutdown remains: ignore further Ctrl-C.
            if signal.getsignal(signal.SIGINT) is _on_interrupt:
                signal.signal(signal.SIGINT, signal.SIG_IGN)


def _explain(error: Exception) -> None:
    """Exit with a one-line message for an error that the user can correct; return for a bug."""
    match error:
        case UserError():
            _stop(f"error: {error}", 1)
        # typer handles a closed pipe; an OSError without a file name is a bug.
        case OSError() if error.errno != errno.EPIPE and error.filename is not None:
            _stop(f"error: {one_line(f'{error.filename}: {error.strerror}')}", 1)
        case MemoryError():
            _stop(f"error: out of memory ({one_line(str(error)) or 'no details'}); use a machine with more", 1)
        case RuntimeError():
            # torch has an exception class for exhausted GPU memory, but none for exhausted main memory.
            said = first_line(error)
            if "out of memory" in said or "can't allocate memory" in said:
                advice = "lower micro_batch_tokens, batch_users or the model's sizes in params.yaml"
                _stop(f"error: {said}; {advice}", 1)


def _stop(message: str, status: int) -> NoReturn:
    console.print(message, style="bold red")
    sys.exit(status)


def _interrupted() -> NoReturn:
    _stop("interrupted; rerun the same command to resume from the last checkpoint or finished file", 130)


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train and evaluate generative recommenders, with APAO and the objectives it is compared with.",
)
params_app = typer.Typer(no_args_is_help=True, help="Check and describe params.yaml.")
app.add_typer(params_app, name="params")

RunName = Annotated[str, typer.Argument(metavar="RUN", help="dataset/backbone/objective[+key=value...]/seedN")]
TrainedRunName = Annotated[str, typer.Argument(metavar="RUN", help="A trained run, by its name or its folder.")]
ComparedName = Annotated[
    str, typer.Argument(metavar="RUN", help="A trained run by its name or its folder; or without the seed, all seeds.")
]
DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="An entry under datasets in params.yaml.")]
Resolved = Annotated[
    str | None,
    typer.Option(metavar="JSON", help="Resolved parameters, used instead of params.yaml (passed by workflow rules)."),
]
Split = Literal["valid", "test"]
OutputFormat = Literal["table", "json"]
DeviceName = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]


options: dict[str, Any] = {}
"""Values of the options before the subcommand."""


def settings() -> Settings:
    """Source of the subcommand's parameters. Imported here because its import loads torch, which takes seconds."""
    from apao.study.settings import Settings

    return Settings(**options)


@app.callback()
def _settings(
    params: Annotated[Path, typer.Option("--params", envvar="APAO_PARAMS", help="Parameter file.")] = PARAMS_FILE,
    scale: Annotated[
        str | None, typer.Option("--scale", envvar="APAO_SCALE", help="Group of studies; overrides the file's.")
    ] = None,
    tracker: Annotated[
        str,
        typer.Option(
            "--tracker",
            envvar="APAO_TRACKER",
            help="Where trainings are shown: auto (TensorBoard if installed), tensorboard, mlflow, wandb or none.",
        ),
    ] = "auto",
) -> None:
    options.update(file=params, scale=scale, tracker=tracker)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or one without these files.")],
) -> None:
    """Make a project folder: params.yaml with the defaults, the workflow, dvc.yaml and a README."""
    from apao.engines.project_folder import new_project

    for path in new_project(folder):
        console.print(str(path))


@app.command()
def download(
    dataset: DatasetName,
    mirror: Annotated[
        Path | None, typer.Option(envvar="APAO_MIRROR", help="Folder that holds the files under their original paths.")
    ] = None,
) -> None:
    """Fetch a dataset's files and check them."""
    from apao.stages.download import download as stage

    stage(dataset, settings().job_params().dataset(dataset), mirror)


@app.command()
def preprocess(dataset: DatasetName) -> None:
    """Filter to the k-core, number users and items, order by time, split."""
    from apao.stages.preprocess import preprocess as stage

    stage(dataset, settings().job_params().dataset(dataset))


@app.command()
def embed(dataset: DatasetName, device: DeviceName = "auto") -> None:
    """Embed the items' texts."""
    from apao.devices import pick_device
    from apao.stages.embed import embed as stage

    params = settings().job_params()
    embedder = params.embedder_of(dataset)
    if embedder is None:
        entry = f"codes.{params.dataset(dataset).codes}"
        raise UserError(f"{dataset}: {entry} needs no embeddings; name an embedder there to embed the items anyway")
    stage(dataset, embedder, pick_device(device))


@app.command()
def codes(
    dataset: DatasetName,
    items: Annotated[
        Path | None, typer.Option(help="Give codes to these new items instead: a table of ids and texts.")
    ] = None,
    device: DeviceName = "auto",
) -> None:
    """Assign a code to every item."""
    from apao.devices import pick_device
    from apao.stages.codes import build_codes
    from apao.stages.new_items import code_new_items

    params = settings().job_params()
    source, tokenizer = params.dataset(dataset), params.tokenizer_of(dataset)
    # New items are embedded here too.
    picked = pick_device(device if items is not None or tokenizer.uses_gpu else "cpu")
    if items is None:
        build_codes(dataset, source, tokenizer, params.decoding_of(dataset), picked)
    else:
        code_new_items(dataset, source.text, tokenizer, params.embedder_of(dataset), items, picked)


@app.command()
def baselines(dataset: DatasetName) -> None:
    """Evaluate the untrained baselines: most-popular and random."""
    from apao.stages.baselines import baselines as stage

    settings().job_params().dataset(dataset)
    stage(dataset)


@app.command()
def train(run: RunName, resolved: Resolved = None, device: DeviceName = "auto") -> None:
    """Train one run, or resume it from its checkpoint; use torchrun for several devices."""
    from apao.devices import pick_device
    from apao.engines.code_versions import run_version
    from apao.stages.train import train as stage
    from apao.training.parallel import joined

    with joined() as processes:
        parsed, given = Run.parse(run), settings()
        tracker = given.chosen_tracker() if processes.is_first else None
        params = given.to_train(parsed, resolved)
        stage(parsed, params, pick_device(device), processes, run_version("train", params), tracker=tracker)


@app.command()
def evaluate(run: RunName, resolved: Resolved = None, device: DeviceName = "auto") -> None:
    """Decode every user with a trained run and compute the metrics."""
    from apao.devices import pick_device
    from apao.stages.evaluate import evaluate as stage

    parsed, given = Run.parse(run), settings()
    stage(parsed, given.to_evaluate(parsed, resolved), pick_device(device), given.chosen_tracker())


@app.command()
def beams(run: RunName, resolved: Resolved = None, device: DeviceName = "auto") -> None:
    """Measure metrics and time at the beam sizes of the dataset's recipe."""
    from apao.devices import pick_device
    from apao.stages.beams import beams as stage

    parsed = Run.parse(run)
    params, measure = settings().to_measure(parsed, resolved)
    stage(parsed, params, measure.beams, pick_device(device))


@app.command()
def recommend(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name or folder of a trained run.")],
    user: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Raw id of a user of the dataset; may be repeated.")
    ] = None,
    history: Annotated[
        list[str] | None, typer.Option(metavar="ID,ID,...", help="Item ids, oldest first; may be repeated.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Many users: .jsonl with user and history, .csv or .parquet with user and item."),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Items per user.")] = 20,
    beam: Annotated[
        int | None, typer.Option(min=1, help="Beam size; default: that of the run's evaluation, or more for a large k.")
    ] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Score every item instead of searching.")] = False,
    keep_seen: Annotated[bool, typer.Option("--keep-seen", help="Also recommend items of the history.")] = False,
    only: Annotated[
        Path | None, typer.Option(help="Recommend only these items: a text file with one item id per line.")
    ] = None,
    without: Annotated[Path | None, typer.Option(help="Exclude these items: a file of the same format.")] = None,
    new_items: Annotated[
        Path | None, typer.Option(help="Table of items that are not in the training data (`apao codes --items`).")
    ] = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="table, json, csv or parquet; default: by the suffix of --output.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write; default: the terminal.")] = None,
    device: DeviceName = "auto",
) -> None:
    """Print or write the items that a trained run recommends."""
    from apao.stages.recommend import How, Wanted
    from apao.stages.recommend import recommend as stage

    wanted = Wanted(user or (), history or (), file)
    how = How(k, beam, exact, keep_seen, only, without)
    stage(run, wanted, how, output_format, output, new_items, device)


@app.command()
def exact(run: RunName, resolved: Resolved = None, device: DeviceName = "auto") -> None:
    """Compare beam search with exact scoring of the whole catalogue, for up to measure.exact test users."""
    from apao.devices import pick_device
    from apao.stages.exact import exact as stage

    parsed = Run.parse(run)
    params, measure = settings().to_measure(parsed, resolved)
    stage(parsed, params, measure.exact, pick_device(device))


@app.command(name="decoding-time")
def decoding_time(
    dataset: DatasetName,
    backbone: Annotated[str, typer.Argument(metavar="BACKBONE", help="A backbone of the dataset's recipe.")],
    device: DeviceName = "auto",
) -> None:
    """Time beam search and exact scoring as the catalogue grows."""
    from apao.devices import pick_device
    from apao.stages.decoding_time import decoding_time as stage

    stage(dataset, backbone, settings().job_params().timed_decoding(dataset, backbone), pick_device(device))


@app.command()
def report(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A name under the chosen scale in params.yaml.")],
    published: Annotated[
        bool,
        typer.Option("--published", help="A study of the scale published, from results/published; gaps are marked."),
    ] = False,
) -> None:
    """Draw one table or figure from finished runs."""
    from apao.stages.report import report as stage
    from apao.study.paths import OWN, PUBLISHED

    params = settings().published_params() if published else settings().job_params()
    for path in stage(study, params, PUBLISHED if published else OWN):
        console.print(str(path))


@app.command()
def compare(
    first: ComparedName,
    second: ComparedName,
    split: Annotated[Split, typer.Option(help="Split of the targets.")] = "test",
    output_format: Annotated[OutputFormat, typer.Option("--format", help="For people or for programs.")] = "table",
) -> None:
    """Print how two runs differ: parameters, metrics with intervals, users gained and lost.

    Without the seed (DATASET/BACKBONE/OBJECTIVE) in both names, how two objectives differ over all their seeds.
    """
    from apao.stages.compare import compare as stage
    from apao.stages.compare_seeds import compare_seeds, seed_folders
    from apao.stages.compare_text import as_text, seeds_as_text

    if any(map(seed_folders, (first, second))):
        over_seeds = compare_seeds(first, second, split)
        text, found = seeds_as_text(over_seeds), over_seeds.json()
    else:
        of_runs = stage(first, second, split)
        text, found = as_text(of_runs), of_runs.json()
    typer.echo(text if output_format == "table" else found, nl=output_format != "table")


@app.command()
def export(
    run: TrainedRunName,
    target: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
) -> None:
    """Write a trained run as a folder that transformers loads, with its catalogue and a model card."""
    from apao.stages.export import export as stage

    stage(run, target)


@app.command()
def show(
    run: TrainedRunName,
    user: Annotated[str | None, typer.Option(metavar="ID", help="Raw id of a user of the dataset.")] = None,
    history: Annotated[str | None, typer.Option(metavar="ID,ID,...", help="Item ids, oldest first.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to write; default: show.html in the run's folder.")] = None,
    device: DeviceName = "auto",
) -> None:
    """Write an HTML page that shows what beam search keeps and drops for a user, step by step.

    Default: the test users whose target is in the exact top 20 but is lost.
    """
    from apao.stages.show import show as stage

    stage(run, user, history, output, device)


@app.command()
def publish(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs, or DATASET/baselines.")],
    source: Annotated[Path, typer.Option("--from", help="Project folder with these runs.")] = Path(),
    replace: Annotated[bool, typer.Option("--replace", help="Replace published runs whose numbers differ.")] = False,
) -> None:
    """Copy the small files of finished runs into results/published."""
    from apao.stages.publish import publish as stage

    stage(runs, source, replace)


@app.command()
def tune(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="A study with sweeps.")],
    objectives: Annotated[list[str] | None, typer.Argument(metavar="OBJECTIVE...", help="Default: all.")] = None,
) -> None:
    """Choose hyper-parameters from finished sweeps and write them to the file that params.yaml names under tuned."""
    from apao.report.tuning import tunings

    path, params = settings().tuned_file(), settings().params()
    _write_tunings(path, tunings(study, params, objectives or ()))


@app.command()
def search(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An entry under searches in params.yaml.")],
    objectives: Annotated[list[str] | None, typer.Argument(metavar="OBJECTIVE...", help="Default: all.")] = None,
    device: DeviceName = "auto",
) -> None:
    """Try hyper-parameters, equally often for every objective, and write the best to the file under tuned.

    Trials are ordinary runs, chosen by Optuna. The same command continues an interrupted search.
    """
    from functools import partial

    from apao.devices import pick_device
    from apao.engines.code_versions import run_version
    from apao.stages.search import search as stage

    given = settings()
    path, params, tracker = given.tuned_file(), given.params(), given.chosen_tracker()
    version = partial(run_version, "train")
    _write_tunings(path, stage(name, params, objectives or (), pick_device(device), version, tracker))


def _write_tunings(path: Path, found: Iterable[tuple[str, Tuning]]) -> None:
    """Write each as soon as it is found, so that an error in a later one loses none."""
    from apao.engines.dvc import DVC_FILE
    from apao.study.tuned import add_tunings

    known = path.exists()
    for objective, tuning in found:
        add_tunings(path, [(objective, tuning)])
        for place, values in tuning.values.items():
            chosen = ", ".join(f"{key} {value}" for key, value in values.items())
            console.print(f"{objective} on {place}: {chosen}")
    console.print(str(path))
    if not known and DVC_FILE.exists():
        console.print(f"{path} is new, so {DVC_FILE} does not read it; generate it again: apao dvc")


@app.command()
def dvc(
    check: Annotated[
        bool,
        typer.Option("--check", help="Check dvc.yaml instead, and write data/params.yaml and data/code.json."),
    ] = False,
) -> None:
    """Generate dvc.yaml, the DVC version of the workflow, from params.yaml."""
    from apao.engines.dvc import DVC_FILE, check_pipeline, write_pipeline

    if Path(options["file"]) != PARAMS_FILE or options["scale"] is not None:
        raise UserError(f"dvc.yaml is the graph of {PARAMS_FILE} and the scale in it; set scale there")
    if check:
        check_pipeline(settings().params())
    else:
        write_pipeline(settings().params())
        console.print(str(DVC_FILE))


@app.command()
def headline() -> None:
    """Print a summary of the scale's first comparison: each objective beside the untrained baseline."""
    from apao.report.summary import headline as text

    typer.echo(text(settings().job_params()))


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of expected.json, weights and their configs.")],
    tolerance: Annotated[float, typer.Option(min=0, help="Largest accepted absolute difference.")] = 1e-4,
    device: DeviceName = "cpu",
) -> None:
    """Recompute a folder of golden values with the code that trains and decodes."""
    from apao.devices import pick_device
    from apao.verify.compare import report as lines
    from apao.verify.compare import verify as compare

    quantities = compare(folder, tolerance, pick_device(device))
    for line in lines(quantities, tolerance):
        typer.echo(line)
    if not all(quantity.agrees for quantity in quantities):
        raise typer.Exit(1)


@app.command()
def intact() -> None:
    """Check data, results and figures against the recorded hashes, and the consistency of published runs."""
    from apao.files import RECORDS, changed
    from apao.stages.download import changed_hashes
    from apao.stages.publish import published_faults
    from apao.study.paths import DATA, FIGURES, RESULTS, DatasetPaths

    datasets = [DatasetPaths(folder.name) for folder in sorted(DATA.glob("*/"))]
    lines = [*changed((DATA, RESULTS, FIGURES)), *changed_hashes(datasets), *published_faults()]
    for line in lines:
        typer.echo(line)
    if lines:
        raise typer.Exit(1)
    records = sum(1 for folder in (DATA, RESULTS, FIGURES) for _ in folder.rglob(RECORDS))
    if not records:
        raise UserError("no stage's record below data, results and figures; run this in a project folder")
    console.print(f"{records} records, and the files that they list, are intact")


@app.command()
def runs() -> None:
    """List every run of the chosen scale."""
    params = settings().params()
    for run in params.all_runs():
        typer.echo(str(run))


@params_app.command()
def check() -> None:
    """Validate params.yaml and every run of its studies, and print their number."""
    params = settings().params()
    count = len(params.all_runs())
    typer.echo(
        f"{options['file']}: valid; scale {params.scale}: {len(params.chosen_studies)} studies from {count} runs"
    )


@params_app.command()
def schema() -> None:
    """Print the JSON schema of params.yaml."""
    from apao.study.params import schema_text

    typer.echo(schema_text(), nl=False)


def main() -> None:
    """Entry point."""
    from apao.devices import keep_freed_memory

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # unless the parent shell made it ignored
        signal.signal(signal.SIGINT, _on_interrupt)
    keep_freed_memory()
    try:
        app()
    except KeyboardInterrupt:  # before a command started
        _interrupted()


if __name__ == "__main__":
    main()
