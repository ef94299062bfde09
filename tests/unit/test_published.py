"""The published runs are complete; ``apao publish`` accepts only finished runs and keeps published ones."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from helpers.project import ROOT

import apao
from apao.errors import UserError
from apao.files import changed, digest_of, sha256_of, write_json
from apao.stages.compare import compare
from apao.stages.publish import _differences, publish, published_faults
from apao.study.paths import PUBLISHED
from apao.study.run_params import RunRecord
from apao.study.runs import Run

RUNS = sorted(path.parent for path in (ROOT / PUBLISHED.results).rglob("run.json"))
CE = Run("office", "llama", "ce", (), 42)
FOLDER = PUBLISHED.place(CE.folder)


def test_all_published_files_are_whole(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert RUNS
    assert [*changed([PUBLISHED.results]), *published_faults()] == []


@pytest.mark.parametrize("folder", RUNS, ids=lambda folder: str(folder.relative_to(ROOT / PUBLISHED.results)))
def test_a_published_run_says_how_it_was_made(folder):
    values = json.loads((folder / "run.json").read_text())
    record = RunRecord.model_validate(values)
    made = json.loads((folder / "provenance.json").read_text())
    # As they were written: keys that were added since then are not in them.
    assert made["train"]["params"].items() <= values.items()
    # The training also reads the items' titles, on which its result does not depend.
    assert record.inputs.items() <= made["train"]["inputs"].items()
    assert made["train"]["revision"] and made["train"]["seconds"] > 0 and made["machine"]
    history = pd.read_csv(folder / "history.csv")
    assert history.loc[history["best"], "epoch"].iloc[-1] == history.loc[history["valid_loss"].idxmin(), "epoch"]


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """The folder of a run as training and evaluation write it, without weights, from the published one."""
    monkeypatch.chdir(tmp_path)
    return unpublished(CE)


def unpublished(run):
    measured = ("exact.json", "beams.json", "pruning.json", "lists.parquet")
    shutil.copytree(ROOT / PUBLISHED.place(run.folder), run.folder, ignore=shutil.ignore_patterns(*measured))
    provenance = json.loads((run.folder / "provenance.json").read_text())
    (run.folder / "provenance.json").unlink()
    for stage in ("train", "evaluate"):
        record = run.folder / f"{stage}.provenance.json"
        record.write_text(json.dumps(provenance[stage]))
        # Early revisions listed run.json in no record.
        own = {"run.json": sha256_of(run.folder / "run.json")} if stage == "train" else {}
        edit(
            record, lambda values, own=own: values.update(device="cpu", outputs=values["outputs"] | own, machine="one")
        )
    (run.folder / "model.safetensors").touch()
    return run.folder


def edit(path, change):
    """Change a JSON file, and in a stage's record also its hash."""
    value = json.loads(path.read_text())
    change(value)
    if "digest" in value:
        value["digest"] = digest_of({key: each for key, each in value.items() if key != "digest"})
    path.write_text(json.dumps(value))


def test_a_published_run_has_its_small_files_and_one_record(finished):
    publish([str(CE)], Path())
    names = {"run.json", "metrics.json", "ranks.parquet", "history.csv"}
    assert {path.name for path in FOLDER.iterdir()} == {*names, "provenance.json"}
    made = json.loads((FOLDER / "provenance.json").read_text())
    assert made["machine"] == "one" and set(made["outputs"]) == names
    assert made["train"]["revision"] and made["evaluate"]["seconds"]
    assert [*changed([PUBLISHED.results]), *published_faults()] == []


def test_runs_of_another_folder(finished, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    publish([f"results/{CE}/"], Path(".."))
    assert (FOLDER / "metrics.json").read_bytes() == (tmp_path / CE.folder / "metrics.json").read_bytes()


def test_the_machine_is_that_of_the_training(finished):
    edit(finished / "train.provenance.json", lambda record: record.update(machine="9 cores", device="NVIDIA H100"))
    publish([str(CE)], Path())
    assert json.loads((FOLDER / "provenance.json").read_text())["machine"] == "NVIDIA H100; 9 cores"


def wrong_weights(folder):
    edit(folder / "evaluate.provenance.json", lambda record: record["inputs"].update({str(CE.model): "0" * 64}))


def other_codes(folder):
    edit(
        folder / "evaluate.provenance.json",
        lambda record: record["inputs"].update({"data/office/codes.parquet": "0" * 64}),
    )


def other_parameters(folder):
    edit(folder / "run.json", lambda record: record["training"].update(epochs=3))
    hashes = {"run.json": sha256_of(folder / "run.json")}
    edit(folder / "train.provenance.json", lambda record: record["outputs"].update(hashes))


def cut(folder):
    (folder / "ranks.parquet").write_bytes((folder / "ranks.parquet").read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "metrics.json").unlink(), "metrics.json: not found, so the run is not finished"),
        (lambda folder: (folder / "train.provenance.json").unlink(), "run.json: no stage's record lists it"),
        (lambda folder: edit(folder / "metrics.json", lambda value: value.update(beam=3)), "does not match the hash"),
        (cut, "does not match the hash"),
        (wrong_weights, "evaluate read other weights than the training wrote"),
        (other_codes, "evaluate read another data/office/codes.parquet than the training"),
        (other_parameters, "has another run, parameters or inputs"),
    ],
)
def test_an_unfinished_or_damaged_run_is_refused(finished, damage, said):
    damage(finished)
    with pytest.raises(UserError, match=said):
        publish([str(CE)], Path())
    assert not PUBLISHED.results.exists()


