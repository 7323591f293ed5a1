"""Test runs under random faults of processes and of the network: `tools/chaos.py --runs 300 --jobs 4`.

Each seed determines a small problem, real server and worker processes with a bad network between them, and
faults with their times: see `chaos_scenario`. Under all faults, the models of all workers that end must be
those of the one-process twin, bit for bit; or, if no worker is left that holds some partition, the server
must report that. A wrong result, a hang, an internal error, a traceback or a leftover is a bug; its seed is
printed.

In about half of the runs, rows go to a multicast group. There some workers lose datagrams, and another host
forges some.

Processes are forked from an interpreter that has imported the package; in a tenth of the runs, each process
starts an interpreter of its own. Faults happen at rounds and other events of the server, so that `--seed N`
replays a run as far as timing allows. On a machine that is busy with other work, `--patience 5` makes all
limits and faults five times as long.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import traceback
from collections import Counter

from chaos_outcome import ChaosError, Outcome
from chaos_processes import ForkServer
from chaos_run import LIMIT, run_one
from chaos_scenario import LIE, Fault, Scenario, draw, trial

from asyncdmtl.net.event_loop import run


class Series:
    """Runs of many seeds, several at a time, and a summary of them.

    Parameters
    ----------
    seconds : float
        No run begins later than this.
    verbose : bool
        Whether to print a line for each run.
    """

    def __init__(self, seconds: float, verbose: bool) -> None:
        self.bugs: list[int] = []
        self.outcomes: list[Outcome] = []
        self._end = time.monotonic() + seconds
        self._verbose = verbose

    async def make(self, scenarios: list[Scenario], jobs: int, limit: float) -> None:
        """Make all these runs."""
        left = iter(scenarios)

        async def work(fork_server: ForkServer) -> None:
            for scenario in left:
                if time.monotonic() > self._end:
                    return
                await self._one(scenario, fork_server, limit)

        async with ForkServer() as fork_server:
            await asyncio.gather(*(work(fork_server) for _ in range(jobs)))

    async def _one(self, scenario: Scenario, fork_server: ForkServer, limit: float) -> None:
        if self._verbose:
            print(f"seed {scenario.seed}: {scenario}", *scenario.faults, sep="\n  ", flush=True)
        try:
            outcome = await run_one(scenario, fork_server, limit)
        except Exception as error:
            self.bugs.append(scenario.seed)
            notes = "; ".join(getattr(error, "__notes__", ()))
            print(f"BUG, --seed {scenario.seed}: {error!r} ({notes})", flush=True)
            if not isinstance(error, ChaosError):
                traceback.print_exception(error)
            return
        self.outcomes.append(outcome)
        odd = outcome.ending not in ("done", "partitions lost") or outcome.seconds > limit / 2
        if self._verbose or odd:
            print(f"seed {scenario.seed}: {outcome}", flush=True)

    def summary(self) -> str:
        """A summary of all runs."""
        lines = [f"{len(self.outcomes) + len(self.bugs)} runs, {len(self.bugs)} bugs {self.bugs or ''}"]
        endings = Counter(outcome.ending for outcome in self.outcomes)
        lines += [f"  ended: {ending} {count}" for ending, count in endings.most_common()]
        if self.outcomes:
            seconds = sorted(outcome.seconds for outcome in self.outcomes)
            rounds, again, plans, orphans = (
                sum(getattr(outcome, name) for outcome in self.outcomes)
                for name in ("rounds", "again", "plans", "orphans")
            )
            lines.append(f"  rounds {rounds}, made again after a server's death {again}, plans {plans}")
            lines.append(f"  seconds: median {seconds[len(seconds) // 2]:.1f}, most {seconds[-1]:.1f}")
            sockets, memory = (max(getattr(o, name) for o in self.outcomes) for name in ("sockets", "memory"))
            lines.append(f"  a server's sockets: {sockets} at most; its memory: {memory / 1024:.0f} MiB")
            lines.append(f"  workers that missed the end and were stopped: {orphans}")
        for title, name in (("faults", "faults"), ("workers that gave up and were started again", "returns")):
            counts: Counter[str] = sum((getattr(o, name) for o in self.outcomes), Counter())
            lines.append(f"  {title}: {counts.total()}")
            lines += [f"    {count:5d} {what}" for what, count in counts.most_common()]
        return "\n".join(lines)


# The faults whose cost is measured, with the seconds that each lasts: longer than the default
# --silence-timeout, 10 s.
TRIALS = {"kill": 0.0, "reset": 0.0, "stop": 12.0, "unplug": 12.0, "kill server": 0.0, LIE: 0.0}


def measure(times: int, jobs: int) -> int:
    """Print the time from a fault to the end of the next round, under default limits; the exit code."""
    for kind, seconds in TRIALS.items():
        series = Series(float("inf"), verbose=False)
        # The worker with the wrong update is never the first holder of the partition, which would be
        # believed.
        who, place = ("w3", 1) if kind == LIE else ("" if kind == "kill server" else "w1", 0)
        fault = Fault(kind, who, "round", 40, seconds=seconds, place=place)
        run(series.make([trial(fault)] * times, jobs, LIMIT))
        lulls = sorted(lull for outcome in series.outcomes for lull in outcome.lulls)
        told = " ".join(f"{lull:.3f}" for lull in lulls)
        middle = lulls[len(lulls) // 2] if lulls else float("nan")
        print(f"{kind:12s} next round after {middle:.3f} s (median; all: {told})", flush=True)
        if series.bugs:
            return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="how many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="just this one, and tell what it is")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no run later than this")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--rounds", type=int, help="of a run; then every partition has two holders")
    parser.add_argument("--fault-every", type=int, metavar="ROUNDS", help="a fault every so many rounds")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="times that limits are longer, if it is busy"
    )
    parser.add_argument("--measure", type=int, metavar="TIMES", help="how long a run pauses for each fault")
    given = parser.parse_args()
    if given.measure is not None:
        return measure(given.measure, given.jobs)
    single = given.seed is not None or given.fault_every is not None
    first = given.first if given.seed is None else given.seed
    seeds = range(first, first + (1 if single else given.runs))
    drawn = (draw(seed, rounds=given.rounds, every=given.fault_every) for seed in seeds)
    scenarios = [scenario.slowed(given.patience) for scenario in drawn]
    limit = (LIMIT + (0.0 if given.rounds is None else given.rounds)) * given.patience
    series = Series(given.seconds, verbose=single)
    run(series.make(scenarios, 1 if single else given.jobs, limit))
    print(series.summary())
    return int(bool(series.bugs))


if __name__ == "__main__":
    sys.exit(main())
