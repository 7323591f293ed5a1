from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.problems import make_partitions, make_settings

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning import tasks
from asyncdmtl.learning.tasks import Declaration, Partition, TaskModels, whole_tasks

RNG = np.random.default_rng(0)


def part(X: object, y: object, name: str = "p0", task: str = "t") -> Partition:
    return Partition(name, task, X, y)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("X", "y", "rule"),
    [
        ([1.0, 2.0], [1.0, 2.0], "2-D X and a 1-D y"),
        ([[1.0], [2.0]], [[1.0], [2.0]], "2-D X and a 1-D y"),
        ([[1.0], [2.0]], [1.0], "as many targets as rows"),
        (np.empty((0, 3)), [], "at least one row"),
        (np.empty((2, 0)), [1.0, 2.0], "at least one row"),
        ([[np.nan]], [1.0], "X of partition 'p0' must be finite"),
        ([[1.0]], [np.inf], "y of partition 'p0' must be finite"),
        ([["a"]], [1.0], "must be numbers"),
        ([[1.0], [1.0, 2.0]], [1.0, 2.0], "must be numbers"),
    ],
)
def test_rows_that_make_no_sense_are_refused(X: object, y: object, rule: str) -> None:
    with pytest.raises(DataError, match=rule) as caught:
        part(X, y)
    assert "p0" in str(caught.value)


def test_rows_are_kept_as_contiguous_float64() -> None:
    made = part(np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)), [0, 1])
    assert made.X.dtype == made.y.dtype == np.float64
    assert made.X.flags.c_contiguous
    assert (made.rows, made.features) == (2, 3)


def test_digest_depends_on_all_that_a_partition_is() -> None:
    X, y = RNG.standard_normal((3, 2)), RNG.standard_normal(3)
    nudged = X.copy()
    nudged[2, 1] = np.nextafter(nudged[2, 1], np.inf)
    others = [
        part(X, y, "p1"),
        part(X, y, "p0", "u"),
        part(X, y, "p0t", ""),
        part(nudged, y),
        part(X, -y),
        part(X[:2], y[:2]),
        part(X.reshape(3, 2)[:, ::-1], y),
    ]
    digests = {made.digest() for made in [part(X, y), *others]}
    assert len(digests) == len(others) + 1
    assert part(np.asfortranarray(X), y.tolist()).digest() == part(X, y).digest()
    assert all(len(digest) == 16 for digest in digests)


def test_digest_is_fixed_for_all_machines() -> None:
    assert part([[1.0, 2.0]], [3.0]).digest().hex() == "5404e562041503de5af1e54a1f22b955"


@given(
    rows=st.integers(1, 12), features=st.integers(1, 12), intercept=st.booleans(), seed=st.integers(0, 1000)
)
def test_smoothness_is_a_tight_bound_of_the_curvature(
    rows: int, features: int, intercept: bool, seed: int
) -> None:
    X = np.random.default_rng(seed).standard_normal((rows, features))
    with_ones = np.column_stack([X, np.ones(rows)]) if intercept else X
    largest = np.linalg.norm(with_ones, 2) ** 2 / rows
    smoothness = part(X, np.zeros(rows)).smoothness("squared", intercept=intercept)
    assert largest <= smoothness <= largest * (1 + 2**-11 + 1e-8)
    assert (smoothness / 2.0 ** np.floor(np.log2(smoothness)) * 2**11).is_integer()
    logistic = part(X, np.zeros(rows)).smoothness("logistic", intercept=intercept)
    assert largest / 4 <= logistic <= largest / 4 * (1 + 2**-11 + 1e-8)


def test_smoothness_does_not_hang_on_a_last_bit_at_round_values() -> None:
    exact = part(np.ones((4, 1)), np.zeros(4)).smoothness("squared", intercept=False)
    for factor in (1 - 1e-15, 1 + 1e-15):
        assert part(np.full((4, 1), factor), np.zeros(4)).smoothness("squared", intercept=False) == exact


