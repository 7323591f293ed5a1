from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.problems import make_settings

from asyncdmtl.data.loading import TABLE_DEFAULTS, is_table, load, load_share, load_stored, names_of
from asyncdmtl.data.raw_partition import RawPartition
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.tasks import Partition

NOTHING: dict[str, Any] = {
    "task": None, "target": None, "features": None, "weight": None, "test_fraction": None, "parts": None,
    "seed": 0,
}  # fmt: skip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "marks.csv"
    rows = "".join(f"{'ab'[n % 2]},{n},{'xyz'[n % 3]},{n * 1.5}\n" for n in range(20))
    file.write_text(f"school,age,ward,mark\n{rows}")
    return file


def given(data: object, **changes: Any) -> dict[str, Any]:
    return {**NOTHING, "data": str(data), **changes}


@pytest.mark.parametrize(
    "spec", ["a.csv", "A.CSV", "a.csv.gz", "b.tsv", "x/*.parquet", "s3://b/k", "a.npz", '"a, b.csv"']
)
def test_files_are_tables(spec: str) -> None:
    assert is_table(spec)


@pytest.mark.parametrize("spec", ["digits", "digits:rows=3", "my.toml", "my.toml:rows=3", "./x/my.toml"])
def test_recipes_are_not(spec: str) -> None:
    assert not is_table(spec)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a, b ,c", ("a", "b", "c")),
        ('"a, b" , c', ("a, b", "c")),
        ('" a"', (" a",)),
        (("a, b", " c"), ("a, b", " c")),
    ],
)
def test_names_in_quotes_keep_commas_and_spaces(text: Any, names: tuple[str, ...]) -> None:
    assert names_of(text) == names


