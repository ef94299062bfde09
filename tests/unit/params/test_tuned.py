"""A file of tuned values: reading, errors with file and line, its copy, and writing it from finished sweeps."""

import json
import re
from multiprocessing import get_context
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from apao.cli import app
from apao.errors import UserError
from apao.study.params import load
from apao.study.runs import Run
from apao.study.tuned import BY_SEARCH, BY_SWEEP, Tuning, add_tunings, read_tuned, values_at, with_tuning, write_tuned

TUNED = """\
pairwise:
- chosen_by: the paper
  values:
    office: {beta: 0.7, eta: 1.0e-3}
    office/llama: {beta: 0.8}
- chosen_by: "apao tune: by hand"
  values:
    office/llama: {eta: 0.5}
"""


@pytest.fixture
def project(tmp_path, monkeypatch, text):
    """params.yaml that names a file of tuned values; the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(text.replace("objectives:\n  ce:", "tuned: tuned.yaml\nobjectives:\n  ce:"))
    (tmp_path / "tuned.yaml").write_text(TUNED)
    return tmp_path


def resolved(run):
    objective = load(Path("params.yaml")).resolve(Run.parse(run)).objective
    return objective.beta, objective.eta, objective.negatives


@pytest.mark.parametrize(
    ("run", "values"),
    [
        ("office/tiger/pairwise/seed1", (0.7, 1e-3, 7)),  # of the dataset; params.yaml's own tuning beside it
        ("office/llama/pairwise/seed1", (0.8, 0.5, 50)),  # of the backbone, each key by its latest tuning
        ("office/llama/pairwise+eta=0/seed1", (0.8, 0, 50)),  # the run's own override
        ("films/llama/pairwise/seed1", (0.3, 1e-3, 50)),  # params.yaml
    ],
)
def test_chosen_values_take_the_place_of_the_objectives_own(project, run, values):
    assert resolved(run) == values


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("office: {beta", "offise: {beta", r"tuned\.yaml:4: pairwise\.0\.values\.offise: .*did you mean 'office'"),
        ("office/llama: {beta", "office/lama: {beta", r"tuned\.yaml:5: .*did you mean 'llama'"),
        ("{beta: 0.8}", "{bita: 0.8}", r"tuned\.yaml:5: pairwise\.0\.values\.office/llama\.bita: .*'beta'"),
        ("{beta: 0.8}", "{beta: -1}", r"tuned\.yaml:5: .*greater than or equal to 0, found -1"),
        ("{beta: 0.8}", "{hiden: 16}", r"tuned\.yaml:5: .*unknown key 'hiden'; did you mean 'hidden'"),
        ("office: {beta: 0.7", "office: {hidden: 16", r"tuned\.yaml:4: .*unknown key 'hidden'"),
        ("{beta: 0.8}", "{lr: -1}", r"tuned\.yaml:5: .*greater than 0, found -1"),
        ("{beta: 0.8}", "{type: ce}", r"tuned\.yaml:5: .*type: is the same for all datasets"),
        ("pairwise:", "pairwize:", r"tuned\.yaml:1: pairwize: .*did you mean 'pairwise'"),
        ("chosen_by: the paper", "by: the paper", r"tuned\.yaml:2: pairwise\.0\.by: unknown key 'by'"),
        ("chosen_by: the paper", 'chosen_by: ""', r"tuned\.yaml:2: pairwise\.0\.chosen_by: "),
        ("{beta: 0.8}", "{}", r"tuned\.yaml:5: pairwise\.0\.values\.office/llama: "),
        ("pairwise:\n-", "- pairwise:\n -", r"tuned\.yaml:.*"),
    ],
)
def test_mistakes_name_the_file_and_line(project, old, new, said):
    assert TUNED.count(old) == 1
    (project / "tuned.yaml").write_text(TUNED.replace(old, new))
    with pytest.raises(UserError, match=said):
        load(Path("params.yaml"))


def test_values_of_the_training_and_of_the_backbone(project):
    (project / "tuned.yaml").write_text(TUNED.replace("{beta: 0.8}", "{beta: 0.8, lr: 0.5, hidden: 16}"))
    params = load(Path("params.yaml"))
    here, overridden, elsewhere, other = (
        params.resolve(Run.parse(name))
        for name in (
            "office/llama/pairwise/seed1",
            "office/llama/pairwise+hidden=24+lr=0.25/seed1",
            "films/llama/pairwise/seed1",
            "office/llama/ce/seed1",
        )
    )
    assert (here.objective.beta, here.training.lr, here.backbone.hidden, here.backbone.heads) == (0.8, 0.5, 16, 4)
    assert (overridden.training.lr, overridden.backbone.hidden) == (0.25, 24)
    assert {(one.training.lr, one.backbone.hidden) for one in (elsewhere, other)} == {(1e-3, 32)}


def test_tunings_that_are_valid_one_by_one_and_not_together_are_one_line(project):
    values = ({"hidden": 24, "heads": 3}, {"heads": 8})
    tunings = [{"chosen_by": "hand", "values": {"office/llama": one}} for one in values]
    (project / "tuned.yaml").write_text(yaml.safe_dump({"ce": tunings}))
    params = load(Path("params.yaml"))
    with pytest.raises(UserError, match=r"seed1: its tuned values heads=8, hidden=24 do not fit: hidden 24"):
        params.resolve(Run.parse("office/llama/ce/seed1"))


def test_a_copy_holds_both_files(project):
    params = load(Path("params.yaml"))
    assert params.files == (Path("params.yaml"), Path("tuned.yaml"))
    params.write_copy(project / "copy.yaml")
    (project / "tuned.yaml").write_text(TUNED.replace("0.8", "0.9"))
    run = Run.parse("office/llama/pairwise/seed1")
    assert load(project / "copy.yaml").resolve(run).objective.beta == 0.8
    again = load(Path("params.yaml"))
    assert again.resolve(run).objective.beta == 0.9 and again.sha256 != params.sha256


def test_params_copied_alone_are_said_to_be_untuned(project, capsys):
    (project / "tuned.yaml").unlink()
    assert resolved("office/llama/pairwise/seed1") == (0.1, 1e-4, 50)
    assert re.search(r"tuned\.yaml: not found; objectives have the same values", capsys.readouterr().err)


def test_the_file_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "tuned.yaml"
    path.write_text(TUNED)
    tunings, _ = read_tuned(path)
    write_tuned(tmp_path / "again.yaml", tunings)
    assert read_tuned(tmp_path / "again.yaml")[0] == tunings
    assert (tmp_path / "again.yaml").read_text().startswith("# Values that override an objective's own")


def test_a_sweep_replaces_what_sweeps_chose_for_the_same_key():
    def tuning(by, **values):
        return Tuning(chosen_by=by, values={"office/llama": values})

    paper, old, other = (
        tuning("the paper", beta=1.0),
        tuning(f"{BY_SWEEP}: a", beta=2.0),
        tuning(f"{BY_SWEEP}: b", eta=3.0),
    )
    new = tuning(f"{BY_SWEEP}: c", beta=4.0)
    found = with_tuning((paper, old, other), new)
    assert found == (paper, other, new)
    assert values_at(found, "office", "llama") == {"beta": 4.0, "eta": 3.0}


def test_values_for_a_backbone_precede_those_for_its_dataset_in_any_order():
    near = Tuning(chosen_by="a", values={"office/llama": {"beta": 1.0}})
    far = Tuning(chosen_by="b", values={"office": {"beta": 2.0}})
    for found in ((near, far), (far, near)):
        assert values_at(iter(found), "office", "llama") == {"beta": 1.0}
        assert values_at(iter(found), "office", "tiger") == {"beta": 2.0}


def test_a_search_replaces_earlier_choices_at_its_own_place_only():
    def tuning(by, **values):
        return Tuning(chosen_by=by, values=values)

    old = tuning(f"{BY_SWEEP}: a", tiger={"beta": 1.0}, llama={"beta": 2.0})
    more = tuning(f"{BY_SEARCH}: b", llama={"beta": 3.0, "lr": 4.0})
    new = tuning(f"{BY_SEARCH}: c", llama={"beta": 5.0})
    assert with_tuning((old, more), new) == (tuning(f"{BY_SWEEP}: a", tiger={"beta": 1.0}), more, new)


def test_tunings_are_added_to_what_the_file_has_now(project):
    add_tunings(Path("tuned.yaml"), [("ce", Tuning(chosen_by="me", values={"office/llama": {"lr": 0.5}}))])
    assert list(read_tuned(Path("tuned.yaml"))[0]) == ["pairwise", "ce"]
    assert resolved("office/llama/pairwise/seed1") == (0.8, 0.5, 50)
    assert load(Path("params.yaml")).resolve(Run.parse("office/llama/ce/seed1")).training.lr == 0.5


SWEEP = """
sweeps:
  tau: {objectives: [msl], key: tau, values: [1, 2, 3]}
