"""Every user error ends in one line that names file, key or run and the remedy; finished files are unchanged."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import one_run
import pandas as pd
import pytest
from helpers.content import hashes
from helpers.forks import run_forked
from helpers.processes import run_here
from helpers.project import ITEMS, USERS, Project, write_embeddings
from one_run import CHECKPOINT, MODEL, RUN, RUN_FOLDER

DATA = Path("data", "toy")
TABLE = DATA / "raw" / "interactions.table"
RECORD, TRAINED = RUN_FOLDER / "run.json", RUN_FOLDER / "train.provenance.json"
INTERACTIONS, CODES = DATA / "interactions.parquet", DATA / "codes.parquet"
OTHER = '{"dataset":"toy","backbone":{"type":"tiger"},"objective":{"type":"ce"},"training":{},"seed":4}'
TRAIN, EVALUATE = " ".join(one_run.TRAIN), " ".join(one_run.EVALUATE)

Damage = Callable[[Path], None]


def nothing(project: Path) -> None:
    """Change nothing: the error is in the command."""


def truncated(file: Path) -> Damage:
    def damage(project: Path) -> None:
        content = (project / file).read_bytes()
        (project / file).write_bytes(content[: len(content) * 2 // 3])

    return damage


def flipped(file: Path) -> Damage:
    """Flip one bit past the middle, in the data and not in a header."""

    def damage(project: Path) -> None:
        content = bytearray((project / file).read_bytes())
        content[len(content) * 3 // 4] ^= 16
        (project / file).write_bytes(content)

    return damage


def unrecorded(damage: Damage, record: Path) -> Damage:
    """Flip one bit in a file without a record, such as a user's own."""

    def damage_and_forget(project: Path) -> None:
        damage(project)
        (project / record).unlink()

    return damage_and_forget


def with_params(section: str, name: str, **values: object) -> Damage:
    """Change values in params.yaml."""

    def damage(project: Path) -> None:
        Project(project).change({section: {name: values}})

    return damage


def with_record(**values: object) -> Damage:
    """Change values in the run's run.json."""

    def damage(project: Path) -> None:
        content = json.loads((project / RECORD).read_text())
        (project / RECORD).write_text(json.dumps(content | values))

    return damage


def download(project: Path) -> None:
    done = run_here(project, "download", "toy")
    assert done.status == 0, done.output


def without_item(project: Path) -> None:
    """Add a row without an item to the raw table, and download it."""
    lines = (project / "toy.csv").read_text().splitlines()
    user, _, rest = lines[6].split(",", 2)
    lines[6] = f"{user},,{rest}"
    (project / "toy.csv").write_text("\n".join(lines))
    download(project)


def with_table(change: Callable[[list[str]], list[str]], **keys: object) -> Damage:
    """Replace the lines of the raw table and keys of its entry, and download it."""

    def damage(project: Path) -> None:
        with_params("datasets", "toy", **keys)(project)
        lines = (project / "toy.csv").read_text().splitlines()
        (project / "toy.csv").write_text("\n".join(change(lines)) + "\n")
        download(project)

    return damage


def with_item_table(*rows: str) -> Damage:
    """Put texts into a separate table."""

    def damage(project: Path) -> None:
        (project / "items.csv").write_text("\n".join(["item,title", *rows]) + "\n")
        with_table(lambda lines: lines, items_path="items.csv")(project)

    return damage


def with_time(line: int, time: str) -> Callable[[list[str]], list[str]]:
    """Change the time in one line."""

    def change(lines: list[str]) -> list[str]:
        user, item, _, title = lines[line - 1].split(",")
        return [*lines[: line - 1], f"{user},{item},{time},{title}", *lines[line:]]

    return change


def with_float_items(lines: list[str]) -> list[str]:
    """Make item ids whole numbers, the last one with a decimal point."""
    numbers = [line.replace(",i", ",", 1) for line in lines]
    numbers[0] = lines[0]
    user, item, rest = numbers[-1].split(",", 2)
    return [*numbers[:-1], f"{user},{item}.0,{rest}"]


def with_short_history(project: Path) -> None:
    table = pd.read_parquet(project / INTERACTIONS)
    rows = table.index[table["user"] == 3]
    table.drop(rows[2:]).to_parquet(project / INTERACTIONS, index=False)


def without_history(project: Path) -> None:
    table = pd.read_parquet(project / INTERACTIONS)
    table[table["user"] != 3].to_parquet(project / INTERACTIONS, index=False)


def codes_of_fewer_items(project: Path) -> None:
    pd.read_parquet(project / CODES).iloc[:-1].to_parquet(project / CODES, index=False)


