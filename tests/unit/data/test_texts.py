"""The first non-blank text of each column, against a loop over the rows."""

from hypothesis import given
from hypothesis import strategies as st

from apao.data.texts import Texts

rows = st.lists(
    st.tuples(st.sampled_from("pqr"), st.lists(st.sampled_from(["", " ", "a", "b"]), min_size=2, max_size=2))
)


@given(rows)
def test_first_that_is_not_blank(given_rows):
    texts = Texts(("title", "brand"))
    for item, values in given_rows:
        texts.add(item, values)
    table = texts.table()
    assert list(table) == ["item", "title", "brand"]
    assert table["item"].tolist() == list(dict.fromkeys(item for item, _ in given_rows))
    differing = set()
    for item, *found in table.itertuples(index=False, name=None):
        for column, value in enumerate(found):
            said = [values[column] for other, values in given_rows if other == item and values[column].strip()]
            assert value.strip() == (said[0] if said else "")
            if len(set(said)) > 1:
                differing.add(item)
    assert texts.notes == [] or f"({len(differing)} such, " in texts.notes[0]
    assert bool(texts.notes) == bool(differing)


def test_rows_of_items_that_nobody_wants_are_counted():
    texts = Texts(("title",), {"p"})
    for item in "qprq":
        texts.add(item, [item.upper()])
    assert texts.table().to_numpy().tolist() == [["p", "P"]]
    assert (texts.unused, texts.unused_examples) == (3, ["q", "r"])
