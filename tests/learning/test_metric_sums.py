from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    d2_tweedie_score,
    f1_score,
    log_loss,
    mean_poisson_deviance,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.metric_sums import (
    BINS,
    Deviances,
    Histograms,
    Probabilities,
    SquaredErrors,
    merged,
    sums_from,
    sums_of,
)
from asyncdmtl.learning.tasks import Partition, TaskModels

RNG = np.random.default_rng(0)
Y = RNG.standard_normal(50) + 1e4
SCORES = {kind: Y + 0.3 * RNG.standard_normal(50) for kind in ("coupled", "single_task", "pooled")}
LABELS = (RNG.random(400) < 0.2).astype(float)
MARGINS = {"coupled": 2.0 * LABELS - 1.5 + RNG.standard_normal(400)}


def parts(kind: Any, y: Any, scores: Any) -> list[Any]:
    places = (slice(None, 17), slice(17, 18), slice(18, None))
    return [kind.of(y[at], {name: s[at] for name, s in scores.items()}) for at in places]


def test_metrics_of_a_regression_are_those_of_all_rows() -> None:
    found = merged(parts(SquaredErrors, Y, SCORES))
    assert found.rows == 50
    for kind, s in SCORES.items():
        assert found.metric("RMSE", kind) == pytest.approx(root_mean_squared_error(Y, s), rel=1e-12)
        assert found.metric("R²", kind) == pytest.approx(r2_score(Y, s), rel=1e-9)


def test_metrics_of_a_classification_are_those_of_all_rows() -> None:
    found = merged(parts(Probabilities, LABELS, MARGINS))
    assert found.rows == 400
    s = MARGINS["coupled"]
    probabilities = 1.0 / (1.0 + np.exp(-s))
    assert found.metric("log-loss", "coupled") == pytest.approx(log_loss(LABELS, probabilities))
    assert found.metric("Brier score", "coupled") == pytest.approx(brier_score_loss(LABELS, probabilities))
    assert found.metric("F1", "coupled") == pytest.approx(f1_score(LABELS, s > 0))
    precision = average_precision_score(LABELS, s)
    assert found.metric("average precision", "coupled") == pytest.approx(precision, abs=3e-3)
    assert found.metric("accuracy", "coupled") == accuracy_score(LABELS, s > 0)
    assert found.metric("ROC AUC", "coupled") == pytest.approx(roc_auc_score(LABELS, s), abs=1e-3)
    few = np.round(4.0 * s)  # no bin has two of these scores
    found = Histograms.of(LABELS, {"coupled": few})
    precision = average_precision_score(LABELS, few)
    assert found.metric("average precision", "coupled") == pytest.approx(precision, rel=1e-12)


