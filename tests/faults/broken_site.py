"""A local web server that breaks off connections after a chosen number of bytes."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from time import sleep
from typing import Any

BLOCK = 10_000


class Site(ThreadingHTTPServer):
    """Serves ``files`` (by path), with support for HTTP Range."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = files
        self.cuts: list[int] = []
        """Number of bytes after which each of the next responses breaks off."""
        self.seconds_a_block = 0.0
        self.from_start: list[str] = []
        """Paths that were requested from byte 0."""
        self.sent = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def site(files: dict[str, bytes]) -> Iterator[Site]:
    """A running server."""
    server = Site(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        body = self.server.files[self.path.lstrip("/")]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        if asked:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.server.from_start.append(self.path)
            self.send_response(200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(body)
        try:
            for at in range(start, min(end, len(body)), BLOCK):
                block = body[at : min(at + BLOCK, end)]
                self.wfile.write(block)
                self.server.sent += len(block)
                sleep(self.server.seconds_a_block)
        except OSError:
            return  # the client was killed

    def log_message(self, *args: Any) -> None:
        pass


def point_to(address: str, files: dict[str, tuple[int, str]], pause: float = 0.0) -> None:
    """Make the source `release` expect these files (size, sha256) at this address."""
    from apao.data import fetch, release

    release.ADDRESS, fetch.PAUSE_SECONDS = address, pause
    release.FILES.update({path: fetch.Expected(*expected) for path, expected in files.items()})
