"""Tables of the user's own, and their errors with file and line."""

import datetime

import pytest
from pydantic import ValidationError

from apao.data.download import download
from apao.data.table import Table
from apao.errors import UserError
from apao.runs import DatasetPaths


def source(**keys):
    return Table.model_validate({"source": "csv", "recipe": "r", "codes": "c", "path": "t.csv", **keys})


def read(entry):
    download("mine", entry, None)
    return entry.read(DatasetPaths("mine").raw)


def rows(raw):
    return list(raw.interactions.itertuples(index=False, name=None))


def test_ids_are_strings_and_rows_stay_in_order(project):
    (project / "t.csv").write_text(
        "\ufeffitem,extra,user,timestamp\n007,x,1,30\n\n7,y,01,20.0\nNA,z,1,-5\n", encoding="utf-8"
    )
    raw = read(source())
    assert rows(raw) == [("1", "007", 30), ("01", "7", 20), ("1", "NA", -5)]
    assert raw.items is None


def test_other_names_separator_and_iso_dates(project):
    (project / "log.txt").write_text(
        "who|what|when\nA|x|2020-01-02\nA|y|2020-01-02 00:00:01\nA|z|2020-01-02T01:00:00+01:00\n"
    )
    raw = read(source(path="log.txt", separator="|", user="who", item="what", timestamp="when"))
    midnight = int(datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC).timestamp())
    assert rows(raw) == [("A", "x", midnight), ("A", "y", midnight + 1), ("A", "z", midnight)]


def test_texts_beside_the_interactions(project):
    (project / "t.tsv").write_text('user\titem\ttimestamp\ttitle\na\tp\t1\t"Two\nlines"\nb\tp\t2\tother\nb\tq\t3\t\n')
    raw = read(source(path="t.tsv", text=["title"]))
    assert list(raw.items.itertuples(index=False, name=None)) == [("p", "Two\nlines"), ("q", "")]


def test_texts_in_a_table_of_their_own(project):
    (project / "t.csv").write_text("user,asin,timestamp\na,p,1\n")
    (project / "more").mkdir()
    (project / "more" / "t.csv").write_text("asin,brand,title\np,B,T\nq,,U\n")
    raw = read(source(item="asin", items_path="more/t.csv", text=["title", "brand"]))
    assert raw.items.columns.tolist() == ["item", "title", "brand"]
    assert list(raw.items.itertuples(index=False, name=None)) == [("p", "T", "B"), ("q", "U", "")]


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("user,item,time\na,p,1\n", 1, r"the header has no column 'timestamp'; did you mean 'time'\?"),
        ("user,item,timestamp,user\na,p,1,b\n", 1, "the header has two columns 'user'"),
        ("", 1, "the header has no column 'user'"),
        ("user,item,timestamp\na,p,1\na,p,soon\n", 3, "expected a timestamp, .* found 'soon'"),
        ("user,item,timestamp\na,p,1.5\n", 2, "expected a timestamp, .* found '1.5'"),
        ("user,item,timestamp\na,p,\n", 2, "expected a timestamp, .* found ''"),
        ("user,item,timestamp\na,p,nan\n", 2, "expected a timestamp"),
        ("user,item,timestamp\na,p," + "9" * 30 + "\n", 2, "expected a timestamp"),
        ("user,item,timestamp\na,p,1\n,p,1\n", 3, "the user id is empty"),
        ("user,item,timestamp\na, ,1\n", 2, "the item id is empty"),
        ("user,item,timestamp\na,p,1\na,p\n", 3, "2 values, but the header has 3 columns"),
        ('user,item,timestamp\na,"p\nq",1\na,p,x\n', 4, "expected a timestamp"),
        ('user,item,timestamp\na,"p\nq",1\na,p,1,2\n', 4, "4 values"),
        ('user,item,timestamp\na,"p"q,1\n', 2, "',' expected after"),
    ],
)
def test_mistakes_name_file_and_line(project, text, line, message):
    (project / "t.csv").write_text(text)
    with pytest.raises(UserError, match=rf"/project/t\.csv:{line}: {message}"):
        read(source())


def test_what_is_no_text(project):
    (project / "t.csv").write_bytes(b"user,item,timestamp\n\xff\xfe,p,1\n")
    with pytest.raises(UserError, match=r"t\.csv: not UTF-8"):
        read(source())


def test_an_item_with_two_rows(project):
    (project / "t.csv").write_text("user,item,timestamp\na,p,1\n")
    (project / "i.csv").write_text("item,title\np,T\nq,U\np,V\n")
    with pytest.raises(UserError, match=r"i\.csv:4: item 'p' has a row already"):
        read(source(items_path="i.csv", text=["title"]))


def test_missing_files(project):
    with pytest.raises(UserError, match=r"t\.csv: not found; name the table"):
        read(source())
    (project / "t.csv").mkdir()
    with pytest.raises(UserError, match=r"t\.csv: not found"):
        read(source())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"path": "t.txt"}, r"path: t\.txt ends in none of \.csv, \.tsv; give separator"),
        ({"items_path": "i.csv"}, "text: name the columns"),
        ({"user": "item"}, "must be different"),
        ({"separator": "||"}, "at most 1 character"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"core": 2}, "greater than or equal to 3"),
    ],
)
def test_contradictions_are_rejected_at_construction(keys, message):
    with pytest.raises(ValidationError, match=message):
        source(**keys)
