"""Steam's own formats, hand-written."""

import gzip
import json

import pytest

from apao.data.steam import GAMES, REVIEWS, Steam
from apao.errors import UserError
from apao.stages.download import download
from apao.stages.preprocess import preprocess
from apao.study.paths import DatasetPaths


def source(**keys):
    return Steam.model_validate({"source": "steam", "recipe": "r", "codes": "c", **keys})


def review(user, game, date):
    return repr({"username": user, "hours": 2.5, "product_id": game, "date": date, "text": 'It\'s "fun"\n'})


def write(folder, reviews, games):
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in ((REVIEWS, reviews), (GAMES, games)):
        (folder / name).write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))
    return folder


def test_reviews_and_games(tmp_path):
    reviews = [
        review("Ann", "10", "2018-01-24"),
        review("Bo\u00eb", "20", "2017-12-31"),
        review("Ann", "30", "2018-01-01"),
    ]
    games = [
        "{u'id': u'10', u'app_name': u'Half &amp; Half', u'genres': [u'Action', u'Indie'], u'tags': [u'FPS']}",
        json.dumps({"id": "20", "title": "Two", "app_name": "II", "genres": None, "tags": []}),
        "{u'app_name': u'without an id'}",
        "{u'id': u'99', u'title': u'never reviewed'}",
    ]
    raw = source().read(write(tmp_path, reviews, games))
    assert raw.interactions.to_numpy().tolist() == [
        ["Ann", "10", 1516752000],  # date -u -d 2018-01-24 +%s
        ["Bo\u00eb", "20", 1514678400],
        ["Ann", "30", 1514764800],
    ]
    assert raw.items.to_numpy().tolist() == [["10", "Half & Half", "Action, Indie", "FPS"], ["20", "Two", "", ""]]
    assert (raw.malformed, raw.unused_rows) == ({}, 1)


def test_malformed_lines(tmp_path):
    good = [review("u", f"g{i}", "2018-01-24") for i in range(96)]
    bad = [review("u", "g", "soon"), review("", "g", "2018-01-24"), "print(1)", "[1]"]
    folder = write(tmp_path, [*good, *bad], ["{'id': 'g0', 'title': 5}", "{'id': 7}"])
    with pytest.raises(UserError, match=r"steam_reviews.json.gz: 4 of 100 lines are malformed .*raise max_malformed"):
        source().read(folder)
    raw = source(max_malformed=0.5).read(folder)
    assert raw.malformed == {
        f"{REVIEWS}: without a date like 2019-01-31": 1,
        f"{REVIEWS}: without username": 1,
        f"{REVIEWS}: neither JSON nor a Python literal": 1,
        f"{REVIEWS}: not a dictionary": 1,
        f"{GAMES}: without id": 1,
    }
    assert raw.items.to_numpy().tolist() == [["g0", "", "", ""]]


def test_from_a_mirror_to_the_split(project, tmp_path):
    reviews = [review(f"u{u}", f"g{g}", f"2018-01-{g + 1:02d}") for u in range(6) for g in range(7)]
    mirror = write(tmp_path / "mirror", reviews, [f"{{'id': 'g{g}', 'title': 'Game {g}'}}" for g in range(7)])
    download("games", source(), mirror)
    preprocess("games", source())
    stats = json.loads(DatasetPaths("games").stats.read_text())
    assert [stats[key] for key in ("users", "items", "interactions", "items_without_text")] == [6, 7, 42, 0]
