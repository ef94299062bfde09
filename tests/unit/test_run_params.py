"""run.json has the parameters used, is read back exactly, and if damaged gives one clear error."""

import json

import pandas as pd
import pytest
from helpers.models import random_codes, run_params
from helpers.project import TOY, Project, small_params, write_dataset, write_params
from typer.testing import CliRunner

from apao.cli import app
from apao.errors import UserError
from apao.evaluation.params import DecodingParams
from apao.files import changed, sha256_of
from apao.study.run_params import RunRecord, first_difference
from apao.study.runs import Run

RUN = Run.parse("toy/tiger/pairwise+epochs=1/seed7")
PARAMS = small_params(
    {
        "recipes": {"tiny": {"decoding": {"beam": 20}}},
        "objectives": {
            "pairwise": {"type": "apao-pairwise", "beta": 0.1, "negatives": 3, "tuned": {"toy": {"beta": 0.3}}}
        },
    }
)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A small dataset and params.yaml; the working folder."""
    monkeypatch.chdir(tmp_path)
    write_dataset(random_codes(60, 3, 4), [25] * 8)
    write_params(tmp_path, PARAMS)
    return Project(tmp_path)


def apao(*arguments: str) -> str:
    """Output of a command, which must succeed."""
    done = CliRunner().invoke(app, [*arguments, "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_key_that_is_absent_differs_from_null():
    """Files of older revisions lack keys that were added later."""
    assert first_difference({"a": {"x": 1}}, {"a": {"x": 1, "y": None}}) == "a.y absent, not null"


def test_the_command_line_alone_records_what_it_used(project):
    apao("train", str(RUN))
    found = json.loads(RUN.record.read_text())
    assert found["run"] == str(RUN)
    assert (found["dataset"], found["seed"], found["start"]) == ("toy", 7, None)
    # The tuned value and no other value of the objective, the run's own override, and the recipe's values.
    assert found["objective"]["beta"] == 0.3 and "tuned" not in found["objective"]
    assert (found["training"]["epochs"], found["training"]["lr"]) == (1, 0.01)
    assert found["backbone"]["d_model"] == 16
    assert "decoding" not in found
    files = ("data/toy/interactions.parquet", "data/toy/codes.parquet")
    assert found["inputs"] == {file: sha256_of(project.folder / file) for file in files}
    provenance = json.loads((RUN.folder / "train.provenance.json").read_text())
    assert provenance["outputs"]["run.json"] == sha256_of(RUN.record)
    assert provenance["params"] == {key: value for key, value in found.items() if key not in ("run", "inputs")}


def test_what_is_handed_over_is_used_and_recorded(project):
    apao("train", str(RUN))
    record = RunRecord.read(RUN)
    weights = RUN.model.read_bytes()
    project.edit("recipes", "tiny", "training", "lr", value=0.5)
    apao("train", str(RUN), "--resolved", json.dumps(record.for_training(), sort_keys=True))
    assert RunRecord.read(RUN) == record and RUN.model.read_bytes() == weights
    # Without the option the file is used.
    apao("train", str(RUN))
    assert RunRecord.read(RUN).training.lr == 0.5 and RUN.model.read_bytes() != weights


def test_no_params_yaml_is_read_where_all_is_handed_over(project):
    apao("train", str(RUN))
    record = json.dumps(RunRecord.read(RUN).for_training())
    (project.folder / "params.yaml").unlink()
    apao("train", str(RUN), "--resolved", record)
    apao("evaluate", str(RUN), "--resolved", '{"beam": 22}')
    assert json.loads((RUN.folder / "metrics.json").read_text())["beam"] == 22
    apao("exact", str(RUN), "--resolved", '{"decoding": {"beam": 22}, "measure": {"exact": 3}}')
    assert json.loads((RUN.folder / "exact.json").read_text())["users"] == 3
    apao("beams", str(RUN), "--resolved", '{"decoding": {"beam": 22}, "measure": {"beams": [2, 3]}}')
    rows = json.loads((RUN.folder / "beams.json").read_text())["beams"]
    assert [row["beam"] for row in rows] == [2, 3]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("recipes.tiny.backbones.tiger.d_model", 32, "trained: with backbone.d_model 16, not 32 as in params.yaml"),
        ("objectives.ce.eos", False, ""),
        ("objectives", {"ce": {"type": "ce"}}, "unknown objective 'pairwise'"),
        ("recipes.tiny.decoding.beam", 21, ""),
    ],
    ids=["other sizes", "another objective", "no such objective", "other decoding"],
)
def test_a_run_is_evaluated_as_it_was_trained(project, key, value, said):
    apao("train", str(RUN))
    assert "evaluated as it was trained" not in apao("evaluate", str(RUN))
    before = (RUN.folder / "ranks.parquet").read_bytes()
    project.edit(*key.split("."), value=value)
    printed = " ".join(apao("evaluate", str(RUN)).split())
    assert said in printed and ("evaluated as it was trained" in printed) == bool(said)
    beam = project.params()["recipes"]["tiny"]["decoding"]["beam"]
    assert json.loads((RUN.folder / "metrics.json").read_text())["beam"] == beam
    assert ((RUN.folder / "ranks.parquet").read_bytes() == before) == (beam == 20)


def test_other_interactions_than_those_of_the_training_are_named_and_other_codes_refused(project):
    apao("train", str(RUN))
    assert "another" not in apao("evaluate", str(RUN))
    table = pd.read_parquet(TOY.interactions)
    table["item"] = table["item"].to_numpy()[::-1]
    table.to_parquet(TOY.interactions)
    printed = " ".join(apao("evaluate", str(RUN)).split())
    assert f"{RUN} was trained on another data/toy/interactions.parquet" in printed
    random_codes(60, 3, 4, seed=1).write(project.folder / "data/toy/codes.parquet")
    refused = CliRunner().invoke(app, ["evaluate", str(RUN), "--device", "cpu"])
    assert refused.exit_code == 1
    assert "data/toy/codes.parquet: has other items or codes than those that" in " ".join(refused.output.split())


def test_intact_covers_it(project):
    apao("train", str(RUN))
    assert list(changed([RUN.folder])) == []
    RUN.record.write_text(RUN.record.read_text().replace('"seed": 7', '"seed": 8'))
    assert list(changed([RUN.folder])) == [
        f"{RUN.record}: its content does not match the hash in train.provenance.json"
    ]
    with pytest.raises(UserError, match=r"run\.json: its content does not match the hash"):
        RunRecord.read(RUN)


def write(**values: object) -> None:
    """Write the run.json of a run without weights."""
    RUN.folder.mkdir(parents=True)
    RUN.record.write_text(json.dumps({"run": str(RUN), **run_params("tiger").for_training(), "inputs": {}, **values}))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"run": "toy/tiger/ce/seed1"}, "expected the record of .*, found that of toy/tiger/ce/seed1"),
        ({"dataset": "other"}, "found that of .* dataset other"),
        ({"decoding": {"beam": 22}}, "unknown key 'decoding'"),
        ({"objective": {"type": "cee"}}, "objective.type: unknown 'cee'; did you mean 'ce'"),
        ({"backbone": None}, "backbone"),
        ({"training": {"epochs": 0}}, "training.epochs: .* greater than 0, found 0"),
        ({"training": {"threads": 10**12}}, "training.threads: "),
        ({"inputs": ["a"]}, "inputs: expected keys and values"),
        ({"start": {"run": "a"}}, "start.training: required, but not given"),
    ],
)
def test_a_damaged_one_is_one_error(tmp_path, monkeypatch, values, message):
    monkeypatch.chdir(tmp_path)
    write(**values)
    with pytest.raises(UserError, match=rf"^results/toy/.*/run\.json: .*{message}.*(run its stage|train it) again"):
        RunRecord.read(RUN)


def test_eos_is_decoded_only_where_it_was_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(objective={"type": "ce", "eos": False})
    record = RunRecord.read(RUN)
    assert not record.decoded(DecodingParams()).decodes_eos
    with pytest.raises(UserError, match=rf"^{RUN}: decoding\.eos is true but".replace("+", r"\+")):
        record.decoded(DecodingParams(eos=True))


def test_a_difference_is_named_with_both_values():
    params = run_params("tiger")
    record = RunRecord(run=str(RUN), inputs={}, **params.for_training())
    assert record.difference(params) is None
    for section, key, value in (("training", "lr", 0.5), ("backbone", "d_model", 32)):
        part = getattr(params, section)
        other = params.model_copy(update={section: part.model_copy(update={key: value})})
        assert record.difference(other) == f"{section}.{key} {json.dumps(getattr(part, key))}, not {value}"
    assert record.difference(params.model_copy(update={"seed": 9})) == "seed 7, not 9"
