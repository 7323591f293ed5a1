"""The time of a round of `relay`, both directions, if the links of workers have different speeds.

Rows travel in ranges, and a range comes down while the next one goes up. So a round of `m` equal ranges takes

    max(U, D) + min(U, D) / m,   with  U = max_k R_k / b_k  and  D = max_k D_k / d_k,

as in a flow shop of two machines: worker `k` sends `R_k` vectors over a link of `b_k` vectors per unit of
time, and is sent `D_k` over one of `d_k`. Computing and the bytes of messages around rows are not in it.
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


def time_of_round(plan: Plan, up: Sequence[Fraction], down: Sequence[Fraction], ranges: int = 1) -> RoundTime:
    """The time of a round under a plan of `relay`.

    A worker lacks `N − |M_k|` vectors, whatever the rates of the uplink are: rates change `U` only.

    Parameters
    ----------
    up, down : sequence of K positive Fractions
        `b_k` and `d_k`, in vectors per unit of time.
    ranges : int
        With 1, rows come down once all have gone up.
    """
    sent = [rows * plan.packet_load for rows in plan.uplink_rows]
    lacking = [len(delivery.rows) * plan.packet_load for delivery in plan.deliveries]
    waits = [amount / speed for amount, speed in zip(lacking, down, strict=True)]
    longest = max(waits)
    return RoundTime(
        max(amount / speed for amount, speed in zip(sent, up, strict=True)),
        longest,
        waits.index(longest) if longest else None,
        ranges,
    )
