"""A run is measured from outside, in namespaces and without; and many runs side by side."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

TOOLS = Path(__file__).parents[2] / "tools"

pytestmark = pytest.mark.slow

APART = os.geteuid() == 0 and shutil.which("ip") is not None and shutil.which("tc") is not None
APART_ONLY = pytest.mark.skipif(not APART, reason="network namespaces need root and iproute2")


@pytest.fixture(autouse=True)
def _tools_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)


def tool(name: str) -> Any:
    return importlib.import_module(name)


def run(name: str, *options: str, path: str | None = None) -> str:
    """The output of a tool; with another PATH, it finds no `ip`."""
    environment = {**os.environ, **({} if path is None else {"PATH": path})}
    done = subprocess.run(
        [sys.executable, TOOLS / f"{name}.py", *options],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.root
@APART_ONLY
def test_hosts_are_apart_and_gone_in_the_end() -> None:
    namespaces = tool("namespaces")
    with namespaces.network(["here", "there"], "10mbit") as hosts:
        here, there = hosts.values()
        before = there.counters()
        server = subprocess.Popen(
            here.command(sys.executable, "-c", LISTEN), stdout=subprocess.PIPE, text=True
        )
        with server:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            # This address is not reachable from elsewhere.
            sent = subprocess.run(there.command(sys.executable, "-c", SEND, here.address), check=True)
            assert sent.returncode == 0
            assert server.stdout.read() == "50000\n"
        counted = there.counters() - before
        assert 50_000 < counted.sent_bytes < 60_000
        assert counted.received_packets > 0
        shaped = subprocess.run(
            ["tc", "-n", there.namespace, "qdisc"], check=True, capture_output=True, text=True
        )
        assert "tbf" in shaped.stdout
        assert "10Mbit" in shaped.stdout
        names = [here.namespace, there.namespace]
    listed = subprocess.run(["ip", "netns"], check=True, capture_output=True, text=True).stdout
    assert not [name for name in names if name in listed]


LISTEN = """
import socket
with socket.create_server(("", 7000)) as server:
    print("ready", flush=True)
    with server.accept()[0] as peer, peer.makefile("rb") as stream:
        print(len(stream.read()))
"""

SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 7000)) as peer:
    peer.sendall(bytes(50000))
"""


@pytest.mark.root
@APART_ONLY
def test_plan_ledger_kernel_and_packets_agree(tmp_path: Path) -> None:
    report, plot = tmp_path / "report.json", tmp_path / "plot.png"
    spec = "synthetic:tasks=3,rows=2,parts=1,features=20000,test_rows=0"
    sizes = ["--data", spec, "--workers=3", "--copies=2", "--rounds=3", "--rate=500mbit"]
    told = run("measure_traffic", *sizes, "--capture", "--report", str(report), "--plot", str(plot))
    assert "times the longer" in told
    assert plot.read_bytes().startswith(b"\x89PNG")
    found = json.loads(report.read_text())
    assert set(found["by_round"]) == {"0", "1", "2"}
    for ways in found["by_round"].values():
        for counts in ways.values():
            assert counts["payload"] == counts["ledger_payload"] == counts["plan"] > 0
            assert counts["framing"] == counts["ledger_framing"] > 0
            assert counts["headers"] > 0
    server = found["hosts"]["server"]
    for way, counted in (("up", server["received_bytes"]), ("down", server["sent_bytes"])):
        # Each host counts Ethernet frames in both directions, including ARP and IPv6's own messages.
        captured = sum(
            row["payload"] + row["framing"] + row["headers"] + row["retransmitted"]
            for row in found["captured"]
            if row["direction"] == way
        )
        assert captured <= counted < captured + 10_000


def test_without_namespaces_the_kernel_tells_what_tcp_counted(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    spec = "synthetic:tasks=2,rows=2,parts=1,features=500,test_rows=0"
    sizes = ["--data", spec, "--workers=2", "--copies=1", "--rounds=2"]
    told = run("measure_traffic", *sizes, "--report", str(report), path=str(tmp_path))
    assert "on the loopback, with what TCP_INFO tells: network namespaces need" in told
    rows = dict(
        line.rsplit(maxsplit=2)[::2] for line in told.splitlines() if line.startswith(("kernel", "ledger"))
    )
    assert rows["kernel, TCP: payload"] == rows["ledger: sum"]
    assert json.loads(report.read_text())["hosts"] is None


def test_rates_without_namespaces_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, TOOLS / "measure_traffic.py", "--rate", "10mbit"],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "--rate and --capture need namespaces" in done.stderr


def test_rates_are_bits() -> None:
    assert tool("traffic").rate_bytes("100mbit") == 12.5e6
    assert tool("traffic").rate_bytes("1.5gbit") == 187.5e6
    with pytest.raises(tool("traffic").click.UsageError, match="100mbit"):
        tool("traffic").rate_bytes("fast")


def test_a_sweep_measures_loads_on_the_bound(tmp_path: Path) -> None:
    report, plot = tmp_path / "sweep.json", tmp_path / "sweep.png"
    options = ["--workers=2", "--partitions=2", "--copies=1,3", "--numbers=100", "--rounds=2"]
    options += ["--strategies=relay"]
    out = ["--report", str(report), "--plot", str(plot)]
    run("sweep_traffic", *options, *out, path=str(tmp_path))
    points = json.loads(report.read_text())["points"]
    # Three copies at two workers are impossible.
    (found,) = points
    load = found["loads"]["uplink"]
    assert load["measured"] == load["bound"] == load["uncoded"] == 2
    assert found["bytes"] > 2 * 400 * 2
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_the_time_to_an_accuracy_is_that_of_the_rounds_before() -> None:
    sweep = tool("sweep_traffic")
    setting = sweep.Setting(2, 2, 1, 100, "relay", "float32", "open")
    quick = sweep.Point(setting, {}, 10, None, 1.0, [8.0, 4.0, 2.0, 0.0], [1.0, 2.0, 4.0, 8.0])
    slow = replace(quick, objectives=[8.0, 7.0, 6.0, 5.0])
    reached = [found.to_accuracy for found in sweep.with_accuracy([quick, slow], 0.25)]
    assert reached == [{"rounds": 2.0, "seconds": 3.0, "bytes": 20.0}, None]
