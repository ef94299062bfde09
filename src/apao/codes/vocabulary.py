"""The tokens of a catalogue: three special tokens, and the spelling of a code's tokens."""

from __future__ import annotations

from string import ascii_lowercase

PAD, EOS, UNK = 0, 1, 2
SPECIAL_TOKENS = ("<pad>", "</s>", "<unk>")

MAX_CODE = 9_999_999
"""Largest token number of a level."""


def code_string(level: int, code: int) -> str:
    """The release's spelling of a token: ``<b_42>`` is token 42 of the second level."""
    return f"<{ascii_lowercase[level]}_{code}>"


def parse_code_string(text: str, level: int) -> int:
    """Inverse of ``code_string``.

    Raises:
        ValueError: when ``text`` is not a token of that level.
    """
    prefix = f"<{ascii_lowercase[level]}_"
    digits = text[len(prefix) : -1] if text.startswith(prefix) and text.endswith(">") else ""
    # No leading zeros: a token has one spelling, so the vocabulary reproduces the text that was read.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(MAX_CODE)) and str(int(digits)) == digits):
        raise ValueError(f"expected a token like {code_string(level, 0)} at level {level + 1}, found {text!r}")
    return int(digits)
