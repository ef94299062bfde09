"""Base classes of tables and figures, which write their files.

A kind of study is a subclass of ``TableStudy`` or ``FigureStudy`` in a module of ``apao.report.kinds``, and is
registered in ``STUDIES``. Its fields are those of its entries in params.yaml; ``runs``, ``files`` and ``inputs``
declare its inputs, and ``build`` draws it.

All kinds are imported when params.yaml is read. Matplotlib and SciPy take seconds to import, so they are
imported in the functions that use them.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from apao.report import style
from apao.report.render import Table, html, latex, markdown
from apao.report.results import Results
from apao.study.paths import OWN, Collection
from apao.study.studies import FIGURE, TABLE, Form, Output, Study

if TYPE_CHECKING:
    from apao.study.params import Params


class TableStudy(Study):
    """A study that is a table."""

    form: ClassVar[Form] = TABLE

    @abstractmethod
    def build(self, results: Results) -> Table:
        """The table, from the study's input files."""

    @override
    def write(self, name: str, params: Params, output: Output, collection: Collection = OWN) -> None:
        table = self.build(Results(params, collection, self.files))
        with output(f"{name}.csv") as path:
            table.long.to_csv(path, index=False, lineterminator="\n")
        with output(f"{name}.md") as path:
            path.write_text(markdown(table, self.titled(name)), encoding="utf-8")
        with output(f"{name}.html") as path:
            path.write_text(html(table, self.titled(name)), encoding="utf-8")
        with output(f"{name}.tex") as path:
            path.write_text(latex(table, name), encoding="utf-8")


class FigureStudy(Study):
    """A study that is a figure."""

    form: ClassVar[Form] = FIGURE

    @abstractmethod
    def build(self, results: Results) -> style.Drawing:
        """The figure, from the study's input files."""

    @override
    def write(self, name: str, params: Params, output: Output, collection: Collection = OWN) -> None:
        with style.applied():
            drawing = self.build(Results(params, collection, self.files))
            with output(f"{name}.pdf") as path:
                style.save_pdf(drawing.figure, path)
            with output(f"{name}.png") as path:
                style.save_png(drawing.figure, path)
        with output(f"{name}.csv") as path:
            drawing.numbers.to_csv(path, index=False, lineterminator="\n")
        with output(f"{name}.rst") as path:
            path.write_text(rst_text(drawing.caption) + "\n", encoding="utf-8")


def rst_text(text: str) -> str:
    """Escape ``text`` for a paragraph of reStructuredText, which Snakemake also treats as a Jinja template."""
    return re.sub(r"([\\*_`|{}%#])", r"\\\1", text)
