"""Measure the same exchange through asyncdmtl and through widely used systems, by the kernel's counters.

    sudo .venv/bin/python tools/compare_systems.py --budget 6 --rates open,100mbit

Every worker ends up with the updates of all. Each worker, and the server, is in a network namespace of its
own; seconds are medians of rounds, bytes are those of the interfaces. The other systems hold one copy of each
update and exchange only updates, which are compared with the sent ones; so do asyncdmtl's rows "exchange
only". The other rows of asyncdmtl, and one of MPI, are a training, whose models are compared over all
strategies and with MPI's. The other systems are installed into an environment of their own; a system that
cannot be installed is left out, and the table says so. It needs root.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import click
from compare_runs import Case, Measured, run_own, run_peer
from launch import SERVER
from namespaces import Host, network
from results import Table, processor, results_option, write_results

from asyncdmtl._version import __version__

OPEN = "open"
RATES = {OPEN: None, "10mbit": 10e6 / 8, "100mbit": 100e6 / 8, "1gbit": 1e9 / 8}

# The expected bytes per second of a star if no link is limited, from which the number of rounds follows.
OPEN_SPEED = 2e8

# The environment into which other systems are installed.
ENVIRONMENT = Path.home() / ".cache" / "asyncdmtl-peers"

MOST_ROUNDS, FEWEST_ROUNDS = 40, 2


def requirements() -> list[str]:
    """What asyncdmtl needs, as `pip` takes it: the training around MPI is made by its code."""
    project = Path(__file__).parent.parent / "pyproject.toml"
    needed: list[str] = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    return needed


PEERS = {
    "star": ("bare asyncio + msgpack star", ["msgpack", "numpy"]),
    "mpi": ("MPI allgather (mpi4py, MPICH)", ["mpi4py", "mpich", "numpy"]),
    "mpi-training": ("MPI allgather, the same training", ["mpi4py", "mpich", *requirements()]),
    "flower": ("Flower, direct gRPC", ["flwr==1.41.0", "numpy"]),
    "dask": ("Dask distributed", ["distributed", "numpy"]),
}


# Options of asyncdmtl's server; the rate of its datagrams in Mbit/s on open links; and their share of a
# limited link.
OWN = {
    "uncoded": ["--strategy", "uncoded"],
    "relay": ["--strategy", "relay"],
    "multicast": ["--strategy", "relay", "--downlink", "multicast"],
    "peers": ["--strategy", "relay", "--downlink", "peers"],
}
DATAGRAMS, SHARE = 1000.0, 0.9

CODED = ("relay", "multicast", "peers")

# The other systems that train.
TRAINING = ("mpi-training",)


@dataclass(frozen=True)
class Result:
    """The figures of one system in one case; without figures, `skipped` gives the reason.

    `exchange` says whether asyncdmtl made the exchange only, of updates that were there already.
    """

    system: str
    workers: int
    numbers: int
    rate: str
    copies: int
    measured: Measured | None = None
    skipped: str | None = None
    exchange: bool = False


def install(folder: Path, wanted: Sequence[str]) -> dict[str, str | None]:
    """Make an environment for the `wanted` systems; for each, None or the reason why it is not there."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    missing: dict[str, str | None] = {}
    for name in wanted:
        command = [str(python), "-m", "pip", "install", "--quiet", *PEERS[name][1]]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        missing[name] = done.stderr.strip().splitlines()[-1] if done.returncode else None
    return missing


def versions(folder: Path) -> str:
    """The versions of the other systems, in words."""
    names = ["mpi4py", "mpich", "flwr", "distributed", "msgpack"]
    code = "import sys; from importlib.metadata import distributions as all;" + (
        "print(', '.join(sorted(f'{d.name} {d.version}' for d in all() if d.name in sys.argv)))"
    )
    command = [str(folder / "bin" / "python"), "-c", code, *names]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def rounds_within(budget: float, workers: int, numbers: int, rate: str) -> int:
    """The number of rounds of a star that fit into `budget` seconds; 0 if they are too few to compare."""
    speed = RATES[rate] or OPEN_SPEED
    rounds = int(budget * speed / (workers * (workers - 1) * 4 * numbers))
    return min(rounds, MOST_ROUNDS) if rounds >= FEWEST_ROUNDS else 0


