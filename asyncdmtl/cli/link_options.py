"""The options that say what the workers' links are like, for which plans are made."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from asyncdmtl.cli.command import together
from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.learning.settings import AUTO
from asyncdmtl.plan.links import Links, read_links, server_speed
from asyncdmtl.plan.placement import read_tables
from asyncdmtl.plan.validation import rational


def _fraction(context: click.Context, parameter: click.Parameter, text: str) -> Fraction:
    return rational("--max-overhead", text)


# The option of `plan`, too.
max_overhead_option = click.option(
    "--max-overhead",
    default="0",
    metavar="FRACTION",
    callback=_fraction,
    help="Uplink load (cost, time) that may be added for fewer packets per vector: 0.02 or 1/50.",
)

link_options = together(
    click.option(
        "--speeds",
        "speeds_file",
        type=click.Path(path_type=Path),
        metavar="FILE|auto",
        help="TOML or JSON file, such as a placement file, with a table speeds: the Mbit/s of each worker's "
        "link towards the server, and optionally one down_speeds, for the way back, and a table server with "
        "the speed of its link. The rows of a relay are dealt out so that the uplink is the shortest. "
        "auto: the server measures the speeds, and plans again where that saves time.",
    ),
    click.option(
        "--prices",
        "prices_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The same with a table prices: what a vector on each worker's link costs. Plans have the least "
        "cost. Workers that a table does not name count as its slowest or most expensive.",
    ),
    max_overhead_option,
    click.option(
        "--silent",
        type=int,
        default=0,
        metavar="S",
        help="Rounds of a relay, of central and of linear do not wait for the last S workers. A late worker "
        "catches up. Every partition needs more than S holders, and the uplink grows.",
    ),
)


def make_links(given: Mapping[str, Any]) -> Links:
    """What the options say of the links.

    Raises
    ------
    PlacementError
        A file cannot be read, or breaks a rule.
    UsageError
        Prices and speeds are given.
    """
    learned = given["speeds_file"] is not None and str(given["speeds_file"]) == AUTO
    speeds, down = ({}, {}) if learned else (_table(given, "speeds"), _table(given, "speeds", "down_speeds"))
    server = None if learned or given["speeds_file"] is None else _server(given["speeds_file"])
    links = Links(_table(given, "prices"), speeds, given["max_overhead"], learned, down, server)
    if links.prices and given.get("downlink") == AUTO:
        rule = "cannot be given with --downlink auto, which chooses by time"
        raise UsageError("--prices", rule, str(given["prices_file"]))
    return links


def _server(file: Path) -> Fraction | None:
    """The speed of the server's link, if the file tells it."""
    return server_speed(read_tables(file), file)


def _table(given: Mapping[str, Any], option: str, further: str | None = None) -> Mapping[str, Fraction]:
    """The table of an option's name in the file that it names, or a further one, which may be missing.

    Errors name the option, too.
    """
    file = given[f"{option}_file"]
    if file is None:
        return {}
    try:
        return read_links(file, further or option, optional=further is not None)
    except PlacementError as error:
        raise PlacementError(f"--{option}: {error.argument}", error.rule, error.value) from error
