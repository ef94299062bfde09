"""Contract of ``study.studies`` and ``report.base``, for every registered kind of study."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from helpers.results import MadeUp

from apao.engines.code_versions import report_version
from apao.errors import UserError
from apao.stages.report import inputs, missing, report
from apao.study.paths import PUBLISHED
from apao.study.studies import FIGURE, STUDIES, TABLE


@pytest.fixture
def drawn(params, kind, tmp_path, monkeypatch):
    """The name of the first study of the kind in params.yaml, in a folder with its declared inputs and nothing else."""
    names = [(scale, name) for scale, group in params.studies.items() for name in group if group[name].kind == kind]
    assert names, f"params.yaml has no study of kind {kind}"
    scale, name = names[0]
    assert scale == params.scale, f"the default scale has no study of kind {kind}"
    monkeypatch.chdir(tmp_path)
    MadeUp(tmp_path).fill(name, params)
    return name


@pytest.mark.parametrize("kind", list(STUDIES))
def test_it_draws_all_that_it_promises_and_the_same_twice(params, drawn, kind):
    study = params.study(drawn)
    files = study.outputs(drawn)
    assert report(drawn, params) == files
    first = {path: path.read_bytes() for path in files}
    assert all(first.values())
    record = json.loads((study.form.folder / f"{drawn}.provenance.json").read_text())
    assert set(record["outputs"]) == {path.name for path in files}
    assert set(record["inputs"]) == {str(path) for path in inputs(drawn, params)}
    report(drawn, params)
    assert {path: path.read_bytes() for path in files} == first


@pytest.mark.parametrize("kind", list(STUDIES))
def test_it_reads_all_that_it_lists_and_nothing_else(params, drawn, kind):
    files = inputs(drawn, params)
    assert files and not missing(drawn, params)
    assert sorted(path for top in ("results", "data") for path in Path(top).rglob("*.*") if path.is_file()) == sorted(
        files
    )
    files[-1].unlink()
    with pytest.raises(UserError, match="are missing"):
        report(drawn, params)
    assert not any(path.exists() for path in params.study(drawn).outputs(drawn))


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("kind", list(STUDIES))
def test_it_is_drawn_with_gaps(params, drawn, kind, kept, capsys):
    """From published runs, of which all or all but one are absent."""
    Path("results").mkdir(exist_ok=True)
    Path("results").rename("aside")
    Path("results").mkdir()
    Path("aside").rename(PUBLISHED.results)
    study = params.study(drawn)
    runs = list(dict.fromkeys(params.normalised(run) for run in study.runs()))
    for run in runs[kept:]:
        shutil.rmtree(PUBLISHED.place(run.folder))
    assert report(drawn, params, PUBLISHED) == study.outputs(drawn, PUBLISHED)
    assert ("drawn without runs" in capsys.readouterr().err) == bool(runs[kept:])
    readable = next(path for path in study.outputs(drawn, PUBLISHED) if path.suffix in (".md", ".rst"))
    text = readable.read_text()
    if runs:
        assert ("Not run, and so a gap" if kept else "is published") in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


@pytest.mark.parametrize("kind", list(STUDIES))
def test_its_runs_are_listed_once(params, kind):
    for study in (one for group in params.studies.values() for one in group.values() if one.kind == kind):
        runs = study.runs()
        assert len(set(runs)) == len(runs)


@pytest.mark.parametrize("kind", list(STUDIES))
def test_it_is_described_and_lies_in_the_module_of_its_name(kind, definitions):
    cls = STUDIES[kind]
    assert cls.form in (TABLE, FIGURE)
    assert cls.__module__ == f"apao.report.kinds.{kind.replace('-', '_')}"
    assert cls.__doc__ and definitions["$defs"][cls.__name__]["properties"]["kind"]["const"] == kind


def test_kinds_have_code_of_their_own(params):
    versions = {study.kind: report_version(study) for study in params.chosen_studies.values()}
    assert len(set(versions.values())) == len(versions)
