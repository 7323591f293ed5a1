import bench_rounds
import numpy as np
import pytest
import rounds_data
import rounds_reference
from support.problems import make_partitions

from asyncdmtl.data import loading
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import whole_tasks
from asyncdmtl.learning.training import train


@pytest.mark.parametrize("coupling", rounds_reference.COUPLINGS)
@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_the_other_solver_finds_the_same_minimum(loss: str, coupling: str) -> None:
    partitions = make_partitions(6, loss, features=3)
    update = "statistics" if loss == "squared" else "newton"
    settings = Settings(
        loss=loss, coupling=coupling, strength=0.1, rounds=50, dtype="float64", update=update, tolerance=1e-11
    )
    trained = train(partitions, settings)
    value = trained.objectives.min() if trained.outcome is None else trained.outcome.objective
    np.testing.assert_allclose(rounds_reference.least(partitions, loss, coupling, 0.1), value, rtol=1e-7)


def test_rounds_are_counted_until_the_minimum_is_near() -> None:
    partitions = make_partitions(6, "squared", features=3)
    made = bench_rounds.by_update("small", partitions, "squared", "l21")
    assert made is not None
    row, excess = made
    assert abs(excess) < bench_rounds.NEAR
    gradient, quasi, ratio, newton = row[2:6]
    assert int(gradient) > int(quasi) > int(newton)
    by_epochs = [int(cell) for cell in row[7:10]]
    assert max(by_epochs) < int(gradient)
    assert float(ratio) == pytest.approx(int(gradient) / int(quasi), abs=0.05)


def test_tables_are_read_as_by_a_command(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("rounds") / "wine.csv"
    rounds_data.write_table(rounds_data.TABLES["wine"](), file)
    partitions, loss = bench_rounds.partitions_of(bench_rounds.Source("wine", file, "task", "target"))
    assert loss == "squared"
    assert sorted(whole_tasks(partitions)) == ["t0", "t1", "t2"]
    assert loading.is_table(str(file))


def test_few_labels_are_positive() -> None:
    rows = rounds_data.rare_labels()
    assert 0.03 < rows.y.mean() < 0.09
    assert all(rows.y[rows.task == t].any() for t in range(29))
