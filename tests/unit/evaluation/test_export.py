"""The exported folder, run by ``transformers`` in a process that cannot import this project, against our own lists."""

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from helpers.language_models import write_model
from helpers.models import BASELINES
from helpers.processes import run as run_process
from helpers.runs import LENGTHS, wide_codes, write_run, write_wide_dataset

import apao
from apao.cli import app
from apao.errors import UserError
from apao.files import write_json
from apao.stages.evaluate import evaluate
from apao.stages.export import export
from apao.stages.model_card import try_it
from apao.study.paths import DatasetPaths
from apao.study.run_params import RunParams
from apao.study.runs import Run

CASES = {
    "tiger": ("tiger", {"type": "ce"}, {}),
    "llama": ("llama", {"type": "ce"}, {}),
    # No eos is trained, so none is decoded; another number of layers in encoder and decoder.
    "tiger-no-eos": ("tiger", {"type": "ce", "eos": False}, {"encoder_layers": 1}),
    # A softmax over the legal tokens, with a temperature.
    "tiger-msl": ("tiger", {"type": "msl", "tau": 2.0}, {}),
    "llama-msl": ("llama", {"type": "msl", "tau": 0.5}, {}),
    # Language models of other classes; their output layer is divided by the temperature, and so no longer tied.
    "qwen2": ("hf-causal", {"type": "ce"}, {"model": "qwen2"}),
    "gpt2-msl": ("hf-causal", {"type": "msl", "tau": 2.0}, {"model": "gpt2"}),
}
HISTORIES = (["i3"], ["i1", "i2", "i3"], [f"i{i}" for i in range(60, 90)])

WITHOUT_APAO = """
import runpy, sys
sys.modules["apao"] = None
for script in {scripts!r}:
    for history in {histories!r}:
        sys.argv = [script, *history]
        runpy.run_path(script, run_name="__main__")
        print("end")
"""


def made_run(case: str) -> tuple[Run, RunParams]:
    """The run of a case on one dataset in the working directory."""
    name, objective, sizes = CASES[case]
    codes = wide_codes()
    if not DatasetPaths("toy").folder.exists():
        write_wide_dataset(codes)
    if name == "hf-causal":
        write_model(Path(sizes["model"]), sizes["model"])
    return write_run(name, codes, objective, sizes, seed=list(CASES).index(case))


