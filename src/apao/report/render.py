"""A table as a reader wants it, in Markdown and in LaTeX (booktabs).

Cells are plain text; whatever a run, a dataset or a label is called, it is escaped here and nowhere
else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pandas as pd

ABSENT = "–"
MINUS = "−"
COMPARED = ("ours", "paper", "difference")
"""Heads of the cells of ``compared``."""


@dataclass(frozen=True)
class Cell:
    """Text of a cell, and whether it is set in bold."""

    text: str
    bold: bool = False


@dataclass
class Grid:
    """One block of a table: ``texts`` columns of words, then columns of numbers.

    ``header`` holds (group, name) for each column; neighbours of one group share a heading. ``parts``
    are runs of rows that a rule separates.
    """

    title: str
    texts: int
    header: list[tuple[str, str]]
    parts: list[list[list[Cell]]] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """A table in long form for machines and in wide form for readers."""

    title: str
    long: pd.DataFrame
    grids: list[Grid]
    notes: list[str]
    """Paragraphs below it; empty ones are left out."""


def fixed(value: float, digits: int = 4, signed: bool = False) -> str:
    """A number with ``digits`` decimals and thousands separated; the absent mark for NaN."""
    if math.isnan(value):
        return ABSENT
    value = round(value, digits) + 0.0  # no minus before a zero
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    return text.replace("-", MINUS)


def spread(mean: float, sd: float, digits: int = 4) -> str:
    """Mean ± SD, or the mean alone where there is no SD."""
    return fixed(mean, digits) if math.isnan(sd) else f"{fixed(mean, digits)} ± {fixed(sd, digits)}"


def compared(mean: float, sd: float, paper: float, digits: int = 4) -> list[Cell]:
    """The cells of ``COMPARED``."""
    return [
        Cell(spread(mean, sd, digits)),
        Cell(fixed(paper, digits)),
        Cell(fixed(mean - paper, digits, signed=True)),
    ]


def bold_best(rows: Sequence[list[Cell]], columns: Sequence[int], values: Sequence[Sequence[float]]) -> None:
    """Set in bold the largest of each column, ties as printed included.

    ``values[i][j]`` is the number behind ``rows[i][columns[j]]``.
    """
    for j, column in enumerate(columns):
        best = max((row[j] for row in values if not math.isnan(row[j])), default=math.inf)
        for row, numbers in zip(rows, values, strict=True):
            if fixed(numbers[j]) == fixed(best):
                row[column] = Cell(row[column].text, bold=True)


_MARKDOWN = {ord(char): "\\" + char for char in "\\`*_|<>[]#"} | {ord("\n"): " "}


def markdown_text(text: str) -> str:
    """Escape for running text and table cells."""
    return text.translate(_MARKDOWN)


def markdown(table: Table, title: str) -> str:
    """The whole table as a Markdown document; ``title`` comes before the table's own."""
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
    """Escape for running text and table cells."""
    return text.translate(_LATEX_TABLE)


def latex(table: Table, label: str) -> str:
    """The table as floats of a document that loads booktabs, one for each block."""
    floats = []
    for i, grid in enumerate(table.grids):
        title = f"{table.title}: {grid.title}" if grid.title else table.title
        # A document shows the notes once, under the first block.
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
