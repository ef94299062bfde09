"""The project's own params.yaml and schema.json."""

import json

import jsonschema
import pytest
import yaml
from helpers.project import ROOT, SHIPPED

from apao.study.params import load, schema_text
from apao.study.runs import Run


def test_the_shipped_file_is_valid_at_every_scale():
    params = load(SHIPPED)
    for scale in params.studies:
        chosen = load(SHIPPED, scale)
        assert chosen.scale == scale
        assert chosen.all_runs()


@pytest.mark.parametrize("backbone", ["tiger", "llama"])
@pytest.mark.parametrize("dataset", ["office", "grocery", "beauty", "yelp"])
def test_the_recipe_of_the_papers_scale(dataset, backbone):
    """The paper's appendix, and what the release's trainer makes of its own settings."""
    params = load(SHIPPED, "paper")
    training = params.resolve(Run.parse(f"{dataset}/{backbone}/ce/seed42")).training
    assert (training.epochs, training.patience, training.batch_size) == (200, 20, 1024)
    assert (training.lr, training.warmup, training.weight_decay) == (5e-4, 0.01, 0.01)
    # The release adds up the gradients of 1024 / 128 micro-batches and clips the sum at 1.
    assert training.grad_clip == 1.0 / (1024 / 128)


def test_the_papers_studies():
    params = load(SHIPPED, "paper")
    assert {"apao-pointwise", "apao-pairwise"} <= set(params.study("figure4").objectives)
    # In the release's form of the weights eta has no effect that could be tuned.
    runs = [run for run in params.study("figure3").runs() if "eta" in dict(run.overrides)]
    assert runs
    assert all(params.resolve(run).objective.carries for run in runs)
    # Values tuned for one dataset are not everybody's.
    assert params.objectives["apao-pairwise"].beta == 0.2
    assert params.resolve(Run.parse("ml-100k/llama/apao-pairwise/seed42")).objective.beta == 0.05


@pytest.mark.parametrize("objective", ["apao-pointwise", "apao-pairwise"])
def test_changing_beta_changes_the_default_study(objective, tmp_path):
    """As the README says: the objective's own value, or the one tuned for the dataset, decides."""
    values = yaml.safe_load(SHIPPED.read_text())
    entry = values["objectives"][objective]
    deciding = [entry, entry.get("tuned", {}).get("ml-100k", {})][objective == "apao-pairwise"]
    deciding["beta"] = 0.37
    changed = tmp_path / "params.yaml"
    changed.write_text(yaml.safe_dump(values))
    before, after = load(SHIPPED), load(changed)
    runs = [run for run in before.study("table1").runs() if run.objective == objective]
    assert runs
    for run in runs:
        assert before.resolve(run).objective.beta != 0.37 and after.resolve(run).objective.beta == 0.37


def test_the_shipped_schema_is_that_of_the_models():
    assert (ROOT / "schema.json").read_text() == schema_text(), (
        "schema.json does not match the parameter models; regenerate it: apao params schema > schema.json"
    )


def test_the_shipped_file_follows_the_shipped_schema():
    schema = json.loads((ROOT / "schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    values = yaml.safe_load(SHIPPED.read_text())
    jsonschema.validate(values, schema)
    for section, name in (("objectives", "ce"), ("codes", "published"), ("embedders", "minilm")):
        values = yaml.safe_load(SHIPPED.read_text())
        values[section][name]["surprise"] = 1
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(values, schema)


def test_the_schema_says_what_keys_mean():
    training = json.loads((ROOT / "schema.json").read_text())["$defs"]["TrainingParams"]["properties"]
    assert training["patience"]["description"] == "Stop after this many epochs without a better validation loss."