def test_the_same_numbers_leave_it_as_it_is(finished, capsys):
    publish([str(CE)], Path())
    before = (FOLDER / "provenance.json").read_bytes()
    edit(finished / "train.provenance.json", lambda record: record.update(machine="two"))
    publish([str(CE)], Path())
    assert "has the same numbers, by revision" in capsys.readouterr().err.replace("\n", " ")
    assert (FOLDER / "provenance.json").read_bytes() == before


@pytest.mark.parametrize("content", ["{}", "[]", '{"outputs": {}, "digest": "0"}'])
def test_a_damaged_record_of_a_published_run_is_named(finished, content):
    publish([str(CE)], Path())
    (FOLDER / "provenance.json").write_text(content)
    with pytest.raises(UserError, match=r"provenance\.json: .*; restore it \(git checkout"):
        publish([str(CE)], Path())


def test_a_new_measurement_is_added(finished, capsys):
    publish([str(CE)], Path())
    (finished / "beams.json").write_text("{}")
    record = {"stage": "beams", "device": "cpu", "inputs": {}, "outputs": {}}
    (finished / "beams.provenance.json").write_text(json.dumps({**record, "digest": digest_of(record)}))
    with pytest.raises(UserError, match=r"beams.json: no stage's record lists it"):
        publish([str(CE)], Path())
    record["outputs"] = {"beams.json": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}
    (finished / "beams.provenance.json").write_text(json.dumps({**record, "digest": digest_of(record)}))
    publish([str(CE)], Path())
    assert "added beams.json" in capsys.readouterr().err
    assert [*changed([PUBLISHED.results]), *published_faults()] == []


def test_a_published_measurement_is_not_lost(finished, capsys):
    publish([str(CE)], Path())
    (FOLDER / "beams.json").write_text("{}")
    edit(
        FOLDER / "provenance.json",
        lambda made: made["outputs"].update({"beams.json": sha256_of(FOLDER / "beams.json")}),
    )
    publish([str(CE)], Path())
    assert "unchanged" in capsys.readouterr().err and (FOLDER / "beams.json").exists()
    (finished / "exact.json").write_text("{}")
    record = {
        "stage": "exact",
        "device": "cpu",
        "inputs": {},
        "outputs": {"exact.json": sha256_of(finished / "exact.json")},
    }
    (finished / "exact.provenance.json").write_text(json.dumps({**record, "digest": digest_of(record)}))
    with pytest.raises(UserError, match=r"has beams\.json, which this run lacks and which would be lost"):
        publish([str(CE)], Path())
    assert (FOLDER / "beams.json").exists() and not (FOLDER / "exact.json").exists()
    publish([str(CE)], Path(), replace=True)
    assert "added exact.json; removed beams.json" in " ".join(capsys.readouterr().err.split())
    assert not (FOLDER / "beams.json").exists()


def test_a_measurement_that_was_made_again_needs_a_word(finished, capsys):
    def measure(**numbers):
        (finished / "beams.json").write_text(json.dumps(numbers))
        record = {"stage": "beams", "device": "cpu", "inputs": {}}
        record["outputs"] = {"beams.json": sha256_of(finished / "beams.json")}
        (finished / "beams.provenance.json").write_text(json.dumps({**record, "digest": digest_of(record)}))

    measure(recall=0.5, seconds=3.0)
    publish([str(CE)], Path())
    measure(recall=0.5, seconds=4.0)
    publish([str(CE)], Path())
    assert "unchanged" in capsys.readouterr().err
    measure(recall=0.6, seconds=4.0)
    with pytest.raises(UserError, match="published with other numbers"):
        publish([str(CE)], Path())
    assert "beams.json has other numbers" in " ".join(capsys.readouterr().err.split())
    publish([str(CE)], Path(), replace=True)
    assert json.loads((FOLDER / "beams.json").read_text())["recall"] == 0.6


