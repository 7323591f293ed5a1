"""The options that say how rows travel from the server to the workers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from asyncdmtl.cli.command import together
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.udp import Group
from asyncdmtl.server.records import MulticastOptions

group_options = together(
    click.option(
        "--group", default="239.192.77.77:7701", metavar="ADDRESS:PORT", help="The group; IPv4 or [IPv6]."
    ),
    click.option(
        "--interface",
        metavar="NAME",
        default="",
        show_default="that of the connection",
        help="The network interface that sends datagrams: its name, or one of its addresses.",
    ),
    click.option(
        "--hops", type=int, default=1, help="How many networks datagrams may cross: 1 stays on this one."
    ),
    click.option(
        "--multicast-rate",
        type=float,
        default=90.0,
        metavar="MBIT/S",
        help="Send datagrams no faster than this, headers included; loss lowers the rate.",
    ),
)

downlink_options = together(
    click.option(
        "--downlink",
        type=click.Choice(("tcp", "multicast", "peers", "auto")),
        default="tcp",
        help="How rows come to workers: from the server to each over TCP; multicast: once to a group that "
        "all workers listen to, where that costs less; peers: from other workers over TCP, and not through "
        "the server. Workers that do not hear the group, or cannot reach others, are served over TCP. "
        "auto: that of the three by which a round takes the shortest time on links of the speeds that "
        "--speeds tells, or of equal speeds.",
    ),
    group_options,
)


def takes_from_peers(given: Mapping[str, Any]) -> bool:
    """Whether workers may take rows from each other. With a group, too, the server chooses."""
    return given["downlink"] in ("peers", "auto")


def make_multicast(given: Mapping[str, Any]) -> MulticastOptions | None:
    """The options of the multicast group; None for downlinks that use none.

    Raises
    ------
    UsageError
        Names the option that breaks a rule.
    """
    if given["downlink"] not in ("multicast", "auto"):
        return None
    address, port = parse_address(given["group"], "--group")
    return MulticastOptions(
        Group(address, port, given["hops"]), given["interface"], given["multicast_rate"] * 1e6
    )
