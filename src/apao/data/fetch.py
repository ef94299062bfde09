"""Getting a file: kept if it is there, copied from a mirror, or fetched from an address, and checked.

A fetch writes to ``<name>.part``; when it breaks off, the next attempt continues there (HTTP Range).
The file appears under its own name only when it is whole and matches what is known of it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from apao.errors import UserError
from apao.files import atomic_path, explained, sha256_of
from apao.progress import console, progress

ATTEMPTS = 4
PAUSE_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0
BLOCK_BYTES = 1 << 20
MAX_BYTES = 1 << 34
"""Bound of a file whose size is not known beforehand (16 GiB)."""


@dataclass(frozen=True)
class Expected:
    """What is known of a file beforehand; None where nothing is."""

    bytes: int | None = None
    sha256: str | None = None
    git_blob: str | None = None
    """SHA-1 by which git names the content; used where the sha256 is not known."""

    def difference(self, path: Path) -> str | None:
        """``expected ..., found ...`` if the file is another one, None if it is as far as known the right one."""
        size = path.stat().st_size
        if self.bytes is not None and size != self.bytes:
            return f"expected {self.bytes} bytes, found {size}"
        if self.sha256 is not None:
            found = sha256_of(path)
            return None if found == self.sha256 else f"expected sha256 {self.sha256}, found {found}"
        if self.git_blob is not None:
            found = git_blob_of(path)
            return None if found == self.git_blob else f"expected git blob {self.git_blob}, found {found}"
        return None


def git_blob_of(path: Path) -> str:
    """The SHA-1 that git gives the content of a file."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def obtain(path: Path, expected: Expected, url: str, mirrored: Path | None, ways_out: str) -> None:
    """Have the file at ``path``: keep it, copy it from ``mirrored`` if that exists, or fetch ``url``.

    Raises:
        UserError: when it cannot be had or is not the expected one; the message ends with ``ways_out``.
    """
    if path.exists() and expected.difference(path) is None:
        return
    if mirrored is not None and mirrored.exists():
        copy(mirrored, path, expected, ways_out)
        return
    fetch(url, path, expected, ways_out)


def copy(origin: Path, path: Path, expected: Expected, ways_out: str) -> None:
    """Copy a mirrored file into place if it is the expected one.

    Raises:
        UserError: when it is not, or cannot be read.
    """
    try:
        difference = expected.difference(origin)
    except OSError as error:
        raise UserError(f"{origin}: cannot be read ({error.strerror})") from error
    if difference is not None:
        raise UserError(f"{origin}: not the expected file: {difference}. {ways_out}")
    with atomic_path(path) as temporary:
        shutil.copyfile(origin, temporary)


def link(target: Path, path: Path) -> None:
    """Put a symbolic link to a file of the user's at ``path``, so that gigabytes are not copied."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target.resolve())
    except OSError as error:
        raise explained(error, path) from error


class _BrokeOff(Exception):
    """The transfer ended early; what arrived is kept and another attempt continues it."""


def fetch(url: str, path: Path, expected: Expected, ways_out: str) -> None:
    """Download ``url`` to ``path``, continuing ``<path>.part`` if there is one.

    Raises:
        UserError: when the address is not http(s), cannot be reached, breaks off repeatedly, or
            holds another file than the expected one; nothing is left at ``path`` then, except for
            an earlier file of that name.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url}: only http and https addresses are fetched")
    part = path.with_name(path.name + ".part")
    continued = part.exists()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            _transfer(url, part, expected, ways_out)
            break
        except (OSError, http.client.HTTPException, ValueError, _BrokeOff) as error:
            # A ValueError: the server sent us on to what is no address.
            shown = explained(error, part) if isinstance(error, OSError) else error
            if isinstance(shown, UserError):
                raise shown from error
            if attempt == ATTEMPTS or not _may_pass(error):
                kept = f"; {part.stat().st_size} bytes are kept and continued from next time" if part.exists() else ""
                raise UserError(
                    f"{path.name}: cannot be fetched from {url} ({_said(error)}){kept}. {ways_out}"
                ) from error
            console.print(f"{path.name}: {_said(error)}; trying again ({attempt} of {ATTEMPTS - 1})", markup=False)
            time.sleep(PAUSE_SECONDS * attempt)
    difference = expected.difference(part)
    if difference is not None:
        part.unlink()
        if continued:
            # What lay here may have been the beginning of another file.
            fetch(url, path, expected, ways_out)
            return
        raise UserError(f"{path.name}: {url} holds another file: {difference}. {ways_out}")
    part.replace(path)


def _said(error: Exception) -> str:
    """The error's own words, out of urllib's wrapping."""
    return str(error.reason if type(error) is urllib.error.URLError else error)


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later; a missing page will not."""
    return not isinstance(error, urllib.error.HTTPError) or error.code >= 500 or error.code in (408, 429)


def _opener() -> urllib.request.OpenerDirector:
    """http and https alone, so that no redirect leads to a local file or another protocol."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _transfer(url: str, part: Path, expected: Expected, ways_out: str) -> None:
    """One request; on return ``part`` is whole."""
    done = part.stat().st_size if part.exists() else 0
    if expected.bytes is not None and done >= expected.bytes:
        if done == expected.bytes:
            return
        part.unlink()
        done = 0
    headers = {"User-Agent": "apao", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the caller checked the scheme
    try:
        response = _opener().open(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not done:
            raise
        # Nothing lies beyond what is here: either it is whole, or the file behind the address changed.
        if error.headers.get("Content-Range", "") == f"bytes */{done}":
            return
        part.unlink()
        raise _BrokeOff("the server's file is shorter than what was fetched before") from error
    with response:
        done, total = _where(response, done)
        if total is not None and expected.bytes is not None and total != expected.bytes:
            part.unlink(missing_ok=True)
            raise UserError(f"{url}: offers {total} bytes, expected {expected.bytes}. {ways_out}")
        limit = MAX_BYTES if expected.bytes is None else expected.bytes
        with part.open("ab" if done else "wb") as file:
            done = _receive(response, file, done, total, limit)
            # It gets its own name next; a name must not outlive a power cut that the content does not.
            file.flush()
            os.fsync(file.fileno())
    if done > limit:
        part.unlink()
        raise UserError(f"{url}: sends more than the {limit} bytes expected. {ways_out}")
    total = total or expected.bytes
    if total is not None and done < total:
        raise _BrokeOff(f"the connection ended after {done} of {total} bytes")


def _where(response: http.client.HTTPResponse, done: int) -> tuple[int, int | None]:
    """Where the body starts in the file, and the size of the file if the server says it."""
    if response.status == 206:
        span, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] == str(done):
            return done, _size(whole)
        raise _BrokeOff("the server continued at another place than asked for")
    # The server ignores Range and sends the file from its start.
    return 0, _size(response.headers.get("Content-Length", ""))


def _size(said: str) -> int | None:
    """A number of bytes in a header; None where it is none."""
    return int(said) if said.isascii() and said.isdigit() and len(said) < 19 else None


def _receive(response: http.client.HTTPResponse, file: IO[bytes], done: int, total: int | None, limit: int) -> int:
    """Append the body to ``file``, at most one byte more than ``limit``; return the file's size."""
    name = urlsplit(response.url).path.rpartition("/")[2]
    with progress(f"fetching {name} (MB)", (total or 0) / 1e6, done / 1e6) as advance:
        while done <= limit and (block := response.read1(min(BLOCK_BYTES, limit + 1 - done))):
            file.write(block)
            done += len(block)
            advance(len(block) / 1e6)
    return done
