from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.table_files import read_file

from asyncdmtl.data import unpacking
from asyncdmtl.data.files import find_files
from asyncdmtl.errors import DataError


def packed(raw: bytes, ending: str) -> bytes:
    if ending == ".zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inside.csv", raw)
        return buffer.getvalue()
    if ending == ".zst":
        made: bytes = pytest.importorskip("zstandard").compress(raw)
        return made
    packers: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".xz": lzma.compress,
    }
    return packers[ending](raw)


@pytest.mark.parametrize("ending", unpacking.PACKED_ENDINGS)
def test_text_may_be_compressed(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"site.csv{ending}"
    path.write_bytes(packed(b"t,x\na,1\nb,2\n", ending))
    assert read_file(path) == {"t": ["a", "b"], "x": [1.0, 2.0]}
    assert find_files([str(path)])[0].stem == "site"


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
def test_files_that_were_joined_are_read_to_their_end(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"site.csv{ending}"
    path.write_bytes(packed(b"t,x\na,1\n", ending) + packed(b"b,2\n", ending))
    assert read_file(path)["t"] == ["a", "b"]


@pytest.mark.parametrize("ending", unpacking.PACKED_ENDINGS)
def test_a_file_that_unpacks_to_far_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(unpacking, "_FREE_BYTES", 1 << 16)
    monkeypatch.setattr(unpacking, "_MOST_RATIO", 100)
    path = tmp_path / f"site.csv{ending}"
    path.write_bytes(packed(b"t,x\n" + b"a,1\n" * 250_000, ending))
    with pytest.raises(DataError, match="must not unpack to more than 100 times its size"):
        read_file(path)


def test_an_archive_of_several_files_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv.zip", "a.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("one.csv", "t,x\n")
            archive.writestr("two.csv", "t,x\n")
        with pytest.raises(DataError, match=r"must be an archive of one file .*'one.csv', 'two.csv'\]"):
            read_file(tmp_path / name)


def test_zstandard_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.csv.zst").write_bytes(b"")
    with pytest.raises(DataError, match=r"pip install 'asyncdmtl\[zstd\]'"):
        read_file(tmp_path / "a.csv.zst")
