"""The place of this process among those that Slurm or MPI has started, from the environment.

Rank 0 is the server of a run, and the others are its workers. This module reads nothing but environment
variables: no library of MPI, and no command of Slurm.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from asyncdmtl.errors import UsageError
from asyncdmtl.launch.threads import LOOPBACK

# The option that says which launcher counts.
LAUNCHER_OPTION = "--launcher"

# The value of that option by which the environment decides.
AUTO = "auto"

# The port where nothing in the environment tells one job from another.
DEFAULT_PORT = 7700

# The first port and the number of ports from which that of a job is taken. They lie below those that Linux
# gives to outgoing connections (32768 and up).
FIRST_PORT, PORTS = 10_000, 20_000


@dataclass(frozen=True)
class _Launcher:
    """The environment variables by which a launcher tells a process its place.

    Attributes
    ----------
    rank, size, size_here : str
        The variables with the rank, with the number of processes, and with their number on this host.
    job : tuple of str
        Variables that are equal at all processes of a job, and differ between jobs.
    """

    rank: str
    size: str
    size_here: str
    job: tuple[str, ...]


LAUNCHERS: Mapping[str, _Launcher] = {
    "openmpi": _Launcher(
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
        ("OMPI_MCA_ess_base_jobid", "PMIX_NAMESPACE"),
    ),
    # MPICH, and the MPIs that are made of it, such as Intel's.
    "mpich": _Launcher("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS", ()),
    "slurm": _Launcher("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "", ("SLURM_JOB_ID", "SLURM_STEP_ID")),
}
"""The launchers, those first that are started inside others."""


@dataclass(frozen=True)
class Rank:
    """The place of this process in a job.

    Attributes
    ----------
    number, size : int
        Its rank, 0 … size - 1, and the number of processes.
    host : str or None
        The host of rank 0: the loopback if all processes are on one host; None if it is not known.
    port : int
        The port that the server of the job is to take.
    """

    number: int
    size: int
    host: str | None
    port: int


def find_rank(environment: Mapping[str, str], launcher: str = AUTO) -> Rank:
    """The place of this process, as its launcher tells it.

    Parameters
    ----------
    environment : mapping of str to str
    launcher : str
        A key of `LAUNCHERS`, or "auto": the one that has set its variables. `mpiexec` inside of a job of
        Slurm counts before Slurm.

    Raises
    ------
    UsageError
        There is no launcher, two of them disagree, or there is one process only.
    """
    name = _innermost(environment) if launcher == AUTO else launcher
    variables = LAUNCHERS[name]
    if variables.rank not in environment:
        raise UsageError(LAUNCHER_OPTION, f"needs {variables.rank} in the environment", name)
    if name == "slurm" and "SLURM_STEP_ID" not in environment:
        rule = "needs srun before it: here sbatch itself has started a single process, of job"
        raise UsageError("asyncdmtl launch", rule, environment.get("SLURM_JOB_ID"))
    number, size = (_number(environment, variable) for variable in (variables.rank, variables.size))
    if size < 2:
        rule = "must be at least 2, since rank 0 is the server and the other ranks are workers"
        raise UsageError(variables.size, rule, size)
    if number >= size:
        raise UsageError(variables.rank, f"must be less than {variables.size} ({size})", number)
    return Rank(number, size, _host(environment, name, number, size), _port(environment, variables))


def first_host(nodes: str) -> str:
    """The first host of a list as Slurm writes it: `n01` of `n[01-03,7],gpu[1-2]`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first is not None
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first[0])


def _innermost(environment: Mapping[str, str]) -> str:
    """The launcher that has started this process, maybe inside of another one."""
    found = [name for name, variables in LAUNCHERS.items() if variables.rank in environment]
    if not found:
        variables = ", ".join(launcher.rank for launcher in LAUNCHERS.values())
        rule = (
            "needs srun or mpiexec, which tell each process its rank "
            f"({variables}); `asyncdmtl run` starts a server and workers on one machine by itself"
        )
        raise UsageError("asyncdmtl launch", rule, None)
    # mpiexec inside of a job of Slurm starts its own helpers by srun, so that Slurm's variables are theirs.
    # MPICH's variables without the number of processes here are those of `srun --mpi=pmi2`.
    if found == ["mpich", "slurm"] and LAUNCHERS["mpich"].size_here in environment:
        return "mpich"
    if found == ["openmpi", "slurm"]:
        return "openmpi"
    told = {
        name: {
            variable: environment.get(variable) for variable in (LAUNCHERS[name].rank, LAUNCHERS[name].size)
        }
        for name in found
    }
    if len({tuple(values.values()) for values in told.values()}) > 1:
        rule = f"must be given ({', '.join(found)}), since two launchers tell this process different ranks: "
        shown = " but ".join(
            " ".join(f"{variable}={value}" for variable, value in values.items()) for values in told.values()
        )
        raise UsageError(LAUNCHER_OPTION, rule + shown, None)
    return found[-1]


def _number(environment: Mapping[str, str], variable: str) -> int:
    value = environment.get(variable, "")
    if not value.isascii() or not value.isdecimal():
        raise UsageError(variable, "must be a number in the environment", value)
    return int(value)


def _host(environment: Mapping[str, str], name: str, number: int, size: int) -> str | None:
    """The host of rank 0, by the numbers of processes and hosts, and the list of hosts of Slurm."""
    if name == "slurm":
        alone = environment.get("SLURM_STEP_NUM_NODES") == "1"
    else:
        alone = environment.get(LAUNCHERS[name].size_here) == str(size)
    if alone:
        return LOOPBACK
    of_step = [environment.get("SLURM_STEP_NODELIST")] if name == "slurm" else []
    nodes = next(filter(None, [*of_step, environment.get("SLURM_JOB_NODELIST")]), None)
    if nodes is None:
        return None
    host = first_host(nodes)
    here = environment.get("SLURMD_NODENAME", host)
    if name == "slurm" and number == 0 and here != host:
        rule = f"must be given: rank 0 is at {here}, but the list of hosts ({nodes}) begins with {host}"
        raise UsageError("--address", rule, None)
    return host


def _port(environment: Mapping[str, str], variables: _Launcher) -> int:
    """A port that follows from the job, so that jobs on one host do not take each other's."""
    # Steps of one job may run at one time. Of `mpiexec` inside of a job, some ranks lack the step.
    known = [
        environment[variable] for variable in variables.job or ("SLURM_JOB_ID",) if variable in environment
    ]
    if not known:
        return DEFAULT_PORT
    return FIRST_PORT + zlib.crc32(".".join(known).encode()) % PORTS