def measure_case(
    case: Case,
    rate: str,
    own: Sequence[tuple[str, int]],
    peers: Mapping[str, str | None],
    python: Path,
    limit: float,
) -> Iterator[Result]:
    """Measure all systems, one after the other, in the same namespaces.

    Of asyncdmtl, `own` has names in `OWN` and numbers of copies.
    """
    about = (case.workers, case.numbers, rate)
    models: set[str] = set()
    with network([SERVER, *case.names], None if rate == OPEN else rate) as hosts:
        for name, missing in peers.items():
            if missing is not None:
                yield Result(name, *about, 1, skipped=missing)
                continue
            try:
                figures, digest = run_peer(name, python, case, hosts, limit)
                models |= {digest} - {""}
                yield Result(name, *about, 1, figures)
            except click.ClickException as error:
                yield Result(name, *about, 1, skipped=error.message)
        yield from measure_own(case, own, hosts, limit, about, models)


def measure_own(
    case: Case,
    own: Sequence[tuple[str, int]],
    hosts: Mapping[str, Host],
    limit: float,
    about: tuple[int, int, str],
    models: set[str],
) -> Iterator[Result]:
    """Measure uncoded and coded runs with these numbers of copies; all must have the same final models.

    `models` has the digests of the models of other systems that train.
    """
    speed = RATES[about[2]]
    pace = DATAGRAMS if speed is None else SHARE * speed * 8 / 1e6
    for system, held in own:
        options = OWN[system]
        paced = ["--multicast-rate", str(pace)] if system == "multicast" else []
        for exchange in (False, True):
            figures, digest = run_own([*options, *paced], held, case, hosts, limit, exchange=exchange)
            if not exchange:
                models.add(digest)
            yield Result(system, *about, held, figures, exchange=exchange)
    if len(models) > 1:
        raise click.ClickException(f"models differ between strategies: {about}")


def title(result: Result) -> str:
    """The name of a system in the table."""
    if result.system in PEERS:
        return PEERS[result.system][0]
    name = result.system if result.system in ("relay", "uncoded") else f"relay, {result.system}"
    return f"asyncdmtl {name}, {result.copies} copies" + (", exchange only" if result.exchange else "")


def seconds(value: float) -> str:
    """Seconds as text."""
    return f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value:.2f} s"


def tables(results: Sequence[Result]) -> Iterator[tuple[Table, str]]:
    """A table for each number of workers and size of vectors, with what it says about coding."""
    for workers, numbers in dict.fromkeys((r.workers, r.numbers) for r in results):
        chosen = [r for r in results if (r.workers, r.numbers) == (workers, numbers)]
        rates = [rate for rate in RATES if any(r.rate == rate for r in chosen)]
        head = (f"{workers} workers × {numbers:,} float32", "MB a round", "busiest link", *map(link, rates))
        named = {name: {r.rate: r for r in chosen if title(r) == name} for name in map(title, chosen)}
        rows = tuple((name, *cells(own, rates)) for name, own in named.items())
        yield Table(f"systems-{workers}-{numbers}", head, rows), verdict(chosen, rates)


def link(rate: str) -> str:
    """A rate in the head of a table."""
    return "open links" if rate == OPEN else re.sub(r"(\d+)([mg])bit", _spelled, rate)


def _spelled(rate: re.Match[str]) -> str:
    return f"{rate[1]} {rate[2].upper()}bit/s"


def cells(own: Mapping[str, Result], rates: Sequence[str]) -> list[str]:
    """A row of the table: bytes, of the case that was measured first, and seconds by rate."""
    figures = [result.measured for result in own.values() if result.measured is not None]
    if not figures:
        return ["–", "–", *("skipped" for _ in rates)]
    first = figures[0]
    sizes = [f"{size / 1e6:.3g}" for size in (first.sent_bytes, first.busiest_bytes)]
    told = [own[rate].measured if rate in own else None for rate in rates]
    return [*sizes, *("–" if figure is None else seconds(figure.seconds) for figure in told)]


