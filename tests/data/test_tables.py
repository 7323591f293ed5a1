from __future__ import annotations

import gzip
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncdmtl
from asyncdmtl.data.columns import as_column
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.data.readers import Wanted
from asyncdmtl.data.reading import Reading
from asyncdmtl.data.surveys import Survey
from asyncdmtl.data.table import TableSpec
from asyncdmtl.data.tables import TableData, load_partitions, load_table, read_table, suggest_loss
from asyncdmtl.errors import DataError, UsageError

SCHOOL = Path(asyncdmtl.__file__).parents[2] / "shared" / "data" / "school.csv.gz"


def write(folder: Path, text: str, name: str = "a.csv") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def spec(*files: str, **options: Any) -> TableSpec:
    return TableSpec(files, **{"task": "t", "target": "y"} | options)


def pooled(partitions: Sequence[RawPartition], loss: str) -> Encoding:
    surveys = {p.id: Survey.from_dict(p.declaration().survey) for p in partitions}
    return pool(surveys, loss, standardise=True)


def ids_of(data: TableData) -> tuple[list[float], list[float]]:
    """The column `i` of all training rows, and of all test rows."""
    train = [value for p in data.partitions for value in p.columns["i"].tolist()]
    return train, [value for p in data.test.values() for value in p.columns["i"].tolist()]


def test_a_table_becomes_partitions_and_rows_to_test_on(tmp_path: Path) -> None:
    lines = [f"{i},s{10 - i % 3},{i / 2}" for i in range(31)]
    path = write(tmp_path, "i,t,y\n" + "\n".join(lines) + "\n")
    data = load_table(spec(path, test_fraction=0.3, parts=2), seed=5)
    assert [(p.id, p.task, p.rows) for p in data.partitions] == [
        *(
            ("p0", "s8", 4),
            ("p1", "s8", 3),
            ("p2", "s9", 4),
            ("p3", "s9", 3),
            ("p4", "s10", 4),
            ("p5", "s10", 4),
        )
    ]
    assert {task: p.rows for task, p in data.test.items()} == {"s8": 3, "s9": 3, "s10": 3}
    train, test = ids_of(data)
    assert sorted(train + test) == list(range(31))
    for p in [*data.partitions, *data.test.values()]:
        i = p.columns["i"]
        assert list(p.columns) == ["i"]
        assert (p.target == i / 2).all()
        assert {f"s{10 - int(n) % 3}" for n in i} == {p.task}
        assert (np.diff(i) > 0).all()
        assert p.target_name == "y"
    again, other = (load_table(spec(path, test_fraction=0.3, parts=2), seed=seed) for seed in (5, 6))
    assert [p.digest() for p in again.partitions] == [p.digest() for p in data.partitions]
    assert ids_of(other) != ids_of(data)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    fraction=st.floats(0.0, 0.99),
    parts=st.integers(1, 4),
    seed=st.integers(0, 2**40),
)
def test_every_row_is_used_once_and_every_task_trains(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], fraction: float, parts: int, seed: int
) -> None:
    tasks = [f"t{t}" for t, size in enumerate(sizes) for _ in range(size)]
    text = "".join(f"{i},{task},{i % 7}\n" for i, task in enumerate(tasks))
    path = write(tmp_path_factory.mktemp("table"), "i,t,y\n" + text)
    data = load_table(spec(path, test_fraction=fraction, parts=parts), seed)
    train, test = ids_of(data)
    assert sorted(train + test) == list(range(len(tasks)))
    for t, size in enumerate(sizes):
        own = [p.rows for p in data.partitions if p.task == f"t{t}"]
        assert size - sum(own) == min(round(fraction * size), size - 1)
        assert len(own) == min(parts, sum(own))
        assert max(own) - min(own) <= 1
    assert [p.id for p in data.partitions] == [f"p{n}" for n in range(len(data.partitions))]


def test_classes_keep_their_share(tmp_path: Path) -> None:
    labels = ["no"] * 30 + ["yes"] * 10
    text = "".join(f"{i},{t},{label}\n" for t in "ab" for i, label in enumerate(labels))
    data = load_table(spec(write(tmp_path, "i,t,y\n" + text), test_fraction=0.25, parts=3), seed=1)
    assert data.loss == "logistic"
    for task in "ab":
        shares = Counter(data.test[task].target.tolist())
        assert shares["no"] + shares["yes"] == 10
        assert shares["yes"] in (2, 3)
        for p in data.partitions:
            assert sum(p.target == "yes") in (2, 3)
    encoding = pooled(data.partitions, "logistic")
    assert encoding.classes == ("no", "yes")
    y = data.test["a"].encoded(encoding).y
    assert (y == (data.test["a"].target == "yes")).all()


