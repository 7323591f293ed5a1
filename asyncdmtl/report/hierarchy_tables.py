"""The part of the report of `asyncdmtl plan` about relays, as text."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from rich.console import Console

from asyncdmtl.report.console import FittedTable
from asyncdmtl.report.units import load_text

# The name of the upper end of links that lead to the server.
SERVER = "server"


def show_hierarchy(hierarchy: Mapping[str, Any], network: str, console: Console) -> None:
    """Print loads of levels and links, and whether relays pay."""
    levels, links = hierarchy["levels"], hierarchy["links"]
    sent = "each row once" if network == "multicast" else "copies"
    table = FittedTable(title=f"Relays: vectors per round by {hierarchy['strategy']}, up and down")
    table.add_column("below", overflow="fold")
    for heading in ("links", "up", "bound", "down", "bound", "copies"):
        table.add_column(heading, justify="right", overflow="fold")
    for level in levels:
        table.add_row(
            level["relay"] or SERVER,
            str(len(level["nodes"])),
            level["uplink_load"],
            level.get("uplink_bound", str(level["stored"])),
            level["downlink_load"],
            level.get("downlink_bound", level["downlink_load"]),
            level["unicast_load"],
        )
    console.print(table)
    console.print(f"{SERVER}: {hierarchy['limits']}")
    console.print("Below a relay, each update that its nodes store goes up once.")
    table = FittedTable(title=f"Links: vectors per round, up and down ({sent})")
    table.add_column("link", overflow="fold")
    names = {"": "relays", "star_": f"star ({hierarchy['star_strategy']})", "uncoded_": "relays, uncoded"}
    shown = {key: name for key, name in names.items() if f"{key}up" in links[0]}
    for name in shown.values():
        table.add_column(f"{name}: up", justify="right", overflow="fold")
        table.add_column("down", justify="right", overflow="fold")
    for link in links:
        cells = [load_text(link[f"{key}{way}"]) for key in shown for way in ("up", "down")]
        table.add_row(f"{link['node']} to {link['parent'] or SERVER}", *cells)
    console.print(table)
    for line in verdict(hierarchy, network):
        console.print(line)


def verdict(hierarchy: Mapping[str, Any], network: str) -> list[str]:
    """Sentences that say whether relays pay: by time if speeds are known, else by vectors at the server."""
    server = hierarchy["levels"][0]
    down = "downlink_load" if network == "multicast" else "unicast_load"
    ours = Fraction(server["uplink_load"]) + Fraction(server[down])
    star = [link for link in hierarchy["links"] if link["parent"] is None]
    theirs = sum((Fraction(link["star_up"]) for link in star), Fraction(0))
    heard = [Fraction(link["star_down"]) for link in star]
    theirs += max(heard) if network == "multicast" else sum(heard, Fraction(0))
    sentences = [
        f"Vectors a round on the links to the server: {load_text(str(ours))} with relays, "
        f"{load_text(str(theirs))} in a star{_change(ours, theirs)}."
    ]
    times = hierarchy["times"]
    if times is None:
        return [
            *sentences,
            "With a table speeds of workers and relays, this tells whether rounds get shorter.",
        ]
    mine, other = Fraction(times["relays"]), Fraction(times["star"])
    pays = "Relays pay" if mine < other else "Relays do not pay"
    uncoded = f", {_time(times['uncoded'])} with relays and no coding" if "uncoded" in times else ""
    return [
        *sentences,
        f"{pays}: on these links a round takes {_time(times['relays'])} with relays, "
        f"{_time(times['star'])} in a star{_change(mine, other)}{uncoded}.",
    ]


def _time(text: str) -> str:
    return f"{float(Fraction(text)):.4g}"


def _change(ours: Fraction, theirs: Fraction) -> str:
    """The difference as a share, in words; nothing if there is none to tell."""
    if not theirs or ours == theirs:
        return ""
    share = float(ours / theirs - 1)
    return f" ({abs(share):.0%} {'more' if share > 0 else 'less'})"
