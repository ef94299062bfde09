from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from itertools import pairwise

import jinja2
import pandas as pd
from docutils import core
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from apao.report.base import rst_text
from apao.report.render import Cell, Grid, Table, bold_best, fixed, html, latex, latex_text, markdown, spread

NASTY = r"a_b|c*d`e\f <g> [h](i) #j {k} $l$ 50% & ~^ ce->pair −1 ±2 – β"
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


def table(*texts):
    header = [("", "Objective"), ("Group & co", "ours"), ("Group & co", "paper_"), ("", "x")]
    rows = [[Cell(text), Cell("1", bold=True), Cell(text), Cell(text, bold=True)] for text in texts]
    return Table("T_i*tle", pd.DataFrame(), [Grid("block_1", 1, header, [rows])], ["note: " + texts[0]])


def markdown_cells(text):
    """Text of every body cell, as a CommonMark parser with tables reads it."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    cells = []
    for opening, inline in pairwise(tokens):
        if opening.type == "td_open":
            assert inline.children is not None
            cells.append("".join(child.content for child in inline.children))
    return cells


def test_markdown_parser_gets_the_text_back():
    assert markdown_cells(markdown(table(NASTY), "Table 9")) == [NASTY, "1", NASTY, NASTY]


@given(PRINTABLE)
def test_markdown_escapes_any_printable_text(text):
    assert markdown_cells(markdown(table(text), "Table 9"))[0] == text


def test_markdown_bold_and_title():
    text = markdown(table("ce"), "Table 9")
    assert text.startswith("# Table 9. T\\_i\\*tle\n")
    assert re.search(r"\| +\*\*1\*\* \|", text)


class Rows(HTMLParser):
    """Rows of cells of a page's tables: (text, columns that the cell spans, whether it is bold)."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.open = [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(["", int(dict(attrs).get("colspan", 1)), False])
        if tag == "b":
            self.rows[-1][-1][2] = True

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1][0] += data


def test_html_parser_gets_the_text_back():
    page = html(table(NASTY), "Table 9")
    groups, names, row = Rows(page).rows
    assert groups == [["", 1, False], ["Group & co", 2, False], ["", 1, False]]
    assert [text for text, _, _ in names] == ["Objective", "ours", "paper_", "x"]
    assert row == [[NASTY, 1, False], ["1", 1, True], [NASTY, 1, False], [NASTY, 1, True]]
    assert "<h1>Table 9. T_i*tle</h1>" in page and "<h2>block_1</h2>" in page
    assert "http" not in page


@given(PRINTABLE)
def test_html_escapes_any_printable_text(text):
    assert Rows(html(table(text), "Table 9")).rows[-1][0][0] == text


@given(PRINTABLE)
def test_latex_has_no_live_special_character(text):
    escaped = latex_text(text)
    # Remove the escapes; no character that is special in TeX may be left.
    rest = re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]", "", escaped)
    assert not set(rest) & set("\\&%$#_{}~^<>|")


def test_latex_escapes_by_hand():
    assert latex_text(NASTY) == (
        r"a\_b\textbar{}c*d`e\textbackslash{}f \textless{}g\textgreater{} [h](i) \#j \{k\} \$l\$ 50\% \& "
        r"\textasciitilde{}\textasciicircum{} ce-\textgreater{}pair $-$1 $\pm$2 -- $\beta$"
    )


def test_latex_rows_have_the_declared_columns():
    text = latex(table(NASTY, "b"), "table9")
    body = text.split(r"\begin{tabular}{lrrr}")[1].split(r"\end{tabular}")[0]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    counts = []
    for row in rows:
        ampersands = len(re.findall(r"(?<!\\)&", row))
        spanned = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", row))
        counts.append(ampersands + spanned + 1)
    assert counts == [4, 4, 4, 4]
    assert r"\cmidrule(lr){2-3}" in body
    assert r"\multicolumn{2}{c}{Group \& co}" in body
    braces = re.sub(r"\\[{}]", "", text)
    assert braces.count("{") == braces.count("}")
    assert r"\label{tab:table9}" in text
    assert "note: " in text


def test_caption_survives_rst_and_jinja():
    caption = "drop_level=0, a*b*, `c`, |d|, e_ {{ f }} {% g %} \\h ce->pair."
    tree = core.publish_doctree(jinja2.Template(rst_text(caption)).render(), settings_overrides={"report_level": 5})
    assert [node.tagname for node in tree.children] == ["paragraph"]
    assert tree.astext() == caption


def test_numbers():
    assert fixed(0.04567) == "0.0457"
    assert fixed(-1234.5, 1, signed=True) == "−1,234.5"
    assert fixed(0.0, 1, signed=True) == "+0.0"
    assert fixed(-0.00001) == "0.0000"
    assert fixed(math.nan) == "–"
    assert spread(0.05, 0.0141) == "0.0500 ± 0.0141"
    assert spread(0.05, math.nan) == "0.0500"


def test_ties_as_printed_are_all_bold():
    rows = [[Cell("0.0500")], [Cell("0.0500")], [Cell("0.0400")]]
    bold_best(rows, [0], [[0.05001], [0.05004], [0.04]])
    assert [row[0].bold for row in rows] == [True, True, False]