def published_codes_of_other_items(project: Path) -> None:
    folder = project / "data" / "office"
    (folder / "raw").mkdir(parents=True)
    pd.DataFrame({"item": [0, 1], "raw_id": ["0", "1"], "text": ["a", "b"]}).to_parquet(folder / "items.parquet")
    (folder / "raw" / "Office.index.rq-kmeans.json").write_text('{"0": ["<a_1>"], "7": ["<a_2>"]}')


def mirror_lacks_a_file(project: Path) -> None:
    (project / "mirror" / "data" / "Office").mkdir(parents=True)
    (project / "mirror" / "data" / "Office" / "Office.item.json").write_text("{}")


def mirror_has_another_file(project: Path) -> None:
    mirror_lacks_a_file(project)
    (project / "mirror" / "data" / "Office" / "Office.inter.json").write_text('{"0": []}')


@dataclass(frozen=True)
class Case:
    """An error in a project, the command that fails because of it, and words of the one-line message."""

    name: str
    damage: Damage
    command: str
    words: tuple[str, ...]
    project: str = "finished"


CASES = [
    Case("unknown dataset", nothing, "download toyy", ("'toyy'", "did you mean 'toy'?", "known: office, toy")),
    Case(
        "unknown objective",
        nothing,
        "train toy/tiger/apao-pairwize/seed1",
        ("'apao-pairwize'", "did you mean 'apao-pairwise'?", "apao-pointwise", " ce"),
    ),
    Case("unknown backbone", nothing, "train toy/tigger/ce/seed1", ("'tigger'", "did you mean 'tiger'?")),
    Case(
        "another spelling",
        nothing,
        "train toy/tiger/ce+lr=1e-3/seed1",
        ("lr=1e-3", "lr=0.001", "one spelling"),
    ),
    Case(
        "wrong type",
        nothing,
        "train toy/tiger/ce+epochs=many/seed1",
        ("ce+epochs=many", "integer", "'many'"),
    ),
    Case(
        "wrong range",
        with_params("objectives", "apao-pairwise", beta=-1),
        TRAIN,
        ("params.yaml:", "objectives.apao-pairwise.beta", "greater than or equal to 0", "-1"),
    ),
    Case("unknown key", with_params("objectives", "ce", eoss=True), TRAIN, ("objectives.ce.eoss", "'eos'")),
    Case("cut download", truncated(TABLE), "preprocess toy", (str(TABLE), "bytes", "apao download toy")),
    Case("row without an item", without_item, "preprocess toy", ("toy.csv:7", "item id is empty")),
    Case(
        "a number beside dates",
        with_table(with_time(5, "2019-01-31")),
        "preprocess toy",
        ("toy.csv:5", "'2019-01-31'", "line 2 has '0'", "write all times of the column in the same form"),
    ),
    Case(
        "ids through floats",
        with_table(with_float_items),
        "preprocess toy",
        ("toy.csv:", ".0' is '", "write them without .0"),
    ),
    Case(
        "an item table of other items",
        with_item_table("a,Thing", "b,Thing"),
        "preprocess toy",
        ("toy: none of the", "'a' and 'b'", "spell the ids the same"),
    ),
    Case(
        "another separator",
        with_table(lambda lines: [line.replace(",", ";") for line in lines]),
        "preprocess toy",
        ("toy.csv:1", "'user;item;timestamp;title'", "set separator: ';'"),
    ),
    Case(
        "nothing left by the filter",
        with_params("datasets", "toy", core=30),
        "preprocess toy",
        ("toy: none of the", "30-core", "lower core"),
    ),
    Case("damaged parquet", flipped(INTERACTIONS), TRAIN, (str(INTERACTIONS), "hash", "run its stage again")),
    Case(
        "cut parquet of the user's own",
        unrecorded(truncated(INTERACTIONS), DATA / "preprocess.provenance.json"),
        TRAIN,
        (str(INTERACTIONS), "not a table", "run its stage again"),
    ),
    Case(
        "history too short",
        unrecorded(with_short_history, DATA / "preprocess.provenance.json"),
        TRAIN,
        (str(INTERACTIONS), "user 3", "at least three"),
    ),
    Case(
        "history without items",
        unrecorded(without_history, DATA / "preprocess.provenance.json"),
        EVALUATE,
        (str(INTERACTIONS), "users 0, 1, 2", "run its stage again"),
    ),
    Case(
        "codes of another catalogue",
        unrecorded(codes_of_fewer_items, DATA / "codes.provenance.json"),
        TRAIN,
        (str(CODES), f"{ITEMS - 1} items", str(ITEMS), "apao codes toy"),
    ),
    Case(
        "published codes of another catalogue",
        published_codes_of_other_items,
        "codes office",
        (
            "Office.index.rq-kmeans.json",
            "no entry for 1 of the 2 items, such as '1'",
            "data/office/items.parquet",
        ),
    ),
    Case(
        "embeddings of another catalogue",
        lambda project: write_embeddings(project, USERS),
        "codes toy",
        ("embeddings.safetensors", f"expected {ITEMS} rows", "run its stage again"),
    ),
    Case(
        "more beams than codes",
        with_params("recipes", "tiny", decoding={"beam": 20}),
        "codes toy",
        ("toy: decoding.beam 20", f"{ITEMS} distinct codes", "decoding.beam to all"),
    ),
    Case("cut checkpoint", truncated(CHECKPOINT), TRAIN, (str(CHECKPOINT), "damaged", "delete it"), "interrupted"),
    Case("flipped checkpoint", flipped(CHECKPOINT), TRAIN, (str(CHECKPOINT), "damaged", "delete it"), "interrupted"),
    Case("cut model", truncated(MODEL), EVALUATE, (str(MODEL), "hash", "run its stage again")),
    Case("flipped model", flipped(MODEL), EVALUATE, (str(MODEL), "hash", "run its stage again")),
    Case(
        "cut model of the user's own",
        unrecorded(truncated(MODEL), MODEL.with_name("train.provenance.json")),
        EVALUATE,
        (str(MODEL), "not a whole safetensors file", "train the run again"),
    ),
    Case(
        "model of other sizes",
        unrecorded(with_record(backbone={"type": "tiger", "d_model": 8}), TRAINED),
        f'{EVALUATE} --resolved {{"beam":"all"}}',
        (str(MODEL), "other parameters", "train it again"),
    ),
    Case(
        "model of sizes beyond memory",
        unrecorded(with_record(backbone={"type": "tiger", "d_model": 10**12}), TRAINED),
        f'{EVALUATE} --resolved {{"beam":"all"}}',
        (str(MODEL), "too few for a model of the given sizes", "train it again"),
    ),
    Case(
        "resolved parameters of another run",
        nothing,
        f"{TRAIN} --resolved {OTHER}",
        ("--resolved", "dataset toy and seed 4", RUN),
    ),
    Case(
        "resolved decoding with an unknown key",
        nothing,
        EVALUATE + ' --resolved {"baem":5}',
        ("--resolved", "unknown key 'baem'; did you mean 'beam'?"),
    ),
    Case("resolved decoding that is no JSON", nothing, f"{EVALUATE} --resolved beam=5", ("--resolved", "JSON")),
    Case("edited run.json", with_record(seed=4), EVALUATE, (str(RECORD), "train.provenance.json")),
    Case(
        "run.json of another run",
        unrecorded(with_record(seed=4), TRAINED),
        EVALUATE,
        (str(RECORD), f"expected the record of {RUN}", "run its stage again"),
    ),
    Case(
        "run.json with an unknown key",
        unrecorded(with_record(sed=4), TRAINED),
        EVALUATE,
        (str(RECORD), "unknown key 'sed'; did you mean 'seed'?", "train it again"),
    ),
    Case(
        "mirror without a file",
        mirror_lacks_a_file,
        "download office --mirror mirror",
        ("mirror/data/Office/Office.inter.json", "not found"),
    ),
    Case(
        "mirror with another file",
        mirror_has_another_file,
        "download office --mirror mirror",
        ("mirror/data/Office/Office.inter.json", "not the expected file", "Ways out"),
    ),
    Case("no such device", nothing, f"train {RUN} --device tpu", ("'tpu'", "auto, cpu or cuda")),
    Case("no such command", nothing, "trian toy/tiger/ce/seed1", ("'trian'", "Did you mean 'train'?")),
    Case(
        "runs not made",
        nothing,
        "report table1",
        ("table1", "results/toy/tiger/ce/seed1/metrics.json", "snakemake"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_line(case: Case, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    project = Path(shutil.copytree(request.getfixturevalue(case.project), tmp_path / "project"))
    case.damage(project)
    before = hashes(project)
    done = run_forked(project, *case.command.split())
    assert done.status in (1, 2), done.output
    assert "Traceback" not in done.output
    assert len(done.errors) == 1, done.output
    missing = [word for word in case.words if word not in done.errors[0]]
    assert not missing, done.output
    lines = done.output.splitlines()
    assert lines[-1] == done.errors[0] and (len(lines) == 1 or lines[0].startswith("Usage:"))
    assert hashes(project) == before
