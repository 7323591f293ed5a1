from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.clusters import stored_at
from support.problems import make_partitions, make_settings, run_options
from support.processes import children

from asyncdmtl.errors import PeerError
from asyncdmtl.launch.processes import run_in_processes
from asyncdmtl.learning.tasks import Partition
from asyncdmtl.learning.training import train
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.events import ServerEvent
from asyncdmtl.server.records import RoundRecord

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")

PLACEMENT = Placement.cyclic(3, 6, 2)


def test_a_killed_worker_changes_nothing_and_rows_stay_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    partitions = make_partitions(6, "squared")
    weighted = [Partition(p.id, p.task, p.X, p.y, p.y**2) for p in partitions]
    settings = make_settings(rounds=30)
    files: set[int] = set()

    def watch(event: ServerEvent) -> None:
        if isinstance(event, RoundRecord) and event.round == 5:
            (folder,) = tmp_path.iterdir()
            files.update(stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.glob("[0-9]*.npz")])
            os.kill(children()[0], signal.SIGKILL)

    options = run_options(settings=settings, workers=3)
    record, models = run_in_processes(options, dict(stored_at(PLACEMENT, weighted)), watch)
    assert models.coef_.tobytes() == train(weighted, settings).models.coef_.tobytes()
    assert len(record.incidents) == 1
    assert len(record.plan.placement.workers) == 2
    assert files == {0o700, 0o600}
    assert list(tmp_path.iterdir()) == []
    assert children() == []


def test_a_worker_that_fails_says_why() -> None:
    options = run_options(settings=make_settings(loss="logistic"), workers=3)
    with pytest.raises(PeerError, match=r"worker 'w\d': .*must be 0 or 1 for logistic loss") as caught:
        run_in_processes(options, dict(stored_at(PLACEMENT, make_partitions(6, "squared"))))
    assert caught.value.exit_code == 2
    assert children() == []


KILLED = """
import sys
sys.path.insert(0, sys.argv[1])
from support.processes import children
from support.clusters import stored_at
from support.problems import make_partitions, make_settings, run_options
from asyncdmtl.launch.processes import run_in_processes
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.records import RoundRecord

def tell(event):
    if isinstance(event, RoundRecord) and event.round == 0:
        print(*children(), flush=True)

options = run_options(settings=make_settings(rounds=10**6), workers=3)
run_in_processes(options, stored_at(Placement.cyclic(3, 6, 2), make_partitions(6, "squared")), tell)
"""


def test_workers_end_with_the_process_that_started_them(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", KILLED, str(request.config.rootpath / "tests")]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        ends = [os.pidfd_open(pid) for pid in pids]
        parent.kill()
    assert len(pids) == 3
    for end in ends:
        poll = select.poll()
        poll.register(end, select.POLLIN)
        assert poll.poll(30_000)
        os.close(end)
