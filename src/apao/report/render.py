"""Tables in Markdown, HTML and LaTeX (booktabs).

Cells are plain text. Escaping is done here and nowhere else.
"""

from __future__ import annotations

import html as escapes
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pandas as pd

ABSENT = "–"
MINUS = "−"
COMPARED = ("ours", "paper", "difference")
"""Column names of the cells from ``compared``."""


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and whether it is bold."""

    text: str
    bold: bool = False


@dataclass
class Grid:
    """One block of a table.

    Attributes:
        title: heading of the block; may be empty.
        texts: number of text columns; the columns of numbers follow.
        header: (group, name) of each column; neighbours of the same group share a heading.
        parts: groups of rows, separated by rules.
    """

    title: str
    texts: int
    header: list[tuple[str, str]]
    parts: list[list[list[Cell]]] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """A table in long form (CSV) and in wide form (Markdown, HTML and LaTeX)."""

    title: str
    long: pd.DataFrame
    grids: list[Grid]
    notes: list[str]
    """Paragraphs below the table; empty ones are left out."""


def fixed(value: float, digits: int = 4, signed: bool = False) -> str:
    """A number with ``digits`` decimals and thousands separators; ``ABSENT`` for NaN."""
    if math.isnan(value):
        return ABSENT
    value = round(value, digits) + 0.0  # no minus before a zero
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    return text.replace("-", MINUS)


def spread(mean: float, sd: float, digits: int = 4) -> str:
    """Mean ± SD, or the mean alone if the SD is NaN."""
    return fixed(mean, digits) if math.isnan(sd) else f"{fixed(mean, digits)} ± {fixed(sd, digits)}"


def p_text(p: float) -> str:
    """A p-value with two digits; the absent mark for NaN."""
    return ABSENT if math.isnan(p) else "<0.0001" if p < 1e-4 else f"{p:.2g}"


def compared(mean: float, sd: float, paper: float, digits: int = 4) -> list[Cell]:
    """Cells with our value, the paper's and the difference, in the order of ``COMPARED``."""
    return [
        Cell(spread(mean, sd, digits)),
        Cell(fixed(paper, digits)),
        Cell(fixed(mean - paper, digits, signed=True)),
    ]


def bold_best(rows: Sequence[list[Cell]], columns: Sequence[int], values: Sequence[Sequence[float]]) -> None:
    """Set the largest value of each column in bold, and all that are printed alike.

    ``values[i][j]`` is the number shown in ``rows[i][columns[j]]``.
    """
    for j, column in enumerate(columns):
        best = max((row[j] for row in values if not math.isnan(row[j])), default=math.inf)
        for row, numbers in zip(rows, values, strict=True):
            if fixed(numbers[j]) == fixed(best):
                row[column] = Cell(row[column].text, bold=True)


_MARKDOWN = {ord(char): "\\" + char for char in "\\`*_|<>[]#"} | {ord("\n"): " "}


def markdown_text(text: str) -> str:
    """Escape ``text`` for Markdown paragraphs and table cells."""
    return text.translate(_MARKDOWN)


def markdown(table: Table, title: str) -> str:
    """The table as a Markdown document; ``title`` precedes the table's own title."""
    blocks = [f"# {markdown_text(f'{title}. {table.title}')}"]
    for grid in table.grids:
        if grid.title:
            blocks.append(f"**{markdown_text(grid.title)}**")
        blocks.append(_markdown_grid(grid))
    blocks += [markdown_text(note) for note in table.notes if note]
    return "\n\n".join(blocks) + "\n"


