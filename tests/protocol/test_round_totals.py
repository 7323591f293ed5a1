"""Bytes of every round are remembered, in whichever order rounds come."""

from __future__ import annotations

from asyncdmtl.protocol.round_totals import RoundTotals


def test_bytes_of_rounds_one_after_the_other_are_summed() -> None:
    totals = RoundTotals()
    for round_ in range(5):
        totals.add(round_, "up", 10)
        totals.add(round_, "down", round_)
        totals.add(round_, "up", 1)
    assert [totals.of(round_, "up") for round_ in range(6)] == [11, 11, 11, 11, 11, 0]
    assert [totals.of(round_, "down") for round_ in range(6)] == [0, 1, 2, 3, 4, 0]


def test_bytes_of_other_rounds_are_summed_too() -> None:
    totals = RoundTotals()
    order = [None, 7, 8, 3, -1, 10**15, 9, 7, None]
    for round_ in order:
        totals.add(round_, "down", 2)
    assert {round_: totals.of(round_, "down") for round_ in order} == {
        None: 4, 7: 4, 8: 2, 3: 2, -1: 2, 10**15: 2, 9: 2,
    }  # fmt: skip
    assert totals.of(4, "down") == totals.of(7, "up") == totals.of(None, "up") == 0


def test_a_round_that_others_have_led_up_to_keeps_its_bytes() -> None:
    totals = RoundTotals()
    for round_ in (0, 2, 1, 2):
        totals.add(round_, "up", 5)
    assert [totals.of(round_, "up") for round_ in range(3)] == [5, 5, 10]


def test_a_copy_goes_its_own_way() -> None:
    totals = RoundTotals()
    totals.add(4, "up", 1)
    copied = totals.copy()
    copied.add(4, "up", 1)
    copied.add(5, "up", 1)
    assert (totals.of(4, "up"), totals.of(5, "up")) == (1, 0)
    assert (copied.of(4, "up"), copied.of(5, "up")) == (2, 1)
