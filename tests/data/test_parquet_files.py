from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.table_files import read_file, write_text

from asyncdmtl.data.files import find_files
from asyncdmtl.errors import DataError

NAN = float("nan")


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {
        "t": pa.array([3, None, 2**60 + 1]),
        "i": pa.array([1, None, 3], pa.int8()),
        "f": pa.array([0.5, NAN, None]),
        "b": pa.array([True, None, False]),
        "s": pa.array(["x", "y", None]),
        "c": pa.array(["u", "v", "u"]).dictionary_encode(),
        "d": pa.array([1, 2, None], pa.decimal128(5, 2)),
        "nothing": pa.nulls(3),
    }
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table(table), path)
    assert read_file(path) == {
        "t": ["3", None, str(2**60 + 1)],
        "i": [1.0, None, 3.0],
        "f": [0.5, None, None],
        "b": ["True", None, "False"],
        "s": ["x", "y", None],
        "c": ["u", "v", "u"],
        "d": [1.0, 2.0, None],
        "nothing": [None, None, None],
    }
    assert read_file(path, only={"i"}, known={"i": ()})["i"] == ["1", None, "3"]
    with pytest.raises(DataError, match="must have a column 'u'"):
        read_file(path, key="u")


@pytest.mark.parametrize("kind", ["timestamp", "date", "list"])
def test_parquet_of_other_types_is_refused(tmp_path: Path, kind: str) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    values = {
        "timestamp": pa.array([1], pa.timestamp("ns")),
        "date": pa.array([1], pa.date32()),
        "list": pa.array([[1]]),
    }[kind]
    parquet.write_table(pa.table({"t": ["a"], "odd": values}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"column 'odd' .*must be .*true and false"):
        read_file(tmp_path / "a.parquet")


def test_a_folder_of_files_with_hive_partitions(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for region, x in (("north", 1.0), ("south", 2.0)):
        (tmp_path / f"sales.parquet/region={region}").mkdir(parents=True)
        parquet.write_table(
            pa.table({"t": ["a"], "x": [x]}), tmp_path / f"sales.parquet/region={region}/part-0.parquet"
        )
    (tmp_path / "sales.parquet/_SUCCESS").touch()
    for name in ("sales.parquet", "*.parquet"):
        columns = read_file(tmp_path / name)
        assert columns == {"t": ["a", "a"], "x": [1.0, 2.0], "region": ["north", "south"]}
    assert find_files([str(tmp_path / "sales.parquet")])[0].stem == "sales.parquet"


def test_keys_of_folders_are_numbers_or_text_as_in_csv_files(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    for year, month in (("2020", "01"), ("2021", "12")):
        folder = tmp_path / f"f/year={year}/month={month}"
        folder.mkdir(parents=True)
        parquet.write_table(pa.table({"t": ["a"], "x": [1.0]}), folder / "p.parquet")
    columns = read_file(tmp_path / "f")
    assert (columns["year"], columns["month"]) == ([2020.0, 2021.0], ["01", "12"])
    (folder / "copy.parquet").write_bytes((folder / "p.parquet").read_bytes())
    with pytest.raises(DataError, match=r"must not have the same rows: as .*copy\.parquet"):
        read_file(tmp_path / "f")


def test_keys_of_any_type_are_those_of_text(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import datetime
    from decimal import Decimal

    from pyarrow import parquet

    keys: dict[str, list[Any]] = {
        "1": [1, 1.0, Decimal("1.00"), "1", b"1"],
        "1.5": [1.5, Decimal("1.50"), "1.50"],
        "True": [True, "TRUE", "true"],
        "2026-01-02": [datetime.date(2026, 1, 2), datetime.datetime(2026, 1, 2), "2026-01-02T00:00:00"],
        "007": ["007", b"007"],
    }
    for name, spellings in keys.items():
        for spelling in spellings:
            parquet.write_table(pa.table({"t": [spelling], "x": [1.0]}), tmp_path / "a.parquet")
            assert read_file(tmp_path / "a.parquet")["t"] == [name], spelling
            if not isinstance(spelling, bytes):
                assert read_file(write_text(tmp_path, f"t,x\n{spelling},1\n"))["t"] == [name]


def test_text_that_looks_like_numbers_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"t": ["a"] * 12, "x": list(map(str, range(12)))}), tmp_path / "a.parquet")
    assert read_file(tmp_path / "a.parquet")["x"] == list(map(str, range(12)))
    assert "column 'x'" in caplog.text
    assert "is text that looks like numbers (0, 1, 10): each value is a category" in caplog.text
