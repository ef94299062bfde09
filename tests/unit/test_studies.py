"""A study lists exactly its runs; its kind does not depend on its name."""

import os
from itertools import product
from pathlib import Path

import pytest
import yaml
from helpers.project import ROOT
from pydantic import ValidationError

from apao.engines.snakemake import Workflow
from apao.errors import UserError
from apao.study.params import load
from apao.study.runs import Run
from apao.study.studies import STUDIES, Study
from apao.study.sweeps import Curve, Sweep

GRID = {
    "datasets": ["office", "beauty"],
    "backbones": ["tiger", "llama"],
    "objectives": ["ce", "apao-pairwise+beta=0.4"],
    "seeds": [1, 2],
}
BETA = Sweep(objectives=["apao-pairwise+eta=0.001"], key="beta", values=[0.1, 0.2])
ETA = Sweep(objectives=["apao-pairwise+eta=0.001"], key="eta", values=[1e-5, 0.001])
MODEL = {"datasets": ["office"], "backbones": ["tiger"]}


def study(kind: str, **fields: object) -> Study:
    return STUDIES[kind](kind=kind, **fields)


@pytest.mark.parametrize("kind", ["comparison", "training-cost", "beam-sizes", "prefix-recall"])
def test_grids_are_all_combinations_in_the_order_of_the_file(kind):
    runs = study(kind, **GRID).runs()
    expected = [f"{d}/{b}/{o}/seed{s}" for d, b, o, s in product(*GRID.values())]
    assert [str(run) for run in runs] == expected


def test_repeats_are_listed_once():
    objectives = ["ce", "apao-pairwise+beta=0.40", "apao-pairwise+beta=0.4"]
    assert study("comparison", **{**GRID, "objectives": objectives}).runs() == study("comparison", **GRID).runs()
    one, same = (
        Sweep(objectives=["apao-pairwise+eta=0.001"], key="beta", values=[0.1]),
        Sweep(objectives=["apao-pairwise+beta=0.1"], key="eta", values=[0.001]),
    )
    assert len(study("sweep", **MODEL, sweeps=[one, same], seeds=[1]).runs()) == 1
    ablation = study(
        "ablation",
        dataset="office",
        backbone="tiger",
        modules={"full": "apao-pairwise", "none": "ce"},
        prefixes={"full": "apao-pairwise", "w/o 0": "apao-pairwise+drop_level=0"},
        seeds=[1],
    )
    assert [run.spelled_objective for run in ablation.runs()] == ["apao-pairwise", "ce", "apao-pairwise+drop_level=0"]


def test_a_sweep_changes_one_value_at_a_time():
    best = study("sweep-best", **MODEL, sweeps=[BETA, ETA], seeds=[7])
    names = ["beta=0.1+eta=0.001", "beta=0.2+eta=0.001", "eta=1e-5", "eta=0.001"]
    assert [str(run) for run in best.runs()] == [f"office/tiger/apao-pairwise+{name}/seed7" for name in names]
    beta, eta = best.curves()
    assert beta == Curve("office", "tiger", "apao-pairwise+eta=0.001", "beta", (0.1, 0.2))
    assert eta.run(1e-5, 9) == Run("office", "tiger", "apao-pairwise", (("eta", 1e-5),), 9)


def test_each_objective_has_its_own_sweeps():
    tau = Sweep(objectives=["msl"], key="tau", values=[1, 2.5])
    both = Sweep(objectives=["apao-pairwise+eta=0.001", "dpo"], key="beta", values=[0.5])
    sweep = study("sweep", **MODEL, sweeps=[tau, both, ETA], seeds=[1, 2])
    assert sweep.keys == ["tau", "beta", "eta"]
    assert [(curve.objective, curve.key) for curve in sweep.curves()] == [
        ("msl", "tau"),
        ("apao-pairwise+eta=0.001", "beta"),
        ("apao-pairwise+eta=0.001", "eta"),
        ("dpo", "beta"),
    ]
    spelled = [run.spelled_objective for run in sweep.runs() if run.seed == 1]
    assert spelled[:3] == ["msl+tau=1", "msl+tau=2.5", "apao-pairwise+beta=0.5+eta=0.001"]
    # The figure's inputs contain the values and not the names of sweeps.
    assert sweep.model_dump(mode="json")["sweeps"][0] == {"objectives": ["msl"], "key": "tau", "values": [1, 2.5]}


def test_a_sweep_is_of_every_dataset_backbone_and_seed():
    models = {"datasets": ["office", "beauty"], "backbones": ["tiger", "llama"]}
    values = {"dpo": [0.5, 2.5], "s-dpo": [1.5]}
    sweeps = [Sweep(objectives=[name], key="beta", values=of) for name, of in values.items()]
    sweep = study("sweep", **models, sweeps=sweeps, seeds=[1, 2])
    assert sweep.keys == ["beta"]
    assert [str(run) for run in sweep.runs()] == [
        f"{d}/{b}/{o}+beta={value}/seed{seed}"
        for d, b, o, seed in product(*models.values(), values, [1, 2])
        for value in values[o]
    ]


