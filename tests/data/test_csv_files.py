from __future__ import annotations

from pathlib import Path

import pytest
from support.table_files import read_file, write_text

from asyncdmtl.data.files import find_files
from asyncdmtl.data.reading import Reading
from asyncdmtl.errors import DataError

NAN = float("nan")


def test_csv_has_numbers_text_and_truth(tmp_path: Path) -> None:
    path = write_text(tmp_path, "t,n,i,s,b,m\n1,0.1,7,x,TRUE,true\n1,,8,,,\n1,-2e3,9,y,false,maybe\n")
    assert read_file(path) == {
        "t": ["1", "1", "1"],
        "n": [0.1, None, -2000.0],
        "i": [7.0, 8.0, 9.0],
        "s": ["x", None, "y"],
        "b": ["True", None, "False"],
        "m": ["True", None, "maybe"],
    }


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "A.TSV", "a.tsv.gz"])
def test_separators_and_compression(tmp_path: Path, name: str) -> None:
    text = "\ufefft, größe \nÅ,1\nB,2\n".replace(",", "\t" if "tsv" in name.lower() else ",")
    path = write_text(tmp_path, text, name)
    assert read_file(path) == {"t": ["Å", "B"], "größe": [1.0, 2.0]}
    assert find_files([str(path)])[0].stem.lower() == "a"


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_a_line_of_a_spreadsheet_names_the_separator(tmp_path: Path, mark: str) -> None:
    text = f"sep={mark}\r\nt;x\r\na;1\r\nb;2\r\n".replace(";", mark)
    assert read_file(write_text(tmp_path, text)) == {"t": ["a", "b"], "x": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must not be empty"),
        ("a,b\n1,2\n", r"must have a column 't', got \['a', 'b'\]"),
        ("t,x\na,1,2\nb,3,4\n", "must have 2 cells in every line, .* cells of line 2, got 3"),
        ("t,x\na,1\nb,3,4\n", "must have 2 cells in every line, .* cells of line 3, got 3"),
        ('t,x\na,"1\n', "must be readable"),
    ],
)
def test_csv_that_is_broken_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_file(write_text(tmp_path, text))
    assert "a.csv" in str(caught.value)


def test_columns_may_turn_to_text_after_many_lines(tmp_path: Path) -> None:
    lines = "".join(f"a,{i % 3},{i}\n" for i in range(20_000))
    path = write_text(tmp_path, f"t,grade,x\n{lines}" + "b,low,1\n" * 9000)
    columns = read_file(path)
    assert columns["grade"] == [str(i % 3) for i in range(20_000)] + ["low"] * 9000
    assert columns["x"] == [float(i) for i in range(20_000)] + [1.0] * 9000


def test_text_without_a_header_line(tmp_path: Path) -> None:
    path = write_text(tmp_path, "5.1, 3.5, setosa\n\n4.9, 3.0, setosa\n", "iris.data")
    reading = Reading(header=("length", "width", "t"))
    assert read_file(path, reading=reading) == {
        "length": [5.1, 4.9],
        "width": [3.5, 3.0],
        "t": ["setosa"] * 2,
    }
    with pytest.raises(DataError, match=r"must have 2 cells in every line.*cells of line 1, got 3"):
        read_file(path, reading=Reading(header=("length", "t")))


def test_cells_between_spaces(tmp_path: Path) -> None:
    path = write_text(tmp_path, "18.0   8   ford\n15.0   6   audi\n", "a.txt")
    reading = Reading(header=("mpg", "cylinders", "t"), separator=" ")
    assert read_file(path, reading=reading)["cylinders"] == [8.0, 6.0]


def test_other_separators_and_encodings_are_named(tmp_path: Path) -> None:
    path = write_text(tmp_path, "t;x\na;1,5\n")
    with pytest.raises(DataError, match=r"as --separator says; its first line is, got 't;x'"):
        read_file(path)
    assert read_file(path, reading=Reading(separator=";", decimal=",")) == {"t": ["a"], "x": [1.5]}
    path.write_bytes("t,x\nMünchen,1\n".encode("cp1252"))
    with pytest.raises(DataError, match=r"must be text in utf-8 \(--encoding names another\)"):
        read_file(path)
    assert read_file(path, reading=Reading(encoding="cp1252"))["t"] == ["München"]


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must have 3 cells in every line, .* cells of line 3, got 2"):
        read_file(write_text(tmp_path, "t,x,y\na,1,2\nb,3"))


@pytest.mark.parametrize(
    "number", ["0.1", "1e23", "5e-324", "123456789012345678", "0.30000000000000004", "-0.0"]
)
def test_numbers_have_the_bits_that_python_reads(tmp_path: Path, number: str) -> None:
    (value,) = read_file(write_text(tmp_path, f"t,x\na,{number}\n"))["x"]
    assert str(value) == str(float(number))
