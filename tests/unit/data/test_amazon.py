"""Amazon's own formats, hand-written: gzip with one JSON object or Python literal per line."""

import gzip
import json

import pandas as pd
import pytest
from pydantic import ValidationError

from apao.data.amazon import Amazon
from apao.data.records import MAX_EXPANSION, MAX_LINE_BYTES, SMALL_BYTES, clean_text
from apao.errors import UserError
from apao.stages.download import download
from apao.stages.preprocess import preprocess
from apao.study.paths import DatasetPaths

REVIEWS, METADATA = "reviews_Toys_5.json.gz", "meta_Toys.json.gz"


def source(**keys):
    return Amazon.model_validate({"source": "amazon", "category": "Toys", "recipe": "r", "codes": "c", **keys})


def review(user="A1", item="B1", time=1_400_000_000):
    return json.dumps({"reviewerID": user, "asin": item, "overall": 5.0, "unixReviewTime": time, "reviewText": "ok"})


def meta(item="B1", **fields):
    return repr({"asin": item, "related": {"also_bought": ["B2"]}, **fields})


@pytest.fixture
def folder(tmp_path):
    """A function that writes the two files and returns their folder."""

    def write(reviews, metadata, name=REVIEWS):
        for file, lines in ((name, reviews), (METADATA, metadata)):
            with gzip.open(tmp_path / file, "wb") as stream:
                stream.writelines(line.encode() + b"\n" if isinstance(line, str) else line for line in lines)
        return tmp_path

    return write


def items(raw):
    return raw.items.set_index("item").to_dict("index")


def test_reviews_and_texts(folder):
    metadata = [
        meta(
            "B1",
            title="Salt &amp; Pepper<br />\n set &quot;L&quot;",
            description="<p class='x'>First\r\nline</p>It's 3 &lt; 4 &amp; fine",
            brand="Joe's",
            categories=[["Home", "Kitchen & Dining"], ["Home", "Gifts"]],
        ),
        meta("B2", price=3.5),
        meta("B3", title="not reviewed"),
        meta("B2", title="a second time"),
        meta("B4", title=None, description=5, categories="odd"),
        meta("B5", title="half a \ud83d", brand="&#x" + "f" * 5000),
    ]
    reviews = [review(), review("A2", "B2", -5), "", review("A1", "B4"), review("A1", "B5")]
    raw = source().read(folder(reviews, metadata))
    assert list(raw.interactions.itertuples(index=False, name=None)) == [
        ("A1", "B1", 1_400_000_000),
        ("A2", "B2", -5),
        ("A1", "B4", 1_400_000_000),
        ("A1", "B5", 1_400_000_000),
    ]
    empty = {"title": "", "description": "", "brand": "", "categories": ""}
    assert items(raw) == {
        "B1": {
            "title": 'Salt & Pepper set "L"',
            "description": "First line It's 3 < 4 & fine",
            "brand": "Joe's",
            "categories": "Home, Kitchen & Dining, Gifts",
        },
        "B2": {**empty, "title": "a second time"},
        "B4": empty,
        "B5": {**empty, "title": "half a ?"},
    }
    assert raw.malformed == {}


def test_only_the_named_columns_are_read(folder):
    raw = source(text=["brand", "title"]).read(folder([review()], [meta(title="T", brand="B")]))
    assert raw.items.columns.tolist() == ["item", "brand", "title"]
    assert items(raw) == {"B1": {"brand": "B", "title": "T"}}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{'asin': 'B1'}", "not JSON"),
        (review()[:-9], "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not a JSON object"),
        (json.dumps({"asin": "B1", "unixReviewTime": 1}), "without reviewerID"),
        (review(item=""), "without asin"),
        (review(user=7), "without reviewerID"),
        (review(user="\ud800"), "reviewerID is not valid Unicode"),
        (review(time="soon"), "without unixReviewTime in whole seconds"),
        (review(time=True), "without unixReviewTime in whole seconds"),
        (review(time=1.5), "without unixReviewTime in whole seconds"),
        (review(time=10**30), "without unixReviewTime in whole seconds"),
        (b'{"asin": "\xff"}\n', "not UTF-8"),
        (b" " * (3 * MAX_LINE_BYTES) + b"\n", f"longer than {MAX_LINE_BYTES} bytes"),
    ],
)
def test_malformed_reviews_are_counted_and_fatal_above_the_share(folder, line, reason):
    lines = [review(f"A{i}") for i in range(9)]
    where = folder([*lines[:4], line, *lines[4:]], [meta()])
    raw = source(max_malformed=0.1).read(where)
    assert raw.malformed == {f"{REVIEWS}: {reason}": 1}
    assert raw.interactions["user"].tolist() == [f"A{i}" for i in range(9)]
    with pytest.raises(
        UserError, match=rf"{REVIEWS}: 1 of 10 lines are malformed \(1 {reason}\).*first is line 5: {reason}"
    ):
        source(max_malformed=0.09).read(where)


