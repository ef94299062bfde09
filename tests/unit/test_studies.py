"""A study lists exactly the runs it is made from."""

from itertools import product
from pathlib import Path

import pytest
from pydantic import ValidationError

from apao.study.runs import Run
from apao.study.studies import (
    Curve,
    Figure1,
    Figure2,
    Figure4,
    Figure5,
    Studies,
    Study,
    Sweep,
    Table1,
    Table2,
    Table3,
    Table4,
    Table5,
    outputs,
)

GRID = {
    "datasets": ["office", "beauty"],
    "backbones": ["tiger", "llama"],
    "objectives": ["ce", "apao-pairwise+beta=0.4"],
    "seeds": [1, 2],
}


@pytest.mark.parametrize("kind", [Table1, Table4, Figure5])
def test_grids_are_all_combinations_in_the_order_of_the_file(kind):
    runs = kind(**GRID).runs()
    expected = [f"{d}/{b}/{o}/seed{s}" for d, b, o, s in product(*GRID.values())]
    assert [str(run) for run in runs] == expected


def test_repeats_are_listed_once():
    study = Table1(**{**GRID, "objectives": ["ce", "apao-pairwise+beta=0.40", "apao-pairwise+beta=0.4", "ce"]})
    assert study.runs() == Table1(**GRID).runs()
    figure = Figure2(
        dataset="office",
        backbone="tiger",
        modules={"full": "apao-pairwise", "none": "ce"},
        prefixes={"full": "apao-pairwise", "w/o 0": "apao-pairwise+drop_level=0"},
        seeds=[1],
    )
    assert [run.spelled_objective for run in figure.runs()] == ["apao-pairwise", "ce", "apao-pairwise+drop_level=0"]


BETA = Sweep(objectives=["apao-pairwise+eta=0.001"], key="beta", values=[0.1, 0.2])
ETA = Sweep(objectives=["apao-pairwise+eta=0.001"], key="eta", values=[1e-5, 0.001])


def test_a_sweep_changes_one_value_at_a_time():
    study = Table5(datasets=["office"], backbones=["tiger"], sweeps=[BETA, ETA], seeds=[7])
    names = ["beta=0.1+eta=0.001", "beta=0.2+eta=0.001", "eta=1e-5", "eta=0.001"]
    assert [str(run) for run in study.runs()] == [f"office/tiger/apao-pairwise+{name}/seed7" for name in names]
    beta, eta = study.curves()
    assert beta == Curve("office", "tiger", "apao-pairwise+eta=0.001", "beta", (0.1, 0.2))
    assert eta.run(1e-5, 9) == Run("office", "tiger", "apao-pairwise", (("eta", 1e-5),), 9)


def test_each_objective_has_its_own_sweeps():
    tau = Sweep(objectives=["msl"], key="tau", values=[1, 2.5])
    both = Sweep(objectives=["apao-pairwise+eta=0.001", "dpo"], key="beta", values=[0.5])
    study = Table5(datasets=["office"], backbones=["tiger"], sweeps=[tau, both, ETA], seeds=[1, 2])
    assert study.keys == ["tau", "beta", "eta"]
    assert [(curve.objective, curve.key) for curve in study.curves()] == [
        ("msl", "tau"),
        ("apao-pairwise+eta=0.001", "beta"),
        ("apao-pairwise+eta=0.001", "eta"),
        ("dpo", "beta"),
    ]
    spelled = [run.spelled_objective for run in study.runs() if run.seed == 1]
    assert spelled[:3] == ["msl+tau=1", "msl+tau=2.5", "apao-pairwise+beta=0.5+eta=0.001"]
    # What a figure is made of holds the values, not the sweeps' names.
    assert study.model_dump(mode="json")["sweeps"][0] == {"objectives": ["msl"], "key": "tau", "values": [1, 2.5]}


def test_what_else_a_study_reads():
    figure = Figure1(
        dataset="office", backbones=["tiger", "llama"], objectives=["ce"], seeds=[1], catalogue_sizes=[10, 20]
    )
    assert figure.inputs() == [Path("results/office", name, "decoding_time.json") for name in ("tiger", "llama")]
    assert figure.files == ("pruning.json",)
    assert Table1(**GRID).dataset_names() == ("office", "beauty")
    assert Table1(**GRID).files == Table3.files == ("metrics.json", "ranks.parquet")
    assert Table2(datasets=["office"]).runs() == [] and Table2(datasets=["office"]).dataset_names() == ("office",)
    assert Figure4(**GRID, beams=[5]).files == ("beams.json",)
    assert Table4(**GRID).files == ("history.csv",)


def test_one_stage_before_two_stages():
    study = Table3(
        datasets=["office"], backbones=["tiger"], one_stage=["apao-pairwise"], two_stage=["ce>dpo"], seeds=[1]
    )
    assert [run.objective for run in study.runs()] == ["apao-pairwise", "ce>dpo"]


def test_studies_that_are_left_out_are_not_made():
    studies = Studies(table2=Table2(datasets=["office"]), figure5=Figure5(**GRID))
    assert list(studies.chosen()) == ["table2", "figure5"]
    assert {name for name, _ in studies.named_runs()} == {"figure5"}
    assert [run for _, run in studies.named_runs()] == Figure5(**GRID).runs()


@pytest.mark.parametrize("field", Studies.model_fields)
def test_every_study_has_files_of_its_own(field):
    files = outputs(field)
    assert len(set(files)) == len(files) >= 3
    assert all(file.stem == field for file in files)
    assert {file.parent for file in files} == {Path("results/tables") if field.startswith("table") else Path("figures")}


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (Table1, {"datasets": []}),
        (Table1, {"seeds": [-1]}),
        (Table1, {"seeds": []}),
        (Figure5, {"objectives": ["ce"]}),
        (Figure4, {"beams": [0]}),
        (Figure4, {"beams": []}),
        (Table5, {"sweeps": []}),
        (Table3, {"one_stage": []}),
    ],
)
def test_studies_of_nothing(kind: type[Study], change):
    given = GRID | {Figure4: {"beams": [5]}}.get(kind, {})
    if kind is Table5:
        given = {"datasets": ["office"], "backbones": ["tiger"], "sweeps": [BETA], "seeds": [1]}
    if kind is Table3:
        given = {"datasets": ["office"], "backbones": ["tiger"], "one_stage": ["ce"], "two_stage": [], "seeds": [1]}
    kind(**given)
    with pytest.raises(ValidationError):
        kind(**{**given, **change})
