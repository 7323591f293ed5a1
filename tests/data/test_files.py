from __future__ import annotations

import bz2
import gzip
import io
import lzma
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.table_files import read_file, write_text

from asyncdmtl.data.files import find_files
from asyncdmtl.data.readers import Wanted, read_columns
from asyncdmtl.data.reading import Reading
from asyncdmtl.errors import DataError

NAN = float("nan")


def test_files_are_found_in_natural_order_each_once(tmp_path: Path) -> None:
    for name in ("s10.csv", "s2.csv", "s[1].csv"):
        write_text(tmp_path, "t\n1\n", name)
    (tmp_path / "sub.csv").mkdir()
    everything = [source.stem for source in find_files([f"{tmp_path}/s2.csv", f"{tmp_path}/*.csv"])]
    assert everything == ["s2", "s10", "s[1]"]
    assert [source.stem for source in find_files([f"{tmp_path}/s[1].csv"])] == ["s[1]"]
    for absent in ("s3.csv", "x*.csv", "sub.csv"):
        with pytest.raises(DataError, match="must be a file that is there"):
            find_files([f"{tmp_path}/{absent}"])
    write_text(tmp_path, "", "notes.doc")
    with pytest.raises(DataError, match=r"must end in \.csv"):
        find_files([f"{tmp_path}/*.doc"])


def test_urls_are_opened_and_looked_up() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    buffer = io.BytesIO()
    np.savez(buffer, X=[[1.0]], tasks=["z"])
    memory.pipe("/asyncdmtl/s10.csv", b"t,x\na,1\n")
    memory.pipe("/asyncdmtl/s2.csv.gz", gzip.compress(b"t,x\nb,2\n"))
    memory.pipe("/asyncdmtl/z.npz", buffer.getvalue())
    try:
        sources = find_files(["memory://asyncdmtl/s*"])
        assert [source.stem for source in sources] == ["s2", "s10"]
        assert [read_columns(source, Wanted("t"), Reading())["x"].tolist() for source in sources] == [
            [2.0],
            [1.0],
        ]
        assert all(source.name.startswith("memory://") for source in sources)
        assert read_file("memory://asyncdmtl/z.npz", key="tasks") == {"x0": [1.0], "tasks": ["z"]}
        with pytest.raises(DataError, match="must be a file that is there"):
            find_files(["memory://asyncdmtl/q*.csv"])
        with pytest.raises(DataError, match="must be readable"):
            read_file("memory://asyncdmtl/absent.csv")
    finally:
        memory.rm("/asyncdmtl", recursive=True)
    with pytest.raises(DataError, match="nosuchthing"):
        find_files(["nosuchthing://a.csv"])


def test_a_query_is_no_part_of_the_name() -> None:
    fsspec = pytest.importorskip("fsspec")
    assert fsspec
    (source,) = find_files(["file:///data/site.csv?version=2"])
    assert (source.stem, source.ending) == ("site", ".csv")


@pytest.mark.parametrize(
    ("package", "name", "extra"),
    [("pyarrow", "a.parquet", "parquet"), ("fsspec", "memory://a.csv", "remote")],
)
def test_a_package_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, extra: str
) -> None:
    for module in [package, f"{package}.parquet"]:
        monkeypatch.setitem(sys.modules, module, None)
    if "://" not in name:
        (tmp_path / name).touch()
        name = str(tmp_path / name)
    with pytest.raises(DataError, match=rf"pip install 'asyncdmtl\[{extra}\]'"):
        read_file(name)


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zip", ".zst"])
def test_text_may_be_compressed(tmp_path: Path, ending: str) -> None:
    raw = b"t,x\na,1\nb,2\n"
    path = tmp_path / f"site.csv{ending}"
    if ending == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inside.csv", raw)
    elif ending == ".zst":
        path.write_bytes(pytest.importorskip("zstandard").compress(raw))
    else:
        path.write_bytes({".gz": gzip, ".bz2": bz2, ".xz": lzma}[ending].compress(raw))
    assert read_file(path) == {"t": ["a", "b"], "x": [1.0, 2.0]}
    assert find_files([str(path)])[0].stem == "site"


def test_an_archive_of_several_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.csv.zip", "w") as archive:
        archive.writestr("one.csv", "t,x\n")
        archive.writestr("two.csv", "t,x\n")
    with pytest.raises(DataError, match=r"must be an archive of one file, got \['one.csv', 'two.csv'\]"):
        read_file(tmp_path / "a.csv.zip")


def test_zstandard_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "a.csv.zst").write_bytes(b"")
    with pytest.raises(DataError, match=r"pip install 'asyncdmtl\[zstd\]'"):
        read_file(tmp_path / "a.csv.zst")


def test_a_file_under_two_names_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_text(tmp_path, "t,x\na,1\n", "site.csv")
    (tmp_path / "link.csv").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    assert len(find_files(["site.csv", str(path), "./site.csv", "link.csv", "*.csv"])) == 1


def test_patterns_pass_over_marks_and_hidden_files(tmp_path: Path) -> None:
    for name in ("_SUCCESS.csv", ".a.csv.swp.csv", "a.csv"):
        write_text(tmp_path, "t,x\na,1\n", name)
    assert [source.stem for source in find_files([f"{tmp_path}/*.csv"])] == ["a"]
    assert [source.stem for source in find_files([f"{tmp_path}/_SUCCESS.csv"])] == ["_SUCCESS"]


def test_names_of_files_are_in_normal_form(tmp_path: Path) -> None:
    path = write_text(tmp_path, "t,x\na,1\n", "u\u0308ber.csv")
    assert find_files([str(path)])[0].stem == "\u00fcber"
