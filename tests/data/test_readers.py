from __future__ import annotations

import datetime
import gzip
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.table_files import read_file, write_text

from asyncdmtl.data.reading import Reading
from asyncdmtl.errors import DataError

NAN = float("nan")


def test_names_have_one_spelling(tmp_path: Path) -> None:
    path = write_text(tmp_path, 'x,t\n1,007\n2, NA \n3,7.0\n4,\n5,True\n6,"a, b"\n')
    reading = Reading(keep_missing_words=True)
    assert read_file(path, reading=reading)["t"] == ["007", "NA", "7", None, "True", "a, b"]
    path = write_text(tmp_path, "x,t\n1,01\n2,2\n")
    assert read_file(path, key="x") == {"x": ["1", "2"], "t": ["01", "2"]}


def test_only_some_columns_are_read(tmp_path: Path) -> None:
    path = write_text(tmp_path, "a,t,a,b\n1,x,2,3\n")
    assert read_file(path, only={"b", "absent"}) == {"t": ["x"], "b": [3.0]}
    with pytest.raises(DataError, match=r"different names, got \['a'\]"):
        read_file(path)


def test_columns_to_omit_are_not_looked_at(tmp_path: Path) -> None:
    path = write_text(tmp_path, "t,day,x\na,2026-01-02,5\nb,7,6\n")
    assert read_file(path, omit={"day"}) == {"t": ["a", "b"], "x": [5.0, 6.0]}
    with pytest.raises(
        DataError, match=r"the columns to omit \['days'\] \(similar: 'day'\), got \['t', 'day', 'x'\]"
    ):
        read_file(path, omit={"days"})
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    day = pa.array([datetime.date(2026, 1, 2)])
    parquet.write_table(pa.table({"t": ["a"], "day": day, "x": [5.0]}), tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet", omit={"day"}) == {"t": ["a"], "x": [5.0]}


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_columns_without_a_name_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    path = write_text(tmp_path, f"{name},t,x\n0,a,5\n1,b,6\n")
    with caplog.at_level(logging.WARNING):
        assert read_file(path) == {"t": ["a", "b"], "x": [5.0, 6.0]}
    assert "column 1 has no name and is left out" in caplog.text
    if name:
        assert read_file(path, only={name, "x"}) == {name: [0.0, 1.0], "t": ["a", "b"], "x": [5.0, 6.0]}


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("a.csv.gz", b"no gzip"),
        ("a.csv.gz", gzip.compress(b"t,x\n" + b"a,1\n" * 9999, mtime=0)[:-50]),
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
        read_file(path)
    assert name in str(caught.value)


def test_similar_names_are_shown_for_a_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"must have a column 'clinics' \(similar: 'clinic'\), got \['clinic'"
    ):
        read_file(write_text(tmp_path, "clinic,x\na,1\n"), key="clinics")


@pytest.mark.parametrize(("name", "similar"), [("X", "x"), ("dose", "dose, mg")])
def test_names_in_another_case_or_cut_at_a_comma_are_similar(tmp_path: Path, name: str, similar: str) -> None:
    path = write_text(tmp_path, 't,x,"dose, mg"\na,1,2\n')
    with pytest.raises(DataError, match=rf"must have a column '{name}' \(similar: '{similar}'\)"):
        read_file(path, key=name)
    with pytest.raises(DataError, match=rf"the columns to omit \['{name}'\] \(similar: '{similar}'\)"):
        read_file(path, omit=(name,))


def test_names_of_columns_are_in_normal_form(tmp_path: Path) -> None:
    path = write_text(tmp_path, "t, gro\u0308\u00dfe \na,1\n")
    assert read_file(path) == {"t": ["a"], "gr\u00f6\u00dfe": [1.0]}


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npz"])
def test_a_number_may_be_a_missing_value_in_every_format(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.csv":
        path.write_text("t,x,y\na,1,-999\nb,-999.0,2\n")
    elif name == "a.parquet":
        pq.write_table(pa.table({"t": ["a", "b"], "x": [1.0, -999.0], "y": [-999, 2]}), path)
    else:
        X, y = np.array([[1.0], [-999.0]]), np.array([-999, 2])
        np.savez(path, X=X, y=y, tasks=np.array(["a", "b"]), feature_names=np.array(["x"]))
    key = "tasks" if name == "a.npz" else "t"
    columns = read_file(path, key, Reading(missing=("-999",)))
    assert columns == {"x": [1.0, None], "y": [None, 2.0], key: ["a", "b"]}


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.npz"])
def test_large_whole_numbers_are_exact_as_categories_and_told_as_numbers(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path, ids = tmp_path / name, [2**60, 2**60 + 1]
    if name == "a.csv":
        path.write_text(f"t,id\na,{ids[0]}\nb,{ids[1]}\n")
    elif name == "a.parquet":
        pq.write_table(pa.table({"t": ["a", "b"], "id": ids}), path)
    else:
        np.savez(path, X=np.array(ids)[:, None], tasks=np.array(["a", "b"]), feature_names=np.array(["id"]))
    key = "tasks" if name == "a.npz" else "t"
    assert read_file(path, key, Reading(categorical=("id",)))["id"] == [str(each) for each in ids]
    assert not caplog.records
    assert read_file(path, key)["id"] == [2.0**60] * 2
    assert "column 'id' of" in caplog.text
    assert "has whole numbers beyond 2^53, which are rounded" in caplog.text
