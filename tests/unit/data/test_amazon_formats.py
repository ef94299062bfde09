"""Amazon's formats of 2014, 2018 and 2023, hand-written after the publishers' descriptions."""

import gzip
import json

import pytest

from apao.data.amazon import METADATA, REVIEWS, Amazon
from apao.errors import UserError
from apao.stages.download import download
from apao.stages.preprocess import preprocess
from apao.study.paths import DatasetPaths

SECONDS = 1_514_764_800


def reviews_2014(user, item, time):
    return json.dumps({"reviewerID": user, "asin": item, "helpful": [0, 1], "unixReviewTime": time})


def reviews_2018(user, item, time):
    fields = {"overall": 5.0, "verified": True, "vote": "3", "style": {"Size:": "L"}, "reviewTime": "01 1, 2018"}
    return json.dumps({**fields, "reviewerID": user, "asin": item, "unixReviewTime": time})


def reviews_2023(user, item, time):
    fields = {"rating": 5.0, "images": [], "verified_purchase": True, "helpful_vote": 0, "asin": f"{item}-RED"}
    return json.dumps({**fields, "user_id": user, "parent_asin": item, "timestamp": 1000 * time + 7})


def items_2014(item):
    categories = [["Office", "Pens & Pencils"], ["Office", "Gifts"]]
    return repr(
        {"asin": item, "title": f"Pen {item}", "description": "It's &lt; 5", "brand": "B", "categories": categories}
    )


def items_2018(item):
    fields = {
        "category": ["Office", "Pens &amp; Pencils", "Gifts"],
        "description": ["It's", "", "&lt; 5"],
        "brand": "B",
    }
    return json.dumps({"asin": item, "title": f"Pen {item}", "feature": [], "price": "$3", **fields})


def items_2023(item):
    fields = {"categories": ["Office", "Pens & Pencils", "Gifts"], "description": ["It's < 5"], "store": "B"}
    return json.dumps({"main_category": None, "title": f"Pen {item}", "price": None, "parent_asin": item, **fields})


FORMATS = {
    "2014": (reviews_2014, items_2014),
    "2018": (reviews_2018, items_2018),
    "2023": (reviews_2023, items_2023),
}
TEXTS = ["It's < 5", "B", "Office, Pens & Pencils, Gifts"]
SOURCE = Amazon.model_validate({"source": "amazon", "category": "Pens", "recipe": "r", "codes": "c"})


def write(folder, reviews, items, names=(REVIEWS[0], METADATA[0])):
    lines = [reviews(f"u{user}", f"B{item}", SECONDS + 86_400 * item) for item in range(5) for user in range(5)]
    lists = (lines, [items(f"B{item}") for item in range(6)])
    for name, content in zip(names, lists, strict=True):
        data = "".join(f"{line}\n" for line in content).encode()
        (folder / name.format("Pens")).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


@pytest.mark.parametrize("year", FORMATS)
def test_each_year_under_the_names_of_2014(tmp_path, year):
    raw = SOURCE.read(write(tmp_path, *FORMATS[year]))
    assert raw.interactions.iloc[0].tolist()[:2] == ["u0", "B0"]
    times = [SECONDS + 86_400 * item for item in range(5)]
    expected = [1000 * time + 7 for time in times] if year == "2023" else times
    assert raw.interactions["timestamp"].unique().tolist() == expected
    assert raw.times == ("milliseconds since 1970" if year == "2023" else "seconds since 1970")
    assert raw.items["item"].tolist() == [f"B{item}" for item in range(5)]
    assert raw.items.iloc[0].tolist() == ["B0", "Pen B0", *TEXTS]
    assert (raw.unused_rows, raw.malformed) == (1, {})
    reviews, metadata = raw.notes
    assert f"reviews of Amazon {year}, items by {'parent_asin' if year == '2023' else 'asin'}" in reviews
    assert f"metadata of Amazon {year}" in metadata


@pytest.mark.parametrize("reviews", FORMATS)
@pytest.mark.parametrize("items", FORMATS)
def test_two_years_are_refused_by_name(tmp_path, reviews, items):
    folder = write(tmp_path, FORMATS[reviews][0], FORMATS[items][1])
    if reviews == items:
        SOURCE.read(folder)
        return
    with pytest.raises(UserError) as raised:
        SOURCE.read(folder)
    for words in (f"reviews of Amazon {reviews}", f"metadata of Amazon {items}", "two files of the same year"):
        assert words in str(raised.value)


def test_two_years_in_one_file_are_refused(tmp_path):
    folder = write(tmp_path, *FORMATS["2014"])
    lines = [reviews_2014("u", "B0", SECONDS), "broken", reviews_2023("u", "B1", SECONDS)]
    (folder / REVIEWS[0].format("Pens")).write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(UserError, match=r"_5\.json\.gz:3: reviews of Amazon 2023, but line 1 is of Amazon 2014"):
        SOURCE.read(folder)


def test_milliseconds_under_the_key_of_seconds_are_refused(tmp_path):
    folder = write(tmp_path, *FORMATS["2018"])
    lines = [reviews_2018("u", "B0", SECONDS), reviews_2018("u", "B1", SECONDS * 1000)]
    (folder / REVIEWS[0].format("Pens")).write_bytes(gzip.compress("\n".join(lines).encode()))
    with pytest.raises(UserError, match=r"_5\.json\.gz:2: .*milliseconds since 1970, but line 1"):
        SOURCE.read(folder)


def test_a_damaged_first_line_decides_nothing(tmp_path):
    folder = write(tmp_path, *FORMATS["2023"])
    path = folder / REVIEWS[0].format("Pens")
    lines = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(b"{}\n" + lines))
    raw = SOURCE.model_copy(update={"max_malformed": 0.1}).read(folder)
    assert len(raw.interactions) == 25
    assert sum(raw.malformed.values()) == 1


@pytest.mark.parametrize(
    ("year", "names"),
    [
        ("2014", ("reviews_{}.json.gz", "meta_{}.json.gz")),
        ("2018", ("{}_5.json.gz", "meta_{}.json.gz")),
        ("2023", ("{}.jsonl.gz", "meta_{}.jsonl.gz")),
        ("2023", ("{}.jsonl", "meta_{}.jsonl")),
    ],
)
def test_a_mirror_may_hold_them_under_their_own_names(project, tmp_path, year, names):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    write(mirror, *FORMATS[year], names)
    download("pens", SOURCE, mirror)
    preprocess("pens", SOURCE)
    assert f"read as reviews of Amazon {year}" in DatasetPaths("pens").stats.read_text()
