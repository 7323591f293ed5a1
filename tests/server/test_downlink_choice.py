from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from support.members import make_member
from support.problems import make_partitions

from asyncdmtl.plan.compare import Candidate, compare
from asyncdmtl.plan.links import EQUAL_LINKS, Links
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.uplink_choice import UplinkWishes
from asyncdmtl.protocol.messages.peers import Listens
from asyncdmtl.server.downlink_choice import DownlinkChoice, better_downlink, choose_downlink, in_words
from asyncdmtl.server.member import Member, Place

PARTITIONS = [replace(part, task=part.id) for part in make_partitions(4, "squared")]
CYCLIC = Placement.cyclic(4, 4, 2)
RELAY = [c for c in compare(CYCLIC) if c.strategy == "relay"]


def members(*, hearing: Sequence[int] = (), giving: Sequence[int] = range(4)) -> list[Member]:
    """Four workers, of which some receive the group, and others can be reached by others."""
    made = []
    for k, own in enumerate(CYCLIC.stored):
        member = make_member(f"w{k}", [PARTITIONS[n] for n in own], hears=k in hearing)
        member.exchanges = True
        if k in giving:
            member.place = Place(Listens("127.0.0.1", 1), b"")
        made.append(member)
    return made


def choose(
    workers: Sequence[Member], links: Links = EQUAL_LINKS, candidates: Sequence[Candidate] = RELAY
) -> DownlinkChoice:
    return choose_downlink(CYCLIC, (0, 1, 2, 3), candidates, UplinkWishes(), workers, links)


async def test_the_quickest_possible_downlink_is_chosen() -> None:
    choice = choose(members(hearing=range(4)))
    assert choice.chosen.kind == "peers"
    assert not choice.refused
    assert (
        in_words(choice) == "peers: a round takes 2 on links of equal speed, and 2.67 by multicast, 8 by tcp"
    )
    choice = choose(members(hearing=range(3)))
    assert choice.refused == {"multicast": "w3 do not receive the group"}
    choice = choose(members(hearing=range(4), giving=(0, 1)))
    assert choice.chosen.kind == "multicast"
    assert choice.refused == {"peers": "w2, w3 cannot be reached by others"}


async def test_peers_are_not_chosen_if_some_worker_cannot_take_rows() -> None:
    workers = members()
    workers[2].exchanges = False
    choice = choose(workers)
    assert choice.chosen.kind == "tcp"
    assert choice.refused["peers"] == "w2 cannot take all rows from others"
    central = [c for c in compare(CYCLIC) if c.strategy == "central"]
    assert choose(members(), candidates=central).refused["peers"] == "central leave aggregates to the server"


async def test_speeds_decide() -> None:
    speeds = {"w0": Fraction(10), "w1": Fraction(10), "w2": Fraction(10), "w3": Fraction(1, 10)}
    choice = choose(members(), Links(speeds=speeds, server=Fraction(1000)))
    # The slow worker takes as long to receive by each downlink.
    assert choice.told
    assert choice.chosen.kind == "tcp"
    assert "by the speeds of the links" in in_words(choice)


async def test_measured_speeds_change_the_choice_if_that_saves_much() -> None:
    choice = choose(members(hearing=range(4), giving=(0, 1)))
    assert not better_downlink(choice, *[[Fraction(10)] * 4] * 2)
    star = replace(choice, chosen=choice.possible[0])
    assert better_downlink(star, *[[Fraction(10)] * 4] * 2)
