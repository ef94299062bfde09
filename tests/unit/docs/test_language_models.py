"""The example of docs/language-models.md: its entries are added to params.yaml, and its commands run on tiny data."""

import json
import re
import shlex
from pathlib import Path

import yaml
from helpers import language_models
from helpers.models import random_codes
from helpers.project import ROOT, SHIPPED, TOY, merged, small_params, write_dataset, write_params

from apao.cli import app
from apao.study.params import load
from apao.study.runs import Run

PAGE = (ROOT / "docs" / "language-models.md").read_text()
(ENTRIES,) = (
    yaml.safe_load(text) for text in re.findall(r'^```yaml title="params.yaml"\n(.*?)^```$', PAGE, re.S | re.M)
)
COMMANDS = [
    shlex.split(line)[1:] for text in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.S | re.M) for line in text.splitlines()
]


def test_the_entries_fit_the_shipped_params(tmp_path):
    write_params(tmp_path, {**merged(yaml.safe_load(SHIPPED.read_text()), ENTRIES), "tuned": "none.yaml"})
    params = load(tmp_path / "params.yaml")
    for command in COMMANDS:
        resolved = params.resolve(Run.parse(command[1]))
        assert resolved.backbone.type == "hf-causal" and resolved.training.batch_size == 128
    assert resolved.start.run == "office/qwen-lora/ce+batch_size=128+epochs=5+lr=0.0001/seed42"


def test_the_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(random_codes(30, 4, 3), [20] * 6)
    Path("data/office").symlink_to(TOY.folder.name)
    language_models.write_model(Path(ENTRIES["recipes"]["paper"]["backbones"]["qwen"]["model"]), "qwen2")
    office = {"source": "csv", "path": "toy.csv", "recipe": "paper", "codes": "toy"}
    objectives = {name: {"type": name} for name in ("ce", "msl")}
    short = {"recipes": {"paper": {"decoding": {"beam": 20}}}, "datasets": {"office": office}, "objectives": objectives}
    write_params(tmp_path, merged(small_params(short), ENTRIES))
    for command in COMMANDS:
        app(command, standalone_mode=False)
        assert Run.parse(command[1]).record.exists()
    metrics = json.loads((Run.parse(COMMANDS[1][1]).folder / "metrics.json").read_text())
    assert metrics["test"]["users"] == 6
