"""The loads of every level and link of a hierarchy, beside those of a star over the same links.

Between relays and server a strategy has its loads with the `U_h` as stores. Below a relay every update of
`U_h` goes up once, and the relay hands down what the nodes behind it lack (docs/theory.md, section 7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.compare import Candidate, Network, compare, whole_tasks
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.senders import choose_senders
from asyncdmtl.plan.validation import numbered_tasks


@dataclass(frozen=True)
class LinkLoads:
    """What a link carries in a round, in vectors.

    Attributes
    ----------
    node : str
        The worker or relay at the lower end.
    parent : str or None
        The relay at the upper end; None for the server.
    up, down : Fraction
        Vectors towards the parent, and towards the node.
    """

    node: str
    parent: str | None
    up: Fraction
    down: Fraction


@dataclass(frozen=True)
class Level:
    """The loads between a relay, or the server, and the nodes right behind it, in vectors.

    Attributes
    ----------
    relay : str or None
        None for the server.
    nodes : tuple of str
        The workers and relays right behind it.
    rates : tuple of Fraction
        The uplink load of each node.
    copies : tuple of Fraction
        The vectors that each node needs of the downlink.
    downlink_load : Fraction
        The downlink with each row counted once.
    """

    relay: str | None
    nodes: tuple[str, ...]
    rates: tuple[Fraction, ...]
    copies: tuple[Fraction, ...]
    downlink_load: Fraction

    @property
    def uplink_load(self) -> Fraction:
        """The sum of all nodes' uplink loads."""
        return sum(self.rates, Fraction(0))

    def links(self, topology: Topology, network: Network) -> tuple[LinkLoads, ...]:
        """The loads of the links. By multicast every link with a listener carries each row once.

        By unicast, a node that is behind several relays gets its copies from the first one.
        """
        found = []
        for node, up, copies in zip(self.nodes, self.rates, self.copies, strict=True):
            down = copies if topology.parent(node) == self.relay else Fraction(0)
            if network == "multicast" and copies:
                down = self.downlink_load
            found.append(LinkLoads(node, self.relay, up, down))
        return tuple(found)


@dataclass(frozen=True)
class Hierarchy:
    """A strategy on a topology: its loads at the server, and at every relay.

    Attributes
    ----------
    topology : Topology
    server : Candidate
        Loads and bounds between the server and the nodes right behind it.
    levels : tuple of Level
        The server's level, then that of each relay, from the server downwards.
    """

    topology: Topology
    server: Candidate
    levels: tuple[Level, ...]

    def links(self, network: Network) -> tuple[LinkLoads, ...]:
        """The loads of all links, from the server downwards."""
        return tuple(link for level in self.levels for link in level.links(self.topology, network))


def compare_hierarchies(
    topology: Topology,
    tasks: Sequence[int] | None = None,
    *,
    wants: Sequence[str] | None = None,
    prices: Mapping[str, Fraction] | None = None,
    speeds: Mapping[str, Fraction] | None = None,
    max_overhead: Fraction | int = 0,
) -> tuple[Hierarchy, ...]:
    """The exact strategies on a topology, each with the loads of every level.

    Only updates are coded between relays and server, so that `relay` has the loads `R_CO({U_h})` and
    `N − min_h |U_h|`.

    Parameters
    ----------
    topology : Topology
    tasks, max_overhead
        As for `make_plan`.
    wants : sequence of K words, optional
        The wants of the workers, as for `make_plan`. A relay wants what some worker behind it does.
    prices, speeds : mapping of worker and relay name to Fraction, optional
        The price or the speed of the link between a node and its parent; as for `make_plan`.

    Raises
    ------
    UsageError
        An argument breaks its rule, or a link has no price or speed.
    """
    owners = numbered_tasks(topology.placement, tasks)
    words = topology.wants(wants)
    candidates = compare(
        topology.placement_of(topology.top),
        owners,
        max_overhead=max_overhead,
        prices=_of_links("prices", prices, topology.top),
        speeds=_of_links("speeds", speeds, topology.top),
        units="updates",
        wants={node: words[node] for node in topology.top},
    )
    return tuple(
        Hierarchy(
            topology,
            candidate,
            (
                Level(None, topology.top, candidate.rates, candidate.copies, candidate.downlink_load),
                *(
                    _below(topology, relay, candidate.strategy, owners, words, prices)
                    for relay in topology.top_down
                ),
            ),
        )
        for candidate in candidates
    )


