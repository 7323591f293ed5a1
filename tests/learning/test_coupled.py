import numpy as np
import pytest
from support.quadratics import (
    NORMS,
    SQUARES,
    coupling_of,
    least,
    make_low_rank_quadratics,
    make_quadratics,
)

from asyncdmtl.errors import UsageError
from asyncdmtl.learning.coupled import solve
from asyncdmtl.learning.couplings.registry import COUPLINGS

LAMBDAS = (0.5, 0.1, 0.02)


@pytest.mark.parametrize("rows", [8, 2])
@pytest.mark.parametrize("name", COUPLINGS)
def test_reaches_what_another_solver_finds(name: str, rows: int) -> None:
    quadratics = make_quadratics(rows=rows)
    solution = solve(coupling_of(name, 1.0, 4), quadratics, LAMBDAS)
    expected = np.array([least(name, quadratics, strength) for strength in LAMBDAS])
    scale = max(float(expected.max()), 1e-3)
    np.testing.assert_allclose(solution.value[0], expected, rtol=0, atol=1e-6 * scale)
    assert (solution.gap[0] <= 1e-10 * np.maximum(np.abs(solution.value[0]), scale)).all()


@pytest.mark.parametrize("name", [*SQUARES, *NORMS])
def test_value_is_the_objective_at_the_models(name: str) -> None:
    quadratics = make_quadratics()
    solution = solve(coupling_of(name, 1.0, 4), quadratics, LAMBDAS)
    for i, strength in enumerate(LAMBDAS):
        penalty = coupling_of(name, strength, 4).penalty(solution.W[0, i])
        value = quadratics.value(solution.W[:, i : i + 1])[0, 0] + penalty
        np.testing.assert_allclose(
            solution.value[0, i], value, rtol=2e-6 if name == "sparse-low-rank" else 1e-10
        )


@pytest.mark.parametrize("name", COUPLINGS)
def test_data_sets_side_by_side_have_the_models_they_have_alone(name: str) -> None:
    quadratics = make_quadratics(K=3)
    together = solve(coupling_of(name, 1.0, 4), quadratics, [0.1])
    for k in range(3):
        alone = solve(coupling_of(name, 1.0, 4), quadratics.of([k]), [0.1])
        np.testing.assert_allclose(together.W[k], alone.W[0], atol=1e-4)
        np.testing.assert_allclose(together.value[k], alone.value[0], rtol=1e-9)


@pytest.mark.parametrize("name", [*SQUARES, *NORMS])
def test_each_data_set_may_have_its_own_strength_and_accuracy(name: str) -> None:
    quadratics, strengths = make_quadratics(K=3), np.array([[2.0], [0.1], [0.004]])
    enough = np.array([1e-3, 1e-9, 1e-6])
    together = solve(coupling_of(name, 1.0, 4), quadratics, strengths, tolerance=0.0, enough=enough)
    assert (together.gap[:, 0] <= enough).all()
    for k in range(3):
        alone = solve(coupling_of(name, 1.0, 4), quadratics.of([k]), strengths[k])
        np.testing.assert_allclose(together.value[k], alone.value[0], rtol=0, atol=enough[k])


def test_a_strength_is_0_for_all_data_sets_or_for_none() -> None:
    quadratics = make_quadratics(K=2)
    with pytest.raises(UsageError, match="strengths must be 0 for all data sets or for none"):
        solve(coupling_of("nuclear", 1.0, 4), quadratics, np.array([[0.0], [0.1]]))


@pytest.mark.parametrize("name", NORMS)
def test_a_start_from_a_solution_stays_there(name: str) -> None:
    quadratics = make_quadratics()
    first = solve(coupling_of(name, 1.0, 4), quadratics, [0.1])
    again = solve(coupling_of(name, 1.0, 4), quadratics, [0.1], near=first.W)
    np.testing.assert_allclose(again.value, first.value, rtol=1e-10)
    np.testing.assert_allclose(again.W, first.W, atol=1e-4)


@pytest.mark.parametrize("name", [*SQUARES, *NORMS])
def test_without_strength_every_task_is_for_itself(name: str) -> None:
    quadratics = make_quadratics()
    solution = solve(coupling_of(name, 1.0, 4), quadratics, [0.0, 0.1])
    alone = solve(coupling_of("none", 0.0, 4), quadratics, [0.0])
    np.testing.assert_array_equal(solution.W[:, 0], alone.W[:, 0])
    tied = solve(coupling_of(name, 1.0, 4), quadratics, [0.1])
    np.testing.assert_array_equal(solution.W[:, 1], tied.W[:, 0])


@pytest.mark.parametrize("name", COUPLINGS)
def test_data_that_say_nothing_leave_models_at_zero(name: str) -> None:
    quadratics = make_quadratics()
    silent = type(quadratics)(0.0 * quadratics.A, 0.0 * quadratics.b, 0.0 * quadratics.c)
    np.testing.assert_array_equal(solve(coupling_of(name, 1.0, 4), silent, [0.1]).W, 0.0)


@pytest.mark.parametrize("name", COUPLINGS)
def test_one_task_is_a_problem_too(name: str) -> None:
    if name == "graph":
        pytest.skip("a graph has an edge, and so two tasks")
    quadratics = make_quadratics(T=1)
    expected = least(name, quadratics, 0.1)
    np.testing.assert_allclose(
        solve(coupling_of(name, 1.0, 1), quadratics, [0.1]).value[0, 0], expected, rtol=1e-7
    )


def test_a_dense_graph_is_solved_by_splitting_to_the_same_models(monkeypatch: pytest.MonkeyPatch) -> None:
    quadratics = make_quadratics()
    direct = solve(coupling_of("graph", 1.0, 4), quadratics, LAMBDAS)
    monkeypatch.setattr("asyncdmtl.learning.coupled._BLOCKS", 0)
    split = solve(coupling_of("graph", 1.0, 4), quadratics, LAMBDAS)
    np.testing.assert_allclose(split.value, direct.value, rtol=1e-10)
    np.testing.assert_allclose(split.W, direct.W, atol=1e-6)


@pytest.mark.parametrize("name", [*SQUARES, *(name for name in NORMS if name != "clustered"), "none"])
@pytest.mark.parametrize("strength", [0.0, 0.1])
def test_matrices_of_low_rank_have_the_solutions_of_whole_ones(name: str, strength: float) -> None:
    low, whole = make_low_rank_quadratics()
    coupling = coupling_of(name, 1.0, 4)
    found, expected = (solve(coupling, quadratics, [strength]) for quadratics in (low, whole))
    np.testing.assert_allclose(found.value, expected.value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.W, expected.W, atol=1e-4)


@pytest.mark.parametrize("name", ["mean", "clustered"])
def test_some_couplings_need_whole_matrices(name: str) -> None:
    with pytest.raises(UsageError, match="coupling must not be mean or clustered"):
        solve(coupling_of(name, 1.0, 4), make_low_rank_quadratics()[0], [0.1])