def verdict(chosen: Sequence[Result], rates: Sequence[str]) -> str:
    """The time of a coded round as a share of the time of the other systems' rounds.

    An exchange alone is not compared with a training.
    """
    told = []
    for rate, system, exchange in product(rates, CODED, (True, False)):
        there = [r for r in chosen if r.rate == rate and r.measured is not None]
        own = [r for r in there if r.system == system and r.exchange == exchange]
        coded = min(own, key=median, default=None)
        if coded is None:
            continue
        uncoded = ("uncoded", coded.copies, exchange)
        rivals = [
            r for r in there
            if (r.system in PEERS and (not exchange or r.system not in TRAINING))
            or (r.system, r.copies, r.exchange) == uncoded
        ]  # fmt: skip
        shares = sorted((median(coded) / median(r), title(r)) for r in rivals)
        where = link(rate).capitalize()
        faster = sum(share >= 1 for share, _ in shares)
        told.append(
            f"{where}: a round of {title(coded)} takes "
            + "; ".join(f"{share:.2f} × {name}" for share, name in shares)
            + (f". It does not pay against {faster} of {len(shares)}" if faster else "")
        )
    told += sorted({f"Not measured: {title(r)}: {r.skipped}" for r in chosen if r.skipped is not None})
    return "\n".join(f"- {line}." for line in told)


def median(result: Result) -> float:
    """Seconds of a round."""
    assert result.measured is not None
    return result.measured.seconds


@click.command(context_settings={"show_default": True})
@click.option("--workers", default="4,8")
@click.option("--numbers", default="10000,1000000", help="float32 per vector.")
@click.option("--rates", default="open,100mbit,10mbit", help=f"Of {', '.join(RATES)}.")
@click.option("--copies", default="2,4", help="Workers that store each partition, in asyncdmtl.")
@click.option("--peers", default=",".join(PEERS), help="Which peers; empty for none.")
@click.option("--own", default=",".join(OWN), help="Which downlinks and strategies of asyncdmtl.")
@click.option("--environment", type=click.Path(path_type=Path), default=ENVIRONMENT, help="Of the peers.")
@click.option("--budget", default=20.0, help="Seconds of rounds per case; decides how many there are.")
@results_option
def main(
    workers: str, numbers: str, rates: str, copies: str, peers: str, own: str, environment: Path,
    budget: float, results_file: Path | None,
) -> None:  # fmt: skip
    """Compare systems in network namespaces."""
    names = [name for name in peers.split(",") if name]
    systems = own.split(",")
    if (
        unknown := (set(names) - set(PEERS))
        | (set(rates.split(",")) - set(RATES))
        | (set(systems) - set(OWN))
    ):
        raise click.UsageError(f"unknown: {', '.join(sorted(unknown))}")
    missing = install(environment, names) if names else {}
    machine = f"{processor()}, {os.cpu_count()} cores, Linux {platform.release()}, " + (
        f"Python {platform.python_version()}; asyncdmtl {__version__}"
    ) + (f", {versions(environment)}" if names else "")  # fmt: skip
    print(machine, flush=True)
    results: list[Result] = []
    python = environment / "bin" / "python"
    for size, count, rate in product(_list(numbers), _list(workers), rates.split(",")):
        rounds = rounds_within(budget, count, size, rate)
        if not rounds:
            print(f"{count} workers × {size} at {rate}: left out, more than {budget:g} s", flush=True)
            continue
        case = Case(count, size, rounds)
        chosen = [(system, held) for system in systems for held in _list(copies) if held < count]
        for result in measure_case(case, rate, chosen, missing, python, limit=60 + 10 * budget):
            results.append(result)
            told = result.skipped if result.measured is None else seconds(result.measured.seconds)
            print(f"{count} workers × {size} at {rate}: {title(result)}: {told}", flush=True)
    made = list(tables(results))
    for table, said in made:
        print(f"\n{table.markdown()}\n\n{said}")
    if results_file is not None:
        write_results(results_file, [table for table, _ in made])


def _list(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


if __name__ == "__main__":
    main()
