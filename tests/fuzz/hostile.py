"""Untrusted input and the required outcome of reading it: a valid value or one clear error, and no side effects."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from apao.errors import LONGEST, UserError

EXAMPLES = int(os.environ.get("APAO_FUZZ_EXAMPLES", "0"))
"""Examples per test; 0: a few, always the same ones, so that only a change of the code can fail the tests."""
PRECIOUS = "precious"
"""A file outside the project, which must not be changed."""


def fuzzed(few: int) -> settings:
    """Settings of a test with ``few`` examples unless the environment sets a number."""
    return settings(max_examples=EXAMPLES or few, derandomize=not EXAMPLES, database=None, deadline=None)


@dataclass(frozen=True)
class Target:
    """A parser, and valid files for it.

    Attributes:
        file: path of its file in the project, which errors must name.
        seeds: valid contents.
        read: reads the file, with the project as the working directory, and asserts what the parser guarantees.
        pack: makes a file from content: adds the compression, lengths and hashes that a reader checks first.
        beside: further files of the project.
        names: what errors must name instead of the file, such as its folder where several files are compared.
        writes: whether it may write into the project; it must never write elsewhere.
    """

    file: str
    seeds: tuple[bytes, ...]
    read: Callable[[], object]
    pack: Callable[[bytes], bytes] = bytes
    beside: Mapping[str, bytes] = field(default_factory=dict)
    names: str = ""
    writes: bool = False


def meet(target: Target, content: bytes) -> UserError | None:
    """Read ``content`` as the target's file; assert that any error is clear and nothing else happened."""
    with TemporaryDirectory(prefix="apao-fuzz-") as name:
        outside = Path(name)
        project = outside / "project"
        for file, its_content in {PRECIOUS: b"mine"}.items():
            (outside / file).write_bytes(its_content)
        for file, its_content in {**target.beside, target.file: content}.items():
            path = project / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(its_content)
        watched = [outside] if not target.writes else [outside, project.parent / PRECIOUS]
        before = [_files(place, project if target.writes else None) for place in watched]
        error = None
        with chdir(project):
            try:
                target.read()
            except UserError as caught:
                error = caught
                assert_clear(caught, target.names or Path(target.file).name)
        assert [_files(place, project if target.writes else None) for place in watched] == before
        return error


def _files(folder: Path, without: Path | None) -> dict[str, bytes]:
    paths = [folder] if folder.is_file() else sorted(folder.rglob("*"))
    kept = (path for path in paths if path.is_file() and not (without and path.is_relative_to(without)))
    return {str(path): path.read_bytes() for path in kept}


def assert_clear(error: UserError, names: str) -> None:
    """Assert that a message is one line, not too long, without control characters, and names what is wrong."""
    message = str(error)
    assert names in message
    # One character may be escaped with up to ten.
    assert message.isprintable() and len(message) <= 11 * LONGEST, repr(message[:3000])
    assert "Traceback" not in message


DEEP = 20_000

TOKENS = (
    # Of every format: empty, other types, numbers that are too large, not finite or not whole.
    b"", b"null", b"true", b"False", b"0", b"-1", b"1.5", b"[]", b"{}", b"''", b'""', b'[""]', b'{"": {}}',
    b"[[1], 2]",
    b"NaN", b"-Infinity", b"1e999", b".inf", b"9" * 19, b"9" * 400, b"9" * 5_000, b"0x" + b"f" * 5_000, b"1e9",
    b"2147483648",
    b"9" * 400 + b"+1j", b"1:" * 50 + b"1", b"-0", b"1_0", b"\xd9\xa3", b"b'x'", b"(1,)", b"2019-02-31",
    b"9999-12-31T23:59:59-23:59",
    # Texts: empty, with control characters, and too long.
    b'"\\ud800"', b"'\\ud800'", b'"\\u0000"', b"\x00", b"\xff", b"\xed\xa0\x80", b'"\\u001b[31m"', b"\x1b[2J",
    b"\xe2\x80\xae", b"\xe2\x80\xa8",
    b'"' + b"a" * 3_000 + b'"', b"a" * 200_000, b"&#" + b"9" * 5_000 + b";", b"&#xd800;", b"<" * 3_000, b"\\",
    b"%s", b"{0}", b"[/red]",
    # Structure: lines, quotes, nesting, aliases, tags, repeated keys.
    b"\n", b"\r", b"\r\n", b"\n\n", b"\t", b"'", b'"', b",", b":", b"#", b"\xef\xbb\xbf", b"[" * DEEP,
    b'{"a":' * DEEP, b"(" * 300, b"-" * DEEP,
    b"!!int ''", b"!!float ''", b"!!bool x", b"!!timestamp x", b"!!binary x",
    b"!!set {x}", b"!!omap [x: 1]", b"? [x]",
    b"!!python/object/apply:os.system [touch owned]", b"{<<: [{a: 1}, {b: 2}]}", b"<<: 1", b"{a: 1, a: 2}",
    b'{"a": 1, "a": 2}', b"---", b"%YAML 9.9",
    # Paths.
    b"..", b"../../../../precious", b"../precious", b"/etc/passwd", b"~root", b"a/b", b"raw", b".",
)  # fmt: skip
_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'|[A-Za-z_][\w.-]*|-?\d+(?:\.\d+)?|[\[\]{},:]')

