"""The stage around the sources: writing the manifest, and using an earlier one."""

import hashlib
import json

import pytest

from apao.data.base import SOURCES
from apao.data.table import Table
from apao.errors import UserError
from apao.stages.download import check_raw, download
from apao.study.paths import DatasetPaths


@pytest.fixture
def source(project):
    (project / "t.csv").write_text("user,item,timestamp\na,p,1\n")
    return Table.model_validate({"source": "csv", "path": "t.csv", "recipe": "r", "codes": "c"})


def test_the_manifest_lists_source_hashes_and_sizes(source, project):
    manifest = download("mine", source, None)
    content = (project / "t.csv").read_bytes()
    facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert manifest == DatasetPaths("mine").manifest
    assert json.loads(manifest.read_text()) == {
        "source": {"source": "csv", "path": "t.csv", "items_path": None},
        "files": {"interactions.table": facts},
    }
    record = json.loads((DatasetPaths("mine").raw / "download.provenance.json").read_text())
    assert record["outputs"]["interactions.table"] == facts["sha256"]
    assert record["outputs"]["manifest.json"] == hashlib.sha256(manifest.read_bytes()).hexdigest()


def test_a_failed_download_leaves_no_manifest(source, project):
    manifest = download("mine", source, None)
    (project / "t.csv").unlink()
    with pytest.raises(UserError, match=r"t\.csv: not found"):
        download("mine", source, None)
    assert not manifest.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}', '{"files": {"t": 3}}'])
def test_an_unreadable_manifest_is_made_anew(source, content):
    manifest = download("mine", source, None)
    whole = manifest.read_bytes()
    manifest.write_text(content)
    download("mine", source, None)
    assert manifest.read_bytes() == whole


@pytest.mark.parametrize("name", ["../../../precious", "/{}/precious", "x/../../../../precious", "manifest.json", ""])
def test_a_manifest_names_files_of_its_folder_only(source, project, name):
    """A malicious manifest must not cause files to be removed or read without bounds."""
    precious = project / "precious"
    precious.write_text("mine")
    manifest = download("mine", source, None)
    listed = json.loads(manifest.read_text())
    listed["files"][name.format(project)] = {"sha256": "0", "bytes": 4}
    manifest.write_text(json.dumps(listed))
    with pytest.raises(
        UserError, match=r"not found, though the manifest lists it|manifest\.json: expected 4\d* bytes as downloaded"
    ):
        check_raw("mine", source)
    download("mine", source, None)
    check_raw("mine", source)
    assert precious.read_text() == "mine"


def test_the_mirror_must_be_a_folder(source, tmp_path):
    with pytest.raises(UserError, match="nowhere: the mirror is not a folder"):
        download("mine", source, tmp_path / "nowhere")


def test_every_source_names_fields_that_exist():
    for cls in SOURCES.classes():
        assert set(cls.fetched_by) <= set(cls.model_fields)
        assert cls.model_fields["text"].default is not None
