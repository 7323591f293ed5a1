import bench_rounds
import numpy as np
import pytest

from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import train


def test_the_other_solver_finds_what_statistics_find() -> None:
    partitions, loss = bench_rounds.squared_tasks(tasks=4, rows=20, features=3)
    settings = Settings(
        loss=loss, coupling="mean-regularised", strength=0.1, rounds=1, dtype="float64", update="statistics"
    )
    outcome = train(partitions, settings).outcome
    assert outcome is not None
    np.testing.assert_allclose(bench_rounds.reference(partitions, settings), outcome.objective, rtol=1e-9)


@pytest.mark.parametrize("update", ["newton", "gradient"])
def test_a_run_is_measured_on_sockets(update: str) -> None:
    partitions, loss = bench_rounds.rare_labels(tasks=3, features=2)
    figure = bench_rounds.measure(partitions, loss, update, "mean-regularised", 0.1)
    assert abs(figure["excess"]) < bench_rounds.AGREE
    assert figure["rounds"] > 1
    assert figure["bytes"] > 0
