from fractions import Fraction

import numpy as np
import pytest
from support.linear_targets import PLACEMENTS, TARGETS, Array, end_to_end_error, everyone

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.linear.plan import LinearPlan
from asyncdmtl.plan.linear.planning import make_linear_plan, redrawn_plan
from asyncdmtl.plan.placement import Placement


def test_a_seed_fixes_the_plan() -> None:
    def make(seed: int, silent: int) -> LinearPlan:
        return make_linear_plan(PLACEMENTS["cyclic"], TARGETS["generic"](12), seed=seed, silent=silent)

    for silent in (0, 1):
        one, same, other = make(1, silent), make(1, silent), make(2, silent)
        for a, b in zip(one.uplink_matrices, same.uplink_matrices, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(one.downlink_matrix, same.downlink_matrix)
        assert any(
            a.shape != b.shape or not np.allclose(a, b)
            for a, b in zip(one.uplink_matrices, other.uplink_matrices, strict=True)
        )


@pytest.mark.parametrize(
    "target",
    [np.ones((1, 3)), np.ones(4), np.ones((0, 4)), np.full((1, 4), np.nan), np.full((1, 4), "a")],
)
def test_malformed_targets(target: Array) -> None:
    with pytest.raises(UsageError, match="target must"):
        make_linear_plan(Placement.cyclic(2, 4, 1), target)


def test_infeasible_wishes() -> None:
    placement = Placement({"a": ["x", "y"], "b": ["y"]})
    with pytest.raises(PlacementError, match=r"\(x would be lost\)"):
        make_linear_plan(placement, np.ones((1, 2)), silent=1)
    with pytest.raises(UsageError, match="silent"):
        make_linear_plan(placement, np.ones((1, 2)), silent=2)
    with pytest.raises(UsageError, match="subpackets"):
        make_linear_plan(placement, np.ones((1, 2)), subpackets=0)


@pytest.mark.parametrize(("silent", "load"), [(0, Fraction(4, 3)), (1, Fraction(2))])
def test_packets_are_chosen_where_they_lower_the_load(silent: int, load: Fraction) -> None:
    plan = make_linear_plan(Placement.cyclic(4, 4, 3), np.ones((1, 4)), silent=silent)
    assert plan.uplink_load == plan.fractional_bound == load
    assert plan.gap == 0
    assert end_to_end_error(plan) < 1e-9
    whole = make_linear_plan(Placement.cyclic(4, 4, 3), np.ones((1, 4)), silent=silent, subpackets=1)
    assert whole.gap == whole.uplink_load - load > 0


def recovered(plan: LinearPlan, V: Array, workers: list[int]) -> list[Array]:
    """The target at these workers, from the rows that each of them needs."""
    stored = plan.placement.stored
    rows = {k: plan.encode(k, V[list(M)]) for k, M in enumerate(stored)}
    down = plan.broadcast(plan.aggregate(rows, length=V.shape[1]))
    assert len(down) == plan.downlink_load
    return [plan.recover(k, down[: plan.missing_ranks[k]], V[list(stored[k])]) for k in workers]


@pytest.mark.parametrize(
    ("placement", "combinations", "load"),
    [
        # For all combinations, a workers-only target is the exchange of all updates: K(N − m)/(K − 1).
        (Placement.cyclic(4, 4, 3), 4, Fraction(4, 3)),
        (Placement.cyclic(3, 3, 2), 2, Fraction(3, 2)),
        (Placement.cyclic(4, 4, 2), 3, Fraction(8, 3)),
        # A single combination takes as much as at the server; where all store everything, nothing is sent.
        (Placement.cyclic(4, 4, 2), 1, Fraction(2)),
        (everyone(3, 4), 2, Fraction(0)),
    ],
)
def test_a_target_that_only_workers_need(placement: Placement, combinations: int, load: Fraction) -> None:
    rng = np.random.default_rng(combinations)
    A = rng.standard_normal((combinations, len(placement.partitions)))
    plan = make_linear_plan(placement, A, at_server=False)
    assert plan.uplink_load == plan.fractional_bound == load
    assert plan.condition < 1e3
    assert len(plan.solved) == plan.downlink_load == plan.downlink_bound
    V = rng.standard_normal((len(placement.partitions), 12))
    for found in recovered(plan, V, list(range(len(placement.workers)))):
        np.testing.assert_allclose(found, A @ V, atol=1e-9)
    assert make_linear_plan(placement, A, subpackets=1).uplink_load >= load


@pytest.mark.parametrize("at_server", [True, False])
@pytest.mark.parametrize("silent", [0, 1])
def test_another_seed_gives_another_plan_with_the_same_loads(silent: int, at_server: bool) -> None:
    target = np.random.default_rng(3).standard_normal((2, 6))
    plan = make_linear_plan(Placement.cyclic(4, 6, 3), target, silent=silent, at_server=at_server)
    other = redrawn_plan(plan, 1)
    assert other is not None
    V = np.random.default_rng(1).standard_normal((6, 9))
    for found in recovered(other, V, list(range(4))):
        np.testing.assert_allclose(found, target @ V, atol=1e-9)
    for name in ("uplink_load", "downlink_load", "uplink_bound", "fractional_bound", "subpackets", "silent"):
        assert getattr(other, name) == getattr(plan, name)
    assert not np.array_equal(other.solved, plan.solved) or any(
        not np.array_equal(a, b) for a, b in zip(other.uplink_matrices, plan.uplink_matrices, strict=True)
    )
    again = redrawn_plan(plan, 0)
    assert again is not None
    assert again.condition == plan.condition


@pytest.mark.parametrize("at_server", [True, False])
def test_workers_that_only_help_lower_the_loads_of_a_linear_target(at_server: bool) -> None:
    # The first two lack x and y, or z and u; each other worker helps.
    placement = Placement({"a": ["z", "u"], "b": ["z", "u"], "c": ["x", "y"], "d": ["x", "y"]})
    A = np.random.default_rng(0).standard_normal((4, 4))
    wants = {"c": "none", "d": "none"}
    plan = make_linear_plan(placement, A, wants=wants, at_server=at_server)
    assert plan.missing_ranks == (2, 2, 0, 0)
    # The server needs all four; a and b need two of them.
    assert plan.uplink_load == plan.uplink_bound == plan.fractional_bound == (4 if at_server else 2)
    V = np.random.default_rng(1).standard_normal((4, 9))
    for found in recovered(plan, V, [0, 1]):
        np.testing.assert_allclose(found, A @ V, atol=1e-9)


@pytest.mark.parametrize(
    ("wrong", "argument"), [({"at_server": 1}, "at_server"), ({"wants": ["own", "all"]}, "wants")]
)
def test_those_who_need_a_target_are_checked(wrong: dict[str, object], argument: str) -> None:
    with pytest.raises(UsageError, match=f"^{argument} must be "):
        make_linear_plan(Placement({"a": ["x"], "b": ["x"]}), np.ones((1, 1)), **wrong)  # type: ignore[arg-type]
