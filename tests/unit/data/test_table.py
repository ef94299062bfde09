"""A user's own tables, and errors in them, reported with file and line."""

import datetime
from itertools import product

import pytest
from pydantic import ValidationError

from apao.data.table import Table
from apao.errors import UserError
from apao.stages.download import download
from apao.study.paths import DatasetPaths


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
        "who|what|when\nA|x|2020-01-02T00:00Z\nA|y|2020-01-02 00:00:01+00:00\nA|z|2020-01-02T01:00:00+01:00\n"
    )
    raw = read(source(path="log.txt", separator="|", user="who", item="what", timestamp="when"))
    midnight = int(datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC).timestamp())
    assert rows(raw) == [("A", "x", midnight), ("A", "y", midnight + 1), ("A", "z", midnight)]


def test_texts_beside_the_interactions(project):
    (project / "t.tsv").write_text('user\titem\ttimestamp\ttitle\na\tp\t1\t"Two\nlines"\nb\tp\t2\tother\nb\tq\t3\t\n')
    raw = read(source(path="t.tsv", text=["title"], quoted=True))
    assert list(raw.items.itertuples(index=False, name=None)) == [("p", "Two\nlines"), ("q", "")]


def test_texts_in_a_table_of_their_own(project):
    (project / "t.csv").write_text("user,asin,timestamp\na,p,1\n")
    (project / "more").mkdir()
    (project / "more" / "t.csv").write_text("asin,brand,title\np,B,T\nq,,U\n")
    raw = read(source(item="asin", items_path="more/t.csv", text=["title", "brand"]))
    assert raw.items.columns.tolist() == ["item", "title", "brand"]
    assert list(raw.items.itertuples(index=False, name=None)) == [("p", "T", "B")]
    assert (raw.unused_rows, raw.unused_examples) == (1, ("q",))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("user,item,time\na,p,1\n", 1, r"the header has no column 'timestamp'; did you mean 'time'\?"),
        (
            "userId,movieId,timestamp\na,p,1\n",
            1,
            r"the header has no columns 'user', 'item'; .* known: .*; name the table's own columns",
        ),
        ("user,item,timestamp,user\na,p,1,b\n", 1, "the header has 2 columns 'user'; rename all but one"),
        (
            'user, "item",timestamp\na,p,1\n',
            1,
            "the header has no column 'item'; .* marks after blanks: remove the blanks",
        ),
        ('user,item,timestamp\na,p,1\na, "q",1\n', 3, "a blank before a quotation mark .* remove the blanks"),
        ("", 1, "the header has no columns 'user', 'item', 'timestamp'; known: none"),
        ("user,item,timestamp\na,p,1\na,p,soon\n", 3, "expected a timestamp, .* found 'soon'"),
        ("user,item,timestamp\na,p,1,5\n", 2, "4 values"),
        ('user,item,timestamp\na,p,"1,5"\n', 2, "expected a timestamp, .* found '1,5'"),
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
    for end, before in product([b"\n", b"\r\n"], [0, 3_000]):
        lines = [b"user,item,timestamp", *[b"a,p,1"] * before, b"\xff\xfe,p,1", b"a,p,1", b""]
        (project / "t.csv").write_bytes(end.join(lines))
        with pytest.raises(UserError, match=rf"t\.csv:{before + 2}: not UTF-8"):
            read(source())


def test_an_empty_cell_beside_one_of_several_lines(project):
    (project / "t.csv").write_text('user,item,timestamp,title,note\na,p,1,"Two\nlines",\na,q,2,,"Two\nnotes"\n')
    raw = read(source(text=["title", "note"]))
    assert raw.items.to_numpy().tolist() == [["p", "Two\nlines", ""], ["q", "", "Two\nnotes"]]
    assert not raw.warnings


def test_names_with_a_colon(project):
    (project / "t.csv").write_text("user:token,item:token,timestamp:float,title:en,title:de\na,p,1,Lamp,Lampe\n")
    raw = read(source(text=["title:de", "title:en"]))
    assert rows(raw) == [("a", "p", 1)]
    assert raw.items.to_numpy().tolist() == [["p", "Lampe", "Lamp"]]


def test_an_item_with_two_rows(project):
    (project / "t.csv").write_text("user,item,timestamp\na,p,1\n")
    (project / "i.csv").write_text("item,title\np,T\nq,U\np,V\n")
    with pytest.raises(UserError, match=r"i\.csv:4: item 'p' has a row already, line 2"):
        read(source(items_path="i.csv", text=["title"]))


def test_the_first_text_that_is_not_empty(project):
    (project / "t.csv").write_text("user,item,timestamp,title,brand\na,p,1,,B\na,q,2,U,\nb,p,3,T,\nb,p,4,V,C\n")
    raw = read(source(text=["title", "brand"]))
    assert raw.items.to_numpy().tolist() == [["p", "T", "B"], ["q", "U", ""]]
    assert raw.notes == ("several texts for one item, the first is used (1 such, first title of 'p')",)


QUOTES = {"i1": '"Heroes', "i2": 'Monitor 24"', "i3": '"both"', "i4": 'a "b" c', "i5": "it's"}