def test_all_runs_are_checked_before_the_first_is_published(finished):
    with pytest.raises(UserError, match=r"seed9/run\.json: not found"):
        publish([str(CE), "office/llama/ce/seed9"], Path())
    assert not PUBLISHED.results.exists()
    other = Run("office", "llama", "ce", (), 43)
    unpublished(other)
    publish([str(other)], Path())
    edit(PUBLISHED.place(other.folder) / "metrics.json", lambda metrics: metrics["test"].update({"ndcg@10": 0.5}))
    with pytest.raises(UserError, match="published with other numbers"):
        publish([str(CE), str(other)], Path())
    assert not FOLDER.exists()


@pytest.mark.parametrize("split", ["valid", "test"])
def test_metrics_must_be_those_of_the_ranks(finished, split):
    edit(
        finished / "metrics.json", lambda metrics: metrics[split].update({"ndcg@10": metrics[split]["ndcg@10"] + 1e-6})
    )
    hashes = {"metrics.json": sha256_of(finished / "metrics.json")}
    edit(finished / "evaluate.provenance.json", lambda record: record["outputs"].update(hashes))
    with pytest.raises(UserError, match=rf"{split} ndcg@10 is not that of ranks\.parquet"):
        publish([str(CE)], Path())


def test_lists_are_published_and_other_ones_need_a_word(finished, capsys):
    def listed(item):
        pd.DataFrame({"user": [0], "item": [item]}).to_parquet(finished / "lists.parquet")
        hashes = {"lists.parquet": sha256_of(finished / "lists.parquet")}
        edit(finished / "evaluate.provenance.json", lambda record: record["outputs"].update(hashes))

    listed(1)
    publish([str(CE)], Path())
    assert (FOLDER / "lists.parquet").exists()
    listed(2)
    with pytest.raises(UserError, match="published with other numbers"):
        publish([str(CE)], Path())
    assert "lists.parquet has other numbers" in " ".join(capsys.readouterr().err.split())


def test_large_lists_are_not_published(finished, monkeypatch):
    path = finished / "lists.parquet"
    pd.DataFrame({"user": [0], "item": [1]}).to_parquet(path)
    edit(
        finished / "evaluate.provenance.json",
        lambda record: record["outputs"].update({"lists.parquet": sha256_of(path)}),
    )
    monkeypatch.setattr("apao.stages.publish.LARGEST_LISTS", path.stat().st_size - 1)
    publish([str(CE)], Path())
    assert not (FOLDER / "lists.parquet").exists()
    monkeypatch.setattr("apao.stages.publish.LARGEST_LISTS", path.stat().st_size)
    publish([str(CE)], Path())
    assert (FOLDER / "lists.parquet").exists()


def test_a_published_file_is_the_one_that_its_stage_wrote(finished):
    publish([str(CE)], Path())
    (FOLDER / "history.csv").write_text("epoch\n")
    hashes = {"history.csv": sha256_of(FOLDER / "history.csv")}
    edit(FOLDER / "provenance.json", lambda made: made["outputs"].update(hashes))
    assert f"{FOLDER / 'history.csv'}: is not the file that its stage wrote" in published_faults()


def other_numbers(folder):
    """The same run by another revision, in which one target has the next rank."""
    path = folder / "ranks.parquet"
    ranks = pd.read_parquet(path)
    first = ranks.index[(ranks["split"] == "test") & (ranks["rank"] == 10)][0]
    ranks.loc[first, "rank"] = 11
    ranks.to_parquet(path)
    return ranks


def test_other_numbers_are_shown_and_need_a_word(finished, capsys):
    from apao.evaluation.metrics import rank_metrics

    publish([str(CE)], Path())
    ranks = other_numbers(finished)
    test = rank_metrics(ranks[ranks["split"] == "test"])
    edit(finished / "metrics.json", lambda metrics: metrics["test"].update(test))
    hashes = {name: sha256_of(finished / name) for name in ("metrics.json", "ranks.parquet")}
    edit(finished / "evaluate.provenance.json", lambda record: record["outputs"].update(hashes))
    before = (FOLDER / "metrics.json").read_bytes()
    edit(finished / "train.provenance.json", lambda record: record.update(machine="two"))
    with pytest.raises(UserError, match=r"on one with the same parameters; these are by .* on two; use --replace"):
        publish([str(CE)], Path())
    said, was = capsys.readouterr().err, json.loads(before)["test"]["recall@10"]
    now, user = test["recall@10"], 1 / 4905
    assert f"test recall@10 {was:g}, now {now:g} (-{user:g})" in said and "recall@20" not in said
    assert (FOLDER / "metrics.json").read_bytes() == before
    publish([str(CE)], Path(), replace=True)
    assert json.loads((FOLDER / "metrics.json").read_text())["test"]["recall@10"] == test["recall@10"]
    assert not list(FOLDER.parent.glob(".*"))