def star_links(topology: Topology, star: Candidate, network: Network) -> tuple[LinkLoads, ...]:
    """What a star carries over the same links if every worker reaches the server through its first relay.

    Parameters
    ----------
    topology : Topology
    star : Candidate
        The loads of the star.
    network : "unicast" or "multicast"
        By multicast a link carries each row of the downlink once, however many workers behind it listen.
    """
    up: dict[tuple[str, str | None], Fraction] = {}
    down: dict[tuple[str, str | None], Fraction] = {}
    for worker, rate, copies in zip(topology.placement.workers, star.rates, star.copies, strict=True):
        for link in topology.path(worker):
            up[link] = up.get(link, Fraction(0)) + rate
            down[link] = down.get(link, Fraction(0)) + copies
    if network == "multicast":
        down = {link: star.downlink_load if copies else copies for link, copies in down.items()}
    return tuple(LinkLoads(*link, up[link], down[link]) for link in up)


def round_time(links: Sequence[LinkLoads], speeds: Mapping[str, Fraction]) -> Fraction:
    """The time that links of these speeds take for a round: that of the slowest up, and of the slowest down.

    Parameters
    ----------
    links : sequence of LinkLoads
    speeds : mapping of node name to Fraction
        Vectors per unit of time on the link between the node and each of its parents. Rows go through relays
        range by range, so that all links of a direction work at the same time.
    """
    return max((link.up / speeds[link.node] for link in links), default=Fraction(0)) + max(
        (link.down / speeds[link.node] for link in links), default=Fraction(0)
    )


def _of_links(
    argument: str, values: Mapping[str, Fraction] | None, nodes: Sequence[str]
) -> tuple[Fraction, ...] | None:
    if values is None:
        return None
    if missing := [node for node in nodes if node not in values]:
        raise UsageError(argument, "must have a number for every worker and relay; without", missing)
    return tuple(values[node] for node in nodes)


def _below(
    topology: Topology,
    relay: str,
    strategy: str,
    tasks: Sequence[int],
    words: Mapping[str, str],
    prices: Mapping[str, Fraction] | None,
) -> Level:
    """The level of a relay: every update of `U_h` goes up once, by the cheapest holder."""
    nodes, names = topology.relays[relay], topology.stored(relay)
    stored = {node: topology.stored(node) for node in nodes}
    rates = [0] * len(nodes)
    if names:
        for sender in choose_senders(Placement(stored, names), _of_links("prices", prices, nodes)):
            rates[sender] += 1
    number = {name: n for n, name in enumerate(topology.placement.partitions)}
    held = [{number[name] for name in stored[node]} for node in nodes]
    wanting = [words[node] != "none" for node in nodes]
    lacked = [
        _lacked(strategy, own, tasks) if some else set() for own, some in zip(held, wanting, strict=True)
    ]
    copies = [Fraction(len(each)) for each in lacked]
    coded = strategy in ("relay", "central")
    return Level(
        relay,
        nodes,
        tuple(map(Fraction, rates)),
        tuple(copies),
        max(copies) if coded else Fraction(len(set().union(*lacked))),
    )


def _lacked(strategy: str, held: set[int], tasks: Sequence[int]) -> set[int]:
    """The partitions, tasks or models that a node with these partitions needs from above."""
    if strategy == "central":
        return set(tasks) - whole_tasks(held, tasks)
    if strategy == "personal":
        return {tasks[n] for n in held}
    return set(range(len(tasks))) - held