@pytest.mark.parametrize("name", ["items.tsv", "items.txt"])
def test_tab_separated_tables_have_no_quotation_marks(project, name):
    """Quotes in text, among them one that an inch sign in the next row would close."""
    (project / "t.tsv").write_text("user\titem\ttimestamp\n" + "".join(f"u\t{item}\t1\n" for item in QUOTES))
    (project / name).write_text("item\ttitle\n" + "".join(f"{item}\t{text}\n" for item, text in QUOTES.items()))
    separator = {} if name.endswith("tsv") else {"separator": "\t"}
    raw = read(source(path="t.tsv", items_path=name, text=["title"], **separator))
    assert dict(raw.items.to_numpy().tolist()) == QUOTES
    (warning,) = raw.warnings
    assert f"{name}:4: a value is in quotation marks" in warning
    assert "quoted: true" in warning
    swallowed = read(source(path="t.tsv", items_path=name, text=["title"], quoted=True, **separator))
    assert "i2" not in set(swallowed.items["item"])
    assert f"{name}:2: a value in quotation marks spans lines" in swallowed.warnings[0]


def test_a_quoted_tsv_asks_for_the_key(project):
    (project / "t.tsv").write_text('"user"\t"item"\t"timestamp"\n"a"\t"p"\t1\n')
    with pytest.raises(UserError, match=r"t\.tsv:1: .* in quotation marks: set quoted: true"):
        read(source(path="t.tsv"))
    assert rows(read(source(path="t.tsv", quoted=True))) == [("a", "p", 1)]
    (project / "t.tsv").write_text('user\titem\ttimestamp\ttitle\na\tp\t1\t"two\nlines"\n')
    with pytest.raises(UserError, match=r"t\.tsv:3: 1 values, .*set quoted: true"):
        read(source(path="t.tsv", text=["title"]))


def test_a_quotation_mark_that_swallows_rows_is_a_warning(project):
    lines = ["user,item,timestamp,title", 'u,a,1,"Heroes', "u,b,2,x", "u,c,3,y", 'u,d,4,Monitor 24"', "u,e,5,z"]
    (project / "t.csv").write_text("\n".join(lines) + "\n")
    swallowed = read(source(text=["title"]))
    assert [row[1] for row in rows(swallowed)] == ["a", "e"]
    (warning,) = swallowed.warnings
    assert "t.csv:2: a value in quotation marks spans lines that look like rows" in warning
    whole = read(source(text=["title"], quoted=False))
    assert whole.items["title"].tolist() == ['"Heroes', "x", "y", 'Monitor 24"', "z"]
    (project / "t.csv").write_text('user,item,timestamp,title\nu,a,1,"two\nlines, with a comma"\n')
    assert read(source(text=["title"])).warnings == ()


def test_long_cells(project):
    long = "word " * 100_000
    (project / "t.csv").write_text(f"user,item,timestamp,title\na,p,1,{long}\n")
    assert read(source(text=["title"])).items["title"].tolist() == [long]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_byte_order_marks_and_line_ends(project, end, name):
    text = end.join(["user,item,timestamp,title", "a,p,1,T", "b, p ,2,T", ""])
    (project / name).write_bytes(text.replace(",", "," if name == "t.csv" else "\t").encode("utf-8-sig"))
    raw = read(source(path=name, text=["title"]))
    assert rows(raw) == [("a", "p", 1), ("b", "p", 2)]
    assert raw.items.to_numpy().tolist() == [["p", "T"]]
    assert raw.notes == (f"blanks around item ids removed (1 such, first {project / name}:3)",)


def test_another_separator_is_named(project):
    (project / "t.csv").write_text("user;item;timestamp\na;p;1\n")
    with pytest.raises(UserError, match=r"t\.csv:1: .*it is one name, 'user;item;timestamp': set separator: ';'"):
        read(source())


def test_ids_that_went_through_floats(project):
    """Ids with a decimal point, in another table or in the same column, are an error and never matched in part."""
    (project / "i.csv").write_text("item,title\n101,A\n102,B\n")
    for item in ("102.0", "101.0"):
        (project / "t.csv").write_text(f"user,item,timestamp\na,101,1\na,{item},2\n")
        with pytest.raises(UserError, match=rf"t\.csv:3: the item id '{item}' is '{item[:3]}' in .*Int64"):
            read(source(items_path="i.csv", text=["title"]))
    with pytest.raises(UserError, match=r"t\.csv:3: the item id '101\.0' is '101' in .*t\.csv:2"):
        read(source())
    (project / "t.csv").write_text("user,item,timestamp\n7,a,1\n7.0,b,2\n")
    with pytest.raises(UserError, match=r"t\.csv:3: the user id '7\.0' is '7'"):
        read(source())


def test_sessions_within_a_second_keep_their_order(project):
    """Newest row first, as exports have them, in five spellings of the same times."""
    base, hundredths = 1_546_300_800, (10, 25, 40, 55, 90)
    moment = datetime.datetime.fromtimestamp(base, datetime.UTC)
    spellings = {
        "iso": lambda part: (moment + datetime.timedelta(milliseconds=10 * part)).isoformat(timespec="milliseconds"),
        "ms": lambda part: str(base * 1000 + 10 * part),
        "ns": lambda part: str(base * 10**9 + part * 10**7),
        "float": lambda part: f"{base}.{part}",
        "scientific": lambda part: f"{base * 100 + part:.11E}".replace("E+11", "E+09"),
    }
    for spell in spellings.values():
        lines = [f"u,{item},{spell(part)}" for item, part in zip("abcde", hundredths, strict=True)]
        (project / "t.csv").write_text("\n".join(["user,item,timestamp", *reversed(lines)]) + "\n")
        table = read(source()).interactions.sort_values("timestamp")
        assert table["item"].tolist() == list("abcde")
        assert len(table["timestamp"].unique()) == 5


def test_missing_files(project):
    with pytest.raises(UserError, match=r"t\.csv: not found; name the table"):
        read(source())
    (project / "t.csv").mkdir()
    with pytest.raises(UserError, match=r"t\.csv: not found"):
        read(source())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"path": "t.txt"}, r"path: t\.txt ends in none of \.csv, \.tsv; add the key separator"),
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
