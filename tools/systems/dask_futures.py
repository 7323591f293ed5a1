"""Dask distributed: a task per worker makes its update, and another takes those of all workers.

`python dask_futures.py` beside the scheduler; scheduler and workers are Dask's own commands.
"""

from __future__ import annotations

import sys

from distributed import Client
from systems.common import (
    ALL_ROUNDS,
    HOST,
    NUMBERS,
    PORT,
    WORKERS,
    Server,
    Vector,
    check,
    checked,
    update,
)


def take(round_: int, *updates: Vector) -> int:
    """Runs at a worker, and receives all updates."""
    if checked(round_):
        check(updates, round_)
    return len(updates)


def main() -> None:
    coordinator = Server()
    with Client(f"tcp://{HOST}:{PORT}", set_as_default=False) as client:
        client.wait_for_workers(WORKERS)
        for round_ in ALL_ROUNDS:
            made = [
                client.submit(update, k, round_, NUMBERS, workers=[f"w{k}"], pure=False)
                for k in range(WORKERS)
            ]
            taken = [
                client.submit(take, round_, *made, workers=[f"w{k}"], pure=False) for k in range(WORKERS)
            ]
            if client.gather(taken) != [WORKERS] * WORKERS:
                sys.exit("some updates did not come")
            del made, taken
            coordinator.round(round_)


if __name__ == "__main__":
    main()