@pytest.mark.parametrize("name", ["x, y.csv", " z.csv"])
def test_a_file_may_have_commas_and_spaces_in_its_name(
    table: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.rename(table.with_name(name))
    monkeypatch.chdir(table.parent)
    loaded = [load(given(data, task="school", target="mark")) for data in (name, f'"{name}"')]
    assert [len(each.ids) for each in loaded] == [2, 2]


def test_a_recipe_is_loaded_with_its_settings() -> None:
    loaded = load(given("digits:rows=8"))
    assert loaded.ids == tuple(f"p{n}" for n in range(20))
    assert loaded.metric == "ROC AUC"
    assert loaded.defaults["coupling"] == "l21"
    assert (loaded.defaults["loss"], loaded.defaults["intercept"]) == ("squared", "free")
    prepared = loaded.prepared(make_settings())
    assert prepared.partitions == loaded.stored
    assert prepared.encoding.is_empty
    assert set(prepared.test) == {f"digit {t}" for t in range(10)}
    assert load(given("digits"), test=False).test == {}


def test_some_columns_may_be_omitted(table: Path) -> None:
    own = {"task": "school", "target": "mark"}
    (first, *_) = load(given(table, omit="ward", **own)).stored
    assert isinstance(first, RawPartition)
    assert list(first.columns) == ["age"]
    for stored in load_stored(given(table, omit="ward", **own), None):
        assert isinstance(stored, RawPartition)
        assert list(stored.columns) == ["age"]
    for changes, complaint in (
        ({"omit": "wards"}, r"must have the columns to omit \['wards'\]"),
        ({"omit": "mark"}, "omit must not include task, target or weight"),
        ({"omit": "ward", "features": "age"}, "omit must not be given with features"),
    ):
        with pytest.raises(UsageError, match=complaint):
            load(given(table, **own, **changes))


def test_a_table_is_split_cut_and_encoded(table: Path) -> None:
    loaded = load(given(table, task="school", target="mark", test_fraction=0.2, parts=2))
    assert [(s.id, s.task) for s in loaded.stored] == [("p0", "a"), ("p1", "a"), ("p2", "b"), ("p3", "b")]
    assert loaded.defaults == {**TABLE_DEFAULTS, "loss": "squared"}
    assert loaded.task == "school"
    prepared = loaded.prepared(make_settings(standardise=True))
    X = np.concatenate([p.X for p in prepared.partitions])
    assert prepared.encoding.features == ("age", "ward=x", "ward=y", "ward=z")
    assert (X[:, 0].mean(), X[:, 0].std()) == pytest.approx((0.0, 1.0), abs=1e-12)
    assert (X[:, 1:].sum(axis=1) == 1.0).all()
    assert {task: len(y) for task, (_, y) in prepared.test.items()} == {"a": 2, "b": 2}


def test_a_worker_stores_what_it_is_told_to(table: Path) -> None:
    options = given(table, task="school", target="mark", parts=2)
    stored = load_stored(options, ["p3", "p0"])
    assert [s.id for s in stored] == ["p0", "p3"]
    assert all(isinstance(s, RawPartition) for s in stored)
    with pytest.raises(UsageError, match=r"has the partitions p0 to p3; unknown.*'p4'"):
        load_stored(options, ["p4"])
    (recipe,) = load_stored(given("digits"), ["p7"])
    assert isinstance(recipe, Partition)


def test_a_worker_that_is_told_what_to_store_does_not_warn_again(
    table: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with table.open("a") as file:
        file.write("a,1,x,\n")
    options = given(table, task="school", target="mark")
    load_stored(options, ["p0"])
    assert caplog.text == ""
    load(options)
    assert "1 of 21 rows have no target" in caplog.text


def test_files_of_numbers_are_trained_on_in_double_precision(table: Path) -> None:
    assert load(given(table, task="school", target="mark")).defaults["dtype"] == "float64"
    assert "dtype" not in load(given("digits")).defaults


def test_workers_share_partitions_cyclically(table: Path) -> None:
    for data in (str(table), "synthetic:tasks=2,rows=8,features=3,parts=2"):
        options = given(data, **({"task": "school", "target": "mark", "parts": 2} if "csv" in data else {}))
        ids = load(options).ids
        shares = [{stored.id for stored in load_share(options, k, 3, 2)} for k in range(3)]
        assert [sum(name in share for share in shares) for name in ids] == [2] * len(ids)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_worker_without_names_stores_its_files(table: Path) -> None:
    stored = load_stored(given(table, task="school", target="mark"), None)
    assert [s.id for s in stored] == ["marks/a", "marks/b"]


def test_what_does_not_fit_is_named(table: Path) -> None:
    for missing in ("task", "target"):
        with pytest.raises(UsageError, match=f"--{missing} must name a column"):
            load(given(table, **{"task": "school", "target": "mark", missing: None}))
    with pytest.raises(UsageError, match="--test-fraction is for data in files only"):
        load(given("digits", test_fraction=0.5))
    with pytest.raises(UsageError, match=r"--task is for data in files only \(\.csv, .*'marks.doc' is none"):
        load(given("marks.doc", task="school"))


def test_files_are_partitions_where_it_is_said(table: Path, tmp_path: Path) -> None:
    for site in ("h0", "h1"):
        (tmp_path / site).mkdir()
        (tmp_path / site / table.name).write_bytes(table.read_bytes())
    own = {"task": "school", "target": "mark", "by_file": True}
    both = (str(tmp_path / "h0" / table.name), str(tmp_path / "h1" / table.name))
    loaded = load({**NOTHING, "data": both, **own, "test_fraction": 0.2})
    assert loaded.ids == ("marks/a", "marks/b")
    assert loaded.test == {}
    assert (loaded.task, loaded.defaults["loss"]) == ("school", "squared")
    assert [part.declaration().rows for part in loaded.stored] == [8, 8]
    (part,) = load_stored({**NOTHING, "data": both, **own}, ["marks/b"])
    assert (part.id, part.declaration().rows) == ("marks/b", 10)
    # Files of one name that are no copies are named after their folders, as `--site FOLDER` names them.
    (tmp_path / "h1" / table.name).write_text(table.read_text() + "a,1,x,2\n")
    assert load({**NOTHING, "data": both, **own}).ids == (
        "h0/marks/a", "h0/marks/b", "h1/marks/a", "h1/marks/b",
    )  # fmt: skip
    deeper = tmp_path / "x" / "h1" / table.name
    deeper.parent.mkdir(parents=True)
    deeper.write_text(table.read_text() + "b,1,x,2\n")
    with pytest.raises(UsageError, match="must have different names"):
        load({**NOTHING, "data": (*both, str(deeper)), **own})
    with pytest.raises(UsageError, match="--parts cannot be given with --by-file"):
        load(given(table, **own, parts=2))
    with pytest.raises(UsageError, match="--by-file is for data in files"):
        load(given("digits", by_file=True))


def test_recipes_have_no_class_weights() -> None:
    with pytest.raises(UsageError, match="--class-weight is for data in files only"):
        load(given("digits", class_weight="balanced"))
