from __future__ import annotations

import pytest

from asyncdmtl.plan.spans import Span, is_node


def nodes(span: Span) -> set[Span]:
    return {span} if span.single else {span}.union(*map(nodes, span.halves))


def test_halves_of_an_odd_number_put_more_first() -> None:
    assert Span(2, 7).halves == ((2, 5), (5, 7))
    assert Span(0, 2).halves == ((0, 1), (1, 2))
    assert Span(3, 4).single
    assert not Span(3, 5).single
    assert Span(3, 5).singles == [(3, 4), (4, 5)]


@pytest.mark.parametrize("count", range(1, 9))
def test_nodes_are_told_from_other_spans(count: int) -> None:
    tree = nodes(Span(0, count))
    assert len(tree) == 2 * count - 1
    for start in range(count):
        for stop in range(start + 1, count + 1):
            assert is_node(Span(start, stop), count) == (Span(start, stop) in tree)