def test_files_are_partitions_of_a_worker(tmp_path: Path) -> None:
    north = write(tmp_path, "t,x,y\n02,1,5\n01,2,6\n02,3,7\n", "north.v1.csv")
    (tmp_path / "other").mkdir()
    with gzip.open(tmp_path / "other" / "south.csv.gz", "wt") as file:
        file.write("y,t,x\n9,01,4\n")
    both = load_partitions(spec(north, f"{tmp_path}/other/s*"))
    assert [(p.id, p.task, p.rows) for p in both] == [
        *(("north.v1/01", "01", 1), ("north.v1/02", "02", 2), ("south/01", "01", 1))
    ]
    assert both[1].columns["x"].tolist() == [1.0, 3.0]
    alone = load_partitions(spec(north))
    assert [p.digest() for p in alone] == [p.digest() for p in both[:2]]
    encoding = pooled(both, "squared")
    assert sum(p.encoded(encoding).X.sum() for p in both) == pytest.approx(0.0)

    write(tmp_path / "other", "t,x,y\n1,2,3\n", "north.v1.csv")
    with pytest.raises(DataError, match="must have different names"):
        load_partitions(spec(north, f"{tmp_path}/other/north.v1.csv"))
    for option in ({"parts": 2}, {"test_fraction": 0.5}):
        with pytest.raises(UsageError, match=r"here each file's rows of a task are a partition|left alone"):
            load_partitions(spec(north, **option))


def test_a_partition_does_not_depend_on_the_other_files_of_its_worker(tmp_path: Path) -> None:
    digits = write(tmp_path, "t,x,y\n1,250,0\n1,401,1\n", "a.csv")
    text = write(tmp_path, "t,x,y\n1,V45,0\n1,250,1\n", "b.csv")
    with pytest.raises(
        DataError, match=r"column 'x' must be of one kind .*numbers in .*a.csv, text in .*b.csv"
    ):
        load_partitions(spec(digits, text))
    reading = Reading(categorical=("x",))
    both, alone = (load_partitions(spec(*files, reading=reading)) for files in ((digits, text), (digits,)))
    assert both[0].digest() == alone[0].digest()


def test_rows_of_several_files_are_one_table(tmp_path: Path) -> None:
    a = write(tmp_path, "t,x,z,y\n1,007,,0.5\n2,8,,1\n", "a.csv")
    b = write(tmp_path, "z,y,x,t\nu,1,V45,1\n,2,007,2\n", "b.csv")
    data = load_table(spec(a, b), seed=0)
    assert [p.columns["x"].tolist() for p in data.partitions] == [["007", "V45"], ["8", "007"]]
    assert data.partitions[0].columns["z"].tolist() == [None, "u"]
    assert [list(p.columns) for p in data.partitions] == [["x", "z"]] * 2
    c = write(tmp_path, "t,x,y\n1,02,3\n", "c.csv")
    with pytest.raises(DataError, match=r"c\.csv must have a column 'z'"):
        load_table(spec(a, c), seed=0)


def test_rows_without_task_or_target_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, "t,x,y,w\n1,1,1,1\n,2,2,1\n1,3,,1\n1,4,NA,1\n2,5,5,0\n1,6,2,0.5\n")
    with caplog.at_level(logging.WARNING):
        (part,) = load_table(spec(path, weight="w"), seed=0).partitions
    assert part.columns["x"].tolist() == [1.0, 6.0]
    assert part.weights is not None
    assert part.weights.tolist() == [1.0, 0.5]
    for what, count in {"task": 1, "target": 2, "weight": 1}.items():
        assert f"{path}: {count} of 6 rows have no {what}" in caplog.text
    empty = write(tmp_path, "t,x,y\n,1,2\n1,1,\n", "empty.csv")
    with pytest.raises(DataError, match=r"empty\.csv must have a row with task and target"):
        load_table(spec(empty), seed=0)


@pytest.mark.parametrize("weights", ["1,-1", "1,", "1,inf", "1,x"])
def test_weights_must_be_weights(tmp_path: Path, weights: str) -> None:
    first, second = weights.split(",")
    path = write(tmp_path, f"t,x,y,w\n1,1,1,{first}\n1,2,2,{second}\n")
    with pytest.raises(DataError, match=r"weight 'w' of .* must be"):
        load_table(spec(path, weight="w"), seed=0)