def test_smoothness_is_computed_once_for_each_curvature(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[float] = []

    def bound(S: Floats, factor: float) -> float:
        computed.append(factor)
        return factor

    monkeypatch.setattr(tasks, "largest_eigenvalue_bound", bound)
    own = part(np.ones((2, 3)), [0.0, 1.0])
    for loss, intercept, count in (("squared", True, 1), ("squared", False, 2), ("logistic", False, 3)):
        first = own.smoothness(loss, intercept=intercept)
        assert own.smoothness(loss, intercept=intercept) == first
        assert len(computed) == count


def test_smoothness_of_a_million_features() -> None:
    smoothness = part(np.ones((2, 1_000_000)), [0.0, 1.0]).smoothness("squared", intercept=True)
    assert smoothness == pytest.approx(1_000_001, rel=2**-11)


def test_features_too_large_to_square_are_refused() -> None:
    with pytest.raises(DataError, match="'p0' is too large"):
        part([[1e200]], [1.0]).info(make_settings())


def test_info_refuses_targets_that_are_no_labels() -> None:
    with pytest.raises(DataError, match="targets of partition 'p0'"):
        part([[1.0]], [2.0]).info(make_settings(loss="logistic"))


@pytest.mark.parametrize(("intercept", "smoothness"), [("free", 2.0), ("penalised", 3.0), ("none", 2.0)])
def test_info_tells_what_the_coupling_sees(intercept: str, smoothness: float) -> None:
    partition = part([[1.0, 1.0], [1.0, 1.0]], [0.0, 1.0])
    info = partition.info(make_settings(intercept=intercept))
    assert (info.id, info.task, info.digest) == (partition.id, partition.task, partition.digest())
    assert (info.rows, info.weight, info.features) == (2, 2.0, 2)
    assert info.smoothness == pytest.approx(smoothness, rel=2**-10)


@pytest.mark.parametrize("rows", [2, 5])
def test_a_weight_of_two_is_as_two_equal_rows(rows: int) -> None:
    rng = np.random.default_rng(0)
    X, weights = rng.standard_normal((rows, 3)), rng.integers(1, 4, rows)
    weighted = Partition("p", "t", X, np.zeros(rows), weights.astype(float))
    repeated = Partition("p", "t", np.repeat(X, weights, axis=0), np.zeros(weights.sum()))
    assert weighted.weight == repeated.weight
    for intercept in (True, False):
        assert weighted.smoothness("squared", intercept=intercept) == pytest.approx(
            repeated.smoothness("squared", intercept=intercept), rel=2**-10
        )
    assert weighted.digest() != Partition("p", "t", X, np.zeros(rows)).digest()


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [0.0, 0.0], [np.nan, 1.0], [1e308, 1e308]])
def test_weights_without_sense_are_refused(weights: list[float]) -> None:
    with np.errstate(over="ignore"), pytest.raises(DataError, match="weights of partition 'p'"):
        Partition("p", "t", np.ones((2, 1)), np.zeros(2), weights)  # type: ignore[arg-type]


MODELS = TaskModels(("a", "b"), np.array([[1.0, -2.0], [0.5, 0.0]]), np.array([0.25, -1.0]), "logistic")


def test_models_predict() -> None:
    X = [[1.0, 0.0], [0.0, 1.0]]
    assert MODELS.decision_function(X, "a").tolist() == [1.25, -1.75]
    assert MODELS.predict(X, "a").tolist() == [1.0, 0.0]
    assert MODELS.predict_proba(X, "a")[:, 1] == pytest.approx(1 / (1 + np.exp([-1.25, 1.75])))
    assert MODELS.predict_proba(X, "a").sum(axis=1) == pytest.approx(1.0)
    regression = TaskModels(MODELS.tasks, MODELS.coef_, MODELS.intercept_, "squared")
    assert regression.predict(X, "b").tolist() == [-0.5, -1.0]
    with pytest.raises(UsageError, match="logistic"):
        regression.predict_proba(X, "b")


def test_models_refuse_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="task must be one of a, b, got 'c'"):
        MODELS.predict([[1.0, 2.0]], "c")
    with pytest.raises(DataError, match="2 columns"):
        MODELS.predict([[1.0]], "a")
    with pytest.raises(DataError, match="intercept_"):
        TaskModels(("a",), MODELS.coef_, MODELS.intercept_, "squared")
    with pytest.raises(DataError, match="loss of models"):
        TaskModels(MODELS.tasks, MODELS.coef_, MODELS.intercept_, "hinge")


def test_whole_tasks_keep_the_order_of_partitions() -> None:
    partitions = make_partitions(4, "squared")
    weighted = Partition("p2", "t1", partitions[2].X, partitions[2].y, np.full(partitions[2].rows, 0.5))
    whole = whole_tasks([partitions[3], *partitions[:2], weighted])
    assert set(whole) == {"t0", "t1"}
    assert whole["t1"].task == "t1"
    assert whole["t1"].X.tolist() == [*partitions[3].X.tolist(), *partitions[2].X.tolist()]
    assert whole["t1"].y.tolist() == [*partitions[3].y.tolist(), *partitions[2].y.tolist()]
    assert whole["t0"].weights is None
    assert whole["t1"].weights is not None
    assert whole["t1"].weights.tolist() == [1.0] * partitions[3].rows + [0.5] * partitions[2].rows


def test_copies_have_one_claim_whatever_the_order_of_columns() -> None:
    def declared(names: str, mean: float = 0.5) -> Declaration:
        columns = [[name, {"count": 3, "mean": mean, "M2": 2.0}] for name in names]
        prints = {"rows": "r", "columns": [[name, "0" * 16] for name in names]}
        return Declaration("p0", "t", bytes(16), 3, {"columns": columns, "fingerprints": prints})

    part = declared("abc")
    assert declared("cab").claim == part.claim
    others = (declared("abd"), declared("abc", 0.25), replace(part, rows=4), replace(part, digest=b"x" * 16))
    assert len({other.claim for other in (part, *others)}) == 5
    # A survey without the fields that it must have, or with a column without a name, is equal to nothing.
    for columns in (3, [[["a"], {}]]):
        malformed = replace(part, survey={"columns": columns})
        assert malformed.claim != replace(malformed).claim