def test_metadata_is_never_executed(folder, tmp_path):
    witness = tmp_path / "executed"
    attacks = [
        f"__import__('pathlib').Path({str(witness)!r}).touch()",
        f"{{'asin': 'B1', 'title': __import__('os').system('touch {witness}')}}",
        f"{{'asin': 'B1', 'title': [open({str(witness)!r}, 'w') for _ in (1,)]}}",
    ]
    raw = source(max_malformed=1).read(folder([review()], [*attacks, meta(title="good")]))
    assert raw.malformed == {f"{METADATA}: neither JSON nor a Python literal": 3}
    assert items(raw)["B1"]["title"] == "good"
    assert not witness.exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"asin": null}', "without asin"),
        ("{'asin': 'B1'", "neither JSON nor a Python literal"),
        ("{[]: 1}", "neither JSON nor a Python literal"),
        ("-" * 1_000_000 + "1", "neither JSON nor a Python literal"),
        ("1" + "+1" * 300_000, "neither JSON nor a Python literal"),
        ("[" * 1_000_000, "neither JSON nor a Python literal"),
        ("9" * 10_000, "neither JSON nor a Python literal"),
        ("9" * 400 + "+1j", "neither JSON nor a Python literal"),
        ("\0", "neither JSON nor a Python literal"),
        ("['asin', 'B1']", "not a dictionary"),
        ("{'title': 'x'}", "without asin"),
        (r"{'asin': '\ud800'}", "asin is not valid Unicode"),
    ],
)
def test_malformed_metadata(folder, line, reason):
    raw = source(max_malformed=0.5).read(folder([review()], [line, meta(title="good")]))
    assert raw.malformed == {f"{METADATA}: {reason}": 1}
    assert items(raw)["B1"]["title"] == "good"


@pytest.mark.parametrize("name", [REVIEWS, METADATA])
@pytest.mark.parametrize("damage", ["cut", "flip", "no gzip"])
def test_damaged_compression_is_named(folder, name, damage):
    where = folder([review(f"A{i}") for i in range(2000)], [meta(f"B{i}") for i in range(2000)])
    content = bytearray((where / name).read_bytes())
    if damage == "cut":
        content = content[:-20]
    elif damage == "flip":
        content[len(content) // 2] ^= 0xFF
    else:
        content = bytearray(b"<html>moved</html>\n")
    (where / name).write_bytes(content)
    # A flip may reach the parser before the checksum; then too many lines are malformed.
    with pytest.raises(UserError, match=rf"{name}: (damaged after line|\d+ of \d+ lines are malformed)"):
        source(max_malformed=0.0).read(where)


@pytest.mark.parametrize("content", [b"\n", b"x", review().encode() + b"\n"])
def test_a_bomb_is_not_read_to_its_end(folder, content):
    where = folder([], [meta()])
    repeated = content * (SMALL_BYTES // len(content))
    (where / REVIEWS).write_bytes(gzip.compress(repeated) * 2)
    with pytest.raises(UserError, match=f"{REVIEWS}: decompresses to more than {MAX_EXPANSION} times its size"):
        source(max_malformed=1).read(where)


def test_from_the_mirror_to_the_split(project, folder, capsys):
    lines = [review(f"A{u}", f"B{i}", 86_400 * i) for i in (2, 0, 1, 3, 4) for u in range(5)]
    mirror = folder([*lines, "broken", review("A9")], [meta(f"B{i}", title=f"T{i}") for i in range(5)])
    entry = source(max_malformed=0.05)
    manifest = download("toys", entry, mirror)
    preprocess("toys", entry)
    paths = DatasetPaths("toys")
    table, catalogue = pd.read_parquet(paths.interactions), pd.read_parquet(paths.items)
    assert catalogue["raw_id"].tolist() == ["B2", "B0", "B1", "B3", "B4"]
    assert catalogue["text"].tolist() == ["T2", "T0", "T1", "T3", "T4"]
    assert table["item"].tolist() == [1, 2, 0, 3, 4] * 5
    assert "malformed 1 reviews_Toys_5.json.gz: not JSON" in " ".join(capsys.readouterr().err.split())
    assert f'"{REVIEWS}: not JSON": 1' in paths.stats.read_text()
    assert '"category": "Toys"' in manifest.read_text()


def test_a_mirror_may_hold_the_full_reviews(project, folder):
    mirror = folder([review()], [meta()], name="reviews_Toys.json.gz")
    assert source().download(project / "raw", mirror) == ["reviews_Toys.json.gz", METADATA]
    assert len(source().read(project / "raw").interactions) == 1


def test_a_category_is_no_path():
    with pytest.raises(ValidationError, match="category"):
        source(category="../x")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("AT&amp;T", "AT&T"),
        ("a&lt;br&gt;b", "a b"),
        ("1 < 2 > 1", "1 < 2 > 1"),
        ("<!-- c -->x<a href='y'>z</a>", "x z"),
        ("a\u00a0b\n\n c ", "a b c"),
        ("<b" * 50_000, "<b" * 50_000),
        ("&#x41;&#0000066;&#55296;", "AB\ufffd"),
        (f"a&#{'9' * 5000};b", "a b"),
    ],
)
def test_clean_text(text, clean):
    assert clean_text(text) == clean
