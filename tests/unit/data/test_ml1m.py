"""MovieLens-1M in its own format, made by hand; the published archive is not needed."""

import json
import zipfile

import pytest

from apao.data.ml1m import ARCHIVE, FILMS, RATINGS, MovieLens1M
from apao.errors import UserError
from apao.stages.download import download
from apao.stages.preprocess import preprocess
from apao.study.paths import DatasetPaths

SOURCE = MovieLens1M.model_validate({"source": "ml-1m", "recipe": "r", "codes": "c"})
FOUND = "1::1193::5::978300760\n1::661::3::978302109\n2::1193::4::978298413\n"
LISTED = (
    "661::James and the Giant Peach (1996)::Animation|Children's|Musical\n1193::Caf\u00e9, Le::Drama\n9::X (1)::Y\n"
)


def write(folder, ratings=FOUND, films=LISTED):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RATINGS).write_bytes(ratings.encode())
    (folder / FILMS).write_bytes(films.encode("latin-1"))
    return folder


def pack(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(f"ml-1m/{name}.dat", text.encode("latin-1"))


def test_ratings_and_films(tmp_path):
    raw = SOURCE.read(write(tmp_path))
    assert raw.interactions.to_numpy().tolist() == [
        ["1", "1193", 978300760],
        ["1", "661", 978302109],
        ["2", "1193", 978298413],
    ]
    assert raw.items.to_numpy().tolist() == [
        ["661", "James and the Giant Peach", "1996", "Animation Children's Musical"],
        ["1193", "Caf\u00e9, Le", "", "Drama"],
    ]
    assert (raw.unused_rows, raw.unused_examples) == (1, ("9",))


@pytest.mark.parametrize(
    ("ratings", "films", "message"),
    [
        ("1::2::3::978300760\n1::2::3\n", LISTED, "ratings.dat:2: 3 values separated by ::, expected 4"),
        ("1::2::3::soon\n", LISTED, "ratings.dat:1: .*soon"),
        ("1::::3::978300760\n", LISTED, "ratings.dat:1: the item id is empty"),
        ("1::2::3::978300760\n1::\u00e9::3::978300760\n", LISTED, "ratings.dat:2: not ascii"),
        (FOUND, "1::A (1995)\n", "movies.dat:1: 2 values separated by ::, expected 3"),
    ],
)
def test_broken_lines_are_named(tmp_path, ratings, films, message):
    with pytest.raises(UserError, match=message):
        SOURCE.read(write(tmp_path, ratings, films))


def test_a_mirror_may_hold_the_archive_or_the_files(project, tmp_path):
    mirror = write(tmp_path / "files")
    download("from-files", SOURCE, mirror)
    packed = tmp_path / "packed"
    packed.mkdir()
    pack(packed / ARCHIVE, ratings=FOUND, movies=LISTED)
    download("from-archive", SOURCE, packed)
    for name in (RATINGS, FILMS):
        contents = {(DatasetPaths(dataset).raw / name).read_bytes() for dataset in ("from-files", "from-archive")}
        assert contents == {(mirror / name).read_bytes()}
    assert not (DatasetPaths("from-archive").raw / ARCHIVE).exists()


@pytest.mark.parametrize("content", [b"<html>", b"PK\x03\x04 cut"])
def test_another_file_in_place_of_the_archive(project, tmp_path, content):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / ARCHIVE).write_bytes(content)
    with pytest.raises(UserError, match=r"not the expected archive .*Ways out: put ml-1m.zip") as caught:
        download("films", SOURCE, mirror)
    assert "\n" not in str(caught.value)
    pack(mirror / ARCHIVE, ratings=FOUND)
    with pytest.raises(UserError, match=r"no item named .ml-1m/movies.dat"):
        download("films", SOURCE, mirror)
    pack(mirror / ARCHIVE, ratings=FOUND, movies=LISTED)
    download("films", SOURCE, mirror)


def test_a_damaged_archive_is_not_kept(project, tmp_path):
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    with zipfile.ZipFile(mirror / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ml-1m/ratings.dat", FOUND * 50)
        begins = archive.infolist()[0].header_offset + 30 + len("ml-1m/ratings.dat")
        archive.writestr("ml-1m/movies.dat", LISTED)
    content = bytearray((mirror / ARCHIVE).read_bytes())
    content[begins : begins + 30] = bytes(byte ^ 255 for byte in content[begins : begins + 30])
    (mirror / ARCHIVE).write_bytes(content)
    with pytest.raises(UserError, match=r"not the expected archive .*Error -3 .*Ways out"):
        download("films", SOURCE, mirror)
    pack(mirror / ARCHIVE, ratings=FOUND, movies=LISTED)
    download("films", SOURCE, mirror)


def test_to_the_split(project, tmp_path):
    lines = [f"{user}::{film}::5::{978300760 + film}" for user in range(1, 7) for film in range(1, 8)]
    films = [f"{film}::Film {film} (19{90 + film})::Drama" for film in range(1, 8)]
    download("films", SOURCE, write(tmp_path / "mirror", "\n".join(lines) + "\n", "\n".join(films) + "\n"))
    preprocess("films", SOURCE)
    stats = json.loads(DatasetPaths("films").stats.read_text())
    assert [stats[key] for key in ("users", "items", "interactions", "items_without_text")] == [6, 7, 42, 0]