Draw = Callable[[st.SearchStrategy[Any]], Any]


def _place(draw: Draw, content: bytes) -> int:
    return draw(st.integers(0, len(content)))


def _span(draw: Draw, content: bytes) -> tuple[int, int]:
    first, last = sorted((_place(draw, content), _place(draw, content)))
    return first, min(last, first + 64)


def _other_bytes(draw: Draw, content: bytes) -> bytes:
    first, last = _span(draw, content)
    return content[:first] + draw(st.binary(max_size=8)) + content[last:]


def _flipped(draw: Draw, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw(st.integers(1, 4)) if content else 0):
        changed[draw(st.integers(0, len(content) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)


def _cut(draw: Draw, content: bytes) -> bytes:
    return content[: _place(draw, content)]


def _token_instead(draw: Draw, content: bytes) -> bytes:
    found = [match.span() for match in _TOKEN.finditer(content[: 1 << 16])]
    if not found:
        return _token_between(draw, content)
    first, last = draw(st.sampled_from(found))
    return content[:first] + draw(st.sampled_from(TOKENS)) + content[last:]


def _token_between(draw: Draw, content: bytes) -> bytes:
    place = _place(draw, content)
    return content[:place] + draw(st.sampled_from(TOKENS)) + content[place:]


def _own_token(draw: Draw, content: bytes) -> bytes:
    """Replace one token by another of the same content, giving repeated keys or values of another type."""
    found = [match.span() for match in _TOKEN.finditer(content[: 1 << 16])]
    if not found:
        return content
    (first, last), (begin, end) = (draw(st.sampled_from(found)) for _ in range(2))
    return content[:first] + content[begin:end] + content[last:]


def _other_lines(draw: Draw, content: bytes) -> bytes:
    """Remove, repeat or move lines."""
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    at, to = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    line = lines.pop(at)
    lines[to:to] = [line] * draw(st.sampled_from([0, 1, 2, 300]))
    return b"".join(lines)


def _other_endings(draw: Draw, content: bytes) -> bytes:
    return content.replace(b"\n", draw(st.sampled_from([b"\r\n", b"\r", b"\n\n", b"", b" \n", b"\xe2\x80\xa8"])))


def _other_encoding(draw: Draw, content: bytes) -> bytes:
    encoding = draw(st.sampled_from(["utf-8-sig", "utf-16", "utf-32", "utf-7"]))
    return content.decode("utf-8", "replace").encode(encoding)


_DAMAGES = (
    *(_token_instead,) * 5, *(_own_token,) * 2, _token_between, _other_bytes, _flipped, _cut, _other_lines,
    _other_endings, _other_encoding,
)  # fmt: skip


@st.composite
def damaged(draw: Draw, contents: tuple[bytes, ...]) -> bytes:
    """One of ``contents`` with one to three changes of any kind."""
    content = draw(st.sampled_from(contents))
    for damage in draw(st.lists(st.sampled_from(_DAMAGES), min_size=1, max_size=3)):
        content = damage(draw, content)
    return content


def hostile(target: Target) -> st.SearchStrategy[bytes]:
    """Files for a target: noise, a valid file damaged after packing, and one damaged before packing."""
    files = tuple(target.pack(seed) for seed in target.seeds)
    return st.one_of(damaged(target.seeds).map(target.pack), damaged(files), st.binary(max_size=200))
