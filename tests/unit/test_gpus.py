"""How many GPUs the workflow's jobs ask for."""

import os
from pathlib import Path

import pytest

from apao.devices import has_gpu
from apao.workflow import Workflow

PARAMS = str(Path(__file__).parents[2] / "params.yaml")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch):
    """A workflow sets variables for its jobs; not here."""
    monkeypatch.setattr(os, "environ", dict(os.environ))


def test_a_login_node_says_what_its_cluster_has():
    assert Workflow({"params": PARAMS}).gpus == has_gpu()
    assert Workflow({"params": PARAMS, "gpus": 1}).gpus == 1
    assert Workflow({"params": PARAMS, "gpus": 0}).gpus == 0


@pytest.mark.parametrize("value", [2, -1, "yes", 0.5])
def test_other_numbers_are_one_clear_line(value: object, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        Workflow({"params": PARAMS, "gpus": value})
    assert capsys.readouterr().err == f"error: --config gpus={value}: a job computes on one device; give 0 (CPU) or 1\n"