def test_damage_of_a_published_run_is_named(finished):
    publish([str(CE)], Path())
    (FOLDER / "notes.txt").touch()
    edit(FOLDER / "provenance.json", lambda made: made["train"].update(seconds=1))
    faults = list(published_faults())
    assert [line.partition(": ")[2] for line in faults] == [
        "the record of train does not match the hash inside",
        "not listed in provenance.json",
    ]
    (FOLDER / "provenance.json").unlink()
    assert f"has no provenance.json; publish the run again: apao publish {CE}" in next(published_faults())


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_published_run_without_the_record_of_a_stage_is_named(finished, stage):
    publish([str(CE)], Path())
    edit(FOLDER / "provenance.json", lambda made: made.pop(stage))
    assert f"{FOLDER}: has no record of {stage}" in published_faults()


def test_only_records_of_published_files_are_kept(finished):
    record = {"stage": "load", "device": "cpu", "inputs": {}, "outputs": {"loss.png": "0" * 64}}
    (finished / "load.provenance.json").write_text(json.dumps({**record, "digest": digest_of(record)}))
    publish([str(CE)], Path())
    made = json.loads((FOLDER / "provenance.json").read_text())
    assert "load" not in made and {"train", "evaluate"} < made.keys()


def test_baselines_of_a_dataset(tmp_path, monkeypatch):
    """From another folder; published ones are as they were, for the same numbers."""
    monkeypatch.chdir(tmp_path)
    published = PUBLISHED.place(Path("results/office/baselines"))
    made = json.loads((ROOT / published / "provenance.json").read_text())
    folder = tmp_path / "there/results/office/baselines"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / published / "metrics.json", folder)
    (folder / "baselines.provenance.json").write_text(json.dumps(made["baselines"]))
    publish(["office/baselines"], Path("there"))
    found = json.loads((published / "provenance.json").read_text())
    assert found["baselines"] == made["baselines"] and found["machine"] == made["baselines"]["machine"]
    assert (published / "metrics.json").read_bytes() == (folder / "metrics.json").read_bytes()
    assert not [*changed([PUBLISHED.results])]


@pytest.mark.parametrize(
    ("name", "text"), [("provenance.json", "{}"), ("metrics.json", '{"test": {}}'), ("run.json", "[]")]
)
def test_what_has_another_form_is_named_too(finished, name, text):
    publish([str(CE)], Path())
    (FOLDER / name).write_text(text)
    restored = re.compile(rf"{FOLDER}.* restore (it|them) \(git checkout -- ")
    assert any(map(restored.match, published_faults()))


def test_a_published_run_cannot_be_loaded(finished):
    publish([str(CE)], Path())
    with pytest.raises(UserError, match=f"is a published run, without weights; train it here: apao train {CE}"):
        apao.load(FOLDER)


@pytest.mark.parametrize("name", ["metrics.json", "ranks.parquet", "provenance.json"])
def test_a_damaged_file_of_a_published_run_is_to_be_restored(finished, name):
    """No stage makes it."""
    publish([str(CE)], Path())
    damaged = FOLDER / name
    damaged.write_bytes(damaged.read_bytes()[:-5])
    with pytest.raises(UserError) as caught:
        compare(str(FOLDER), str(FOLDER), "test")
    assert str(caught.value).startswith(f"{damaged}: ")
    assert f"restore it (git checkout -- {damaged})" in str(caught.value) and "snakemake" not in str(caught.value)


def test_a_folder_that_is_no_runs_is_not_taken_for_a_name(finished):
    with pytest.raises(
        UserError, match=r"^results/office/llama: no folder of a run \(it has no run\.json\), and no name"
    ):
        compare(str(CE), "results/office/llama", "test")


def test_a_number_that_rose_differs_as_one_that_fell(tmp_path):
    low, high = tmp_path / "low.json", tmp_path / "high.json"
    for path, value in ((low, 0.1), (high, 0.2)):
        numbers = {"ndcg@10": value, "prefix_recall@20": [0.9, value]}
        write_json(path, {"test": numbers, "valid": numbers})
    names = ("test ndcg@10", "test prefix_recall@20[1]")
    assert list(_differences(low, high)) == [f"{name} 0.1, now 0.2 (+0.1)" for name in names]
    assert list(_differences(high, low)) == [f"{name} 0.2, now 0.1 (-0.1)" for name in names]
