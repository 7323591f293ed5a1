"""Workers show that they have rows, each by answers to challenges that nobody has answered for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.problems import make_partitions

from asyncdmtl.digests import CHALLENGE_BYTES, answer
from asyncdmtl.errors import DataError
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.server.possession import MOST_KEPT, Asked, Possession, Shown

ROWS, *_ = make_partitions(2, "squared")
OTHER = replace(ROWS, y=ROWS.y + 1)


def told(asked: Asked, rows: Partition) -> list[bytes]:
    (packed,) = asked.packed
    several = [packed[k : k + CHALLENGE_BYTES] for k in range(0, len(packed), CHALLENGE_BYTES)]
    return [b"".join(answer(each, rows.content()) for each in several)]


def answered(asked: Asked, rows: Partition) -> dict[str, Shown]:
    return asked.answered(told(asked, rows))


def holds(possession: Possession, name: str, rows: Partition = ROWS, *, settled: bool = True) -> None:
    """Let a worker show its rows, and be believed."""
    asked = possession.challenge(["p0"], settled=settled)
    possession.keep(name, possession.checked(name, asked, told(asked, rows)))


def test_at_the_start_all_workers_answer_one_challenge_and_one_of_their_own() -> None:
    possession = Possession()
    asked = [possession.challenge(["p0"], settled=False) for _ in range(2)]
    one, other = (answered(each, ROWS)["p0"] for each in asked)
    assert one.first == other.first == answer(next(iter(one.answers)), ROWS.content())
    assert one.own[0] != other.own[0]
    assert one.own[1] != other.own[1]
    assert answered(asked[0], OTHER)["p0"].first != one.first


def test_a_later_worker_is_compared_with_the_holders_before_it() -> None:
    possession = Possession()
    holds(possession, "w0", settled=False)
    holds(possession, "w1")
    with pytest.raises(DataError, match=r"worker 'w2' must have the rows that w0, w1 have; .* got 'p0'"):
        holds(possession, "w2", OTHER)


def test_answers_that_others_or_it_has_given_are_of_no_use_to_a_worker() -> None:
    possession = Possession()
    first = answered(possession.challenge(["p0"], settled=False), ROWS)
    possession.keep("w0", first)
    asked = possession.challenge(["p0"], settled=True)
    for wrong in ([first["p0"].first * 2], [], [bytes(32)]):
        with pytest.raises(DataError):
            possession.checked("w2", asked, wrong)
    # The challenge at the start is not asked again.
    assert not set(first["p0"].answers) & set(answered(asked, ROWS)["p0"].answers)


def test_one_false_holder_does_not_keep_others_out_if_there_are_more() -> None:
    possession = Possession()
    holds(possession, "w0", settled=False)
    holds(possession, "liar", OTHER, settled=False)
    holds(possession, "w2")
    with pytest.raises(DataError):
        holds(possession, "copier", replace(ROWS, y=ROWS.y + 2))


def test_one_holder_alone_decides_who_comes_after_it() -> None:
    possession = Possession()
    holds(possession, "liar", OTHER, settled=False)
    with pytest.raises(DataError, match="must have the rows that liar have"):
        holds(possession, "w1")


def test_few_answers_are_kept_whatever_names_come() -> None:
    possession = Possession()
    for number in range(9):
        holds(possession, f"w{number}")
    (packed,) = possession.challenge(["p0"], settled=True).packed
    assert len(packed) == (MOST_KEPT + 1) * CHALLENGE_BYTES
    # A worker that comes back has its answer replaced.
    before = possession.challenge(["p0"], settled=True).challenges["p0"][:-1]
    holds(possession, "w0")
    after = possession.challenge(["p0"], settled=True).challenges["p0"][:-1]
    assert len(set(before) & set(after)) == MOST_KEPT - 1


def test_a_worker_is_compared_with_those_only_that_had_answered_when_it_was_asked() -> None:
    possession = Possession()
    early = possession.challenge(["p0"], settled=True)
    holds(possession, "w1")
    possession.checked("w0", early, told(early, ROWS))


def test_nothing_is_asked_of_a_partition_that_nobody_has_shown() -> None:
    holds(Possession(), "w0")
