from __future__ import annotations

from typing import Any

import pytest
from support.members import make_member
from support.problems import make_partitions, make_settings

from asyncdmtl.digests import UNKEYED
from asyncdmtl.errors import StateError
from asyncdmtl.exchange.states import ExactStates
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.problem import Problem
from asyncdmtl.relay.site import Site, compare_states
from asyncdmtl.relay.site_group import SiteGroup
from asyncdmtl.server.membership import Membership

SETTINGS = make_settings()
PARTITIONS = make_partitions(3, "squared")
PROBLEM = Problem(SETTINGS, [part.info(SETTINGS) for part in PARTITIONS])
OLD, NEW, ODD = (bytes([n]) * 16 for n in range(3))


def site(*facts: dict[str, Any]) -> Site:
    members = [make_member(name, **own) for name, own in zip("abcd", facts, strict=False)]
    return Site(Membership(), members, UNKEYED, 1.0, SiteGroup(None))


async def test_a_site_has_the_farthest_state_that_most_of_its_nodes_hold() -> None:
    three = {"round": 3, "state": NEW}
    made = site({"round": 2, "state": OLD}, three, {"round": 3, "state": ODD}, three)
    assert (made.round, made.over, made.state) == (3, False, NEW)
    assert [member.current for member in made.members] == [False, True, False, True]


async def test_the_state_before_the_first_round_is_the_same_everywhere() -> None:
    made = site({}, {"round": 0, "state": OLD})
    assert (made.round, made.state) == (0, b"")
    assert all(member.current for member in made.members)


async def test_a_site_names_all_workers_behind_its_nodes() -> None:
    made = site({}, {"behind": ("x", "y")}, {"wants": "none"})
    assert made.workers == ("a", "x", "y", "c")
    assert made.helpers == ["c"]


STATES = ExactStates(PROBLEM, UNKEYED)


def told(*states: bytes) -> list[Upload]:
    return [Upload((), 0, (), (), 0.0, 0.0, state) for state in states]


def test_nodes_with_other_states_are_named() -> None:
    with pytest.raises(StateError, match="the state of the training at 'c' is not that of most") as error:
        compare_states("abc", told(NEW, NEW, ODD), STATES)
    assert (error.value.workers, error.value.mendable) == (("c",), True)
    compare_states("abc", told(NEW, NEW, NEW), STATES)
    with pytest.raises(StateError) as undecided:
        compare_states("ab", told(NEW, ODD), STATES)
    assert not undecided.value.mendable


def test_nodes_with_other_states_than_the_relay_are_named() -> None:
    """The relay has models itself, and each node those of its own tasks."""
    # The last check is that of the relay in the plan for its nodes.
    compare_states("abc", told(OLD, ODD, ODD), STATES, [OLD, ODD, ODD, b""])
    with pytest.raises(StateError, match="at 'b', 'c' is not that of the relay") as error:
        compare_states("abc", told(OLD, ODD, ODD), STATES, [OLD, NEW, NEW, b""])
    assert (error.value.workers, error.value.mendable) == (("b", "c"), True)