studies:
  small:
    table1: {kind: comparison, datasets: [office], backbones: [tiger, llama], objectives: [ce, msl], seeds: [1]}
    table5: {kind: sweep-best, datasets: [office], backbones: [tiger, llama], sweeps: [tau], seeds: [1]}
"""


def test_apao_tune_writes_the_best_on_the_validation_items(project):
    values = yaml.safe_load((project / "params.yaml").read_text()) | yaml.safe_load(SWEEP)
    values["objectives"]["msl"] = {"type": "msl"}
    (project / "params.yaml").write_text(yaml.safe_dump(values))
    # Validation and test disagree; llama is best at its own value, which is the plain run.
    valid = {"tiger": {1: 0.1, 2: 0.3, 3: 0.2}, "llama": {1: 0.3, 2: 0.1, 3: 0.2}}
    for backbone, by_tau in valid.items():
        for tau, score in by_tau.items():
            folder = project / f"results/office/{backbone}/msl{'' if tau == 1 else f'+tau={tau}'}/seed1"
            folder.mkdir(parents=True)
            split = {
                name: {"ndcg@10": value, "item_ndcg@10": value} for name, value in (("valid", score), ("test", -score))
            }
            (folder / "metrics.json").write_text(json.dumps(split))
    (project / "dvc.yaml").touch()
    done = CliRunner().invoke(app, ["tune", "table5", "msl"])
    assert done.exit_code == 0, done.output
    assert "is new" not in done.output
    assert "msl on office/tiger: tau 2" in done.output and "msl on office/llama: tau 1" in done.output
    params = load(Path("params.yaml"))
    assert [params.resolve(Run("office", b, "msl")).objective.tau for b in ("tiger", "llama")] == [2, 1]
    (tuning,) = params.tuned["msl"]
    assert tuning.chosen_by == "apao tune: best validation ndcg@10 of tau in 1, 2, 3, seed 1"
    assert len(params.tuned["pairwise"]) == 2
    wrong = CliRunner().invoke(app, ["tune", "table1"])
    assert wrong.exit_code == 1 and "'table1' is not a study of scale small with sweeps" in wrong.output
    wrong = CliRunner().invoke(app, ["tune", "table5", "ce"])
    assert wrong.exit_code == 1 and "does not sweep 'ce'" in wrong.output
    # The pipeline for DVC has a file of tuned values among its inputs only if there was one.
    (project / "tuned.yaml").unlink()
    anew = CliRunner().invoke(app, ["tune", "table5", "msl"])
    assert "tuned.yaml is new, so dvc.yaml does not read it; generate it again: apao dvc" in anew.output


def add_many(path, objective):
    for value in range(20):
        tuning = Tuning(chosen_by=f"{objective} {value}", values={"office/llama": {"lr": 0.5}})
        add_tunings(Path(path), [(f"{objective}{value}", tuning)])


def test_tunings_of_searches_side_by_side_are_all_kept(tmp_path):
    path = tmp_path / "tuned.yaml"
    context = get_context("spawn")
    both = [context.Process(target=add_many, args=(str(path), name)) for name in ("ce", "msl")]
    for process in both:
        process.start()
    for process in both:
        process.join()
        assert process.exitcode == 0
    assert set(read_tuned(path)[0]) == {f"{name}{value}" for name in ("ce", "msl") for value in range(20)}


def test_the_objectives_own_tuned_values_take_precedence_over_the_files(project):
    more = "- chosen_by: me\n  values:\n    films: {beta: 0.9}\n    films/llama: {eta: 0.5, negatives: 9}\n"
    (project / "tuned.yaml").write_text(TUNED + more)
    assert resolved("films/tiger/pairwise/seed1") == (0.2, 1e-3, 50)
    assert resolved("films/llama/pairwise/seed1") == (0.3, 1e-3, 9)


def test_tunings_are_those_of_the_file_and_the_objectives_own(project):
    found = load(Path("params.yaml")).tunings("pairwise")
    assert [one.get("chosen_by") for one in found] == ["the paper", "apao tune: by hand", None]
    assert found[-1]["films/llama"] == {"beta": 0.3}
