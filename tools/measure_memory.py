"""Measure the server's memory against the bytes that it codes: `.venv/bin/python tools/measure_memory.py`.

Runs `python -m asyncdmtl.server` and its workers as processes over TCP on the loopback, samples the resident
memory of the server, and compares its peak in every round, above the memory before planning, with the coded
bytes of a round: the uplink, and each row of the downlink once. With --slow, one worker is behind a link of
so many megabytes a second; with --tls, connections are encrypted. It runs on Linux only.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
from results import Table, results_option, write_results

from asyncdmtl.data import recipes
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.plan.placement import Placement

PAGE = 4096
SAMPLE = 0.002

# The coupling of strategies that cannot take a non-linear one.
COUPLINGS = {"linear": "mean"}


class Watch:
    """The resident memory of a process, sampled by a thread."""

    def __init__(self, process: int) -> None:
        self._file = Path(f"/proc/{process}/statm")
        self._ended = threading.Event()
        self._peak = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def resident(self) -> int:
        """The current memory in bytes; 0 if the process has ended."""
        with contextlib.suppress(OSError, IndexError):
            return int(self._file.read_text().split()[1]) * PAGE
        return 0

    def peak(self) -> int:
        """The peak since the last call, in bytes."""
        peak, self._peak = max(self._peak, self.resident()), 0
        return peak

    def end(self) -> None:
        """Stop sampling."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE):
            self._peak = max(self._peak, self.resident())


@contextlib.asynccontextmanager
async def slow_link(host: str, port: int, rate: float) -> AsyncIterator[str]:
    """The address of a proxy to the server, over a link of `rate` bytes a second in each direction."""
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(len(piece) / rate)
            writer.close()

    async def opened(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(host, port, limit=1 << 16)
        tasks.update(asyncio.create_task(carry(*ends)) for ends in ((reader, ours), (theirs, writer)))

    server = await asyncio.start_server(opened, "127.0.0.1", 0, limit=1 << 16)
    try:
        name, number = server.sockets[0].getsockname()[:2]
        yield f"{name}:{number}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def certificate(wanted: bool) -> Iterator[tuple[list[str], list[str]]]:
    """Options for TLS, at the server and at a worker; none unless `wanted`."""
    with tempfile.TemporaryDirectory() as folder:
        if not wanted:
            yield [], []
            return
        key, made = f"{folder}/key.pem", f"{folder}/cert.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc",
             "-days", "2", "-subj", "/CN=measured", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", key, "-out", made],
            check=True, capture_output=True,
        )  # fmt: skip
        yield ["--tls-cert", made, "--tls-key", key], ["--tls-ca", made]


async def start(module: str, *options: str) -> asyncio.subprocess.Process:
    """Start a process of the program."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"asyncdmtl.{module}", "--log-level", "error", *options,
        stdout=asyncio.subprocess.PIPE, limit=1 << 26,
    )  # fmt: skip


def kill(processes: list[asyncio.subprocess.Process]) -> None:
    """Kill the processes that have not ended."""
    for process in processes:
        if process.returncode is None:
            process.kill()


async def events(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    """The events of the server until its end."""
    assert process.stdout is not None
    async for line in process.stdout:
        event = json.loads(line)
        if event["event"] == "failed":
            raise click.ClickException(event["error"])
        yield event


async def measure(
    placement: Placement, spec: str, options: list[str], slow: float | None, tls: bool
) -> tuple[dict[str, Any], list[int]]:
    """A run's report; and the peak of each round in bytes, above the memory before the plan."""
    async with contextlib.AsyncExitStack() as stack:
        ours, theirs = stack.enter_context(certificate(tls))
        server = await start(
            "server", "--listen", "127.0.0.1:0", "--format", "json", "--data", spec, *ours, *options,
            "--workers", str(len(placement.workers)),
        )  # fmt: skip
        processes = [server]
        watch, before, peaks = Watch(server.pid), 0, []
        stack.callback(kill, processes)
        stack.callback(watch.end)
        async for event in events(server):
            if event["event"] == "listening":
                address = f"127.0.0.1:{event['port']}"
                for name, stored in placement.as_dict().items():
                    link = address
                    if slow is not None and len(processes) == 1:
                        link = await stack.enter_async_context(slow_link("127.0.0.1", event["port"], slow))
                    own = [
                        "--connect",
                        link,
                        "--name",
                        name,
                        "--data",
                        spec,
                        "--partitions",
                        ",".join(stored),
                    ]
                    processes.append(await start("worker", *own, *theirs))
            elif event["event"] == "joined":
                before = watch.resident()
            elif event["event"] == "planned":
                watch.peak()
            elif event["event"] == "round":
                peaks.append(watch.peak())
            elif event["event"] == "finished":
                await asyncio.gather(*(process.communicate() for process in processes))
                return event["report"], [before, *peaks]
    raise click.ClickException("the server ended early")


