"""Formulas as MathML, made while the site is built: browsers draw them, so no script is loaded."""

import html
import re

from latex2mathml.converter import convert

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """Replace every formula of a page: round brackets in a line, square ones for a block."""
    return FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match[str]) -> str:
    tag, bracket, latex = formula.groups()
    display = "inline" if bracket == "(" else "block"
    return f'<{tag} class="formula">{convert(html.unescape(latex), display=display)}</{tag}>'
