"""Downloads from malicious servers: the expected file or one clear error."""

import hashlib
import socket
import threading
from contextlib import contextmanager

import pytest
from hostile import assert_clear, damaged, fuzzed
from hypothesis import example, given

from apao.data import fetch as module
from apao.data.fetch import Expected, fetch
from apao.errors import UserError

BODY = b"0123456789" * 20
EXPECTED = Expected(len(BODY), hashlib.sha256(BODY).hexdigest())
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 200\r\nConnection: close\r\n\r\n" + BODY
REST = b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 50-199/200\r\nContent-Length: 150\r\n\r\n" + BODY[50:]
BEYOND = b"HTTP/1.1 416 No\r\nContent-Range: bytes */50\r\n\r\n"
ELSEWHERE = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/file.bin\r\n\r\n"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc8\r\n" + BODY + b"\r\n0\r\n\r\n"


@contextmanager
def answering(answer):
    """A server that answers every request with the same bytes and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65536)
                        connection.sendall(answer)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/file.bin"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.fixture(scope="module", autouse=True)
def _no_waiting():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "PAUSE_SECONDS", 0.0)
        patched.setattr(module, "TIMEOUT_SECONDS", 5.0)
        patched.setattr(module.console, "quiet", True)
        yield


@fuzzed(30)
@given(answer=damaged((WHOLE, REST, BEYOND, ELSEWHERE, CHUNKS)))
@example(answer=ELSEWHERE.replace(b"127.0.0.1:9", b"[::1"))
@example(answer=ELSEWHERE.replace(b"127.0.0.1:9", b"a" * 70))
@example(answer=ELSEWHERE.replace(b"127.0.0.1:9", b".."))
@example(answer=ELSEWHERE.replace(b"http://127.0.0.1:9", b"file:///etc/passwd#"))
@example(answer=WHOLE.replace(b": 200", b": \xb2"))
@example(answer=WHOLE.replace(b": 200", b": " + b"1" * 5000))
@example(answer=REST.replace(b"/200", b"/\xb2"))
def test_hostile_servers(answer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("download", numbered=True)
    path = folder / "project" / "file.bin"
    path.parent.mkdir()
    path.with_name("file.bin.part").write_bytes(BODY[:50])
    with answering(answer) as url:
        try:
            fetch(url, path, EXPECTED, "Ways out: bring it.")
        except UserError as error:
            assert_clear(error, "file.bin")
            assert not path.exists()
        else:
            assert path.read_bytes() == BODY
    assert {file.name for file in folder.rglob("*")} <= {"project", "file.bin", "file.bin.part"}
