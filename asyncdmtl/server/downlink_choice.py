"""The server's choice how rows come to workers, under `--downlink auto`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from asyncdmtl.plan.compare import Candidate
from asyncdmtl.plan.downlinks import Downlink, Speeds, compare_downlinks, quickest
from asyncdmtl.plan.links import Links
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.uplink_choice import UplinkWishes
from asyncdmtl.server.link_speeds import LEAST_SAVED
from asyncdmtl.server.member import Member


@dataclass(frozen=True)
class DownlinkChoice:
    """The downlinks that were possible when a plan was made, and the chosen one.

    Attributes
    ----------
    chosen : Downlink
    possible : tuple of Downlink
    speeds : Speeds
        The speeds of the links for which it was chosen, in the order of the plan.
    told : bool
        Whether these speeds were told or measured. Otherwise all links count as equal.
    refused : mapping of str to str
        The downlinks that are not possible, each with the reason in words.
    """

    chosen: Downlink
    possible: tuple[Downlink, ...]
    speeds: Speeds
    told: bool
    refused: Mapping[str, str]


def choose_downlink(
    placement: Placement,
    tasks: Sequence[int],
    candidates: Sequence[Candidate],
    wishes: UplinkWishes,
    members: Sequence[Member],
    links: Links,
) -> DownlinkChoice:
    """The downlink by which a round takes the shortest time.

    Parameters
    ----------
    placement, tasks, wishes
        As the candidates were made with.
    candidates : sequence of Candidate
        The strategies to choose from, of which at least one has known loads.
    members : sequence of Member
        The workers, in the order of the placement.
    links : Links
        The speeds that are known.
    """
    told = links.weights(placement).get("speeds")
    down = None if told is None else links.speeds_down(placement)
    speeds = Speeds.of(len(members), told, links.server, down)
    deaf = [member.name for member in members if not (member.hears or member.helps)]
    alone = [member.name for member in members if not (member.exchanges or member.helps)]
    giving = [k for k, member in enumerate(members) if member.place is not None]
    # A worker that others do not let take rows is served by the server, and others then send it rows.
    givers = () if alone else giving
    possible = compare_downlinks(
        placement, tasks, candidates, speeds, wishes, giving=givers, hearing=not deaf
    )
    refused = {}
    if "peers" not in (found := {downlink.kind for downlink in possible}):
        refused["peers"] = _without_peers(candidates, alone, members)
    if "multicast" not in found:
        refused["multicast"] = f"{', '.join(deaf)} do not receive the group"
    return DownlinkChoice(quickest(possible, speeds), possible, speeds, told is not None, refused)


def _without_peers(candidates: Sequence[Candidate], alone: Sequence[str], members: Sequence[Member]) -> str:
    if alone:
        return f"{', '.join(alone)} cannot take all rows from others"
    if silent := [member.name for member in members if member.place is None]:
        return f"{', '.join(silent)} cannot be reached by others"
    return f"{' and '.join(c.strategy for c in candidates)} leave aggregates to the server"


def better_downlink(choice: DownlinkChoice, up: Sequence[Fraction], down: Sequence[Fraction]) -> bool:
    """Whether another downlink is quicker by `LEAST_SAVED` on links of these speeds, in the plan's order."""
    speeds = Speeds.of(len(up), up, down=down)
    best = quickest(choice.possible, speeds)
    return best.time(speeds) < (1 - LEAST_SAVED) * choice.chosen.time(speeds)


def in_words(choice: DownlinkChoice) -> str:
    """The choice in words, with the vectors that the busiest link of each downlink carries for its speed."""
    others = sorted(
        (downlink.time(choice.speeds), downlink.kind)
        for downlink in choice.possible
        if downlink is not choice.chosen
    )
    beside = ", ".join(f"{_rounded(time)} by {kind}" for time, kind in others)
    unit = "by the speeds of the links" if choice.told else "on links of equal speed"
    told = f"{choice.chosen.kind}: a round takes {_rounded(choice.chosen.time(choice.speeds))} {unit}"
    words = [told + (f", and {beside}" if beside else "")]
    words += [f"not {kind}, because {reason}" for kind, reason in choice.refused.items()]
    return "; ".join(words)


def _rounded(time: Fraction) -> str:
    return f"{float(time):.3g}"
