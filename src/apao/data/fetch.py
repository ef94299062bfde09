"""Obtaining a file: keep it if present, copy it from a mirror, or fetch it from an address; then verify it.

A fetch writes to ``<name>.part``; if it breaks off, the next attempt resumes from there (HTTP Range). The file gets
its own name only when it is complete and verified.
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
"""Limit for a file of unknown size (16 GiB)."""


@dataclass(frozen=True)
class Expected:
    """Expected size and hash of a file; None where unknown."""

    bytes: int | None = None
    sha256: str | None = None
    git_blob: str | None = None
    """SHA-1 that git gives the content; used if the sha256 is unknown."""

    def difference(self, path: Path) -> str | None:
        """``expected ..., found ...`` if size or hash differ, else None."""
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
    """SHA-1 that git gives the content of a file (hex)."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def ways_out(files: str) -> str:
    """What a user can do where ``files`` cannot be fetched."""
    return (
        f"Ways out: put {files} into a folder and name it as the mirror (--config mirror=DIR, or APAO_MIRROR=DIR), or "
        "choose another dataset, such as ml-100k."
    )


def obtain(path: Path, expected: Expected, url: str, mirrored: Path | None, instead: str) -> None:
    """Provide the file at ``path``: keep it, copy it from ``mirrored`` if that exists, or fetch ``url``.

    Raises:
        UserError: when it cannot be obtained or is not the expected file; the message ends with ``instead``.
    """
    if path.exists() and expected.difference(path) is None:
        return
    if mirrored is not None and mirrored.exists():
        copy(mirrored, path, expected, instead)
        return
    fetch(url, path, expected, instead)


def copy(origin: Path, path: Path, expected: Expected, instead: str) -> None:
    """Copy a mirrored file to ``path`` after verifying it.

    Raises:
        UserError: when it is not the expected file, or cannot be read.
    """
    try:
        difference = expected.difference(origin)
    except OSError as error:
        raise UserError(f"{origin}: cannot be read ({error.strerror})") from error
    if difference is not None:
        raise UserError(f"{origin}: not the expected file: {difference}. {instead}")
    with atomic_path(path) as temporary:
        shutil.copyfile(origin, temporary)


def link(target: Path, path: Path) -> None:
    """Create a symbolic link at ``path`` to one of the user's files, to avoid copying gigabytes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target.resolve())
    except OSError as error:
        raise explained(error, path) from error


class _BrokeOff(Exception):
    """The transfer ended early; the received part is kept, and the next attempt resumes from it."""


def fetch(url: str, path: Path, expected: Expected, instead: str) -> None:
    """Download ``url`` to ``path``, resuming from ``<path>.part`` if it exists.

    Raises:
        UserError: when the address is not http(s), cannot be reached, breaks off repeatedly, or does not hold the
            expected file; ``path`` is then unchanged.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url}: only http and https addresses are fetched")
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            _transfer(url, part, expected, instead)
            break
        except (OSError, http.client.HTTPException, ValueError, _BrokeOff) as error:
            # A ValueError: the server redirected to an invalid address.
            shown = explained(error, part) if isinstance(error, OSError) else error
            if isinstance(shown, UserError):
                raise shown from error
            if attempt == ATTEMPTS or not _is_transient(error):
                kept = f"; {part.stat().st_size} bytes are kept for the next attempt" if part.exists() else ""
                raise UserError(
                    f"{path.name}: cannot be fetched from {url} ({_reason(error)}){kept}. {instead}"
                ) from error
            console.print(f"{path.name}: {_reason(error)}; retrying ({attempt} of {ATTEMPTS - 1})", markup=False)
            time.sleep(PAUSE_SECONDS * attempt)
    difference = expected.difference(part)
    if difference is not None:
        part.unlink()
        if resumed:
            # The earlier part may have been the beginning of another file: start over.
            fetch(url, path, expected, instead)
            return
        raise UserError(f"{path.name}: {url} holds another file: {difference}. {instead}")
    part.replace(path)


def _reason(error: Exception) -> str:
    """The error's message without urllib's wrapping."""
    return str(error.reason if type(error) is urllib.error.URLError else error)


def _is_transient(error: Exception) -> bool:
    """Whether the same request may succeed later; one for a missing page will not."""
    return not isinstance(error, urllib.error.HTTPError) or error.code >= 500 or error.code in (408, 429)


def _opener() -> urllib.request.OpenerDirector:
    """Opener for http and https only, so that no redirect leads to a local file or another protocol."""
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


def _transfer(url: str, part: Path, expected: Expected, instead: str) -> None:
    """Send one request; on return ``part`` is complete."""
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
        # The range is empty: either the part is complete, or the server's file changed.
        if error.headers.get("Content-Range", "") == f"bytes */{done}":
            return
        part.unlink()
        raise _BrokeOff("the server's file is shorter than what was fetched before") from error
    with response:
        done, total = _span(response, done)
        if total is not None and expected.bytes is not None and total != expected.bytes:
            part.unlink(missing_ok=True)
            raise UserError(f"{url}: offers {total} bytes, expected {expected.bytes}. {instead}")
        limit = MAX_BYTES if expected.bytes is None else expected.bytes
        with part.open("ab" if done else "wb") as file:
            done = _receive(response, file, done, total, limit)
            # Synced before the rename, so that a power cut cannot leave the final name with missing content.
            file.flush()
            os.fsync(file.fileno())
    if done > limit:
        part.unlink()
        raise UserError(f"{url}: sends more than the {limit} bytes expected. {instead}")
    total = total or expected.bytes
    if total is not None and done < total:
        raise _BrokeOff(f"the connection ended after {done} of {total} bytes")


def _span(response: http.client.HTTPResponse, done: int) -> tuple[int, int | None]:
    """Offset of the body in the file, and size of the whole file if the server states it."""
    if response.status == 206:
        span, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] == str(done):
            return done, _size(whole)
        raise _BrokeOff("the server sent another range than requested")
    # The server ignored Range and sends the file from the start.
    return 0, _size(response.headers.get("Content-Length", ""))


def _size(value: str) -> int | None:
    """Number of bytes stated in a header; None if the value is not a number."""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None


def _receive(response: http.client.HTTPResponse, file: IO[bytes], done: int, total: int | None, limit: int) -> int:
    """Append the body to ``file``, up to one byte beyond ``limit``; return the file's size."""
    name = urlsplit(response.url).path.rpartition("/")[2]
    with progress(f"fetching {name} (MB)", (total or 0) / 1e6, done / 1e6) as advance:
        while done <= limit and (block := response.read1(min(BLOCK_BYTES, limit + 1 - done))):
            file.write(block)
            done += len(block)
            advance(len(block) / 1e6)
    return done
