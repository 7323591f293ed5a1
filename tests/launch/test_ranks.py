from __future__ import annotations

import re

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.launch.ranks import DEFAULT_PORT, FIRST_PORT, PORTS, find_rank, first_host
from asyncdmtl.launch.threads import LOOPBACK

# As srun of Slurm 22.05 sets them for task 4 of 5 on three nodes.
SLURM = {
    "SLURMD_NODENAME": "n3", "SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0", "SLURM_PROCID": "4",
    "SLURM_STEP_NUM_TASKS": "5", "SLURM_STEP_NUM_NODES": "3", "SLURM_STEP_NODELIST": "n[1-3]",
    "SLURM_JOB_NODELIST": "n[1-9]",
}  # fmt: skip
# As Open MPI 4.1 sets them for rank 1 of 2 on one host.
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_MCA_ess_base_jobid": "1257439233", "PMIX_RANK": "1",
}  # fmt: skip
# As MPICH 4.0 sets them for rank 2 of 3 on one host.
MPICH = {"PMI_RANK": "2", "PMI_SIZE": "3", "MPI_LOCALNRANKS": "3", "MPI_LOCALRANKID": "2"}


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("n1", "n1"),
        ("n[1-3]", "n1"),
        ("n[01-03,7],gpu[1-2]", "n01"),
        ("gpu7,n[1-3]", "gpu7"),
        ("rack[2-3]n[5,9].site", "rack2n5.site"),
        ("", ""),
    ],
)
def test_the_first_host_of_a_list(nodes: str, host: str) -> None:
    assert first_host(nodes) == host


def test_ranks_of_slurm() -> None:
    rank = find_rank(SLURM)
    assert (rank.number, rank.size, rank.host) == (4, 5, "n1")
    assert FIRST_PORT <= rank.port < FIRST_PORT + PORTS
    assert find_rank({**SLURM, "SLURM_JOB_ID": "13"}).port != rank.port
    assert find_rank({**SLURM, "SLURM_STEP_ID": "1"}).port != rank.port
    assert find_rank({**SLURM, "SLURM_PROCID": "0", "SLURMD_NODENAME": "n1"}).port == rank.port
    assert find_rank({**SLURM, "SLURM_STEP_NUM_NODES": "1"}).host == LOOPBACK


def test_ranks_of_mpi() -> None:
    rank = find_rank(OPENMPI)
    assert (rank.number, rank.size, rank.host) == (1, 2, LOOPBACK)
    assert rank.port != find_rank({**OPENMPI, "OMPI_MCA_ess_base_jobid": "1257439234"}).port
    assert find_rank({**OPENMPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}).host is None
    assert find_rank(MPICH) == find_rank(MPICH, "mpich")
    assert (find_rank(MPICH).number, find_rank(MPICH).host, find_rank(MPICH).port) == (
        2,
        LOOPBACK,
        DEFAULT_PORT,
    )


def test_mpiexec_in_a_job_of_slurm_counts_before_slurm() -> None:
    # Slurm's variables are those of the helpers of mpiexec, of which each node has one.
    helper = {**SLURM, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "3"}
    rank = find_rank({**helper, **OPENMPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"})
    assert (rank.number, rank.size, rank.host) == (1, 2, "n1")
    rank = find_rank({**helper, **MPICH, "MPI_LOCALNRANKS": "1"})
    assert (rank.number, rank.size, rank.host) == (2, 3, "n1")
    alone = {"SLURM_JOB_ID": "12", "SLURM_JOB_NODELIST": "n[1-9]", "SLURM_PROCID": "0", **MPICH}
    assert find_rank({**alone, "MPI_LOCALNRANKS": "1"}) == rank


def test_srun_with_pmi_is_slurm() -> None:
    rank = find_rank({**SLURM, "PMI_RANK": "4", "PMI_SIZE": "5"})
    assert rank == find_rank(SLURM)


@pytest.mark.parametrize(
    ("environment", "launcher", "message"),
    [
        ({}, "auto", "needs srun or mpiexec"),
        ({}, "slurm", "--launcher needs SLURM_PROCID in the environment, got 'slurm'"),
        ({**MPICH, **OPENMPI}, "auto", "PMI_RANK=2 PMI_SIZE=3"),
        # A variable that an outer `srun --mpi=pmi2` left behind.
        ({**SLURM, "PMI_RANK": "0", "PMI_SIZE": "1"}, "auto", "--launcher must be given (mpich, slurm)"),
        ({**OPENMPI, "OMPI_COMM_WORLD_SIZE": "1"}, "auto", "OMPI_COMM_WORLD_SIZE must be at least 2"),
        (
            {**OPENMPI, "OMPI_COMM_WORLD_RANK": "2"},
            "auto",
            "must be less than OMPI_COMM_WORLD_SIZE (2), got 2",
        ),
        ({**OPENMPI, "OMPI_COMM_WORLD_RANK": "-1"}, "auto", "OMPI_COMM_WORLD_RANK must be a number"),
        ({"PMI_RANK": "0"}, "auto", "PMI_SIZE must be a number"),
        ({"SLURM_JOB_ID": "7", "SLURM_PROCID": "0"}, "auto", "needs srun before it"),
        ({**SLURM, "SLURM_PROCID": "0"}, "auto", "rank 0 is at n3, but the list of hosts (n[1-3]) begins"),
    ],
)
def test_what_is_wrong_is_named(environment: dict[str, str], launcher: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        find_rank(environment, launcher)
