"""Links: the price or the speed of each worker's link, by which the plans of a run are chosen.

The workers of a run come and go, so that both are known by the workers' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from asyncdmtl.errors import PlacementError, UsageError
from asyncdmtl.plan.placement import Placement, read_tables
from asyncdmtl.plan.validation import rational

# Bits in a megabit: speeds of links are in Mbit/s.
MEGABIT = 1_000_000


@dataclass(frozen=True)
class Links:
    """The links of a run's workers; at most one of both tables has entries.

    Attributes
    ----------
    prices : mapping of worker to Fraction
        The price of a vector on the worker's link. Plans have the least cost.
    speeds : mapping of worker to Fraction
        The speed of the worker's link towards the server, in Mbit/s. Plans have the shortest uplink.
    down_speeds : mapping of worker to Fraction
        The speed of the worker's link from the server, in Mbit/s; that of a worker which is not in the table
        is the same as towards the server.
    max_overhead : Fraction
        The share by which the uplink's load, cost or time may exceed the minimum, for fewer packets.
    learned : bool
        Whether the speeds are those that the server measures; there are none before it has.
    server : Fraction or None
        The speed of the server's link in Mbit/s; None if it is not known.
    """

    prices: Mapping[str, Fraction] = field(default_factory=dict)
    speeds: Mapping[str, Fraction] = field(default_factory=dict)
    max_overhead: Fraction = Fraction(0)
    learned: bool = False
    down_speeds: Mapping[str, Fraction] = field(default_factory=dict)
    server: Fraction | None = None

    def __post_init__(self) -> None:
        if self.prices and (self.speeds or self.learned):
            raise UsageError("--prices", "cannot be given with --speeds", sorted(self.prices))

    def check(self, strategy: str) -> None:
        """UsageError if plans of this strategy cannot minimise what the tables ask for."""
        if (self.speeds or self.learned) and strategy not in ("auto", "relay"):
            raise UsageError("--speeds", "are for --strategy relay or auto", strategy)
        if self.prices and strategy == "linear":
            raise UsageError("--prices", "are for strategies that code bytes", strategy)

    def weights(self, placement: Placement) -> dict[str, Any]:
        """The planner's argument `prices` or `speeds` for these workers; empty if no table is given.

        A worker that the table does not name, such as a late one, counts as the most expensive or the
        slowest of those that it names: no plan then depends on a link that nobody knows.
        """
        if self.prices:
            highest = max(self.prices.values())
            return {"prices": tuple(self.prices.get(name, highest) for name in placement.workers)}
        if self.speeds:
            lowest = min(self.speeds.values())
            return {"speeds": tuple(self.speeds.get(name, lowest) for name in placement.workers)}
        return {}

    def speeds_down(self, placement: Placement) -> tuple[Fraction, ...]:
        """The speed of the link down of each of these workers; only where there are speeds."""
        up = self.weights(placement)["speeds"]
        pairs = zip(placement.workers, up, strict=True)
        return tuple(self.down_speeds.get(name, speed) for name, speed in pairs)


# The links of a run for which nothing is known about them.
EQUAL_LINKS = Links()


def read_links(path: str | Path, table: str, *, optional: bool = False) -> dict[str, Fraction]:
    """The numbers in one table, such as `prices`, of a TOML or JSON file; placement files serve.

    Parameters
    ----------
    path : str or Path
    table : "prices", "speeds" or "down_speeds"
    optional : bool
        Whether a file without the table has no numbers; else it breaks a rule.

    Raises
    ------
    PlacementError
        The file cannot be read, has no such table, or a number is negative; a speed is 0.
    """
    found: Any = read_tables(path).get(table)
    if optional and found is None:
        return {}
    if not isinstance(found, Mapping) or not found:
        raise PlacementError(
            f"file {path}", f"must have a table {table} with a number for each worker", found
        )
    numbers = {}
    for worker, value in found.items():
        what = f"{table} in {path}: {worker}"
        try:
            numbers[str(worker)] = rational(what, value)
        except UsageError as error:
            raise PlacementError(error.argument, error.rule, error.value) from error
        if table != "prices" and not numbers[str(worker)]:
            raise PlacementError(what, "must be more than 0", value)
    return numbers


def server_speed(content: Mapping[str, Any], path: str | Path) -> Fraction | None:
    """The number `speed` in the table `server` of a file's content; None if there is no such table.

    Raises
    ------
    PlacementError
        The table has other entries, or the speed is not more than 0.
    """
    if (found := content.get("server")) is None:
        return None
    if not isinstance(found, Mapping) or set(found) != {"speed"}:
        raise PlacementError(f"server in {path}", "must be a table with a number speed", found)
    what = f"server in {path}: speed"
    try:
        speed = rational(what, found["speed"])
    except UsageError as error:
        raise PlacementError(error.argument, error.rule, error.value) from error
    if not speed:
        raise PlacementError(what, "must be more than 0", found["speed"])
    return speed
