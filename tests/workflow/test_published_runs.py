"""Tables and figures of the published runs in a fresh clone: without data or training, with gaps marked."""

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.project import ROOT, Project

from apao.stages.report import report
from apao.study.params import PUBLISHED_SCALE, load
from apao.study.paths import PUBLISHED, TABLES


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Project:
    """The files of a clone that the command needs."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("params.yaml", "tuned.yaml"):
        shutil.copy(ROOT / name, folder)
    for name in ("workflow", "results/published"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".snakemake", "tables"))
    return Project(folder)


@pytest.fixture(scope="module")
def printed(clone) -> str:
    return clone.snakemake("published").output


@pytest.fixture
def params(clone, monkeypatch):
    monkeypatch.chdir(clone.folder)
    return load(scale=PUBLISHED_SCALE)


def absent_runs(params, name):
    study = params.study(name)
    return [run for run in map(params.normalised, study.runs()) if not PUBLISHED.has(run, study.files)]


def test_everything_is_drawn(printed, params):
    files = [path for name, study in params.chosen_studies.items() for path in study.outputs(name, PUBLISHED)]
    assert files and all(path.stat().st_size for path in files)
    assert not Path("data").exists()
    assert {path.name for path in Path("results").iterdir()} == {"published"}


def test_what_is_missing_is_named_on_the_terminal_and_under_the_table(printed, params):
    for name, study in params.chosen_studies.items():
        line = re.search(rf"^{name}: drawn without (.*)", printed, re.MULTILINE)
        absent = absent_runs(params, name)
        assert bool(line) == bool(absent)
        text = (
            study.outputs(name, PUBLISHED)[-1].with_suffix(".md" if study.form.folder == TABLES else ".rst").read_text()
        )
        assert ("Not run, and so a gap" in text) == bool(absent)
        for run in absent:
            assert run.spelled_objective in text.partition("Not run")[2]


def test_nothing_is_drawn_twice(printed, clone):
    assert clone.snakemake("published").jobs == []


def test_a_published_run_is_believed_as_it_is(printed, params, clone):
    """Also a run of a revision with other parameters: its row stays, and the table's record states them."""
    record = next(Path("results/published/office/llama/ce").rglob("run.json"))
    before = record.read_text()
    values = json.loads(before)
    values["training"]["dropped_since"] = 1
    record.write_text(json.dumps(values))
    (record.parent / "provenance.json").rename(record.parent / "aside")
    try:
        report("office", params, PUBLISHED)
    finally:
        record.write_text(before)
        (record.parent / "aside").rename(record.parent / "provenance.json")
    provenance = json.loads((PUBLISHED.place(TABLES) / "office.provenance.json").read_text())
    assert "another revision" in provenance["params"]["trained_otherwise"]["office/llama/ce/seed42"]


def cells(line):
    return [cell.strip(" *`") for cell in line.strip("|").replace("`", "").split("|")]


def number(cell):
    return re.match(r"[+−]?\d+(\.|$)", cell)


def drawn_rows(table):
    """The rows of a drawn table; a backbone stands in its first row only."""
    rows, backbone = [], ""
    for line in table.splitlines():
        if line.startswith("|"):
            first, *others = cells(line)
            backbone = first or backbone
            rows.append([backbone, *others])
    return rows


def stands_for(row, drawn):
    """Whether a row of a page has the label and, in their order, some of the numbers of a drawn row."""
    labels = row[: next(place for place, cell in enumerate(row) if number(cell))]
    label = [cell for cell in labels if cell not in ("", "–")][-1]
    left = iter(drawn)
    return not {label, label.partition(",")[0]}.isdisjoint(drawn) and all(cell in left for cell in row if number(cell))


@pytest.mark.parametrize("page", ["README.md", "docs/results.md"])
def test_tables_of_the_documentation_are_those_that_are_drawn(printed, clone, page):
    """Each row behind a mark that names a table has the label and numbers of one of its rows."""
    _, *parts = re.split(r"<!-- (results/published/tables/.*\.md) -->", (ROOT / page).read_text())
    assert parts
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        drawn = drawn_rows((clone.folder / name).read_text())
        for line in text.partition("\n## ")[0].splitlines():
            if line.startswith("|") and any(map(number, cells(line))):
                assert any(stands_for(cells(line), row) for row in drawn), f"{page}: not in {name}: {line}"
