from __future__ import annotations

import gzip
import io
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from asyncdmtl.data.columns import Column, is_numeric
from asyncdmtl.data.files import find_files, read_columns
from asyncdmtl.errors import DataError

NAN = float("nan")


def read(path: Path | str, key: str = "t", **options: Any) -> dict[str, list[Any]]:
    (source,) = find_files([str(path)])
    return {name: plain(column) for name, column in read_columns(source, key=key, **options).items()}


def plain(column: Column) -> list[Any]:
    if is_numeric(column):
        return [None if np.isnan(value) else value for value in column.tolist()]
    return list(column)


def write(folder: Path, text: str, name: str = "a.csv") -> Path:
    path = folder / name
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def test_csv_has_numbers_text_and_truth(tmp_path: Path) -> None:
    path = write(tmp_path, "t,n,i,s,b,m\n1,0.1,7,x,TRUE,true\n1,,8,,,\n1,-2e3,9,NA,false,maybe\n")
    assert read(path) == {
        "t": ["1", "1", "1"],
        "n": [0.1, None, -2000.0],
        "i": [7.0, 8.0, 9.0],
        "s": ["x", None, None],
        "b": ["True", None, "False"],
        "m": ["True", None, "maybe"],
    }


def test_names_stay_as_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path, 'x,t\n1,007\n2, NA \n3,7.0\n4,\n5,True\n6,"a, b"\n')
    assert read(path)["t"] == ["007", "NA", "7.0", None, "True", "a, b"]
    path = write(tmp_path, "x,t\n1,01\n2,2\n")
    assert read(path, key="x", text=["t"]) == {"x": ["1", "2"], "t": ["01", "2"]}


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "A.TSV", "a.tsv.gz"])
def test_separators_and_compression(tmp_path: Path, name: str) -> None:
    text = "\ufefft, größe \nÅ,1\nB,2\n".replace(",", "\t" if "tsv" in name.lower() else ",")
    path = write(tmp_path, text, name)
    assert read(path) == {"t": ["Å", "B"], "größe": [1.0, 2.0]}
    assert find_files([str(path)])[0].stem.lower() == "a"


def test_only_some_columns_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a,t,a,b\n1,x,2,3\n")
    assert read(path, only={"b", "absent"}) == {"t": ["x"], "b": [3.0]}
    with pytest.raises(DataError, match=r"different names, got \['a'\]"):
        read(path)


