"""The topology of a hierarchy, an immutable and validated value: the nodes behind each relay.

A relay stands for all workers behind it, like one worker that stores `U_h`, the union of what they store
(docs/theory.md, section 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from asyncdmtl.errors import PlacementError
from asyncdmtl.plan.placement import Placement, listed


class Topology:
    """Workers and relays, and the nodes behind each relay.

    Parameters
    ----------
    placement : Placement
        The partitions that each worker stores.
    relays : mapping of relay name to an iterable of names
        The workers and relays behind each relay. A worker or relay may be behind several relays; those that
        are behind none are connected to the server.

    Attributes
    ----------
    placement : Placement
    relays : mapping of str to tuple of str
        The nodes behind each relay, as given.
    top : tuple of str
        The workers and relays that are connected to the server: workers in the placement's order, then
        relays.

    Raises
    ------
    PlacementError
        There is no relay, a relay has the name of a worker or no node behind it, a node is unknown or named
        twice, or a relay is behind itself.
    """

    placement: Placement
    relays: Mapping[str, tuple[str, ...]]

    def __init__(self, placement: Placement, relays: Mapping[str, Iterable[str]]) -> None:
        if not isinstance(relays, Mapping) or not relays:
            raise PlacementError("relays", "must map names of relays to lists of workers and relays", relays)
        self.placement = placement
        self.relays = {relay: tuple(listed(f"relay {relay!r}", nodes)) for relay, nodes in relays.items()}
        known = {*placement.workers, *self.relays}
        for relay, nodes in self.relays.items():
            if not isinstance(relay, str) or not relay or not relay.isprintable() or len(relay) > 200:
                raise PlacementError("relays", "must be named by 1 to 200 printable characters", relay)
            if relay in placement.workers:
                raise PlacementError("relays", "must have other names than workers", relay)
            if not nodes:
                raise PlacementError(f"relay {relay!r}", "must have a worker or relay behind it", [])
            if unknown := [node for node in nodes if node not in known]:
                raise PlacementError(f"relay {relay!r}", "must name workers and relays; unknown", unknown)
            if len(set(nodes)) < len(nodes):
                raise PlacementError(f"relay {relay!r}", "may name each node once", list(nodes))
        behind = {node for nodes in self.relays.values() for node in nodes}
        self.top = tuple(node for node in (*placement.workers, *self.relays) if node not in behind)
        reached = set(self.top)
        for relay in self.top_down:
            reached.update(self.relays[relay])
        if circle := [relay for relay in self.relays if relay not in reached]:
            raise PlacementError("relays", "must not be behind themselves", circle)

    @cached_property
    def top_down(self) -> tuple[str, ...]:
        """The relays that the server reaches, each after all relays that it is behind."""
        waiting = dict.fromkeys(self.relays, 0)
        for nodes in self.relays.values():
            for node in nodes:
                if node in waiting:
                    waiting[node] += 1
        order = [relay for relay in self.relays if not waiting[relay]]
        for relay in order:
            for node in self.relays[relay]:
                if node in waiting:
                    waiting[node] -= 1
                    if not waiting[node]:
                        order.append(node)
        return tuple(order)

    def workers_behind(self, node: str) -> frozenset[str]:
        """The workers behind a relay, through other relays, too; of a worker, itself."""
        return self._workers_behind[node]

    def stored(self, node: str) -> tuple[str, ...]:
        """`U_h`, the partitions that the workers behind a node store, in the placement's order."""
        numbers = {name: k for k, name in enumerate(self.placement.workers)}
        held = {n for name in self.workers_behind(node) for n in self.placement.stored[numbers[name]]}
        return tuple(self.placement.partitions[n] for n in sorted(held))

    def placement_of(self, nodes: Sequence[str], above: str | None = None) -> Placement:
        """The placement of these nodes, each as one worker that stores what the workers behind it store.

        Parameters
        ----------
        nodes : sequence of str
            Workers and relays, such as `top`.
        above : str, optional
            The name of one more worker that stores all partitions that no node stores. It stands for the rest
            of the tree.
        """
        stored = {node: self.stored(node) for node in nodes}
        if above is not None:
            present = {name for names in stored.values() for name in names}
            stored[above] = tuple(name for name in self.placement.partitions if name not in present)
        return Placement(stored, self.placement.partitions)

    def parent(self, node: str) -> str | None:
        """The first relay that a node is behind; None if the node is connected to the server."""
        return next((relay for relay, nodes in self.relays.items() if node in nodes), None)

    def path(self, worker: str) -> Iterator[tuple[str, str | None]]:
        """The links from a worker to the server: pairs of a node and its parent."""
        node: str | None = worker
        while node is not None:
            above = self.parent(node)
            yield node, above
            node = above

    def wants(self, words: Sequence[str] | None) -> dict[str, str]:
        """What each node wants: what some worker behind it does.

        Parameters
        ----------
        words : sequence of K words, or None
            The wants of the workers, as for `make_plan`; None: all.
        """
        own = dict(zip(self.placement.workers, words or ["all"] * len(self.placement.workers), strict=True))
        found: dict[str, str] = {}
        for node in (*self.placement.workers, *self.relays):
            behind = {own[worker] for worker in self.workers_behind(node)}
            found[node] = next(word for word in ("all", "own", "none") if word in behind)
        return found

    @cached_property
    def _workers_behind(self) -> dict[str, frozenset[str]]:
        found = {worker: frozenset([worker]) for worker in self.placement.workers}
        for relay in reversed(self.top_down):
            found[relay] = frozenset().union(*(found[node] for node in self.relays[relay]))
        return found

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Topology):
            return NotImplemented
        return (self.placement, self.relays) == (other.placement, other.relays)

    def __hash__(self) -> int:
        return hash((self.placement, tuple(self.relays.items())))