def test_features_can_be_chosen(tmp_path: Path) -> None:
    path = write(tmp_path, "who,t,b,a,y,sample_weight\nAnn,1,1,2,3,1\nBob,1,3,4,5,2\n")
    (part,) = load_table(spec(path, features=("a", "b")), seed=0).partitions
    assert list(part.columns) == ["a", "b"]
    assert part.weights is not None
    (part,) = load_table(spec(path, features=("sample_weight",)), seed=0).partitions
    assert (list(part.columns), part.weights) == (["sample_weight"], None)
    (part,) = load_table(spec(path), seed=0).partitions
    assert list(part.columns) == ["who", "b", "a"]
    with pytest.raises(DataError, match=r"a\.csv must have a column 'c'"):
        load_table(spec(path, features=("a", "c")), seed=0)
    with pytest.raises(DataError, match=r"a\.csv must have a column 'z'"):
        load_table(spec(path, target="z"), seed=0)
    with pytest.raises(DataError, match=r"a\.csv must have a column 'z'"):
        load_table(spec(path, task="z"), seed=0)
    with pytest.raises(DataError, match=r"a\.csv must have a column 'z'"):
        load_table(spec(path, weight="z"), seed=0)
    bare = write(tmp_path, "t,y\n1,2\n", "bare.csv")
    with pytest.raises(DataError, match="features must be at least one column"):
        load_table(spec(bare), seed=0)


def test_columns_of_names_do_not_leave_the_site(tmp_path: Path) -> None:
    lines = "".join(f"patient {i},{i % 20},{i}\n" for i in range(100))
    path = write(tmp_path, "who,t,y\n" + lines)
    for load in (lambda: load_partitions(spec(path)), lambda: load_table(spec(path), seed=0)):
        with pytest.raises(DataError, match=r"column 'who' of .*has 100 different texts.*--omit"):
            load()


def test_numbers_that_are_none_are_shown_as_the_reason(tmp_path: Path) -> None:
    lines = "".join(f"{i % 2},{i}.5,{i}\n" for i in range(100))
    path = write(tmp_path, "t,price,y\n" + lines + '1,"1,5",3\n')
    with pytest.raises(
        DataError, match=r"column 'price' of .* has numbers in 100 of 101 rows.*got \['1,5'\]"
    ):
        load_table(spec(path), seed=0)


@pytest.mark.parametrize("load", [load_partitions, lambda spec: load_table(spec, seed=0)])
def test_the_same_rows_in_two_files_are_refused(tmp_path: Path, load: Any) -> None:
    one = write(tmp_path, "t,x,y\na,1,2\nb,3,4\n", "one.csv")
    two = write(tmp_path, "y,t,x\n2,a,1.0\n4,b,3\n", "two.csv")
    with pytest.raises(DataError, match=r"must not have the same rows: as .*one.csv, got .*two.csv"):
        load(spec(one, two))
    # One file under two names is read once.
    (tmp_path / "link.csv").symlink_to(one)
    load(spec(one, str(tmp_path / "link.csv")))


def test_names_in_different_forms_are_one_task_one_category_one_column(tmp_path: Path) -> None:
    a = write(tmp_path, "t,gr\u00f6\u00dfe,farbe,y\nK\u00f6ln,1,gr\u00fcn,1\n1,2,rot,2\n", "a.csv")
    b = write(tmp_path, "t,gro\u0308\u00dfe,farbe,y\nKo\u0308ln,3,gru\u0308n,3\n1.0,4,rot ,4\n", "b.csv")
    data = load_table(spec(a, b, features=("gro\u0308\u00dfe", "farbe")), seed=0)
    assert [(p.task, p.rows) for p in data.partitions] == [("1", 2), ("K\u00f6ln", 2)]
    assert set(data.partitions[1].columns["farbe"]) == {"gr\u00fcn"}
    assert list(data.partitions[0].columns) == ["gr\u00f6\u00dfe", "farbe"]


