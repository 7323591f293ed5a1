"""The choice of the tasks that are coded as aggregates, and of sums, so that loads are minimal.

A task that some worker stores whole can travel as its aggregate, one vector, held by such workers only; or as
the updates of its partitions, more vectors, which have more holders. Where sums may travel, each node of the
task's tree (`asyncdmtl.plan.spans`) that some worker stores whole is such a choice. For `central` and
`personal`, the largest nodes are best, since one vector goes up instead of several, unless it is dearer. For
`relay`, either may be better, and a search decides: it tries all choices if they are few, else one change at
a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import prod
from typing import NamedTuple

from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.rates.cost import cheapest_rates
from asyncdmtl.plan.rates.demands import Demands
from asyncdmtl.plan.rates.makespan import fastest_rates
from asyncdmtl.plan.rates.optimum import uplink_optimum
from asyncdmtl.plan.spans import Span
from asyncdmtl.plan.units import Sum, UnitKind, Units, partitions_of_tasks

# The most choices of which all are tried, whatever the size of the placement.
ALL_CHOICES = 128

# The most choices that are tried for a small placement: they take some seconds.
MOST_TRIALS = 300

# The most trials × copies of partitions, so that fewer choices are tried for larger placements.
TRIAL_EFFORT = 100_000

Loads = tuple[Fraction, int, int, int]


class Choice(NamedTuple):
    """The tasks that are coded as aggregates, and the sums that are coded, both ascending."""

    aggregated: tuple[int, ...] = ()
    sums: tuple[Sum, ...] = ()


@dataclass(frozen=True, eq=False)
class Node:
    """A whole task, or a node of its tree, that can be one unit.

    Attributes
    ----------
    task : int
    span : Span
        The positions of its partitions in the task.
    whole : bool
        Whether these are all partitions of the task.
    holders : frozenset of int
        The workers that store all of them.
    children : tuple of Node
        The largest nodes below it that can be units.
    single : tuple of int
        The partitions of the node that are in none of its children.
    solid : bool
        Whether the node is at least as good as any units below it, since one of them has the same holders
        whatever is chosen: with a vector less, no constraint grows.
    """

    task: int
    span: Span
    whole: bool
    holders: frozenset[int]
    children: tuple[Node, ...]
    single: tuple[int, ...]
    solid: bool


def possible_nodes(
    placement: Placement, tasks: Sequence[int], kind: UnitKind, least_holders: int = 1
) -> list[Node]:
    """The largest nodes that can be units of `kind`, each stored whole by at least `least_holders` workers.

    Nodes below a solid one are left out.
    """
    holders = [frozenset(H) for H in placement.holders]

    def below(task: int, own: Sequence[int], span: Span) -> tuple[list[Node], list[int], frozenset[int]]:
        """The largest nodes in a span, the partitions outside of them, and the holders of the span."""
        if span.single:
            return [], [own[span.start]], holders[own[span.start]]
        if kind == "sums":
            first, second = (below(task, own, half) for half in span.halves)
            inner, single, H = first[0] + second[0], first[1] + second[1], first[2] & second[2]
        else:
            inner, single = [], list(own)
            H = frozenset.intersection(*(holders[n] for n in own))
        if len(H) < least_holders:
            return inner, single, H
        solid = any(holders[n] == H for n in single) or any(
            node.solid and node.holders == H for node in inner
        )
        whole = len(own) == span.stop - span.start
        children = () if solid else tuple(inner)
        return [Node(task, span, whole, H, children, tuple(single), solid)], [], H

    if kind == "updates":
        return []
    found: list[Node] = []
    for task, own in enumerate(partitions_of_tasks(tasks)):
        found += below(task, own, Span(0, len(own)))[0]
    return found


def chosen(nodes: Iterable[Node]) -> Choice:
    """The choice of these nodes."""
    each = list(nodes)
    return Choice(
        tuple(sorted(node.task for node in each if node.whole)),
        tuple(sorted(Sum(node.task, *node.span) for node in each if not node.whole)),
    )


def fewest_units(
    placement: Placement, tasks: Sequence[int], kind: UnitKind = "tasks", least_holders: int = 1
) -> Choice:
    """The choice with the fewest units, each held by at least `least_holders` workers."""
    return chosen(possible_nodes(placement, tasks, kind, least_holders))


def cheapest_units(
    placement: Placement, tasks: Sequence[int], prices: Sequence[Fraction], kind: UnitKind = "tasks"
) -> Choice:
    """The choice whose units cost the least, each sent by its cheapest holder; of equal ones the fewest."""

    def price(workers: Iterable[int]) -> Fraction:
        return min(prices[k] for k in workers)

    def best(node: Node) -> tuple[Fraction, list[Node]]:
        together = price(node.holders)
        if node.solid:
            return together, [node]
        below = [best(child) for child in node.children]
        apart = sum((price(placement.holders[n]) for n in node.single), Fraction(0))
        apart += sum((cost for cost, _ in below), Fraction(0))
        return (together, [node]) if together <= apart else (apart, [n for _, some in below for n in some])

    return chosen(n for node in possible_nodes(placement, tasks, kind) for n in best(node)[1])


def least_uplink(
    placement: Placement,
    helpers: Collection[int] = (),
    prices: Sequence[Fraction] | None = None,
    speeds: Sequence[Fraction] | None = None,
) -> Fraction:
    """The least load of the uplink of `relay`; or its least cost, or shortest time."""
    if helpers:
        demands = Demands(placement, helpers)
        return demands.cheapest(prices)[0] if speeds is None else demands.fastest(speeds)[0]
    if prices is not None:
        return cheapest_rates(placement, prices).cost
    return uplink_optimum(placement).load if speeds is None else fastest_rates(placement, speeds).time


def best_units(
    placement: Placement,
    tasks: Sequence[int],
    helpers: Sequence[int] = (),
    prices: Sequence[Fraction] | None = None,
    speeds: Sequence[Fraction] | None = None,
    kind: UnitKind = "tasks",
) -> Choice:
    """The units that `relay` codes, for the smallest uplink, then downlink, then unicast load.

    With prices the uplink's cost counts, with speeds its time. The workers `helpers` want nothing. The result
    is the best of all choices if there are at most `ALL_CHOICES`. Otherwise it is the best that a search
    finds, which starts from the best of those that code every node with at least so many holders.
    """
    roots = possible_nodes(placement, tasks, kind)
    if not roots:
        return Choice()
    trials = _Trials(
        placement, tasks, set(helpers), lambda units: least_uplink(units, helpers, prices, speeds)
    )
    if prod(map(_count, roots)) <= max(ALL_CHOICES, trials.most):
        every = (chosen(n for part in parts for n in part) for parts in product(*map(_options, roots)))
        return min(every, key=trials.loads)
    search = _Search(roots)
    copies = max(len(node.holders) for node in search.nodes)
    starts = dict.fromkeys(search.with_holders(least) for least in range(1, copies + 2))
    best = min(starts, key=lambda some: trials.loads(search.choice(some)))
    improved = True
    while improved:
        improved = False
        for changed in search.changes(best):
            if not trials.left:
                break
            if trials.loads(search.choice(changed)) < trials.loads(search.choice(best)):
                best, improved = changed, True
                break
    return search.choice(best)


def _count(node: Node) -> int:
    """The number of choices of units for the partitions of a node."""
    return 1 if node.solid else 1 + prod(map(_count, node.children))


def _options(node: Node) -> Iterator[tuple[Node, ...]]:
    """All choices of units for the partitions of a node, the node itself first."""
    yield (node,)
    if not node.solid:
        for parts in product(*map(_options, node.children)):
            yield tuple(n for part in parts for n in part)


class _Search:
    """All nodes, numbered, parents before children; some of them, none below another, are a choice."""

    def __init__(self, roots: Sequence[Node]) -> None:
        self.nodes = list(roots)
        self._parents: list[int | None] = [None] * len(roots)
        self._roots = range(len(roots))
        self._children: list[range] = []
        for i, node in enumerate(self.nodes):
            self._children.append(range(len(self.nodes), len(self.nodes) + len(node.children)))
            self.nodes.extend(node.children)
            self._parents.extend([i] * len(node.children))

    def choice(self, some: Iterable[int]) -> Choice:
        """The choice of some nodes."""
        return chosen(self.nodes[i] for i in some)

    def with_holders(self, least: int) -> frozenset[int]:
        """The largest nodes with so many holders, and solid ones."""
        found, queue = [], list(self._roots)
        for i in queue:
            if self.nodes[i].solid or len(self.nodes[i].holders) >= least:
                found.append(i)
            else:
                queue.extend(self._children[i])
        return frozenset(found)

    def changes(self, some: frozenset[int]) -> Iterator[frozenset[int]]:
        """The choices in which one node is split into its children, or takes the place of all below it."""
        covered = set(some)
        for i, parent in enumerate(self._parents):
            if parent in covered:
                covered.add(i)
        for i, node in enumerate(self.nodes):
            if i in some and not node.solid:
                yield some - {i} | set(self._children[i])
            elif i not in covered:
                yield some - self._below(i) | {i}

    def _below(self, i: int) -> set[int]:
        found = [i]
        for each in found:
            found.extend(self._children[each])
        return set(found)


class _Trials:
    """Loads of `relay` for choices of units, computed once each."""

    def __init__(
        self,
        placement: Placement,
        tasks: Sequence[int],
        helpers: Collection[int],
        uplink: Callable[[Placement], Fraction],
    ) -> None:
        self._placement, self._tasks, self._helpers, self._uplink = placement, tasks, helpers, uplink
        self._known: dict[Choice, Loads] = {}
        self.most = max(4, min(MOST_TRIALS, TRIAL_EFFORT // sum(map(len, placement.stored))))

    @property
    def left(self) -> bool:
        """Whether more choices may be tried."""
        return len(self._known) < self.most

    def loads(self, choice: Choice) -> Loads:
        """The loads to minimise, the most important first; of equal ones, the number of units."""
        if choice not in self._known:
            units = Units.of(self._placement, self._tasks, choice.aggregated, sums=choice.sums).blocks
            lacked = [
                len(units.partitions) - len(stored)
                for k, stored in enumerate(units.stored)
                if k not in self._helpers
            ]
            self._known[choice] = (self._uplink(units), max(lacked), sum(lacked), len(units.partitions))
        return self._known[choice]
