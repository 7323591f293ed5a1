"""The relays of a run on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from asyncdmtl.errors import UsageError
from asyncdmtl.launch.relays import spread_workers
from asyncdmtl.plan.hierarchy.topology import Topology
from asyncdmtl.plan.placement import Placement

relays_option = click.option(
    "--relays",
    type=int,
    show_default="those in the table relays of --placement",
    help="Start so many relay processes between server and workers, who are spread over them in their order. "
    "For the exact strategies.",
)


def make_topology(given: Mapping[str, Any], placement: Placement, listed: Topology | None) -> Topology | None:
    """The relays that the options ask for; None without relays.

    Parameters
    ----------
    given : mapping
        The values of the command's options.
    placement : Placement
    listed : Topology or None
        The relays in the placement file.

    Raises
    ------
    UsageError
        There are more relays than workers, or an option does not go with relays; the error names it.
    """
    count = given["relays"]
    if count is None and listed is None:
        return None
    if count is not None and listed is not None:
        raise UsageError("--relays", "cannot be given with the relays of --placement", count)
    made = listed or spread_workers(placement, count)
    asked = "--relays" if listed is None else "the table relays of --placement"
    number = len(made.relays)
    links = given["links"]
    refused = {
        f"--silent {given['silent']}": given["silent"],
        f"--downlink {given['downlink']}": given["downlink"] != "tcp",
        "--speeds": links.speeds or links.learned,
        "--prices": links.prices,
        # Relays combine bytes, and cannot tell real rows that differ by rounding.
        "--strategy linear": given["strategy"] == "linear",
        "--jobs": given["jobs_file"] is not None,
    }
    for option, present in refused.items():
        if present:
            raise UsageError(asked, f"cannot be given with {option}", number)
    return made