def test_a_score_of_nothing_says_class_0_and_the_least_above_it_class_1() -> None:
    scores = np.array([0.0, -0.0, 5e-324, -5e-324, 1e300, -1e300])
    (counts,) = Histograms.of(np.zeros(6), {"coupled": scores}).counts.values()
    assert counts[0, BINS // 2 :].sum() == 2
    assert counts[0, [0, BINS - 1]].tolist() == [1, 1]


def test_metrics_that_do_not_exist_are_not_numbers() -> None:
    same = SquaredErrors.of(np.ones(3), {"coupled": np.zeros(3)})
    assert np.isnan(same.metric("R²", "coupled"))
    ones = Histograms.of(np.ones(3), {"coupled": np.zeros(3)})
    assert np.isnan(ones.metric("ROC AUC", "coupled"))
    zeros = Histograms.of(np.zeros(3), {"coupled": -np.ones(3)})
    assert np.isnan(zeros.metric("average precision", "coupled"))
    assert np.isnan(zeros.metric("F1", "coupled"))


def test_kinds_that_some_parts_lack_are_left_out() -> None:
    some = SquaredErrors.of(Y, {"coupled": Y})
    assert merged([SquaredErrors.of(Y, SCORES), some]).kinds == ("coupled",)


@pytest.mark.parametrize(
    ("loss", "sums"),
    [
        ("squared", SquaredErrors.of(Y, SCORES)),
        ("squared_hinge", Histograms.of(LABELS, MARGINS)),
        ("logistic", Probabilities.of(LABELS, MARGINS)),
    ],
)
def test_sums_survive_the_wire(loss: str, sums: Any) -> None:
    again = sums_from(loss, msgpack.unpackb(msgpack.packb(sums.as_list())))
    assert again.as_list() == sums.as_list()


@pytest.mark.parametrize(
    ("loss", "content"),
    [
        ("squared", None),
        ("squared", [3, 0.0, 1.0]),
        ("squared", [0, 0.0, 1.0, {"coupled": 1.0}]),
        ("squared", [3, float("nan"), 1.0, {"coupled": 1.0}]),
        ("squared", [3, 0.0, -1.0, {"coupled": 1.0}]),
        ("squared", [3, 0.0, 1.0, {"coupled": float("inf")}]),
        ("squared", [3, 0.0, 1.0, {"pooled": 1.0}]),
        ("squared", [3, 0.0, 1.0, {"best": 1.0}]),
        ("squared", [3, 0.0, 1.0, 5]),
        # The square of such a mean is beyond floats.
        ("squared", [3, 1e200, 1.0, {"coupled": 1.0}]),
        ("squared", [3, 0.0, 1.0, {"coupled": 1e300}]),
        ("squared_hinge", [2, {"coupled": [[1], [1], [0]]}]),
        ("squared_hinge", [1, {"coupled": [[BINS], [1], [0]]}]),
        ("squared_hinge", [1, {"coupled": [[-1], [1], [0]]}]),
        ("squared_hinge", [2, {"coupled": [[1, 1], [1, 1], [0, 0]]}]),
        ("squared_hinge", [1, {"coupled": [[1], [2], [-1]]}]),
        ("squared_hinge", [1, {"coupled": [[1 << 80], [1], [0]]}]),
        # 2^63 − 1, twice, and 5 are 3 where sums wrap around after 64 bits.
        ("squared_hinge", [3, {"coupled": [[1, 2], [2**63 - 1, 2**63 - 1], [5, 0]]}]),
        ("squared_hinge", [3, {"coupled": [[1.5], [3], [0]]}]),
        ("squared_hinge", [3, {"coupled": [[1], [3], []]}]),
        ("squared_hinge", [1, {}]),
        ("logistic", "ab"),
        ("logistic", [1, {"coupled": [[1], [1], [0]]}, {}]),
        ("logistic", [1, {"coupled": [[1], [1], [0]]}, {"coupled": [1.0]}]),
        ("logistic", [1, {"coupled": [[1], [1], [0]]}, {"coupled": [1.0, -1.0]}]),
        ("logistic", [1, {"coupled": [[1], [1], [0]]}, {"coupled": [1.0, 1.0], "pooled": [1.0, 1.0]}]),
    ],
)
def test_what_no_worker_tells_is_refused(loss: str, content: Any) -> None:
    with pytest.raises(UsageError, match="sums of test rows must be"):
        sums_from(loss, content)


def test_sums_are_of_the_scores_of_models() -> None:
    rows = Partition("p", "b", np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([1.0, 2.0]))
    models = TaskModels(("a", "b"), np.array([[9.0, 9.0], [1.0, 0.0]]), np.array([9.0, 0.5]), "squared")
    found = sums_of("squared", rows, {"coupled": models})
    assert found.as_list() == [2, 1.5, 0.5, {"coupled": 0.25 + 2.25}]


def test_metrics_of_counts_are_those_of_all_rows() -> None:
    counts = RNG.poisson(2.0, 50).astype(float)
    counts[17] = 0.0  # a part of which all counts are 0
    scores = {kind: np.log(counts + 0.5) + 0.3 * RNG.standard_normal(50) for kind in ("coupled", "pooled")}
    found = merged([sums_from("poisson", part.as_list()) for part in parts(Deviances, counts, scores)])
    for kind, s in scores.items():
        assert found.metric("Poisson deviance", kind) == pytest.approx(
            mean_poisson_deviance(counts, np.exp(s))
        )
        assert found.metric("D²", kind) == pytest.approx(d2_tweedie_score(counts, np.exp(s), power=1))
    nothing = merged([Deviances.of(np.zeros(2), {"coupled": np.zeros(2)})] * 2)
    assert np.isnan(nothing.metric("D²", "coupled"))
