"""The predicted delay of a stream of jobs, for several ways to split the work of a round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.delay.queueing import Moments, Stream, ideal_factor, mean_delay, one_time, round_time
from asyncdmtl.plan.delay.simulation import poisson_arrivals, simulate, varying
from asyncdmtl.plan.delay.splits import Split, least_time, split_by_speeds, split_for_silent, uniform_split
from asyncdmtl.plan.placement_file import PlanRequest
from asyncdmtl.report.console import FittedTable
from asyncdmtl.report.units import counted

# The most pieces of work that a simulation makes: some tenths of a second.
MOST_PIECES = 50_000

# The most jobs of a simulation. Their mean delay is within some percent at moderate load.
MOST_JOBS = 10_000

# The number that decides what is drawn in simulations, so that a report is the same each time.
SEED = 18


def predicted_delays(request: PlanRequest, stream: Stream, silent: int = 0) -> dict[str, Any]:
    """The mean delay of jobs, from arrival to delivery in order, for several splits of a relay's uplink.

    Parameters
    ----------
    request : PlanRequest
        With speeds, in vectors per unit of time.
    stream : Stream
    silent : int
        Workers that rounds do not wait for in the third split; 0 for one if the placement permits that.

    Returns
    -------
    dict
        `arrivals`, `rounds`, `variation` and `splits`: for uniform, speeds, silent and ideal the mean
        `round` and `job`, the mean `square` of a job's time, `used`, the share of time in which jobs are
        made one at a time, `delay`, the mean delay then, and for jobs that share the workers a lower bound,
        `at_least`, and what a simulation found, `together`. None stands for a queue that grows without end.
    """
    if request.speeds is None:
        raise UsageError("--arrivals", "needs a table speeds in FILE", stream.arrivals)
    placement, speeds = request.placement, request.speeds
    ideal = float(least_time(placement, speeds)) * ideal_factor(stream.variation)
    splits = {"uniform": uniform_split(placement, speeds), "speeds": split_by_speeds(placement, speeds)}
    if silent or min(map(len, placement.holders)) > 1:
        splits["silent"] = split_for_silent(placement, speeds, silent or 1)
    rows = {name: _row(split, stream) for name, split in splits.items()}
    made = one_time(ideal, 0.0)
    bound = _finite(mean_delay(stream.arrivals, made.repeated(stream.rounds)))
    rows["ideal"] = _timed(made, stream) | {"at_least": bound, "together": None, "waits_for": None}
    return {
        "arrivals": stream.arrivals,
        "rounds": stream.rounds,
        "variation": stream.variation,
        "splits": rows,
    }


def _row(split: Split, stream: Stream) -> dict[str, Any]:
    """What a split leads to."""
    times = [float(time) for time in split.times if time > 0]
    if not times:
        # Every worker has all that it needs, and nothing travels.
        return _timed(one_time(0.0, 0.0), stream) | {"at_least": 0.0, "together": 0.0, "waits_for": 0}
    found = _timed(round_time(times, split.needed, stream.variation), stream)
    if split.silent:
        at_least = found["job"]
    else:
        # In order, a job ends after all work of it and of those before it, at each worker.
        own = (one_time(time, stream.variation).repeated(stream.rounds) for time in times)
        at_least = max(found["job"], *(mean_delay(stream.arrivals, each) for each in own))
    found["at_least"] = _finite(at_least)
    found["together"] = None if found["at_least"] is None else _simulated(times, split.silent, stream)
    return found | {"waits_for": split.needed}


def _timed(made: Moments, stream: Stream) -> dict[str, Any]:
    job = made.repeated(stream.rounds)
    used = stream.arrivals * job.mean
    delay = _finite(mean_delay(stream.arrivals, job))
    return {"round": made.mean, "job": job.mean, "square": job.square, "used": used, "delay": delay}


def _simulated(times: Sequence[float], silent: int, stream: Stream) -> float:
    """The mean delay of jobs that share the workers, any number of them at one time."""
    jobs = min(MOST_JOBS, MOST_PIECES // (stream.rounds * len(times)))
    arrivals = poisson_arrivals(stream.arrivals, max(jobs, 1), SEED)
    draw = varying(times, stream.variation, SEED + 1)
    return simulate(arrivals, draw, rounds=stream.rounds, silent=silent).mean


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# How the table and the picture call the splits.
SPLIT_NAMES: Mapping[str, str] = {
    "uniform": "equal shares",
    "speeds": "shares by speed",
    "silent": "by speed, silent workers",
    "ideal": "ideal (bound)",
}


def delay_table(delays: Mapping[str, Any]) -> Table:
    """The delays as a table."""
    rounds = counted(delays["rounds"], "round")
    table = FittedTable(title=f"Jobs of {rounds}, {delays['arrivals']:g} arriving in a unit of time")
    table.add_column("", no_wrap=True)
    for heading in ("round", "job", "used", "one by one", "together, at least", "simulated"):
        table.add_column(heading, justify="right", overflow="fold")
    for name, row in delays["splits"].items():
        table.add_row(
            SPLIT_NAMES[name], f"{row['round']:.4g}", f"{row['job']:.4g}", f"{row['used']:.0%}",
            _shown(row["delay"]), _shown(row["at_least"]),
            "-" if name == "ideal" else _shown(row["together"]),
        )  # fmt: skip
    table.caption = (
        "mean times until a job is delivered in order, in the unit of the speeds, if jobs are made one by "
        "one or share the workers; the time of a worker varies by "
        f"{delays['variation']:.0%}; endless: jobs come faster than they end"
    )
    return table


def _shown(delay: float | None) -> str:
    return "endless" if delay is None else f"{delay:.4g}"