@pytest.fixture(params=["tiger", "llama"])
def trained(request, tmp_path, monkeypatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return made_run(request.param)[0]


def printed(folders, histories):
    """What each example.py prints for each history: tables of rank, id, log-probability and title."""
    code = WITHOUT_APAO.format(scripts=[str(folder / "example.py") for folder in folders], histories=histories)
    done = run_process(folders[0].parent, sys.executable, "-I", "-c", code)
    assert done.status == 0, done.output
    lines = [line for line in done.output.splitlines() if line == "end" or line.count("\t") == 3]
    tables = "\n".join(lines).split("end")[:-1]
    return [[line.split("\t") for line in table.strip().splitlines()] for table in tables]


def test_examples_list_what_recommend_lists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [made_run(case)[0] for case in CASES]
    folders = [tmp_path / "exported" / case for case in CASES]
    for run, folder in zip(runs, folders, strict=True):
        export(str(run), folder)
    expected = [
        apao.load(run.folder, device="cpu").recommend([history], k=20, keep_seen=True)
        for run in runs
        for history in HISTORIES
    ]
    for rows, wanted in zip(printed(folders, HISTORIES), expected, strict=True):
        assert [row[1] for row in rows] == wanted["item"].tolist()
        assert [float(row[2]) for row in rows] == pytest.approx(wanted["logp"].tolist(), abs=2e-4)
        assert rows[0][0] == "1" and rows[0][3] == f"Film {rows[0][1][1:]} <b>"


one = pytest.mark.parametrize("trained", ["tiger"], indirect=True)


@one
@pytest.mark.parametrize(("given", "said"), [([], "python example.py ID ID"), (["i0", "nobody"], "nobody: no id of")])
def test_an_example_without_a_known_history_says_so_in_one_line(trained, tmp_path, given, said):
    export(str(trained), tmp_path / "exported")
    done = run_process(tmp_path, sys.executable, str(tmp_path / "exported" / "example.py"), *given)
    assert done.status == 1 and said in done.output and "Traceback" not in done.output


def test_no_file_of_the_folder_runs_code_when_it_is_loaded(trained, tmp_path):
    export(trained.folder.as_posix(), tmp_path / "exported")
    for name in ("config.json", "tokenizer_config.json"):
        assert "auto_map" not in json.loads((tmp_path / "exported" / name).read_text())
    with np.load(tmp_path / "exported" / "trie.npz", allow_pickle=False) as trie:
        assert len(trie["indptr"]) == len(trie["tokens"]) + 2


def test_tokenizer_reads_and_writes_codes(trained, tmp_path):
    export(str(trained), tmp_path / "exported")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    vocabulary = apao.load(trained.folder, device="cpu").trained.codes.vocabulary
    assert tokenizer.get_vocab() == {token: i for i, token in enumerate(vocabulary)}
    code = [3, 9, 14]
    text = "".join(vocabulary[token] for token in code)
    closing = [1] if trained.backbone == "tiger" else []
    assert tokenizer(text)["input_ids"] == tokenizer(text.replace("><", "> <")).input_ids == [*code, *closing]
    assert tokenizer.decode([*code, 1, 0], skip_special_tokens=True) == text
    assert tokenizer("<z_1>")["input_ids"][0] == tokenizer.unk_token_id == 2
    batch = tokenizer([text, text * 2], padding=True)
    padded = batch["attention_mask"][0]
    assert sorted(padded, reverse=trained.backbone == "tiger") == padded and 0 in padded


def test_model_card_has_parameters_metrics_and_the_limits_of_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, params = made_run("llama")
    export(str(run), tmp_path / "before")
    assert "has not been evaluated" in (tmp_path / "before" / "README.md").read_text()
    evaluate(run, params, torch.device("cpu"))
    write_json(DatasetPaths("toy").manifest, {"source": {"source": "ml-100k"}})
    export(str(run), tmp_path / "after")
    card = (tmp_path / "after" / "README.md").read_text()
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert f"| metric | validation, {len(LENGTHS)} users | test, {len(LENGTHS)} users |" in card
    assert f"| Recall@20 | {metrics['valid']['recall@20']:.4f} | {metrics['test']['recall@20']:.4f} |" in card
    assert f"| training.lr | {params.training.lr} |" in card and f"| seed | {run.seed} |" in card
    assert "GroupLens" in card and "library_name: transformers" in card
    assert "Leave-one-out" in card


@one
def test_a_dataset_of_unknown_source_has_no_known_licence(trained, tmp_path):
    export(str(trained), tmp_path / "exported")
    assert "Not known. Ask whoever published the data." in (tmp_path / "exported" / "README.md").read_text()


@one
def test_export_refuses_a_folder_with_files(trained, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(UserError, match="full: exists; name a new or empty folder"):
        export(str(trained), tmp_path / "full")
    assert {path.name for path in tmp_path.glob("full*")} == {"full"}


@pytest.mark.parametrize("name", BASELINES)
def test_export_refuses_a_backbone_that_transformers_lacks(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = wide_codes()
    write_wide_dataset(codes)
    run, _ = write_run(name, codes, {"type": "ce"}, {}, seed=1)
    with pytest.raises(UserError, match=f"transformers has no class for backbone {name}; only .* can be exported"):
        export(str(run), tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@one
def test_command(trained, tmp_path):
    (tmp_path / "empty").mkdir()
    app(["export", str(trained), str(tmp_path / "empty")], standalone_mode=False)
    assert (tmp_path / "empty" / "example.py").exists()


@one
@pytest.mark.parametrize("target", [".", "../here"])
def test_export_refuses_the_folder_that_one_is_in(trained, tmp_path, monkeypatch, target):
    """It would be replaced, and the shell would go on in a deleted one."""
    root = Path.cwd()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UserError, match="the shell's own folder would be replaced; name another one"):
        export(str(root / trained.folder), Path(target))
    assert not any(Path().iterdir())


def test_the_command_that_tries_an_export_can_be_pasted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run, _ = made_run("llama")
    table = pd.read_parquet(DatasetPaths("toy").items)
    table["raw_id"] = [f"Blue shirt {number} (it's)" for number in range(len(table))]
    table.to_parquet(DatasetPaths("toy").items)
    model = apao.load(run.folder, device="cpu")
    words = shlex.split(try_it(Path("my export/example.py"), model))
    assert words == ["python", "my export/example.py", *model.items["raw_id"][:3]]


def test_export_refuses_a_run_with_a_prompt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    codes = wide_codes()
    write_wide_dataset(codes)
    write_model(Path("base"))
    run, _ = write_run("hf-causal", codes, {"type": "ce"}, {"model": "base", "prompt": "What comes next"}, seed=1)
    with pytest.raises(UserError, match="has a prompt, which is not text of its vocabulary"):
        export(str(run), tmp_path / "exported")
