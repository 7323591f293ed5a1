"""All strategies side by side for one placement, in the cost that the user declares (theory, section 2).

Loads follow from the placement without making matrices, so that comparing is quick where planning is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Literal, get_args

from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.plan.bounds import downlink_bound, lacking
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates import UplinkOptimum, smallest_subpackets, uplink_optimum
from asyncdmtl.plan.stragglers import fewest_packets

Network = Literal["unicast", "multicast"]
NETWORKS: tuple[Network, ...] = get_args(Network)


@dataclass(frozen=True)
class Candidate:
    """One strategy's loads, in vectors per round.

    Attributes
    ----------
    strategy : str
    uplink_load, uplink_bound : Fraction
    downlink_load, downlink_bound : Fraction
        With each row of the broadcast counted once.
    unicast_load : Fraction
        The downlink with every worker's copy counted, as on links without multicast.
    subpackets : int
    limits : str
        What keeps the loads from being lower, in words.
    """

    strategy: str
    uplink_load: Fraction
    uplink_bound: Fraction
    downlink_load: Fraction
    downlink_bound: Fraction
    unicast_load: Fraction
    subpackets: int
    limits: str

    def cost(self, network: Network) -> Fraction:
        """Vectors on the wire per round, both ways together."""
        return self.uplink_load + (self.downlink_load if network == "multicast" else self.unicast_load)

    @property
    def overhead(self) -> Fraction:
        """The share by which the uplink load exceeds its bound."""
        return self.uplink_load / self.uplink_bound - 1 if self.uplink_bound else Fraction(0)


def compare(
    placement: Placement,
    tasks: Sequence[int],
    *,
    max_overhead: Fraction | int = 0,
    silent: int = 0,
) -> tuple[Candidate, ...]:
    """The exact strategies for `placement`, each with its loads and what limits them.

    Parameters
    ----------
    placement : Placement
    tasks : sequence of int, length N
        The task of each partition.
    max_overhead : Fraction
        As for `make_plan`.
    silent : int
        How many workers may stay silent: more than 0 leaves only strategies that tolerate it.

    Raises
    ------
    PlanError
        A partition has at most `silent` holders.
    """
    if silent:
        return (_tolerant(placement, tasks, silent, Fraction(max_overhead)),)
    optimum = uplink_optimum(placement)
    return (
        _relay(placement, optimum, Fraction(max_overhead)),
        _central(placement, tasks),
        _personal(placement, tasks),
        _uncoded(placement, optimum),
    )


def cheapest(candidates: Sequence[Candidate], network: Network) -> Candidate:
    """The candidate of least cost; of equals the first.

    Raises
    ------
    UsageError
        No such network.
    PlanError
        There is no candidate.
    """
    if network not in NETWORKS:
        raise UsageError("network", f"must be one of {', '.join(NETWORKS)}", network)
    if not candidates:
        raise PlanError("there is no strategy to choose from")
    return min(candidates, key=lambda candidate: candidate.cost(network))


def certificate_in_words(placement: Placement, certificate: Sequence[Sequence[int]]) -> str:
    """Why no scheme sends less up: the groups of the certificate, and what each of them lacks."""
    if len(certificate) < 2:
        return "a single worker lacks nothing"
    lacks = [lacking(placement, block) for block in certificate]
    value = Fraction(sum(lacks), len(certificate) - 1)
    if len(certificate) == len(placement.workers):
        groups = f"all {len(certificate)} workers by themselves"
    else:
        groups = f"{len(certificate)} groups of workers"
    described = "; ".join(
        f"{_names([placement.workers[k] for k in block])} {'lacks' if len(block) == 1 else 'lack'} {lack}"
        for block, lack in list(zip(certificate, lacks, strict=True))[:_SHOWN]
    )
    rest = f"; and {len(certificate) - _SHOWN} more" if len(certificate) > _SHOWN else ""
    others = len(certificate) - 1
    helped = f"the {others} others" if others > 1 else "the other"
    return (
        f"{groups} lack {sum(lacks)} partitions in sum ({described}{rest}); what one sends helps at most "
        f"{helped}, so {sum(lacks)}/{others}"
        + (f" = {value}" if value.denominator != others or others == 1 else "")
        + " vectors are the least uplink"
    )


_SHOWN = 8


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def _relay(placement: Placement, optimum: UplinkOptimum, max_overhead: Fraction) -> Candidate:
    P = smallest_subpackets(optimum, max_overhead)
    down = Fraction(downlink_bound(placement))
    neediest = min(range(len(placement.workers)), key=lambda k: len(placement.stored[k]))
    return Candidate(
        "relay",
        Fraction(ceil(P * optimum.load), P),
        optimum.load,
        down,
        down,
        Fraction(_missing(placement)),
        P,
        f"uplink: {certificate_in_words(placement, optimum.certificate)}. Downlink: worker "
        f"{placement.workers[neediest]} stores only {len(placement.stored[neediest])} "
        f"of {len(placement.partitions)} partitions.",
    )


def _central(placement: Placement, tasks: Sequence[int]) -> Candidate:
    T = len(set(tasks))
    whole = [_whole_tasks(stored, tasks) for stored in placement.stored]
    fewest = min(range(len(whole)), key=whole.__getitem__)
    N, down = Fraction(len(placement.partitions)), Fraction(T - whole[fewest])
    return Candidate(
        "central",
        N,
        N,
        down,
        down,
        Fraction(sum(T - count for count in whole)),
        1,
        f"uplink: the server needs every one of {N} updates. Downlink: worker "
        f"{placement.workers[fewest]} stores only {whole[fewest]} of {T} tasks whole.",
    )


def _tolerant(placement: Placement, tasks: Sequence[int], silent: int, max_overhead: Fraction) -> Candidate:
    rates = fewest_packets(placement, silent, max_overhead)
    central = _central(placement, tasks)
    return replace(
        central,
        uplink_load=rates.load,
        uplink_bound=rates.bound,
        subpackets=rates.subpackets,
        limits=f"any {silent} may stay silent: uplink {rates.load} instead of {central.uplink_load}. "
        f"{central.limits}",
    )


def _personal(placement: Placement, tasks: Sequence[int]) -> Candidate:
    N, T = Fraction(len(placement.partitions)), Fraction(len(set(tasks)))
    hosted = [len({tasks[n] for n in stored}) for stored in placement.stored]
    return Candidate(
        "personal",
        N,
        N,
        T,
        T,
        Fraction(sum(hosted)),
        1,
        f"uplink: the server needs every one of {N} updates. Downlink: every one of {T} models is wanted "
        f"somewhere; a worker hosts {min(hosted)} to {max(hosted)} tasks.",
    )


def _uncoded(placement: Placement, optimum: UplinkOptimum) -> Candidate:
    N = Fraction(len(placement.partitions))
    return Candidate(
        "uncoded",
        N,
        optimum.load,
        N,
        Fraction(downlink_bound(placement)),
        Fraction(_missing(placement)),
        1,
        "nothing is coded: every update goes up once and down once.",
    )


def _missing(placement: Placement) -> int:
    return sum(len(placement.partitions) - len(stored) for stored in placement.stored)


def _whole_tasks(stored: Sequence[int], tasks: Sequence[int]) -> int:
    """How many tasks have all their partitions among `stored`."""
    held = set(stored)
    broken = {task for n, task in enumerate(tasks) if n not in held}
    return len(set(tasks) - broken)
