"""Runs with the backbone ``hf-causal``: trained, resumed, decoded and exported by the real commands."""

import json
import shutil
import sys

import pandas as pd
import pytest
import torch
import yaml
from helpers import language_models
from helpers.models import random_codes, run_params
from helpers.project import merged, small_params, write_dataset, write_params
from safetensors.torch import load_file

import apao
from apao.cli import app
from apao.engines.dvc import pipeline_text
from apao.errors import UserError
from apao.files import sha256_of
from apao.objectives.base import OBJECTIVES
from apao.stages import train as stage
from apao.stages.train import train
from apao.study.params import load
from apao.study.run_params import RunRecord
from apao.study.runs import Run
from apao.training.loop import Training

CPU = torch.device("cpu")
CODES = random_codes(40, 3, 4)
LENGTHS = [5, 9, 4, 12, 3, 7, 6, 8]


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A folder with a small dataset, and a pre-trained model in ``base``."""
    monkeypatch.chdir(tmp_path)
    write_dataset(CODES, LENGTHS)
    return language_models.write_model(tmp_path / "base")


def params_of(objective="ce", **sizes):
    sizes = {"model": "base", **sizes}
    return run_params("hf-causal", {"type": objective}, epochs=2, sizes=sizes)


def apao_command(*arguments):
    app(list(arguments), standalone_mode=False)


CASES = {
    "ce": {},
    "msl": {"lora": {"rank": 2}},
    "bear": {"lora": {"rank": 2, "targets": ["q_proj", "v_proj"]}, "pack": True},
    "apao-pairwise": {"prompt": language_models.PROMPT},
}


@pytest.mark.parametrize("objective", CASES)
def test_commands_of_a_run(objective, base, tmp_path, capsys):
    """Everything after the training works without the pre-trained model."""
    sizes = {"type": "hf-causal", "model": "base", "max_history": 5, **CASES[objective]}
    changes = {
        "objectives": {objective: {"type": objective}},
        "recipes": {"tiny": {"backbones": {"lm": sizes}, "decoding": {"beam": 20}}},
    }
    write_params(tmp_path, small_params(changes))
    run = Run.parse(f"toy/lm/{objective}/seed1")
    apao_command("train", str(run))
    shutil.rmtree(base)
    apao_command("evaluate", str(run))
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert metrics["test"]["users"] == len(LENGTHS) and metrics["beam"] == 20
    apao_command("recommend", str(run), "--history", "i1,i2", "-k", "3")
    apao_command("show", str(run))
    assert list(tmp_path.rglob("*.html"))
    names = load_file(run.folder / "model.safetensors")
    assert not [name for name in names if "lora" in name or "base_layer" in name]


def test_a_run_names_its_model(base):
    run = Run.parse("toy/hf-causal/ce/seed7")
    train(run, params_of(), CPU)
    record = RunRecord.read(run)
    for name in ("config.json", "model.safetensors"):
        assert record.inputs[f"base/{name}"] == sha256_of(base / name)
    config = json.loads((run.folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"] and config["vocab_size"] == len(CODES.vocabulary)
    assert config["apao"]["model"] == "base"


def test_the_workflow_knows_the_files_of_the_model(base, tmp_path):
    entry = {"type": "hf-causal", "model": "base"}
    table = {"kind": "comparison", "datasets": ["toy"], "backbones": ["lm"], "objectives": ["ce"], "seeds": [1]}
    changes = {"recipes": {"tiny": {"backbones": {"lm": entry}}}, "studies": {"small": {"table": table}}}
    write_params(tmp_path, small_params(changes))
    files = ["base/config.json", "base/model.safetensors"]
    params = load(tmp_path / "params.yaml")
    assert set(files) < set(map(str, params.resolve(Run.parse("toy/lm/ce/seed1")).training_inputs()))
    stages = yaml.safe_load(pipeline_text(params))["stages"]
    (trained,) = (entry for name, entry in stages.items() if name.startswith("train"))
    assert set(files) < set(trained["deps"])


def interrupted(run, params):
    """Train until the end of the first epoch."""

    def killed(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, params, CPU, on_epoch=killed)


@pytest.mark.parametrize("sizes", [{}, {"lora": {"rank": 2}}], ids=["full", "lora"])
def test_a_resumed_training_is_the_whole_one(sizes, base):
    run, params = Run.parse("toy/hf-causal/ce/seed7"), params_of(**sizes)
    train(run, params, CPU)
    whole = (run.folder / "model.safetensors").read_bytes()
    shutil.rmtree(run.folder)
    interrupted(run, params)
    names = set(load_file(run.folder / "checkpoint.safetensors"))
    # The frozen weights are those of the pre-trained model, and need no copy per epoch.
    assert any("q_proj" in name for name in names) and not any(".base_layer." in name for name in names)
    train(run, params, CPU)
    assert (run.folder / "model.safetensors").read_bytes() == whole


def test_another_model_in_the_folder_starts_the_training_anew(base):
    run, params = Run.parse("toy/hf-causal/ce/seed7"), params_of()
    interrupted(run, params)
    language_models.write_model(base, initializer_range=0.5, hidden_size=16)
    train(run, params, CPU)
    found = (run.folder / "model.safetensors").read_bytes()
    assert pd.read_csv(run.folder / "history.csv")["epoch"].tolist() == [1, 2]
    shutil.rmtree(run.folder)
    train(run, params, CPU)
    assert (run.folder / "model.safetensors").read_bytes() == found


def test_s_dpo_starts_from_the_merged_weights_of_a_trained_run(base):
    """At the start the model is its reference, so all preferences are even: -log(1 / (1 + N))."""
    sizes = {"lora": {"rank": 2, "dropout": 0.0}}
    run = Run.parse("toy/hf-causal/ce/seed7")
    train(run, params_of(**sizes), CPU)
    trained = load_file(run.folder / "model.safetensors")
    objective = {"type": "s-dpo", "start": "ce", "negatives": 3}
    params = run_params("hf-causal", objective, epochs=1, sizes={"model": "base", **sizes})
    histories, codes = stage.load_dataset(stage.DatasetPaths("toy"))
    training = Training("run", params, histories, codes, CPU, trained)
    assert all(torch.equal(value, trained[name]) for name, value in training.backbone.to_transformers().items())
    row = training.validate(0)
    assert row["loss"] == pytest.approx(torch.tensor(4.0).log().item(), abs=1e-4)
    assert OBJECTIVES["s-dpo"].model_fields["negatives"]


def test_a_missing_folder_is_one_line(base, tmp_path, capsys):
    changes = {"recipes": {"tiny": {"backbones": {"lm": {"type": "hf-causal", "model": "nowhere"}}}}}
    write_params(tmp_path, small_params(changes))
    with pytest.raises(SystemExit):
        apao_command("train", "toy/lm/ce/seed1")
    printed = capsys.readouterr().err
    assert printed.startswith("error: model nowhere: no folder with a config.json; name") and printed.count("\n") == 1


def test_lora_is_read_from_params_yaml(tmp_path):
    entry = {"type": "hf-causal", "model": "base", "lora": {"rank": 4, "alpha": 8, "targets": ["q_proj"]}}
    write_params(tmp_path, small_params({"recipes": {"tiny": {"backbones": {"lm": entry}}}}))
    resolved = load(tmp_path / "params.yaml").resolve(Run.parse("toy/lm/ce/seed1"))
    assert resolved.backbone.lora.targets == ("q_proj",) and resolved.for_training()["backbone"]["lora"]["alpha"] == 8
    write_params(
        tmp_path,
        small_params(
            merged(
                {"recipes": {"tiny": {"backbones": {"lm": entry}}}},
                {"recipes": {"tiny": {"backbones": {"lm": {"lora": {"rnk": 4}}}}}},
            )
        ),
    )
    with pytest.raises(UserError, match=r"recipes.tiny.backbones.lm.lora.rnk: unknown key 'rnk'"):
        load(tmp_path / "params.yaml")


def test_a_kernel_that_the_config_of_a_run_names_is_not_fetched(base):
    run = Run.parse("toy/hf-causal/ce/seed7")
    train(run, params_of(), CPU)
    (run.folder / "train.provenance.json").unlink()
    path = run.folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "attn_implementation": "someone/kernel"}))
    assert apao.load(run.folder, device="cpu").trained.backbone.model.config._attn_implementation == "sdpa"


def test_loading_a_run_without_transformers_is_one_line(base, monkeypatch):
    run = Run.parse("toy/hf-causal/ce/seed7")
    train(run, params_of(), CPU)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="backbone hf-causal needs transformers"):
        apao.load(run.folder, device="cpu")


@pytest.mark.parametrize("damage", ["layers", "vocabulary", "absent", "other"])
def test_a_damaged_config_of_a_run(damage, base):
    run = Run.parse("toy/hf-causal/ce/seed7")
    train(run, params_of(), CPU)
    (run.folder / "train.provenance.json").unlink()
    path = run.folder / "config.json"
    config = json.loads(path.read_text())
    match damage:
        case "layers":
            path.write_text(json.dumps({**config, "num_hidden_layers": 10**9, "layer_types": None}))
        case "vocabulary":
            path.write_text(json.dumps({**config, "vocab_size": 10}))
        case "other":
            path.write_text(json.dumps({"model_type": "t5"}))
        case "absent":
            path.unlink()
    with pytest.raises(UserError, match=r"config\.json"):
        apao.load(run.folder, device="cpu")
