"""Fetching against a real server on this machine."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from apao.data import fetch as module
from apao.data.fetch import Expected, fetch, git_blob_of, obtain
from apao.errors import UserError

CONTENT = bytes(i * 7 % 251 for i in range(300_000))
EXPECTED = Expected(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
WAYS_OUT = "Ways out: bring it yourself."


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server
        site.requests.append((self.path, self.headers.get("Range")))
        if self.path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[self.path])
            self.end_headers()
            return
        if self.path != "/file.bin":
            self.send_error(404)
            return
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and site.honours_range else 0
        if start >= len(site.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(site.content)}")
            self.end_headers()
            return
        body = site.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(site.content) - 1}/{len(site.content)}")
        if site.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = site.cuts.pop(0) if site.cuts else None
        try:
            while not site.endless and body:
                block, body = body[:10_000][:cut], body[10_000:] if cut is None else b""
                self.wfile.write(block)
                site.sent += len(block)
            while site.endless:
                self.wfile.write(bytes(10_000))
                site.sent += 10_000
        except OSError:
            site.hung_up.set()

    def log_message(self, *args):
        pass


@pytest.fixture
def site(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.honours_range, server.says_length, server.endless = CONTENT, True, True, False
    server.cuts, server.redirects, server.requests, server.sent = [], {}, [], 0
    server.hung_up = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/file.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "raw" / "file.bin"


@pytest.fixture
def part(path):
    path.parent.mkdir()
    return path.with_name("file.bin.part")


def names(path):
    return sorted(p.name for p in path.parent.iterdir())


def test_a_whole_file_arrives_and_no_part_is_left(site, path):
    fetch(site.url, path, EXPECTED, WAYS_OUT)
    assert path.read_bytes() == CONTENT
    assert names(path) == ["file.bin"]
    assert site.requests == [("/file.bin", None)]


def test_a_part_is_continued_with_range(site, path, part):
    part.write_bytes(CONTENT[:123_456])
    fetch(site.url, path, EXPECTED, WAYS_OUT)
    assert path.read_bytes() == CONTENT
    assert site.requests == [("/file.bin", "bytes=123456-")]
    assert site.sent == len(CONTENT) - 123_456


def test_a_server_without_range_sends_everything_again(site, path, part):
    site.honours_range = False
    part.write_bytes(CONTENT[:123_456])
    fetch(site.url, path, EXPECTED, WAYS_OUT)
    assert path.read_bytes() == CONTENT


def test_a_broken_connection_is_taken_up_where_it_broke(site, path):
    site.cuts = [4_000, 5_000]
    fetch(site.url, path, EXPECTED, WAYS_OUT)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in site.requests] == [None, "bytes=4000-", "bytes=9000-"]


@pytest.mark.parametrize("expected", [EXPECTED, Expected(sha256=EXPECTED.sha256), Expected()])
def test_a_truncated_download_is_kept_and_continued_by_the_next_attempt(site, path, expected):
    site.cuts = [1_000] * module.ATTEMPTS
    with pytest.raises(
        UserError, match=rf"file\.bin: cannot be fetched .* ended after 4000 of 300000 bytes.*{WAYS_OUT}"
    ):
        fetch(site.url, path, expected, WAYS_OUT)
    assert names(path) == ["file.bin.part"]
    fetch(site.url, path, expected, WAYS_OUT)
    assert path.read_bytes() == CONTENT
    assert site.requests[-1] == ("/file.bin", "bytes=4000-")


@pytest.mark.parametrize("start", [0, 1_000])
def test_another_file_than_expected_is_not_left_as_good(site, path, start):
    path.parent.mkdir()
    if start:
        path.with_name("file.bin.part").write_bytes(CONTENT[:start])
    wrong = Expected(len(CONTENT), "0" * 64)
    with pytest.raises(UserError) as raised:
        fetch(site.url, path, wrong, WAYS_OUT)
    for part_of_message in ("file.bin", "0" * 64, EXPECTED.sha256, WAYS_OUT):
        assert part_of_message in str(raised.value)
    assert names(path) == []


def test_a_part_of_another_file_is_given_up(site, path, part):
    part.write_bytes(b"x" * 1_000)
    fetch(site.url, path, EXPECTED, WAYS_OUT)
    assert path.read_bytes() == CONTENT
    assert [asked for _, asked in site.requests] == ["bytes=1000-", None]


@pytest.mark.parametrize("surplus", [0, 1, 5_000])
@pytest.mark.parametrize("expected", [EXPECTED, Expected(sha256=EXPECTED.sha256)])
def test_a_part_that_is_whole_or_too_long(site, path, part, surplus, expected):
    part.write_bytes(CONTENT + b"x" * surplus)
    fetch(site.url, path, expected, WAYS_OUT)
    assert path.read_bytes() == CONTENT
    if surplus == 0:
        assert site.sent == 0


def test_a_longer_file_is_refused_before_its_body(site, path):
    site.content = CONTENT + b"more"
    with pytest.raises(UserError, match=f"offers {len(CONTENT) + 4} bytes, expected {len(CONTENT)}"):
        fetch(site.url, path, EXPECTED, WAYS_OUT)
    assert names(path) == []


def test_an_endless_body_is_cut_off(site, path):
    site.says_length, site.endless = False, True
    with pytest.raises(UserError, match=f"sends more than the {len(CONTENT)} bytes"):
        fetch(site.url, path, EXPECTED, WAYS_OUT)
    assert names(path) == []
    assert site.hung_up.wait(10)


def test_an_endless_body_of_unknown_size_is_cut_off(site, path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 50_000)
    site.says_length, site.endless = False, True
    with pytest.raises(UserError, match="sends more than the 50000 bytes"):
        fetch(site.url, path, Expected(), WAYS_OUT)
    assert site.hung_up.wait(10)


def test_a_missing_page_is_asked_for_once(site, path):
    with pytest.raises(UserError, match="404"):
        fetch(site.url + "x", path, EXPECTED, WAYS_OUT)
    assert len(site.requests) == 1


def test_no_server_is_one_clear_error(site, path):
    with pytest.raises(UserError, match=rf"file\.bin: cannot be fetched from http://127.0.0.1:9/.*{WAYS_OUT}"):
        fetch("http://127.0.0.1:9/file.bin", path, EXPECTED, WAYS_OUT)


def test_only_http_addresses_are_read(site, path, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("x")
    for url in (secret.as_uri(), "ftp://127.0.0.1/x", str(secret)):
        with pytest.raises(UserError, match="only http and https"):
            fetch(url, path, Expected(), WAYS_OUT)
    for target in (secret.as_uri(), "ftp://127.0.0.1/x", "data:,x"):
        site.redirects["/moved"] = target
        with pytest.raises(UserError, match="cannot be fetched"):
            fetch(site.url.replace("file.bin", "moved"), path, Expected(), WAYS_OUT)
    assert not path.exists()
    site.redirects["/moved"] = "/file.bin"
    fetch(site.url.replace("file.bin", "moved"), path, EXPECTED, WAYS_OUT)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["http://[::1", f"http://{'a' * 70}/", "http://x:y/"])
def test_being_sent_on_to_what_is_no_address_is_one_clear_error(site, path, target):
    site.redirects["/moved"] = target
    with pytest.raises(UserError, match=r"file\.bin: cannot be fetched from .*/moved .*Ways out"):
        fetch(site.url.replace("file.bin", "moved"), path, EXPECTED, WAYS_OUT)


def test_obtain_prefers_what_is_there_then_the_mirror_then_the_net(site, path, tmp_path):
    mirrored = tmp_path / "mirror.bin"
    obtain(path, EXPECTED, site.url, mirrored, WAYS_OUT)
    assert len(site.requests) == 1
    obtain(path, EXPECTED, site.url, mirrored, WAYS_OUT)
    assert len(site.requests) == 1
    mirrored.write_bytes(CONTENT)
    path.write_bytes(CONTENT[:-1])
    obtain(path, EXPECTED, site.url, mirrored, WAYS_OUT)
    assert path.read_bytes() == CONTENT
    assert len(site.requests) == 1


def test_a_damaged_mirror_file_is_named_and_not_copied(site, path, tmp_path):
    mirrored = tmp_path / "mirror.bin"
    mirrored.write_bytes(CONTENT[:-1] + b"\0")
    with pytest.raises(UserError, match=rf"mirror\.bin: not the expected file: expected sha256 {EXPECTED.sha256}"):
        obtain(path, EXPECTED, site.url, mirrored, WAYS_OUT)
    assert not path.exists()
    assert site.requests == []


@pytest.mark.parametrize(
    ("content", "blob"),
    [
        (b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),  # git hash-object
    ],
)
def test_git_blob(tmp_path, content, blob):
    path = tmp_path / "file"
    path.write_bytes(content)
    assert git_blob_of(path) == blob
    assert Expected(git_blob=blob).difference(path) is None
    path.write_bytes(content + b"x")
    assert Expected(git_blob=blob).difference(path).startswith(f"expected git blob {blob}, found ")
