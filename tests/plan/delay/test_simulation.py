from __future__ import annotations

import numpy as np
import pytest

from asyncdmtl.plan.delay.queueing import mean_delay, one_time, round_time
from asyncdmtl.plan.delay.simulation import poisson_arrivals, simulate, varying

TIMES = [0.5, 0.8, 1.0]


def test_jobs_wait_for_each_other_and_share_workers() -> None:
    def draw(job: int, round_: int) -> list[float]:
        return [3.0, 1.0]

    assert simulate([0.0, 0.0], draw).delays.tolist() == [3.0, 6.0]
    # The first round of the second job begins at worker 1 while the first job is at worker 0.
    alternating = lambda job, round_: [1.0, 0.0] if round_ == 0 else [0.0, 1.0]  # noqa: E731
    assert simulate([0.0, 0.0], alternating, rounds=2).delays.tolist() == [2.0, 3.0]
    assert simulate([0.0, 0.0], alternating, rounds=2, in_flight=1).delays.tolist() == [2.0, 4.0]


def test_jobs_are_delivered_in_order() -> None:
    def draw(job: int, round_: int) -> list[float]:
        return [4.0, 0.0] if job == 0 else [0.0, 1.0]

    assert simulate([0.0, 1.0], draw).delays.tolist() == [4.0, 3.0]


def test_rounds_do_not_wait_for_silent_workers_and_drop_their_work() -> None:
    def draw(job: int, round_: int) -> list[float]:
        return [1.0, 10.0]

    assert simulate([0.0, 0.0], draw, rounds=2, silent=1).delays.tolist() == [2.0, 4.0]


@pytest.mark.parametrize(("silent", "rounds", "variation"), [(0, 1, 0.5), (1, 2, 0.5), (0, 1, 1.0)])
def test_jobs_made_one_by_one_have_the_delay_of_pollaczek_and_khinchine(
    silent: int, rounds: int, variation: float
) -> None:
    service = round_time(TIMES, 3 - silent, variation).repeated(rounds)
    rate = 0.5 / service.mean
    found = simulate(
        poisson_arrivals(rate, 8000, 3), varying(TIMES, variation, 4),
        rounds=rounds, silent=silent, in_flight=1,
    )  # fmt: skip
    assert found.mean == pytest.approx(mean_delay(rate, service), rel=0.05)


def test_jobs_that_share_workers_wait_no_less_than_each_worker_and_no_more_than_one_by_one() -> None:
    rate, variation = 0.5, 0.5
    found = simulate(poisson_arrivals(rate, 8000, 3), varying(TIMES, variation, 4)).mean
    assert mean_delay(rate, one_time(1.0, variation)) < found
    assert found < mean_delay(rate, round_time(TIMES, 3, variation))


def test_times_that_do_not_vary_make_the_slowest_worker_the_queue() -> None:
    found = simulate(poisson_arrivals(0.6, 8000, 3), varying(TIMES, 0.0, 4)).mean
    assert found == pytest.approx(mean_delay(0.6, one_time(1.0, 0.0)), rel=0.05)


def test_arrivals_have_their_rate() -> None:
    arrivals = poisson_arrivals(4.0, 20_000, 1)
    assert len(arrivals) / arrivals[-1] == pytest.approx(4.0, rel=0.03)
    assert (np.diff(arrivals) > 0).all()


def test_the_slowest_worker_takes_the_rounds_of_two_jobs_in_turn_if_rows_are_on_the_wire() -> None:
    def draw(job: int, round_: int) -> list[float]:
        return [1.0, 0.5]

    assert simulate([0.0] * 3, draw, rounds=2).delays.tolist() == [2.0, 4.0, 6.0]
    # The first worker makes 1, 2, 1 and 2, and then 3, which is alone and waits once.
    found = simulate([0.0] * 3, draw, rounds=2, pause=0.25).delays
    assert found.tolist() == [3.0, 4.0, 6.25]
