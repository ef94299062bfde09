"""The wheel with MovieLens: other archives are refused unopened, and nothing is extracted elsewhere."""

import hashlib
import io
import stat
import warnings
import zipfile

import pytest
from helpers.processes import bounded
from hostile import assert_clear, damaged, fuzzed
from hypothesis import given
from hypothesis import strategies as st
from targets import source

from apao.data import ml100k
from apao.data.fetch import Expected
from apao.errors import UserError

INTER, ITEM = (f"{ml100k.FOLDER_IN_WHEEL}/{name}" for name in ml100k.FILES)
LINK = (stat.S_IFLNK | 0o777) << 16


def archive(members, mode=0o644 << 16):
    """A zip archive of (name, content) pairs, in this order."""
    file = io.BytesIO()
    # zipfile warns of repeated names.
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(file, "w") as made:
        for name, content in members:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode
            member.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(member, content)
    return file.getvalue()


PLAIN = archive([(INTER, b"inter"), (ITEM, b"item")])
ARCHIVES = {
    "names that lead out": archive([(name, b"x") for name in ("../../precious", "/etc/owned", f"{INTER}/../precious")]),
    "links": archive([(INTER, b"../../precious"), (ITEM, b"/etc/passwd")], LINK),
    "a member twice": archive([(INTER, b"inter"), (ITEM, b"item"), (INTER, b"other")]),
    "a bomb": archive([(INTER, bytes(64 << 20)), (ITEM, b"item")]),
    "a size that lies": PLAIN.replace((5).to_bytes(4, "little"), (1 << 30).to_bytes(4, "little")),
}  # fmt: skip


def prepared(folder, wheel):
    """A mirror with that wheel, an empty folder for the download, and a file that must not be changed."""
    mirror, raw = folder / "mirror", folder / "project" / "raw"
    mirror.mkdir()
    raw.mkdir(parents=True)
    (folder / "precious").write_bytes(b"mine")
    (mirror / ml100k.WHEEL).write_bytes(wheel)
    return raw, mirror


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@fuzzed(20)
@given(wheel=damaged((PLAIN, *ARCHIVES.values())) | st.binary(max_size=100))
def test_another_wheel_is_refused_unopened(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel", numbered=True)
    raw, mirror = prepared(folder, wheel)
    before = files(folder)
    with pytest.raises(UserError) as caught:
        source("ml-100k").download(raw, mirror)
    assert_clear(caught.value, ml100k.WHEEL)
    assert files(folder) == before


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_beyond_the_hash_stays_in_its_folder(name, tmp_path, monkeypatch):
    """Even with a matching hash nothing is written elsewhere or without bounds."""
    wheel = ARCHIVES[name]
    monkeypatch.setattr(ml100k, "WHEEL_EXPECTED", Expected(sha256=hashlib.sha256(wheel).hexdigest()))
    raw, mirror = prepared(tmp_path, wheel)
    before = files(tmp_path)
    outcome = bounded(lambda: source("ml-100k").download(raw, mirror), megabytes=32)
    assert outcome != "done", "none of them holds the films"
    assert "MemoryError" not in outcome and "died" not in outcome
    after = files(tmp_path)
    assert {path: after[path] for path in before} == before
    assert {tmp_path / path for path in after.keys() - before.keys()} <= {raw / name for name in ml100k.FILES}
    assert all(len(after[path]) <= ml100k.MAX_MEMBER_BYTES for path in after.keys() - before.keys())
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