def test_classes_keep_their_spelling_and_are_the_same_in_another(tmp_path: Path) -> None:
    a = write(tmp_path, "t,x,y\na,1,TRUE\na,2,FALSE\n", "a.csv")
    b = write(tmp_path, "t,x,y\nb,1,True\nb,2,False\n", "b.csv")
    partitions = [*load_partitions(spec(a)), *load_partitions(spec(b))]
    encoding = pooled(partitions, "logistic")
    assert encoding.classes == ("FALSE", "TRUE")
    assert [p.encoded(encoding).y.tolist() for p in partitions] == [[1.0, 0.0]] * 2
    codes = load_partitions(spec(write(tmp_path, "t,x,y\na,1,01\na,2,02\n", "c.csv")))
    assert pooled(codes, "logistic").classes == ("01", "02")


@pytest.mark.parametrize("task", ["a\x07", "x" * 201])
def test_tasks_must_have_names_that_can_be_shown(tmp_path: Path, task: str) -> None:
    path = write(tmp_path, f"t,x,y\n{task},1,2\n")
    for load in (lambda: load_partitions(spec(path)), lambda: load_table(spec(path), seed=0)):
        with pytest.raises(DataError, match="printable"):
            load()


@pytest.mark.parametrize(
    "options",
    [
        {"task": "y"},
        {"weight": "t"},
        {"features": ()},
        {"features": ("a", "a")},
        {"features": ("a", "y")},
        {"test_fraction": 1.0},
        {"test_fraction": -0.1},
        {"test_fraction": float("nan")},
        {"test_fraction": "half"},
        {"parts": 0},
        {"parts": 1.5},
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        spec("a.csv", **options)


def test_a_table_needs_files_and_a_seed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one file"):
        spec()
    with pytest.raises(UsageError, match="seed"):
        load_table(spec(write(tmp_path, "t,x,y\n1,2,3\n")), seed=-1)


@pytest.mark.parametrize(
    ("values", "loss"),
    [
        ([0, 1, 1], "logistic"),
        ([1, -1], "logistic"),
        ([0.5, 1], "squared"),
        ([1, 1], "squared"),
        ([1, 2, 3], "squared"),
        ([True, False], "logistic"),
        (["a", "b", "a"], "logistic"),
    ],
)
def test_the_target_suggests_a_loss(values: list[Any], loss: str) -> None:
    assert suggest_loss(as_column(values, "y")) == loss


def test_numbers_that_may_be_classes_are_told(caplog: pytest.LogCaptureFixture) -> None:
    assert suggest_loss(as_column([0, 2, 1, 1], "y"), "grade") == "squared"
    assert "target 'grade' has the values 0, 1, 2 only: taken as numbers, not as classes" in caplog.text


@pytest.mark.parametrize("values", [["a"], ["a", "b", "c"]])
def test_text_of_other_than_two_classes_is_refused(values: list[str]) -> None:
    with pytest.raises(DataError, match=r"target 'grade' must be numbers or have two classes.*'a'"):
        suggest_loss(as_column(values, "y"), "grade")


def test_rows_to_predict_are_all_there(tmp_path: Path) -> None:
    train = write(tmp_path, "t,age,zip,y\n1,30,0150,a\n1,40,0151,b\n2,50,A,a\n")
    encoding = pooled(load_table(spec(train), seed=0).partitions, "logistic")
    assert encoding.features == ("age", "zip=0150", "zip=0151", "zip=A")
    first = write(tmp_path, "zip,age,t\n0151,,2\n0150,60,9\n", "b.csv")
    second = write(tmp_path, "t,zip,age\n1,A,40\n", "c.csv")
    wanted = Wanted("t", only=encoding.sources, known=dict.fromkeys(encoding.categories, ()))
    rows = read_table([first, second], wanted, encoding.sources, Reading())
    assert rows.tasks.tolist() == ["2", "9", "1"]
    assert (rows.rows, rows.target, rows.weights) == (3, None, None)
    X = encoding.encode_rows(rows.columns)
    assert X[:, 1:].tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    assert X[0, 0] == X[2, 0] == pytest.approx(0.0)
    path = write(tmp_path, "t,age\n1,2\n,3\n", "d.csv")
    assert read_table([path], Wanted("t", only=["age"]), ["age"], Reading()).tasks.tolist() == ["1", None]
    with pytest.raises(DataError, match=r"d\.csv must have a column 'zip'"):
        read_table([path], Wanted("t"), ["age", "zip"], Reading())


def test_parquet_and_npz_give_the_partitions_that_csv_gives(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rng = np.random.default_rng(3)
    X, y, tasks = rng.standard_normal((12, 2)), rng.standard_normal(12), rng.integers(1, 4, 12)
    lines = [
        ",".join(map(repr, (*x, float(v), int(t)))) for x, v, t in zip(X.tolist(), y, tasks, strict=True)
    ]
    csv = write(tmp_path, "x0,x1,y,tasks\n" + "\n".join(lines) + "\n", "s.csv")
    parquet.write_table(
        pa.table({"x0": X[:, 0], "x1": X[:, 1], "y": y, "tasks": tasks}), tmp_path / "s.parquet"
    )
    np.savez(tmp_path / "s.npz", X=X, y=y, tasks=tasks)
    names = [csv, str(tmp_path / "s.parquet"), str(tmp_path / "s.npz")]
    digests = [[p.digest() for p in load_partitions(TableSpec((name,)))] for name in names]
    assert digests[0] == digests[1] == digests[2]
    assert len(digests[0]) == 3


def test_weights_of_an_npz_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, X=[[1.0], [2.0]], y=[1, 2], tasks=["a", "a"], sample_weight=[2, 3])
    (part,) = load_table(TableSpec((str(path),)), seed=0).partitions
    assert list(part.columns) == ["x0"]
    assert part.weights is not None
    assert part.weights.tolist() == [2.0, 3.0]


@pytest.mark.skipif(not SCHOOL.exists(), reason="the school data is not here")
def test_the_school_data() -> None:
    data = load_table(TableSpec((str(SCHOOL),), "school", "score", test_fraction=0.25, parts=2), seed=0)
    assert data.loss == "squared"
    assert len(data.partitions) == 278
    assert list(data.test) == [str(i) for i in range(139)]
    assert sum(p.rows for p in [*data.partitions, *data.test.values()]) == 15362
    encoding = pooled(data.partitions, data.loss)
    assert encoding.features == tuple(f"x{i}" for i in range(27))
    X = np.concatenate([p.encoded(encoding).X for p in data.partitions])
    np.testing.assert_allclose(X.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(X.std(axis=0), 1.0, rtol=1e-12)
    assert data.test["138"].encoded(encoding).features == 27


def test_names_of_partitions_may_begin_with_the_site(tmp_path: Path) -> None:
    path = write(tmp_path, "t,x,y\na,1,2\na,2,3\n", "data.csv")
    assert [p.id for p in load_partitions(spec(path, site="no\u0308rd"))] == ["n\u00f6rd/data/a"]


@pytest.mark.parametrize("lines", ["1,1\n2,2\n-inf,3\n1e999,4", "1,1\n2,2\n3,-Infinity\n4,inf"])
def test_infinite_numbers_are_named_before_training(tmp_path: Path, lines: str) -> None:
    path = write(tmp_path, "t,x,y\n" + "".join(f"a,{line}\n" for line in lines.splitlines()))
    rule = r"column '[xy]' of .* must be finite .*--missing inf.*: infinite in 2 of 4 rows, first in row 3"
    with pytest.raises(DataError, match=rule):
        load_table(spec(path), seed=0)
    with pytest.raises(DataError, match=rule):
        load_partitions(spec(path))


def test_balanced_classes_are_those_of_the_rows_to_train_on(tmp_path: Path) -> None:
    lines = [f"{i},s{i % 2},{'yes' if i % 7 == 0 else 'no'}" for i in range(70)]
    path = write(tmp_path, "i,t,y\n" + "\n".join(lines) + "\n")
    plain = load_table(spec(path, test_fraction=0.2, parts=3), seed=0)
    data = load_table(spec(path, test_fraction=0.2, parts=3, class_weight="balanced"), seed=0)
    assert ids_of(data) == ids_of(plain)
    assert all(rows.weights is None for rows in data.test.values())
    for task in ("s0", "s1"):
        own = [p for p in data.partitions if p.task == task]
        weights = np.concatenate([p.weights for p in own if p.weights is not None])
        yes = np.concatenate([p.target == "yes" for p in own])
        assert weights[yes].sum() == pytest.approx(weights[~yes].sum())
        assert weights.sum() == pytest.approx(sum(p.rows for p in own))


def test_classes_are_not_balanced_without_classes_or_with_files_as_partitions(tmp_path: Path) -> None:
    path = write(tmp_path, "i,t,y\n1,a,2\n2,a,3\n3,a,4\n")
    balanced = spec(path, class_weight="balanced")
    with pytest.raises(
        UsageError, match="--class-weight is for a target of two classes, and 'y' is one of num"
    ):
        load_table(balanced, seed=0)
    with pytest.raises(UsageError, match="--class-weight must be left out where files are partitions"):
        load_partitions(balanced)
