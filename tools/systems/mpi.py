"""MPI: one Allgather. Started by mpiexec, one process per host; there is no server."""

from __future__ import annotations

import numpy as np
from mpi4py import MPI
from systems.common import ALL_ROUNDS, NUMBERS, WORKERS, Server, check, checked, update

everyone = MPI.COMM_WORLD
rank = everyone.Get_rank()
coordinator = Server()
received = np.empty((WORKERS, NUMBERS), np.float32)
for round_ in ALL_ROUNDS:
    everyone.Allgather(update(rank, round_), received)
    if checked(round_):
        check(list(received), round_)
    everyone.Barrier()
    if rank == 0:
        coordinator.round(round_)
    everyone.Barrier()
