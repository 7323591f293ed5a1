from __future__ import annotations

import gzip
import io
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
    for absent in ("s3.csv", "x*.csv"):
        with pytest.raises(DataError, match="must be a file that is there"):
            find_files([f"{tmp_path}/{absent}"])
    with pytest.raises(DataError, match="must be a file, or a folder of text files or Parquet files"):
        find_files([f"{tmp_path}/sub.csv"])
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


def test_a_kind_of_url_that_needs_another_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec = pytest.importorskip("fsspec")

    def lacking(url: str, mode: str) -> None:
        raise ImportError("install s3fs")

    monkeypatch.setattr(fsspec, "open_files", lacking)
    with pytest.raises(DataError, match=r"install s3fs\); for HTTP: pip install 'asyncdmtl\[remote\]'"):
        find_files(["s3://bucket/a.csv"])


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


def a_folder(path: Path, parts: dict[str, str]) -> Path:
    """A folder of files, as Spark writes it."""
    for name, text in parts.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text, encoding="utf-8")
    (path / "_SUCCESS").touch()
    (path / ".part.csv.crc").touch()
    return path


def test_the_parts_of_a_folder_are_one_table(tmp_path: Path) -> None:
    folder = a_folder(
        tmp_path / "sales.csv",
        {
            "part-2.csv": "x,t\n2,a\n", "part-10.csv": "t,x\nb,red\n", "part-3.csv": "t,x\n",
            "part-4.csv": "t,x\n", "part-5.csv": "", "_temporary/part-0.csv": "t,x\nz,9\n",
        },
    )  # fmt: skip
    (source,) = find_files([str(folder)])
    assert (source.stem, source.is_text, len(source.parts)) == ("sales.csv", True, 5)
    # The column is text in one part, so it is text in all.
    assert read_file(folder) == {"x": ["2", "red"], "t": ["a", "b"]}
    assert [found.name for found in find_files([f"{tmp_path}/*.csv"])] == [str(folder)]


def test_keys_of_folders_are_columns(tmp_path: Path) -> None:
    row = "t,x\na,1\n"
    a_folder(tmp_path / "f", {"year=2020/r=01/p.csv": row, "year=2021/r=b/p.csv": row})
    columns = read_file(tmp_path / "f")
    assert columns == {"t": ["a", "a"], "x": [1.0, 1.0], "year": [2020.0, 2021.0], "r": ["01", "b"]}
    (tmp_path / "f/year=2020/r=01").rename(tmp_path / "f/year=2020/r=__HIVE_DEFAULT_PARTITION__")
    assert read_file(tmp_path / "f")["r"] == [None, "b"]


@pytest.mark.parametrize(
    ("parts", "complaint"),
    [
        ({"a.csv": "t,x\na,1\n", "b.csv": "t,y\na,1\n"}, r"same columns as .*a\.csv.*\['x', 'y'\]"),
        ({"a.csv": "t,x\na,1\n", "b.csv": "t,x\na,1\n"}, r"must not have the same rows: as .*a\.csv"),
        ({"k=1/a.csv": "t,x\na,1\n", "b.csv": "t,x\na,1\n"}, "parts all lie under the same keys"),
        ({"a.csv": "", "b.csv": ""}, "files that are not empty"),
        ({"a.csv": "t,x\na,1\n", "b.parquet": ""}, r"not of both, got \['.*a\.csv', '.*b\.parquet'\]"),
    ],
    ids=["columns", "copies", "keys", "empty", "formats"],
)
def test_parts_that_do_not_fit_are_refused(tmp_path: Path, parts: dict[str, str], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read_file(a_folder(tmp_path / "f", parts))


def test_an_archive_is_read_as_the_file_in_it(tmp_path: Path) -> None:
    path = tmp_path / "site.zip"
    for inside, text in (("in/data.csv", "t,x\na,1\n"), ("data.TSV", "t\tx\na\t1\n")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(inside, text)
            archive.writestr("__MACOSX/in/._data.csv", "?")
        assert read_file(path) == {"t": ["a"], "x": [1.0]}
        assert find_files([f"{tmp_path}/*.zip"])[0].stem == "site"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.xlsx", "")
    with pytest.raises(DataError, match=r"must be an archive of one file that ends in \.csv.*data\.xlsx"):
        find_files([str(path)])
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match="must be readable"):
        find_files([str(path)])
