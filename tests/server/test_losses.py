from __future__ import annotations

from asyncdmtl.server.losses import LOSING_SECONDS, MOST_LOSSES, Losses


def test_a_worker_that_is_lost_again_and_again_in_one_round_is_lost_too_often() -> None:
    losses = Losses()
    told = [losses.too_many("w0", 3, LOSING_SECONDS * k) for k in range(MOST_LOSSES)]
    assert told == [False] * (MOST_LOSSES - 1) + [True]


def test_a_link_may_fail_for_some_seconds() -> None:
    losses = Losses()
    assert not any(losses.too_many("w0", 3, LOSING_SECONDS * k / 1000) for k in range(1000))
    assert losses.too_many("w0", 3, LOSING_SECONDS)


def test_each_round_and_each_worker_counts_anew() -> None:
    losses = Losses()
    for round_ in range(3):
        for k in range(MOST_LOSSES - 1):
            assert not losses.too_many("w0", round_, LOSING_SECONDS * k)
    assert not losses.too_many("w1", 2, LOSING_SECONDS)


def test_losses_of_earlier_rounds_take_no_memory() -> None:
    losses = Losses()
    for number in range(1000):
        losses.too_many(f"w{number}", number, 0.0)
    assert list(losses._found) == ["w999"]
