"""Spans: the runs of consecutive partitions of a task whose updates may be summed.

Sums of floating-point numbers depend on their order. So the mean of a task's updates is always computed by
one tree, which depends on the number of the task's partitions alone: a node is a span of partitions, and its
children are the two halves of the span. A worker that stores all partitions of a node can send its sum, and
the models have the same bits whichever sums travel.
"""

from __future__ import annotations

from typing import NamedTuple


class Span(NamedTuple):
    """The partitions of a task from position `start` to before `stop`, in the order of the task."""

    start: int
    stop: int

    @property
    def halves(self) -> tuple[Span, Span]:
        """The children of a node of at least two partitions; of an odd number, the first has one more."""
        middle = (self.start + self.stop + 1) // 2
        return Span(self.start, middle), Span(middle, self.stop)

    @property
    def single(self) -> bool:
        """Whether the span is one partition."""
        return self.stop == self.start + 1

    @property
    def singles(self) -> list[Span]:
        """The spans of its single partitions, in order."""
        return [Span(n, n + 1) for n in range(self.start, self.stop)]


def is_node(span: Span, count: int) -> bool:
    """Whether a span is a node of the tree over `count` partitions."""
    node = Span(0, count)
    while node != span and not node.single:
        first, second = node.halves
        node = first if span.start < second.start else second
    return node == span
