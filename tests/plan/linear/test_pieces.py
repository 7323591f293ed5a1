from __future__ import annotations

import numpy as np
import pytest

from asyncdmtl.plan.linear import pieces
from asyncdmtl.plan.linear.pieces import (
    Flat,
    PieceProgram,
    assign_everything,
    candidate_flats,
    fill_everything,
)
from asyncdmtl.plan.linear.subspaces import total
from asyncdmtl.plan.linear.targets import Target, cut_bound
from asyncdmtl.plan.placement import Placement


def target_of(placement: Placement, combinations: int, seed: int = 0) -> Target:
    N = len(placement.partitions)
    return Target(placement, np.random.default_rng(seed).standard_normal((combinations, N)))


def test_flats_are_closed_and_end_with_the_whole_space() -> None:
    target = target_of(Placement.cyclic(4, 8, 2), 3)
    flats = candidate_flats(target)
    lines = target.lines.shape[1]
    assert [flat.rank for flat in flats[:lines]] == [1] * lines
    assert flats[-1].rank == target.rank == 3
    for flat in flats:
        inside = np.linalg.norm(target.lines - flat.basis @ (flat.basis.T @ target.lines), axis=0) < 1e-9
        assert flat.lines == sum(1 << int(line) for line in np.flatnonzero(inside))


def test_assigned_lines_reach_every_need() -> None:
    target = target_of(Placement.cyclic(5, 10, 3), 2)
    chosen = assign_everything(target, subpackets=2)
    assert set(chosen.values()) == {2}
    for line, H in target.needs:
        assert any((k, line) in chosen for k in H)


def test_filled_spaces_reach_every_need() -> None:
    target = target_of(Placement.cyclic(5, 10, 3), 2)
    flats = candidate_flats(target)
    filled = fill_everything(target, flats, subpackets=2)
    for _, H in target.needs:
        assert sum(filled.get((k, len(flats) - 1), 0) for k in H) >= 4


def test_the_program_finds_fewer_packets_than_lines_alone() -> None:
    target = target_of(Placement.cyclic(4, 12, 3), 2)
    bound = cut_bound(target)
    program = PieceProgram(target, candidate_flats(target), bound, subpackets=1)
    found = program.solve()
    assert found is not None
    assert bound.packets <= total(found) < total(assign_everything(target, subpackets=1))


def test_spans_that_miss_a_line_are_excluded() -> None:
    target = target_of(Placement.cyclic(3, 6, 2), 2)
    flats = candidate_flats(target)
    program = PieceProgram(target, flats, cut_bound(target), subpackets=1)
    first = program.solve()
    assert first is not None
    line, H = target.needs[0]
    program.exclude(line, H, np.zeros((2, 0)))
    again = program.solve()
    assert again is not None
    assert sum(n for (k, _), n in again.items() if k in H) >= 1


def test_a_program_that_is_too_large_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of(Placement.cyclic(4, 8, 2), 2)
    monkeypatch.setattr(pieces, "MAX_VARIABLES", 3)
    assert PieceProgram(target, candidate_flats(target), cut_bound(target), subpackets=1).solve() is None
    zero = Target(Placement.cyclic(3, 3, 2), np.zeros((1, 3)))
    assert PieceProgram(zero, [Flat(np.zeros((0, 0)), 0)], cut_bound(zero), subpackets=1).solve() == {}
