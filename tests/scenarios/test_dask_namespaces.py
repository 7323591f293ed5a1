"""Dask workers on hosts of their own, in network namespaces."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import launch
import namespaces
import pytest

REASON = namespaces.obstacle()

pytestmark = [pytest.mark.root, pytest.mark.skipif(REASON is not None, reason=str(REASON))]

# A user's program: it trains on tables that three Dask workers hold, and prints the report and the models.
# Then it trains by rounds, twice; in the second run it prints a line after some rounds, and goes on.
PROGRAM = """
import json, logging, sys

import numpy as np
import pandas as pd
from distributed import Client

from asyncdmtl.dask import train

rng = np.random.default_rng(0)
table = pd.DataFrame({"x": rng.normal(size=60), "shop": np.arange(60) % 3})
table["y"] = 2 * table["x"] + table["shop"]
with Client(sys.argv[1]) as client:
    client.wait_for_workers(3, timeout=60)
    pieces = client.scatter([table[:30], table[30:]], hash=False)
    given = dict(copies=2, task="shop", target="y", loss="squared", coupling="l21", strength=0.001)
    run = train(client, pieces, **given)
    print(json.dumps({"report": run.report, "coef": run.model.models.coef_.tolist()}), flush=True)
    given |= dict(update="gradient", rounds=200, tolerance=0.0)
    whole = train(client, pieces, **given)

    class Rounds(logging.Handler):
        def emit(self, record):
            if getattr(record, "round", None) == 20 and hasattr(record, "objective"):
                print("20 rounds", flush=True)

    log = logging.getLogger("asyncdmtl")
    log.setLevel(logging.INFO)
    log.addHandler(Rounds())
    lost = train(client, pieces, **given)
    same = lost.model.models.coef_.tobytes() == whole.model.models.coef_.tobytes()
    print(json.dumps({"same": same, "report": lost.report}), flush=True)
"""


def test_rows_stay_with_dask_workers_on_other_hosts_of_which_one_is_lost(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    dask = (sys.executable, "-m", "dask")
    with (
        namespaces.network(["scheduler", "a", "b", "c", "user"]) as hosts,
        launch.processes({}, 120.0) as started,
    ):
        where = f"tcp://{hosts['scheduler'].address}:8786"
        started.start(
            hosts["scheduler"],
            *dask,
            "scheduler",
            "--host",
            hosts["scheduler"].address,
            "--port",
            "8786",
            "--no-dashboard",
        )
        workers = {}
        for name in "abc":
            own = ("--host", hosts[name].address, "--no-nanny", "--nthreads", "1")
            workers[name] = started.start(hosts[name], *dask, "worker", where, *own, "--no-dashboard")
        user = started.start(hosts["user"], sys.executable, str(program), where)
        told = json.loads(started.line(user))
        assert started.line(user) == "20 rounds\n"
        workers["c"].kill()
        after = json.loads(started.line(user))
        addresses = {f"tcp://{hosts[name].address}" for name in "abc"}
    stored = told["report"]["placement"]
    assert {worker.rpartition(":")[0] for worker in stored} <= addresses
    assert sum(map(len, stored.values())) == 2 * told["report"]["partitions"] == 12
    assert len(told["coef"]) == 3
    # The run went on without the worker that was killed, to the same models.
    assert after["same"]
    assert len(after["report"]["placement"]) == 2
    (incident,) = after["report"]["incidents"]
    assert incident["worker"].startswith(f"tcp://{hosts['c'].address}:")
