"""The downlink over a group between network namespaces: bytes of the server's link, lost datagrams, IPv6."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache

import measure_multicast
import namespaces
import pytest

from asyncdmtl.plan.placement import Placement

REASON = namespaces.obstacle()

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]

FEATURES = 200_000


def measured(
    workers: int, *options: str, loss: float = 0.0
) -> tuple[dict[str, object], float, dict[str, bytes]]:
    spec = f"synthetic:tasks={workers},rows=4,parts=1,features={FEATURES},test_rows=0"
    common = ["--dtype", "float32", "--coupling", "l21", "--rounds", "4", *options]
    placement = Placement.cyclic(workers, workers, 2)
    trained, sent, models = measure_multicast.measure(placement, spec, common, None, loss, False)
    return trained.report, sent, dict(models)


GROUP = ("--downlink", "multicast", "--multicast-rate", "1000")


@cache
def over_tcp() -> dict[str, bytes]:
    return measured(4)[2]


@pytest.mark.parametrize("workers", [4, 8])
def test_the_server_sends_each_row_once_whatever_the_number_of_workers(workers: int) -> None:
    report, sent, models = measured(workers, *GROUP)
    bound = (workers - 2) * FEATURES * 4
    assert bound <= sent < 1.03 * bound
    told = report["multicast"]
    assert isinstance(told, dict)
    assert len(told["listeners"]) == workers
    if workers == 4:
        assert models == over_tcp()


@pytest.mark.skipif(shutil.which("nft") is None, reason="losing datagrams needs nft (nftables)")
@pytest.mark.parametrize("loss", [20.0])
def test_models_are_those_of_tcp_whatever_is_lost(loss: float) -> None:
    report, _, models = measured(4, *GROUP, loss=loss)
    assert models == over_tcp()
    told = report["multicast"]
    assert isinstance(told, dict)
    assert sum(row["lost"] for row in told["workers"].values()) > 0
    assert told["repair_bytes"] > 0


def test_groups_may_be_of_ipv6() -> None:
    with namespaces.network(["one"]) as hosts:
        host = hosts["one"]
        address = ("-6", "address", "add", "fd00::1/64", "dev", "eth0", "nodad")
        subprocess.run(["ip", "-n", host.namespace, *address], check=True)
        group = ("--downlink", "multicast", "--group", "[ff15::77]:7701", "--interface", "eth0")
        data = "synthetic:tasks=4,rows=4,parts=1,features=3000,test_rows=0"
        command = (sys.executable, "-m", "asyncdmtl", "run", "--json", "--workers", "4", "--copies", "2")
        done = subprocess.run(
            host.command(*command, "--rounds", "3", "--data", data, *group),
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["report"]["multicast"]
    assert told["group"] == "[ff15::77]:7701"
    assert len(told["listeners"]) == 4