def test_what_else_a_study_reads():
    model = {"dataset": "office", "backbones": ["tiger", "llama"], "objectives": ["ce"], "seeds": [1]}
    pruning = study("pruning", **model)
    assert pruning.inputs() == [Path("results/office", name, "decoding_time.json") for name in ("tiger", "llama")]
    assert pruning.files == ("pruning.json",)
    comparison = study("comparison", **GRID)
    assert comparison.inputs() == [Path("results", name, "baselines/metrics.json") for name in ("office", "beauty")]
    assert comparison.files == STUDIES["training-stages"].files == ("metrics.json", "ranks.parquet")
    sizes = study("dataset-sizes", datasets=["office"])
    assert sizes.runs() == [] and sizes.dataset_names() == ("office",)
    assert sizes.inputs() == [Path("data/office/stats.json")]
    assert study("beam-sizes", **GRID).files == ("beams.json",)
    assert study("training-cost", **GRID).files == ("history.csv",)


def test_one_stage_before_two_stages():
    stages = study("training-stages", **MODEL, one_stage=["apao-pairwise"], two_stage=["ce>dpo"], seeds=[1])
    assert [run.objective for run in stages.runs()] == ["apao-pairwise", "ce>dpo"]


@pytest.mark.parametrize(
    ("name", "title"), [("table12", "Table 12"), ("figure2", "Figure 2"), ("tablets", "tablets"), ("b-2", "b-2")]
)
def test_a_study_is_called_by_its_name(name, title):
    sizes = study("dataset-sizes", datasets=["office"])
    assert sizes.titled(name) == title
    assert sizes.model_copy(update={"title": "Sizes"}).titled(name) == "Sizes"
    assert sizes.outputs(name) == [Path(f"results/tables/{name}.{suffix}") for suffix in ("csv", "md", "html", "tex")]
    recall = study("prefix-recall", **GRID)
    assert recall.outputs(name) == [Path(f"figures/{name}.{suffix}") for suffix in ("pdf", "png", "csv", "rst")]


@pytest.mark.parametrize(
    ("kind", "fields", "change"),
    [
        ("comparison", GRID, {"datasets": []}),
        ("comparison", GRID, {"seeds": [-1]}),
        ("comparison", GRID, {"seeds": []}),
        ("comparison", GRID, {"title": ""}),
        ("prefix-recall", GRID, {"objectives": ["ce"]}),
        ("beam-sizes", GRID, {"metric": "ndcg@7"}),
        ("beam-sizes", GRID, {"metric": "item_ndcg@10"}),
        ("sweep-best", {**MODEL, "sweeps": [BETA], "seeds": [1]}, {"sweeps": []}),
        ("training-stages", {**MODEL, "one_stage": ["ce"], "two_stage": [], "seeds": [1]}, {"one_stage": []}),
    ],
)
def test_studies_of_nothing(kind, fields, change):
    study(kind, **fields)
    with pytest.raises(ValidationError):
        study(kind, **{**fields, **change})


@pytest.fixture
def more(tmp_path, monkeypatch) -> Path:
    """The shipped params.yaml with two more ablations and a table of another title; the working folder."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    small = values["studies"]["small"]
    small["ablation-tiger"] = small["figure2"] | {"backbone": "tiger", "title": "Ablation of TIGER"}
    small["ablation_recall"] = small["figure2"] | {"metrics": ["recall@20"]}
    small["sizes"] = {"kind": "dataset-sizes", "datasets": ["ml-100k", "office"], "title": "Data"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    (tmp_path / "tuned.yaml").write_text((ROOT / "tuned.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", dict(os.environ))  # a workflow sets variables for its jobs here
    return tmp_path


def test_another_study_of_a_kind_takes_params_yaml_alone(more):
    params = load(Path("params.yaml"))
    assert {run.backbone for run in params.study("ablation-tiger").runs()} == {"tiger"}
    workflow = Workflow({})
    assert workflow.figures()[-2:] == ["ablation-tiger", "ablation_recall"] and workflow.tables()[-1] == "sizes"
    assert [workflow.title(name) for name in ("ablation-tiger", "sizes", "table1")] == [
        *("Ablation of TIGER", "Data", "Table 1")
    ]
    assert {"figures/ablation-tiger.png", "results/tables/sizes.md"} < set(workflow.targets())
    # Drawn by the same code, from other runs or the same ones.
    assert workflow.study_inputs("ablation_recall") == workflow.study_inputs("figure2")
    assert workflow.study("ablation_recall") != workflow.study("figure2")
    assert not set(workflow.study_inputs("ablation-tiger")) & set(workflow.study_inputs("figure2"))


def test_a_study_that_the_scale_lacks(more):
    with pytest.raises(UserError, match=r"^studies\.small: unknown study 'figure6'; did you mean 'figure5'"):
        load(Path("params.yaml")).study("figure6")
