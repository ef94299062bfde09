"""The tokens of a catalogue: three special ones, and the spelling of a code's tokens."""

from __future__ import annotations

from string import ascii_lowercase

PAD, EOS, UNK = 0, 1, 2
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")

MAX_CODE = 9_999_999
"""Of one level."""


def code_string(level: int, code: int) -> str:
    """The release's spelling of a code: ``<b_42>`` is code 42 of the second level."""
    return f"<{ascii_lowercase[level]}_{code}>"


def parse_code_string(text: str, level: int) -> int:
    """Inverse of ``code_string``; raises ValueError when ``text`` is no code of that level."""
    prefix = f"<{ascii_lowercase[level]}_"
    digits = text[len(prefix) : -1] if text.startswith(prefix) and text.endswith(">") else ""
    # One code has one spelling (no leading zeros): the vocabulary must give back what was read.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_CODE)) and str(int(digits)) == digits):
        raise ValueError(f"expected a code like {code_string(level, 0)} at level {level + 1}, found {text!r}")
    return int(digits)
