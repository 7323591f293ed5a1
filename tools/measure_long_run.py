"""Measure a server in a long run of real workers: `tools/measure_long_run.py --workers 3 --rounds 50000`.

Runs `python -m asyncdmtl.server` with checkpoints, and worker sessions in a few other processes, over TCP on
the loopback. Tasks are tiny, so that rounds are quick. It prints how much memory the server has taken on as
rounds are made, and in the end the sizes and seconds of checkpoints, the bytes of the report, and by how much
the event loop was late. `tools/measure_records.py` measures the records alone, with more rounds and workers.
It runs on Linux only.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from launch import follow, processes
from measure_memory import Watch
from measure_scale import SESSIONS
from namespaces import HERE

from asyncdmtl.plan.placement import Placement

# The most seconds of a run.
LIMIT = 7200.0

# Each partition is stored by so many workers.
COPIES = 2


def lateness(file: Path, since: float) -> tuple[float, float]:
    """The most seconds by which the event loop was late since a time, and the processor time in them."""
    lines = [[float(word) for word in line.split()] for line in file.read_text().splitlines()]
    late = [line[1:] for line in lines if line[0] >= since] or [[0.0, 0.0]]
    return max(line[0] for line in late), max(line[1] for line in late)


def _tool(name: str) -> tuple[str, str]:
    return sys.executable, str(Path(__file__).parent / name)


def measure(workers: int, rounds: int, every: int, checkpoint_every: int, together: int) -> None:
    """Make a run, and print what it takes of the server."""
    placement = Placement.cyclic(workers, workers, COPIES)
    spec = f"synthetic:tasks={workers},rows=4,parts=1,features=4,rank=1,test_rows=0"
    names = [f"{name}={','.join(stored)}" for name, stored in placement.as_dict().items()]
    with processes({}, LIMIT) as started, tempfile.TemporaryDirectory() as folder:
        late = Path(folder) / "late"
        words = (
            "--listen", "127.0.0.1:0", "--format", "json", "--log-level", "error", "--data", spec,
            "--workers", str(workers), "--strategy", "relay", "--coupling", "l21", "--update", "gradient",
            "--tolerance", "0", "--rounds", str(rounds), "--checkpoint", str(Path(folder) / "checkpoints"),
            "--checkpoint-every", str(checkpoint_every), "--silence-timeout", "300",
        )  # fmt: skip
        server = started.start(HERE, *_tool("measure_burdens.py"), "serve", str(late), *words)
        address = started.event(server)
        where = (address["host"], str(address["port"]), spec)
        work = (*_tool("measure_scale.py"), SESSIONS, *where)
        sessions = [
            started.start(HERE, *work, *names[first : first + together])
            for first in range(0, workers, together)
        ]
        watch, first, since = Watch(server.pid), 0, time.monotonic()
        saved: list[tuple[int, float]] = []

        def note(event: dict[str, Any]) -> None:
            nonlocal first, since
            if event["event"] == "checkpointed":
                saved.append((event["bytes"], event["seconds"]))
            elif event["event"] == "round" and not event["round"] % every:
                if not event["round"]:
                    first, since = watch.resident(), time.monotonic()
                grown, peak = (watch.resident() - first) / 1e6, (watch.peak() - first) / 1e6
                seconds = time.monotonic() - since
                print(
                    f"round {event['round']:6} {seconds:7.1f} s, memory {grown:+.1f} MB, peak {peak:+.1f} MB"
                )
                sys.stdout.flush()

        report = follow(started, server, note)
        watch.end()
        for process in (server, *sessions):
            started.end(process)
        most, used = lateness(late, since)
        text = json.dumps(report)
    print(
        f"{workers} workers, {len(report['rounds'])} rounds: {len(saved)} checkpoints of at most"
        f" {max(size for size, _ in saved) / 1e6:.2f} MB and {max(seconds for _, seconds in saved):.2f} s,"
        f" a report of {len(text) / 1e6:.1f} MB, loop late by at most {most:.3f} s ({used:.3f} s of the"
        " processor)"
    )


@click.command(help=__doc__.split("\n\n", 1)[0] if __doc__ else "", context_settings={"show_default": True})
@click.option("--workers", default=3)
@click.option("--rounds", default=50_000)
@click.option("--every", default=5000, help="Rounds from one line to the next.")
@click.option("--checkpoint-every", default=1000, help="Rounds from one checkpoint to the next.")
@click.option("--together", default=100, help="Worker sessions in a process.")
def main(workers: int, rounds: int, every: int, checkpoint_every: int, together: int) -> None:
    """Measure a server in a long run."""
    measure(workers, rounds, every, checkpoint_every, together)


if __name__ == "__main__":
    main()
