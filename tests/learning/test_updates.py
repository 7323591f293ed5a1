from dataclasses import replace

import numpy as np
import pytest
from support.problems import make_partitions, make_settings

from asyncdmtl.errors import DataError
from asyncdmtl.learning.settings import AUTO_COUPLINGS, FEW_COUPLINGS
from asyncdmtl.learning.tasks import Partition, PartitionInfo
from asyncdmtl.learning.updates import (
    CANDIDATES_BYTES,
    candidates_wire,
    cheapest,
    chooses_across,
    coupling_names,
    forecasts,
    resolve,
    statistics_layout,
    why_no_curvature_after_local_models,
)


def infos(features: int, loss: str = "squared") -> list[PartitionInfo]:
    return [p.info(make_settings(loss=loss)) for p in make_partitions(4, loss, features=features)]


def test_statistics_for_few_features_gradients_for_many() -> None:
    assert resolve(make_settings(update="auto"), infos(20)) == "statistics"
    assert resolve(make_settings(update="auto"), infos(3000)) == "quasi-newton"
    assert resolve(make_settings(update="auto"), infos(20_000)) == "gradient"
    costs = {each.update: each.cost(8) for each in forecasts(make_settings(update="auto"), 3000, 10, 4)}
    assert costs["quasi-newton"] < costs["gradient"] < costs["statistics"] < costs["newton"]


@pytest.mark.parametrize(
    ("changes", "update"),
    [
        ({"loss": "huber"}, "newton"),
        ({"aggregate": "median"}, "gradient"),
        ({"compression": "float16"}, "gradient"),
    ],
    ids=str,
)
def test_where_statistics_do_not_say_all_others_are_taken(changes: dict[str, str], update: str) -> None:
    settings = make_settings(**{"update": "auto", **changes})
    assert resolve(settings, infos(5)) == update
    assert chooses_across(settings, 5, 100, 4) == (update == "newton")


def test_of_many_features_curvature_is_learned_and_of_very_many_it_is_not() -> None:
    settings = make_settings(update="auto", loss="huber")
    assert resolve(settings, infos(60)) == "newton"
    assert resolve(settings, infos(600)) == "quasi-newton"
    assert resolve(settings, infos(3000)) == "quasi-newton"
    assert resolve(settings, infos(20_000)) == "gradient"
    # These have no solution with matrices of low rank.
    assert resolve(replace(settings, coupling="mean"), infos(3000)) == "gradient"
    with pytest.raises(DataError, match="with coupling mean that the metrics of 2 tasks are at most"):
        resolve(replace(settings, coupling="mean", update="quasi-newton"), infos(20_000))


def test_a_round_costs_a_megabyte_beside_what_it_moves() -> None:
    made = {each.update: each for each in forecasts(make_settings(update="auto", loss="huber"), 30, 10, 4)}
    newton, learning = made["newton"], made["quasi-newton"]
    vector = 8 * (1 + 31 + 31 * 32 // 2)
    assert newton.cost(58) == newton.rounds * (1_000_000 + 2 * 58 * (vector + 40))
    # Few partitions: rounds count for more than bytes. Many partitions: bytes do.
    assert newton.bytes > 10 * learning.bytes
    assert cheapest(list(made.values()), 58) is newton
    assert cheapest(list(made.values()), 58_000) is learning
    assert cheapest([replace(newton, reason="no")], 58) is None


def test_what_is_asked_for_is_done() -> None:
    for update in ("gradient", "statistics"):
        assert resolve(make_settings(update=update), infos(3000)) == update


def test_small_partitions_are_not_told_of() -> None:
    settings = make_settings(update="statistics", least_rows=5)
    with pytest.raises(DataError, match=r"partition 'p0'.*5 rows.*--least-rows"):
        resolve(settings, infos(5))
    assert resolve(replace(settings, update="auto"), infos(5)) == "quasi-newton"
    with pytest.raises(DataError, match=r"5 rows.*curvatures"):
        resolve(replace(settings, update="newton"), infos(5))
    choosing = make_settings(update="auto", strength=None, least_rows=5)
    with pytest.raises(DataError, match=r"5 rows in each of 5 folds"):
        resolve(choosing, infos(5))
    assert chooses_across(make_settings(update="auto", least_rows=5), 5, 25, 4)
    assert not chooses_across(make_settings(update="auto", least_rows=5), 5, 24, 4)


def test_folds_have_statistics_of_their_own_only_where_something_is_chosen() -> None:
    assert statistics_layout(make_settings(), 5).folds == 1
    assert statistics_layout(make_settings(update="auto", strength=None, folds=4), 5).folds == 4


def test_a_partition_of_one_row_may_be_told_of_unless_forbidden() -> None:
    one = Partition("p", "t", np.array([[1.0, 2.0]]), np.ones(1))
    assert resolve(make_settings(update="auto"), [one.info(make_settings())]) == "statistics"


@pytest.mark.parametrize(
    ("features", "names"), [(5, AUTO_COUPLINGS), (54, AUTO_COUPLINGS), (60, FEW_COUPLINGS)]
)
def test_steps_choose_among_as_many_couplings_as_vectors_have_room_for(
    features: int, names: tuple[str, ...]
) -> None:
    settings = make_settings(
        loss="logistic", coupling="auto", strength=None, update="newton", intercept="auto"
    )
    assert coupling_names(settings, features, 4) == names
    assert 8 * candidates_wire(settings, features, 4).length <= CANDIDATES_BYTES
    assert coupling_names(settings, 5, 1) == ("nuclear", "l21", "ridge", "none")


def test_after_local_models_curvature_is_told_unless_partitions_are_small_or_matrices_large() -> None:
    settings = make_settings(update="model", least_rows=30)
    assert why_no_curvature_after_local_models(settings, 64, 30, 10) == ""
    assert "needs 30 rows" in why_no_curvature_after_local_models(settings, 64, 29, 10)
    assert "more than 1048576" in why_no_curvature_after_local_models(settings, 400, 30, 10)