def test_columns_to_omit_are_not_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path, "t,day,x\na,2026-01-02,5\nb,7,6\n")
    assert read(path, omit={"day"}) == {"t": ["a", "b"], "x": [5.0, 6.0]}
    with pytest.raises(DataError, match=r"must have the columns to omit \['days'\], got \['t', 'day', 'x'\]"):
        read(path, omit={"days"})
    frame = pd.DataFrame({"t": ["a"], "day": pd.to_datetime(["2026-01-02"]), "x": [5.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", omit={"day"}) == {"t": ["a"], "x": [5.0]}


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_columns_without_a_name_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    path = write(tmp_path, f"{name},t,x\n0,a,5\n1,b,6\n")
    with caplog.at_level(logging.WARNING):
        assert read(path) == {"t": ["a", "b"], "x": [5.0, 6.0]}
    assert "column 1 has no name and is left out" in caplog.text
    if name:
        assert read(path, only={name, "x"}) == {name: [0.0, 1.0], "t": ["a", "b"], "x": [5.0, 6.0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a column 't'"),
        ("a,b\n1,2\n", r"must have a column 't', got \['a', 'b'\]"),
        ("t,x\na,1,2\nb,3,4\n", "no line with more values"),
        ("t,x\na,1\nb,3,4\n", "must be readable .*line 3"),
        ('t,x\na,"1\n', "must be readable"),
    ],
)
def test_csv_that_is_broken_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path, text))
    assert "a.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.csv", b"t,x\n\xff,1\n"),
        ("a.csv.gz", b"no gzip"),
        ("a.csv.gz", gzip.compress(b"t,x\n" + b"a,1\n" * 9999)[:-50]),
        ("a.parquet", b"no parquet"),
        ("a.parquet", b""),
        ("a.npz", b"no archive"),
        ("a.npz", b""),
        ("a.npz", b"PK\x03\x04 nothing"),
    ],
)
def test_files_that_are_not_what_they_say_are_refused(tmp_path: Path, name: str, raw: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(DataError, match="must be readable") as caught:
        read(path)
    assert name in str(caught.value)


def test_files_are_found_in_natural_order_each_once(tmp_path: Path) -> None:
    for name in ("s10.csv", "s2.csv", "s[1].csv"):
        write(tmp_path, "t\n1\n", name)
    (tmp_path / "sub.csv").mkdir()
    everything = [source.stem for source in find_files([f"{tmp_path}/s2.csv", f"{tmp_path}/*.csv"])]
    assert everything == ["s2", "s10", "s[1]"]
    assert [source.stem for source in find_files([f"{tmp_path}/s[1].csv"])] == ["s[1]"]
    for absent in ("s3.csv", "x*.csv", "sub.csv"):
        with pytest.raises(DataError, match="must be a file that is there"):
            find_files([f"{tmp_path}/{absent}"])
    write(tmp_path, "", "notes.txt")
    with pytest.raises(DataError, match=r"must end in \.csv"):
        find_files([f"{tmp_path}/*.txt"])


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {
        "t": pa.array([3, None, 2**60 + 1]),
        "i": pa.array([1, None, 3], pa.int8()),
        "f": pa.array([0.5, NAN, None]),
        "b": pa.array([True, None, False]),
        "s": pa.array(["x", "NA", None]),
        "c": pa.array(["u", "v", "u"]).dictionary_encode(),
        "d": pa.array([1, 2, None], pa.decimal128(5, 2)),
        "nothing": pa.nulls(3),
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table(table), path)
    assert read(path) == {
        "t": ["3", None, str(2**60 + 1)],
        "i": [1.0, None, 3.0],
        "f": [0.5, None, None],
        "b": ["True", None, "False"],
        "s": ["x", "NA", None],
        "c": ["u", "v", "u"],
        "d": [1.0, 2.0, None],
        "nothing": [None, None, None],
    }
    assert read(path, only={"i"}, text={"i"})["i"] == ["1", None, "3"]
    with pytest.raises(DataError, match="must have a column 'u'"):
        read(path, key="u")


@pytest.mark.parametrize("kind", ["timestamp", "date", "list", "binary"])
def test_parquet_of_other_types_is_refused(tmp_path: Path, kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    values = {
        "timestamp": pa.array([1], pa.timestamp("ns")),
        "date": pa.array([1], pa.date32()),
        "list": pa.array([[1]]),
        "binary": pa.array([b"x"]),
    }[kind]
    parquet.write_table(pa.table({"t": ["a"], "odd": values}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column 'odd' .*must be .*true and false"):
        read(tmp_path / "a.parquet")


def test_npz_has_its_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    X = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
    np.savez(path, X=X, y=[True, False, True], tasks=[1, 2, 2], sample_weight=[1, 2, 3], other=[1])
    assert read(path, key="tasks") == {
        "x0": [1.0, 3.0, 5.0],
        "x1": [2.0, 4.0, 6.0],
        "y": ["True", "False", "True"],
        "tasks": ["1", "2", "2"],
        "sample_weight": [1.0, 2.0, 3.0],
    }
    np.savez(path, X=X, y=["a", "b", "c"], tasks=["u", " v", ""], feature_names=["p", "q"])
    assert read(path, key="tasks", only={"q", "y"}) == {
        "q": [2.0, 4.0, 6.0],
        "y": ["a", "b", "c"],
        "tasks": ["u", "v", None],
    }


@pytest.mark.parametrize(
    "arrays",
    [
        {"y": [1], "tasks": [1]},
        {"X": [1.0], "tasks": [1]},
        {"X": [["a"]], "tasks": [1]},
        {"X": [[1.0]], "y": [1]},
        {"X": [[1.0]], "tasks": [1, 2]},
        {"X": [[1.0]], "tasks": [1], "y": [[1]]},
        {"X": [[1.0]], "tasks": [1], "feature_names": ["a", "b"]},
        {"X": [[1.0]], "tasks": [1], "feature_names": ["tasks"]},
        {"X": [[1.0]], "tasks": [None]},
    ],
)
def test_npz_that_makes_no_sense_is_refused(tmp_path: Path, arrays: dict[str, Any]) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **arrays)
    with pytest.raises(DataError, match=r"a\.npz"):
        read(path, key="tasks")


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
        assert [read_columns(source, key="t")["x"].tolist() for source in sources] == [[2.0], [1.0]]
        assert all(source.name.startswith("memory://") for source in sources)
        assert read("memory://asyncdmtl/z.npz", key="tasks") == {"x0": [1.0], "tasks": ["z"]}
        with pytest.raises(DataError, match="must be a file that is there"):
            find_files(["memory://asyncdmtl/q*.csv"])
        with pytest.raises(DataError, match="must be readable"):
            read("memory://asyncdmtl/absent.csv")
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
        read(name)
