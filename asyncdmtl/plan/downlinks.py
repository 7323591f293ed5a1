"""The ways by which rows can come to workers, side by side: what each link carries in a round, and how long.

- `tcp`: the server sends each worker its rows.
- `peers`: every worker takes the vectors that it lacks from other workers; nothing goes through the server.
- `multicast`: the server sends every row once, to a group that all workers listen to.

Links are full duplex. Each has a speed in each direction, and a round takes as long as the link
that carries most for its speed. Where the server combines rows without decoding them (`relay`, `uncoded`),
both directions are busy at once; else rows come down after all have gone up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.errors import PlanError
from asyncdmtl.plan.compare import Candidate
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.units import Units
from asyncdmtl.plan.uplink_choice import UplinkWishes, choose_units

# The ways, in the order in which they are shown. The first one of several with equal times is chosen.
DOWNLINKS = ("tcp", "peers", "multicast")

# The strategies by which rows go down while others go up, and by which workers may take rows from each other.
FORWARDING = ("relay", "uncoded")

# The largest denominator of a worker's share of what workers give each other, which a linear program finds.
_SHARE_DENOMINATOR = 1000


@dataclass(frozen=True)
class Speeds:
    """The speeds of the workers' links up and down, in the order of the placement, and of the server's."""

    workers: tuple[Fraction, ...]
    down: tuple[Fraction, ...]
    server: Fraction

    @classmethod
    def of(
        cls,
        count: int,
        workers: Sequence[Fraction] | None = None,
        server: Fraction | None = None,
        down: Sequence[Fraction] | None = None,
    ) -> Speeds:
        """Speeds of `count` workers: 1 each by default; links down are as fast as links up by default.

        The server's link has by default the speed of the fastest link of a worker.
        """
        known = (Fraction(1),) * count if workers is None else tuple(map(Fraction, workers))
        back = known if down is None else tuple(map(Fraction, down))
        return cls(known, back, max((*known, *back), default=Fraction(1)) if server is None else server)


@dataclass(frozen=True)
class Downlink:
    """What each link carries in a round, in vectors.

    Attributes
    ----------
    kind : str
        One of `DOWNLINKS`.
    strategy : str
    sent, received : tuple of Fraction, length K
        By worker.
    server_sent, server_received : Fraction
    """

    kind: str
    strategy: str
    sent: tuple[Fraction, ...]
    received: tuple[Fraction, ...]
    server_sent: Fraction
    server_received: Fraction

    def time(self, speeds: Speeds) -> Fraction:
        """The time of a round: vectors over the unit of `speeds`."""
        up = [load / speed for load, speed in zip(self.sent, speeds.workers, strict=True)]
        down = [load / speed for load, speed in zip(self.received, speeds.down, strict=True)]
        longest_up = max(*up, self.server_received / speeds.server)
        longest_down = max(*down, self.server_sent / speeds.server)
        if self.strategy in FORWARDING:
            return max(longest_up, longest_down)
        return longest_up + longest_down


def through_server(candidates: Sequence[Candidate], speeds: Speeds) -> Downlink | None:
    """The quickest strategy if the server sends each worker its rows; None if loads are not known."""
    found = [
        Downlink("tcp", c.strategy, c.rates, c.copies, sum(c.copies, Fraction(0)), c.uplink_load)
        for c in candidates
        if c.rates
    ]
    return min(found, key=lambda downlink: downlink.time(speeds), default=None)


def by_group(candidates: Sequence[Candidate], speeds: Speeds) -> Downlink | None:
    """The quickest strategy if the server sends each row once to a group; None if loads are not known."""
    found = []
    for c in candidates:
        if c.rates:
            received = tuple(c.downlink_load if copies else Fraction(0) for copies in c.copies)
            found.append(Downlink("multicast", c.strategy, c.rates, received, c.downlink_load, c.uplink_load))
    return min(found, key=lambda downlink: downlink.time(speeds), default=None)


def between_workers(
    strategy: str,
    units: Units,
    speeds: Speeds,
    helpers: Collection[int] = (),
    giving: Collection[int] | None = None,
) -> Downlink | None:
    """What links carry if workers take what they lack from each other; None if some vector has no giver.

    Parameters
    ----------
    strategy : "relay" or "uncoded"
    units : Units
        The vectors that travel under this strategy.
    speeds : Speeds
        The shares of the workers that give are those of the shortest time.
    helpers : collection of int
        The workers that want nothing.
    giving : collection of int, optional
        The workers from which others may take rows. Default: all.
    """
    K = units.workers
    wanting = set(range(K)) - set(helpers)
    may_give = set(range(K)) if giving is None else set(giving)
    received = [Fraction(len(units.holders) - len(units.held[k])) * (k in wanting) for k in range(K)]
    demands: Counter[tuple[int, ...]] = Counter()
    for holders in units.holders:
        if lacking := len(wanting - set(holders)):
            if not (givers := tuple(k for k in holders if k in may_give)):
                return None
            demands[givers] += lacking
    nothing = Fraction(0)
    return Downlink("peers", strategy, _shares(demands, speeds), tuple(received), nothing, nothing)


def _shares(demands: Mapping[tuple[int, ...], int], speeds: Speeds) -> tuple[Fraction, ...]:
    """The vectors that each worker gives so that the last one is ready earliest: a linear program.

    Parameters
    ----------
    demands : mapping of tuple of int to int
        How many vectors the workers in the tuple must give together.
    speeds : Speeds
    """
    K = len(speeds.workers)
    if not demands:
        return (Fraction(0),) * K
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    pairs = [(g, k) for g, givers in enumerate(demands) for k in givers]
    columns, (groups, givers) = range(len(pairs)), zip(*pairs, strict=True)
    shape = len(demands), len(pairs) + 1
    given = coo_array(([1.0] * len(pairs), (groups, columns)), shape)
    # The last variable is the time.
    data = [1.0] * len(pairs) + [-float(speed) for speed in speeds.workers]
    rows, places = [*givers, *range(K)], [*columns, *[len(pairs)] * K]
    in_time = coo_array((data, (rows, places)), (K, len(pairs) + 1))
    cost = [0.0] * len(pairs) + [1.0]
    outcome = linprog(
        cost, A_eq=given, b_eq=list(demands.values()), A_ub=in_time, b_ub=[0.0] * K, method="highs"
    )
    if not outcome.success:
        raise PlanError(f"the shares of rows between workers were not found: {outcome.message}")
    shares = [0.0] * K
    for k, share in zip(givers, outcome.x, strict=False):
        shares[k] += share
    return tuple(Fraction(share).limit_denominator(_SHARE_DENOMINATOR) for share in shares)


def quickest(downlinks: Sequence[Downlink], speeds: Speeds) -> Downlink:
    """The downlink with the shortest round; the first one of several with equal times."""
    return min(downlinks, key=lambda downlink: downlink.time(speeds))


def compare_downlinks(
    placement: Placement,
    tasks: Sequence[int],
    candidates: Sequence[Candidate],
    speeds: Speeds,
    wishes: UplinkWishes,
    *,
    giving: Collection[int] | None = None,
    hearing: bool = True,
) -> tuple[Downlink, ...]:
    """The downlinks that are possible, each with the strategy of these by which a round is the shortest.

    Parameters
    ----------
    placement : Placement
    tasks : sequence of int, length N
        The task of each partition.
    candidates : sequence of Candidate
        The strategies to choose from. Workers can take rows from each other only under `FORWARDING` ones.
    speeds : Speeds
    wishes : UplinkWishes
        As the candidates were made with.
    giving : collection of int, optional
        The workers from which others may take rows. Default: all.
    hearing : bool
        Whether all workers receive a group.
    """
    found = [through_server(candidates, speeds)]
    strategy = next((c.strategy for c in candidates if c.strategy in FORWARDING), None)
    if strategy is not None:
        units = choose_units(placement, tasks, strategy, wishes)
        found.append(between_workers(strategy, units, speeds, wishes.helpers, giving))
    if hearing:
        found.append(by_group(candidates, speeds))
    return tuple(downlink for downlink in found if downlink is not None)


def as_json(
    downlinks: Sequence[Downlink], speeds: Speeds, workers: Sequence[str]
) -> dict[str, dict[str, str | dict[str, str]]]:
    """What links carry by each downlink, in plain types: fractions as strings."""
    return {
        downlink.kind: {
            "strategy": downlink.strategy,
            "server_sent": str(downlink.server_sent),
            "server_received": str(downlink.server_received),
            "sent": dict(zip(workers, map(str, downlink.sent), strict=True)),
            "received": dict(zip(workers, map(str, downlink.received), strict=True)),
            "time": str(downlink.time(speeds)),
        }
        for downlink in downlinks
    }
