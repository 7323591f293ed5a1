"""Runs that real launchers start: srun under a Slurm of this test's own, and mpiexec."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.ports import free_port

from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.report.units import counted

LIMIT = 60.0
LAUNCH = (
    sys.executable, "-m", "asyncdmtl", "launch", "--copies=1", "--rounds=3", "--max-wait=30",
    "--data=synthetic:tasks=2,rows=8,features=3,parts=2",
)  # fmt: skip
DAEMONS = ("munged", "slurmctld", "slurmd", "srun")
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])

CONFIGURATION = """
ClusterName=try
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
StateSaveLocation={folder}
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of users of a cluster of one node, whose daemons end with the test."""
    if os.geteuid() != 0:
        pytest.skip("a Slurm of one's own needs root")
    if missing := [name for name in DAEMONS if shutil.which(name, path=PATH) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    folder = tmp_path / "slurm"
    folder.mkdir(mode=0o700)
    key, file = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    file.write_text(CONFIGURATION.format(host=host, folder=folder, ports=[free_port(), free_port()]))
    environment = {**os.environ, "SLURM_CONF": str(file), "PATH": PATH}
    commands = (
        ["munged", "-F", "-f", f"-S{folder}/munge.socket", f"--key-file={key}",
         f"--pid-file={folder}/munge.pid", f"--seed-file={folder}/seed", f"--log-file={folder}/munge.log"],
        ["slurmctld", "-D", "-f", str(file), "-c"],
        ["slurmd", "-D", "-N", "n1", "-f", str(file)],
    )  # fmt: skip
    started = []
    try:
        with (folder / "log").open("wb") as log:
            for command in commands:
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        end = time.monotonic() + LIMIT
        while (
            "idle"
            not in subprocess.run(
                ["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False
            ).stdout
        ):
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.1)
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(LIMIT)


def check(done: subprocess.CompletedProcess[str], models: Path, workers: int) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{counted(workers, 'worker')}, 2 tasks in 4 partitions" in done.stdout
    found = [SavedModel.load(models / f"w{k}.npz").models for k in range(workers)]
    assert all(np.array_equal(found[0].coef_, each.coef_) for each in found)


def test_srun_starts_a_run(slurm: dict[str, str], tmp_path: Path) -> None:
    srun = ["srun", "-n3", "--overcommit", *LAUNCH, "--save", str(tmp_path / "{name}.npz")]
    done = subprocess.run(srun, env=slurm, capture_output=True, text=True, timeout=LIMIT, check=False)
    check(done, tmp_path, 2)
    # A batch script has a rank, too, but is a single process.
    batch = ["sbatch", "--wait", "-n3", "--overcommit", f"-o{tmp_path}/out", "--wrap", " ".join(LAUNCH)]
    told = subprocess.run(batch, env=slurm, capture_output=True, timeout=LIMIT, check=False)
    assert told.returncode == 2
    assert "asyncdmtl launch needs srun before it" in (tmp_path / "out").read_text()


@pytest.mark.parametrize("program", ["mpiexec.openmpi", "mpiexec.hydra"])
def test_mpiexec_starts_a_run(program: str, tmp_path: Path) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    environment = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    more = ["--oversubscribe"] if program.endswith("openmpi") else []
    address = f"127.0.0.1:{free_port()}"
    done = subprocess.run(
        [program, *more, "-n", "2", *LAUNCH, "--address", address, "--save", str(tmp_path / "{name}.npz")],
        env=environment, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    check(done, tmp_path, 1)
