from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from helpers.project import ROOT

from apao.errors import UserError
from apao.files import digest_of
from apao.report import paper
from apao.stages.report import inputs, report
from apao.study.runs import Run

ONE = {"datasets": ["office"], "backbones": ["tiger"], "seeds": [42]}
BOTH = {"datasets": ["office"], "backbones": ["tiger", "llama"], "seeds": [1, 2]}
THREE = ["ce", "apao-pointwise", "apao-pairwise"]


def test_missing_runs_are_named_with_the_way_to_make_them(project):
    params = project.params(table1={**BOTH, "objectives": THREE})
    project.fill("table1", params)
    shutil.rmtree("results/office/llama/apao-pairwise/seed2")
    Path("results/office/tiger/ce/seed1/ranks.parquet").unlink()
    with pytest.raises(UserError) as caught:
        report("table1", params)
    message = str(caught.value)
    assert message.startswith("table1: 4 of its 37 input files are missing: ")
    for path in (
        "results/office/llama/apao-pairwise/seed2/run.json",
        "results/office/llama/apao-pairwise/seed2/metrics.json",
        "results/office/llama/apao-pairwise/seed2/ranks.parquet",
        "results/office/tiger/ce/seed1/ranks.parquet",
        "snakemake -c2 results/tables/table1.csv --config scale=tiny",
    ):
        assert path in message


def test_many_missing_files_are_counted(project):
    params = project.params(table1={**BOTH, "objectives": THREE})
    shutil.rmtree("results")
    with pytest.raises(UserError, match=r"37 of its 37 input files.*and 25 more"):
        report("table1", params)


def test_runs_trained_with_other_parameters_are_named(project, capsys):
    params = project.params(table1={**BOTH, "objectives": THREE})
    project.fill("table1", params)
    report("table1", params)
    assert capsys.readouterr().err == ""
    for seed in (1, 2):
        run = Run.parse(f"office/llama/ce/seed{seed}")
        training = params.resolve(run).training.model_dump()
        project.record(run, params, training={**training, "epochs": 3})
    report("table1", params)
    said = "table1: office/llama/ce/seed1 was made with training.epochs 3, not 200 as in params.yaml (likewise 1 more)"
    assert said in capsys.readouterr().err.replace("\n", " ")
    record = json.loads(Path("results/tables/table1.provenance.json").read_text())
    assert set(record["params"]["trained_otherwise"]) == {"office/llama/ce/seed1", "office/llama/ce/seed2"}


def test_runs_decoded_otherwise_are_named(project, capsys):
    params = project.params(table1={**BOTH, "objectives": THREE})
    project.fill("table1", params)
    path = Path("results/office/llama/ce/seed1/metrics.json")
    project.json(str(path), {**json.loads(path.read_text()), "beam": 50})
    report("table1", params)
    said = "table1: office/llama/ce/seed1 was made with beam 50, not 20 as in params.yaml; drawn as it is"
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_a_report_reads_no_other_files_of_a_run(project, capsys):
    """An evaluation may be replacing metrics.json while a report of exact scoring is drawn."""
    params = project.params(exact={**ONE, "kind": "exact-ranking", "objectives": ["ce"]})
    exact = {"users": 2, "of_users": 2, "beam": 40, "ranks": {"user": [0, 1], "beam": [1, 0], "exact": [1, 2]}}
    project.fill("exact", params)
    for run in params.study("exact").runs():
        project.json(f"results/{run}/exact.json", exact)
        (project.folder / f"results/{run}/metrics.json").write_text("half a fi")
    report("exact", params)
    assert "was made with beam 40, not 20 as in params.yaml" in capsys.readouterr().err.replace("\n", " ")


def test_a_study_that_the_scale_lacks(project):
    params = project.params(table2={"datasets": ["office", "ml-100k"]})
    with pytest.raises(UserError, match=r"studies\.tiny: unknown study 'table3'; did you mean 'table2'"):
        report("table3", params)


def test_sweep_points_equal_to_the_objective_are_its_plain_run(project):
    params = project.params(figure3={**ONE, "sweeps": ["beta", "eta"]})
    names = {path.parent.parent.name for path in inputs("figure3", params)}
    assert "apao-pairwise" in names
    assert names.isdisjoint({"apao-pairwise+beta=0.2", "apao-pairwise+eta=0.0001"})
    assert {"apao-pairwise+beta=0.1", "apao-pairwise+eta=3e-5", "apao-pointwise+beta=0.2"} <= names


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["test"].pop("ndcg@20"), r"expected an entry with this name at 'test\.ndcg@20'"),
        (lambda m: m["test"].update({"ndcg@20": None}), r"expected a finite number at 'test\.ndcg@20'"),
        (lambda m: m["test"].update({"ndcg@20": float("nan")}), "expected a finite number"),
        (lambda m: m.update(test=3), "expected an entry"),
    ],
)
def test_metrics_that_lack_something_are_named(project, change, said):
    params = project.params(table1={**ONE, "objectives": ["ce"]})
    project.fill("table1", params)
    path = Path("results/office/tiger/ce/seed42/metrics.json")
    metrics = json.loads(path.read_text())
    change(metrics)
    path.write_text(json.dumps(metrics))
    with pytest.raises(UserError, match=f"^{path}: {said}"):
        report("table1", params)
    assert not Path("results/tables/table1.csv").exists()


def test_a_changed_input_is_an_error(project):
    params = project.params(table2={"datasets": ["office"]})
    project.fill("table2", params)
    record = {"outputs": {"stats.json": "0" * 64}}
    project.json("data/office/preprocess.provenance.json", {**record, "digest": digest_of(record)})
    with pytest.raises(UserError, match="does not match the hash"):
        report("table2", params)


def test_every_number_of_the_paper_is_found_once():
    keys = ("family", "stages", "backbone", "objective", "dataset", "metric")
    for path in sorted((ROOT / "src/apao/report/paper").glob("*.csv")):
        for row in csv.DictReader(path.read_text().splitlines()):
            named = {key: row[key] for key in keys if key in row}
            for column in set(row) - set(named):
                value = float(row[column] or "nan")
                assert paper.printed(path.stem, column, **named) == pytest.approx(value, abs=0, nan_ok=True)
    # One value per table, copied from the paper.
    assert (
        paper.printed("table1", "value", backbone="tiger", objective="ce", dataset="beauty", metric="ndcg@10") == 0.0318
    )
    assert paper.printed("table2", "users", dataset="yelp") == 30431
    assert (
        paper.printed("table3", "ndcg@10", stages="2", objective="s-dpo", dataset="beauty", backbone="llama") == 0.0262
    )
    assert paper.printed("table4", "epochs", objective="apao-pairwise", dataset="yelp") == 144
    assert paper.printed("table5", "eta", backbone="tiger", objective="apao-pointwise", dataset="office") == 1e-4
    assert paper.coverage(["office", "yelp"]) == ""
    assert "ml-100k or office-raw" in paper.coverage(["ml-100k", "office", "office-raw"])
