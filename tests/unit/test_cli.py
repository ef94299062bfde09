"""The command line itself: help, output and exit status. Stages are tested elsewhere."""

import importlib.metadata
import os
import shutil
import signal
import sys
from contextlib import suppress
from functools import partial

import pytest
from helpers import processes
from helpers.forks import run_forked
from helpers.project import ROOT, SHIPPED, small_params, write_params
from typer.main import get_command
from typer.testing import CliRunner

from apao.__main__ import main
from apao.cli import app
from apao.errors import UserError
from apao.study.settings import Settings

STAGES = ["download", "preprocess", "embed", "codes", "baselines", "train", "evaluate", "beams", "exact"]
STOPPED = "interrupted; rerun the same command to resume from the last checkpoint or finished file\n"


def run(*arguments: str, **environment: str):
    return CliRunner().invoke(app, ["--params", str(SHIPPED), *arguments], env=environment)


def test_help_lists_every_stage():
    found = run("--help")
    assert found.exit_code == 0
    for name in [*STAGES, "decoding-time", "report", "headline", "intact", "runs", "params"]:
        assert f"  {name} " in found.output


@pytest.mark.parametrize("name", get_command(app).commands)
def test_every_command_says_what_it_is_for(name):
    found = run(name, "--help")
    assert found.exit_code == 0
    about = found.output.split("\n\n")[1].strip()
    assert about.endswith(".") and about[0].isupper()


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--params", "other.yaml"], {}),
        (["--scale", "paper"], {}),
        ([], {"APAO_PARAMS": "other.yaml"}),
        ([], {"APAO_SCALE": "paper"}),
    ],
)
@pytest.mark.parametrize("options", [[], ["--check"]])
def test_dvc_takes_params_yaml_and_the_scale_in_it(tmp_path, monkeypatch, capsys, arguments, environment, options):
    """``dvc repro`` has no such options, so its check would fail on a dvc.yaml of another file or scale."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(SHIPPED, tmp_path / "params.yaml")
    shutil.copy(SHIPPED, tmp_path / "other.yaml")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["apao", *arguments, "dvc", *options])
    with pytest.raises(SystemExit):
        main()
    assert (
        capsys.readouterr().err == "error: dvc.yaml is the graph of params.yaml and the scale in it; set scale there\n"
    )
    assert not (tmp_path / "dvc.yaml").exists()


@pytest.mark.parametrize(
    ("occupied", "message"),
    [
        ("study/dvc.yaml", "study/dvc.yaml: exists and would be overwritten; name another folder"),
        ("study/workflow/Snakefile", "study/workflow: exists and would be overwritten; name another folder"),
        ("study", "study: is a file; name a folder"),
    ],
)
def test_init_overwrites_nothing(tmp_path, monkeypatch, capsys, occupied, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / occupied).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / occupied).write_text("own")
    with pytest.raises(SystemExit):
        app(["init", "study"], standalone_mode=False)
    assert capsys.readouterr().err == f"error: {message}\n"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / occupied]
    assert (tmp_path / occupied).read_text() == "own"


def test_init_beside_other_files(tmp_path):
    (tmp_path / "mine.csv").write_text("own")
    app(["init", str(tmp_path)], standalone_mode=False)
    assert (tmp_path / "params.yaml").read_text() == SHIPPED.read_text()
    names = {"README.md", "dvc.yaml", "mine.csv", "params.yaml", "tuned.yaml", "workflow"}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.fixture
def two_scales(tmp_path):
    """A params.yaml whose scale ``large`` has a run that starts from another one, which no study names."""
    table = {"kind": "comparison", "datasets": ["toy"], "backbones": ["tiger"]}
    few = {"table": {**table, "objectives": ["ce", "ce+lr=0.01"], "seeds": [1, 2]}}
    started = {name: {**table, "objectives": ["s-dpo"], "seeds": [3]} for name in ("table", "again")}
    objectives = {"s-dpo": {"type": "s-dpo", "start": "ce"}}
    write_params(tmp_path, small_params({"objectives": objectives, "studies": {"small": few, "large": started}}))
    return str(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("scale", "listed", "counted"),
    [
        ("small", "toy/tiger/ce/seed1 toy/tiger/ce/seed2", "1 studies from 2 runs"),
        ("large", "toy/tiger/ce/seed3 toy/tiger/s-dpo/seed3", "2 studies from 2 runs"),
    ],
)
def test_runs_and_check_are_of_the_chosen_scale(two_scales, scale, listed, counted):
    """A run that is named twice, or with an override without effect, is listed once, after the run it starts from."""
    chosen = ["--params", two_scales, "--scale", scale]
    assert CliRunner().invoke(app, [*chosen, "runs"]).output.split() == listed.split()
    checked = CliRunner().invoke(app, [*chosen, "params", "check"]).output
    assert checked == f"{two_scales}: valid; scale {scale}: {counted}\n"


def test_options_may_come_from_the_environment(tmp_path):
    changed = SHIPPED.read_text().replace("scale: small", "scale: paper")
    (tmp_path / "other.yaml").write_text(changed)
    shutil.copy(SHIPPED.with_name("tuned.yaml"), tmp_path)
    found = CliRunner().invoke(app, ["params", "check"], env={"APAO_PARAMS": str(tmp_path / "other.yaml")})
    assert found.output.startswith(f"{tmp_path / 'other.yaml'}: valid; scale paper: ")
    assert run("params", "check", APAO_SCALE="paper").output.startswith(f"{SHIPPED}: valid; scale paper: ")
    # The explicit option takes precedence.
    assert "scale small" in run("--scale", "small", "params", "check", APAO_SCALE="paper").output


def test_the_schema_is_printed_as_it_is_kept():
    assert run("params", "schema").output == (ROOT / "schema.json").read_text()


def ended(capsys, monkeypatch, *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of the entry point."""
    monkeypatch.setattr(sys, "argv", ["apao", "--params", str(SHIPPED), *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.parametrize("command", [("train", "toy/llama/ce/seed1"), ("search", "ml-100k")])
def test_a_tracker_without_its_library_is_one_line_before_anything_else(capsys, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setenv("APAO_TRACKER", "mlflow")
    missing = 'error: tracker mlflow: its library is not installed: pip install "apao[mlflow]"\n'
    assert ended(capsys, monkeypatch, *command) == (1, missing)
    # The explicit option takes precedence.
    assert "unknown tracker 'mlflw'" in ended(capsys, monkeypatch, "--tracker", "mlflw", *command)[1]
    assert not list(tmp_path.iterdir())


def test_published_codes_have_nothing_to_embed_unless_an_embedder_is_named(capsys, monkeypatch, tmp_path):
    lines = SHIPPED.read_text().splitlines(keepends=True)
    # Neither the embedder nor the objectives that need the embeddings.
    without = ("embedder: minilm #", "- front-greater", "- multi-target")
    kept = [line for line in lines if not any(part in line for part in without)]
    (tmp_path / "params.yaml").write_text("".join(kept))
    monkeypatch.setattr(sys, "argv", ["apao", "--params", str(tmp_path / "params.yaml"), "embed", "office"])
    with pytest.raises(SystemExit):
        main()
    assert "office: codes.published needs no embeddings; name an embedder there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["download", "no-such"], "error: datasets: unknown dataset 'no-such'; known: "),
        (["train", "ml-100k"], "error: 'ml-100k' does not name a run; expected "),
        (
            ["--scale", "smal", "runs"],
            "error: --scale (or APAO_SCALE, or --config scale=): 'smal' is not defined under",
        ),
        (["report", "table6"], "error: studies.small: unknown study 'table6'; did you mean 'table"),
        (["baselines", "no-such"], "error: datasets: unknown dataset 'no-such'"),
        (["decoding-time", "ml-100k", "no-such"], "error: ml-100k/no-such: unknown backbone"),
        (["train", "ml-100k/tiger/ce/seed1", "--device", "tpu"], "error: device 'tpu' cannot be used here"),
        (["train", "ml-100k/tiger/ce/seed1", "--device", "meta"], "error: device 'meta' cannot be used here"),
        (["download", "ml-100k", "--mirror", "nowhere"], "error: nowhere: the mirror is not a folder"),
        (["train", "ml-100k/tiger/ce/seed1", "--device", "cpu"], "error: data/ml-100k/interactions.parquet: not found"),
    ],
)
def test_a_mistake_is_one_line(capsys, monkeypatch, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, text = ended(capsys, monkeypatch, *arguments)
    assert status == 1
    assert text.startswith(message)
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train"], "Missing argument 'RUN'"),
        (["train", "a", "b"], "unexpected extra argument"),
        (["train", "a", "--devise", "cpu"], "--devise"),
        ([], "Usage"),
        (["params"], "Usage"),
    ],
)
def test_a_command_that_is_none_is_met_with_the_usage(capsys, monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["apao", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert message in printed.err + printed.out and "Traceback" not in printed.err


def command_that(monkeypatch, capsys, error: BaseException) -> tuple[int, str]:
    """Outcome of a command in which reading params.yaml raises ``error``."""

    def broken(self):
        raise error

    monkeypatch.setattr("apao.study.settings.Settings.params", broken)
    return ended(capsys, monkeypatch, "runs")


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UserError("several\nlines"), 1, "error: several lines\n"),
        (UserError("\x1b[2Jä \u202e\0\ud800"), 1, r"error: \x1b[2Jä \u202e\x00\ud800" + "\n"),
        (UserError("x.csv:" + "y" * 10**7 + " do this"), 1, f"error: x.csv:{'y' * 994} [...] {'y' * 992} do this\n"),
        (FileNotFoundError(2, "No such file", "a\rb"), 1, r"error: a\rb: No such file" + "\n"),
        (PermissionError(13, "Permission denied", "data/x"), 1, "error: data/x: Permission denied\n"),
        (OSError(36, "File name too long", "results/x"), 1, "error: results/x: File name too long\n"),
        (KeyboardInterrupt(), 130, STOPPED),
        (
            RuntimeError("CUDA out of memory. Tried to allocate 2 GiB.\nmore"),
            1,
            "error: CUDA out of memory. Tried to allocate 2 GiB.; lower micro_batch_tokens, batch_users or the "
            "model's sizes in params.yaml\n",
        ),
    ],
)
def test_how_errors_end(monkeypatch, capsys, error, status, text):
    assert command_that(monkeypatch, capsys, error) == (status, text)


