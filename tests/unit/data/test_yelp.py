"""Yelp's own formats, hand-written."""

import json

import pandas as pd
import pytest

from apao.data.yelp import BUSINESSES, REVIEWS, Yelp
from apao.errors import UserError
from apao.stages.download import download
from apao.stages.preprocess import preprocess
from apao.study.paths import DatasetPaths


def source(**keys):
    return Yelp.model_validate({"source": "yelp", "folder": "downloads/yelp", "recipe": "r", "codes": "c", **keys})


def review(user, business, date):
    return json.dumps({"review_id": "r", "user_id": user, "business_id": business, "stars": 4.0, "date": date})


def business(business_id, **fields):
    return json.dumps({"business_id": business_id, "city": "X", **fields})


@pytest.fixture
def write(project):
    def writer(reviews, businesses):
        folder = project / "downloads" / "yelp"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REVIEWS).write_text("\n".join(reviews) + "\n")
        (folder / BUSINESSES).write_text("\n".join(businesses) + "\n")
        return folder

    return writer


def test_reviews_since_a_day_and_their_businesses(write):
    folder = write(
        [
            review("u", "b1", "2018-12-31 23:59:59"),
            review("u", "b2", "2019-01-01 00:00:00"),
            review("v", "b2", "2021-06-01 12:30:00"),
            review("u", "b3", "2020-01-01 00:00:01"),
            review("u", "b2", "2020-01-01 00:00:01"),
        ],
        [
            business("b1", name="Too early"),
            business("b2", name="Caf\u00e9", categories="Coffee, Food"),
            business("b3", name="Bar", categories=None),
            business("b4", name=None),
        ],
    )
    raw = source().read(folder)
    assert list(raw.interactions.itertuples(index=False, name=None)) == [
        ("u", "b2", 1546300800),  # date -u -d 2019-01-01 +%s
        ("v", "b2", 1622550600),
        ("u", "b3", 1577836801),
        ("u", "b2", 1577836801),
    ]
    assert list(raw.items.itertuples(index=False, name=None)) == [
        ("b2", "Caf\u00e9", "Coffee, Food"),
        ("b3", "Bar", ""),
    ]
    assert len(source(since="2018-01-01").read(folder).interactions) == 5


def test_malformed_lines(write):
    good = [review("u", f"b{i}", "2020-01-01 00:00:00") for i in range(97)]
    bad = [review("u", "b", "soon"), review("u", "b", None), review("", "b", "2020-01-01 00:00:00")]
    bad += [review("u", "b\ud800", "2020-01-01 00:00:00")]
    folder = write([*good, *bad], [business("b0", name=5), business("b1", name="\udc00!")])
    raw = source(max_malformed=0.04).read(folder)
    assert raw.malformed == {
        f"{REVIEWS}: without a date like 2019-01-31 12:00:00": 2,
        f"{REVIEWS}: without user_id": 1,
        f"{REVIEWS}: business_id is not valid Unicode": 1,
    }
    assert raw.items.to_numpy().tolist() == [["b0", "", ""], ["b1", "?!", ""]]
    with pytest.raises(UserError, match=rf"{REVIEWS}: 4 of 101 lines are malformed .*first is line 98: without a date"):
        source().read(folder)


def test_a_missing_folder_says_where_to_get_the_files_and_which_key_names_it(project):
    with pytest.raises(UserError, match=rf"downloads/yelp/{REVIEWS}: not found.*yelp\.com.*licence.*key folder"):
        download("yelp-raw", source(), None)
    assert not DatasetPaths("yelp-raw").manifest.exists()


def test_files_are_linked_and_run_through_the_filter(write, project):
    rows = [(u, i) for u in range(5) for i in range(5)]
    folder = write(
        [review(f"u{u}", f"b{i}", f"2020-01-0{5 - i} 00:00:00") for u, i in rows],
        [business(f"b{i}", name=f"N{i}", categories="Food, Bars") for i in range(5)],
    )
    download("yelp-raw", source(), None)
    paths = DatasetPaths("yelp-raw")
    assert (paths.raw / REVIEWS).resolve() == (folder / REVIEWS).resolve()
    preprocess("yelp-raw", source())
    assert pd.read_parquet(paths.interactions)["item"].tolist() == [4, 3, 2, 1, 0] * 5
    assert pd.read_parquet(paths.items)["text"].tolist() == [f"N{i}. Food, Bars" for i in range(5)]
    # Newer files in the same place: the link stays, the manifest is made again.
    write([review("u", "b", "2020-01-01 00:00:00")], [])
    with pytest.raises(UserError, match=REVIEWS):
        preprocess("yelp-raw", source())
    download("yelp-raw", source(), None)
    assert (folder / REVIEWS).exists()
    with pytest.raises(UserError, match="5-core"):
        preprocess("yelp-raw", source())
