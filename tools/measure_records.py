"""Measure what a server keeps of a long run: `tools/measure_records.py --workers 200 --rounds 50000`.

Makes the records of rounds as a server does (bytes of each worker's messages, a record of each round, a
checkpoint now and then), without workers and vectors, over an event loop. The last checkpoint must have all
rounds, bytes and the state before a line is printed. It prints how much memory has
grown, how much larger a checkpoint is than the state of the training, and by how much the event loop was
late: in all, and in processor time, which leaves out other processes. It runs on Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from asyncdmtl.arrays import Bytes
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.checkpoint_store import CheckpointStore
from asyncdmtl.server.checkpointing import CheckpointWriter
from asyncdmtl.server.events import Checkpointed, ServerEvent
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.server.training_progress import TrainingProgress

# Seconds between two looks at the clock of the event loop.
TICK = 0.005

# Bytes of the state of the training in each checkpoint.
STATE_BYTES = 1 << 20


def memory() -> tuple[float, float]:
    """Memory of this process now and at its peak, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Vm")}
    return int(found["VmRSS"]) / 1e3, int(found["VmHWM"]) / 1e3


class Loop:
    """Watches by how much the event loop is late, in seconds and in processor time."""

    def __init__(self) -> None:
        self.late = self.used = 0.0

    async def watch(self) -> None:
        """Go on until it is cancelled."""
        while True:
            begun, used = time.monotonic(), time.thread_time()
            await asyncio.sleep(TICK)
            self.late = max(self.late, time.monotonic() - begun - TICK)
            self.used = max(self.used, time.thread_time() - used)


def check(store: CheckpointStore, workers: int, rounds: int, state: Bytes) -> None:
    """Stop unless the last checkpoint has the records of all rounds, and the state."""
    saved = store.load()
    payload, framing = workers * 3000 + workers * (workers - 1), workers * (100 + 80)
    if (
        saved is None
        or [record.round for record in saved.rounds] != list(range(rounds))
        or saved.ledger.total() != (rounds * payload, rounds * framing)
        or not np.array_equal(saved.state, state)
    ):
        raise SystemExit("WRONG RESULT: the last checkpoint lacks rounds, bytes or the state")


async def measure(workers: int, rounds: int, every: int, tell: Callable[[str], None] = print) -> None:
    """Make the records of a run, and print what they cost."""
    rows = Partition("p0", "task", np.ones((2, 2)), np.zeros(2))
    settings = Settings("squared", "none", 0.0, rounds=rounds)
    problem = Problem(settings, [rows.info(settings)])
    sizes: list[int] = []

    def note(event: ServerEvent) -> None:
        if isinstance(event, Checkpointed):
            sizes.append(event.bytes)

    progress = TrainingProgress("run", problem, "relay", note)
    ledger, loop = Ledger(), Loop()
    state = np.zeros(STATE_BYTES, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        declared = [rows.declaration()]
        store = CheckpointStore(Path(folder))
        writer = CheckpointWriter(store, progress, Membership(), ledger, Encoding.empty(), declared)
        await writer.save(state)
        gc.collect()
        before, began = memory()[0], time.process_time()
        watching = asyncio.create_task(loop.watch())
        for number in range(rounds):
            progress.round = number
            for k in range(workers):
                ledger.count(f"w{k}", "up", "uplink", number, payload=1000 + k, size=1100 + k)
                ledger.count(f"w{k}", "down", "downlink", number, payload=2000 + k, size=2080 + k)
                if k % 20 == 0:
                    await asyncio.sleep(0)
            progress.records.append(RoundRecord(number, 0.5, 0.1, 1000 + number, 2000 + number, 0.1))
            if (number + 1) % every == 0 or number + 1 == rounds:
                await writer.save(state)
        watching.cancel()
        now, peak = memory()
        used = time.process_time() - began
        check(store, workers, rounds, state)
    larger = (max(sizes) - STATE_BYTES) / 1e6
    tell(
        f"{workers} workers, {rounds} rounds, {len(sizes) - 1} checkpoints: memory +{now - before:.1f} MB"
        f" (peak +{peak - before:.1f} MB), checkpoint at most state + {larger:.2f} MB,"
        f" loop late by at most {loop.late:.3f} s ({loop.used:.3f} s of the processor),"
        f" {used:.0f} s of the processor"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=50_000)
    parser.add_argument("--every", type=int, default=1000, help="rounds from one checkpoint to the next")
    given = parser.parse_args()
    logging.disable()
    asyncio.run(measure(given.workers, given.rounds, given.every))
    return 0


if __name__ == "__main__":
    sys.exit(main())