def test_ctrl_c_before_a_command_has_begun(monkeypatch, capsys):
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_command", interrupted)
    assert ended(capsys, monkeypatch, "runs") == (130, STOPPED)


def ctrl_c_swallowed(error: Exception) -> None:
    """A library turns Ctrl-C into its own error while params.yaml is read."""

    def params(settings: Settings) -> None:
        with suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise error

    Settings.params = params


@pytest.mark.parametrize("error", [ValueError("what it makes of it"), UserError("damaged"), OSError(5, "x", "y")])
def test_ctrl_c_that_a_library_swallows(tmp_path, error):
    done = run_forked(tmp_path, "params", "check", prepare=partial(ctrl_c_swallowed, error))
    assert (done.status, done.output) == (130, STOPPED)


CTRL_C_AT_EXIT = """
import atexit, os, signal
from apao.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a terminal
atexit.register(os.kill, os.getpid(), signal.SIGINT)
main()
"""


def test_ctrl_c_after_the_end():
    done = processes.run(ROOT, "python", "-c", CTRL_C_AT_EXIT, "params", "check")
    (line,) = done.output.splitlines()  # nor a traceback of the interrupt
    assert done.status == 0 and line.startswith("params.yaml: valid")


@pytest.mark.parametrize("error", [RuntimeError("a bug"), ValueError("a bug"), OSError("a bug")])
def test_a_bug_keeps_its_traceback(monkeypatch, capsys, error):
    with pytest.raises(type(error), match="a bug"):
        command_that(monkeypatch, capsys, error)


def test_a_reader_that_goes_away_is_no_error():
    # `true` ends long before the command has imported what it needs to write its first line.
    done = processes.run(ROOT, "sh", "-c", "apao params schema | true")
    assert (done.status, done.output) == (0, "")


def test_the_installed_command_is_this_one():
    (entry,) = [each for each in importlib.metadata.entry_points(group="console_scripts") if each.name == "apao"]
    assert entry.load() is main