def _markdown_grid(grid: Grid) -> str:
    header = [markdown_text(f"{group} {name}".strip()) for group, name in grid.header]
    rows = [
        [f"**{markdown_text(cell.text)}**" if cell.bold else markdown_text(cell.text) for cell in row]
        for part in grid.parts
        for row in part
    ]
    widths = [max(3, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < grid.texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * width if i < grid.texts else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


HTML_STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 1.5rem; }
h1 { font-size: 1.15rem; } h2 { font-size: 1rem; margin-top: 1.5rem; } p { max-width: 60rem; color: #444; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; white-space: nowrap; }
th, td { padding: .2rem .6rem; text-align: right; font-variant-numeric: tabular-nums; }
th.text, td.text { text-align: left; }
thead th.group { border-bottom: 1px solid #999; text-align: center; }
tbody { border-top: 1px solid #999; }
"""


def html(table: Table, title: str) -> str:
    """The table as an HTML document of its own, for the study's report; headings as in ``markdown``."""
    heading = escapes.escape(f"{title}. {table.title}")
    body = [f"<h1>{heading}</h1>"]
    for grid in table.grids:
        if grid.title:
            body.append(f"<h2>{escapes.escape(grid.title)}</h2>")
        body += _html_grid(grid)
    body += [f"<p>{escapes.escape(note)}</p>" for note in table.notes if note]
    head = f'<meta charset="utf-8"><title>{heading}</title><style>{HTML_STYLE}</style>'
    return "\n".join(["<!doctype html>", f'<html lang="en"><head>{head}</head><body>', *body, "</body></html>"]) + "\n"


def _html_grid(grid: Grid) -> list[str]:
    def row(cells: Sequence[Cell], tag: str) -> str:
        parts = []
        for i, cell in enumerate(cells):
            text = escapes.escape(cell.text)
            kind = ' class="text"' if i < grid.texts else ""
            parts.append(f"<{tag}{kind}>{f'<b>{text}</b>' if cell.bold else text}</{tag}>")
        return f"<tr>{''.join(parts)}</tr>"

    lines = ["<table>", "<thead>"]
    if any(group for group, _ in grid.header):
        groups = []
        for group, members in groupby(grid.header, key=lambda column: column[0]):
            kind = ' class="group"' if group else ""
            groups.append(f'<th{kind} colspan="{len(list(members))}">{escapes.escape(group)}</th>')
        lines.append(f"<tr>{''.join(groups)}</tr>")
    lines += [row([Cell(name) for _, name in grid.header], "th"), "</thead>"]
    for part in grid.parts:
        lines += ["<tbody>", *(row(cells, "td") for cells in part), "</tbody>"]
    return [*lines, "</table>"]


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    MINUS: "$-$",
    "×": r"$\times$",
    "†": r"$\dagger$",
    "β": r"$\beta$",
    "η": r"$\eta$",
    "τ": r"$\tau$",
    "λ": r"$\lambda$",
    "ξ": r"$\xi$",
    ABSENT: "--",
    "\n": " ",
} | {char: "\\" + char for char in "&%$#_{}"}
_LATEX_TABLE = str.maketrans(_LATEX)


def latex_text(text: str) -> str:
    """Escape ``text`` for LaTeX paragraphs and table cells."""
    return text.translate(_LATEX_TABLE)


def latex(table: Table, label: str) -> str:
    """The table as LaTeX floats, one per block, for a document that loads booktabs."""
    floats = []
    for i, grid in enumerate(table.grids):
        title = f"{table.title}: {grid.title}" if grid.title else table.title
        # The notes appear once, below the first block.
        notes = filter(None, table.notes if i == 0 else ())
        caption = latex_text(" ".join([f"{title}.", *notes]))
        mark = f"tab:{label}" + (f"-{i + 1}" if i else "")
        floats.append(
            "\n".join(
                [
                    r"\begin{table*}[t]",
                    r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
                    rf"\caption{{{caption}}}\label{{{mark}}}",
                    *_latex_grid(grid),
                    r"\end{table*}",
                ]
            )
        )
    return "% Needs \\usepackage{booktabs}.\n" + "\n\n".join(floats) + "\n"


def _latex_grid(grid: Grid) -> list[str]:
    columns = "l" * grid.texts + "r" * (len(grid.header) - grid.texts)
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule"]
    if any(group for group, _ in grid.header):
        cells, rules, start = [], [], 1
        for group, members in groupby(grid.header, key=lambda column: column[0]):
            width = len(list(members))
            if group:
                cells.append(rf"\multicolumn{{{width}}}{{c}}{{{latex_text(group)}}}")
                rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            else:
                cells += [""] * width
            start += width
        lines += [" & ".join(cells) + r" \\", "".join(rules)]
    lines.append(" & ".join(latex_text(name) for _, name in grid.header) + r" \\")
    for part in grid.parts:
        lines.append(r"\midrule")
        for row in part:
            cells = [rf"\textbf{{{latex_text(cell.text)}}}" if cell.bold else latex_text(cell.text) for cell in row]
            lines.append(" & ".join(cells) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]
