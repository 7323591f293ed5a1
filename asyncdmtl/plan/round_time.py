"""The time of a round of `relay`, both directions, if the links of workers have different speeds.

Rows travel in ranges, and a range comes down while the next one goes up. So a round of `m` equal ranges takes

    max(U, D) + min(U, D) / m,   with  U = max_k R_k / b_k  and  D = max_k D_k / d_k,

as in a flow shop of two machines: worker `k` sends `R_k` vectors over a link of `b_k` vectors per unit of
time, and is sent `D_k` over one of `d_k`. All of them also pass the server's link, if its speed is known.
`seconds_of_round` adds the computing of each worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from asyncdmtl.plan.links import Links
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.serialization import AnyPlan


@dataclass(frozen=True)
class RoundTime:
    """The times of both directions of a round, in units of vectors by those of the speeds.

    Attributes
    ----------
    uplink, downlink : Fraction
        `U` and `D`.
    slowest : int or None
        The worker whose link down is the last to be done; None if no worker is sent anything.
    ranges : int
        `m`, the ranges in which rows travel.
    """

    uplink: Fraction
    downlink: Fraction
    slowest: int | None
    ranges: int

    @property
    def total(self) -> Fraction:
        """The time of the round."""
        shorter, longer = sorted((self.uplink, self.downlink))
        return longer + shorter / self.ranges


def count_ranges(plan: Plan, vector_bytes: int) -> int:
    """The ranges in which the rows of vectors of so many bytes travel."""
    return len(plan.vector_format(vector_bytes, np.uint8).ranges)


def sends_ahead(plan: AnyPlan, links: Links) -> bool:
    """Whether rows go up as fast as links permit, however slowly others come down.

    That is so if rounds under this plan take as long as the uplink, by the speeds of the links, and where
    speeds are measured: a link that carries a few rows now and then, which its buffers take at once, would
    seem to be many times as fast as it is.
    """
    if not isinstance(plan, Plan) or plan.strategy != "relay":
        return False
    if links.learned or not links.speeds:
        return links.learned
    up = links.weights(plan.placement)["speeds"]
    times = time_of_round(plan, up, links.speeds_down(plan.placement))
    return times.uplink > times.downlink


def time_of_round(
    plan: Plan,
    up: Sequence[Fraction],
    down: Sequence[Fraction],
    ranges: int = 1,
    server: Fraction | None = None,
) -> RoundTime:
    """The time of a round under a plan of `relay`.

    A worker lacks `N − |M_k|` vectors, whatever the rates of the uplink are: rates change `U` only.

    Parameters
    ----------
    up, down : sequence of K positive Fractions
        `b_k` and `d_k`, in vectors per unit of time.
    ranges : int
        With 1, rows come down once all have gone up.
    server : Fraction or None
        The speed of the server's link, in each direction; None if it delays nothing.
    """
    waits = downlink_times(plan, down)
    longest = max(waits)
    uplink, slowest = max(uplink_times(plan, up)), waits.index(longest) if longest else None
    if server is not None:
        every = (server,) * len(waits)
        uplink = max(uplink, sum(uplink_times(plan, every), Fraction(0)))
        if (together := sum(downlink_times(plan, every), Fraction(0))) > longest:
            longest, slowest = together, None
    return RoundTime(uplink, longest, slowest, ranges)


def uplink_times(plan: Plan, up: Sequence[Fraction]) -> list[Fraction]:
    """The time `R_k / b_k` of each worker's rows on its link up."""
    return [rows * plan.packet_load / speed for rows, speed in zip(plan.uplink_rows, up, strict=True)]


def downlink_times(plan: Plan, down: Sequence[Fraction]) -> list[Fraction]:
    """The time `D_k / d_k` of the rows that each worker lacks on its link down."""
    lacking = (len(delivery.rows) * plan.packet_load for delivery in plan.deliveries)
    return [amount / speed for amount, speed in zip(lacking, down, strict=True)]


def seconds_of_round(
    computing: Sequence[float], uplinks: Sequence[float], downlinks: Sequence[float], ranges: int
) -> float:
    """The seconds of each of many rounds, in which every worker computes, sends and receives.

    Once worker `k` has all rows of a round, it computes for `c_k`, and sends for `u_k`. What it sends comes
    down to worker `l` for `d_l`, range by range, so that `l` has all rows at the earliest
    `W_kl = c_k + max(u_k + d_l / m, u_k / m + d_l)` after `k` had those of the round before. The time of a
    round is the largest mean of `W` on a cycle of workers (Karp 1978). If all workers compute for the same
    time, that is `c` more than the time of both directions.

    Parameters
    ----------
    computing, uplinks, downlinks : sequence of K floats
        `c_k`, `u_k` and `d_k`, in seconds.
    ranges : int
        `m`.
    """
    c, u, d = (np.array(each, np.float64) for each in (computing, uplinks, downlinks))
    W = c[:, None] + np.maximum(u[:, None] + d / ranges, u[:, None] / ranges + d)
    K = len(c)
    longest = np.zeros((K + 1, K))
    for n in range(K):
        longest[n + 1] = (longest[n][:, None] + W).max(axis=0)
    means = (longest[K] - longest[:K]) / np.arange(K, 0, -1)[:, None]
    return float(means.min(axis=0).max())