def show(report: dict[str, Any], peaks: list[int], what: str) -> tuple[str, ...]:
    """Print a run's figures; returns its cells for the page."""
    vector = report["vector"]["bytes"]
    loads = Fraction(report["uplink"]["load"]) + Fraction(report["downlink_broadcast"]["load"])
    coded, before, most = int(loads * vector), peaks[0], max(peaks[1:])
    print(
        f"{report['strategy']}{what}: vectors of {vector / 1e6:.1f} MB, coded in a round {coded / 1e6:.1f} MB"
    )
    print(f"  before the plan {before / 1e6:.1f} MB; at the peak of each round, more than that:")
    print("  " + " ".join(f"{(peak - before) / 1e6:.1f}" for peak in peaks[1:]))
    print(f"  the most is {(most - before) / coded:.2f} times one round's coded bytes", flush=True)
    megabytes = [f"{size / 1e6:.1f} MB" for size in (coded, before, most - before)]
    return report["strategy"] + what, *megabytes, f"{(most - before) / coded:.2f}"


@click.command(context_settings={"show_default": True})
@click.option("--workers", default=6)
@click.option("--partitions", default=12)
@click.option("--copies", default=3)
@click.option("--features", default=1_000_000, help="Numbers per vector.")
@click.option("--strategy", "strategies", default="relay", help=f"Of {', '.join(STRATEGIES)}.")
@click.option("--rounds", default=8)
@click.option("--slow", type=float, help="Megabytes a second of the first worker's link.")
@click.option("--tls", is_flag=True)
@results_option
def main(
    workers: int,
    partitions: int,
    copies: int,
    features: int,
    strategies: str,
    rounds: int,
    slow: float | None,
    tls: bool,
    results_file: Path | None,
) -> None:
    """Measure the server's memory over the rounds of a run of each strategy."""
    spec = f"synthetic:tasks={partitions // 2},rows=2,parts=2,features={features},rank=2,test_rows=0"
    names = recipes.load(spec.replace(f"features={features}", "features=2"), seed=0, only=(), test=False).ids
    placement = Placement.cyclic(workers, len(names), copies)
    rate = None if slow is None else slow * 1e6
    what = (" over TLS" if tls else "") + (f", one link of {slow:g} MB/s" if slow else "")
    rows = []
    for strategy in strategies.split(","):
        options = ["--strategy", strategy, "--coupling", COUPLINGS.get(strategy, "l21"), "--dtype", "float32"]
        report, peaks = asyncio.run(measure(placement, spec, [*options, "--rounds", str(rounds)], rate, tls))
        rows.append(show(report, peaks, what))
    if results_file is not None:
        head = (
            "strategy",
            "coded bytes of a round",
            "memory before",
            "more at the peak",
            "more ÷ coded bytes",
        )
        write_results(results_file, [Table(results_file.stem, head, tuple(rows))])


if __name__ == "__main__":
    main()
