"""The benchmarks run, check their results, and report wrong ones."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

TOOLS = Path(__file__).parents[2] / "tools"

pytestmark = pytest.mark.slow

APART = os.geteuid() == 0 and shutil.which("ip") is not None


@pytest.fixture(autouse=True)
def _tools_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)


def tool(name: str) -> Any:
    return importlib.import_module(name)


def run(name: str, *options: str) -> str:
    command = [sys.executable, str(TOOLS / f"{name}.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_transport_is_compared_and_stalls_are_measured() -> None:
    told = run(
        "bench_transport", "--sizes=1000,3000000", "--goes=2", "--megabytes=2", "--rounds=2"
    ).splitlines()
    for line, size in zip(told[2:4], ("1000", "3000000"), strict=True):
        assert line.split()[0] == size
        assert float(line.split()[3]) > 0
    assert told[4].startswith("2 rounds of 2 MB at the server")
    assert "event loop was late by at most" in told[4]


async def test_other_bytes_that_come_back_end_the_benchmark() -> None:
    sent = np.arange(10, dtype=np.uint8)

    async def altered() -> Any:
        return sent[::-1]

    with pytest.raises(click.ClickException, match="WRONG CONTENT"):
        await tool("bench_transport").timed(altered, [], sent)


def test_arithmetic_is_compared_with_that_of_numpy() -> None:
    told = run("bench_arithmetic", "--seconds", "0.001", "--coupling", "l21")
    assert "eigenvectors 200 × 200" in told
    assert "8 × 1,000,000 float32, 4 rows, l21" in told


def test_coding_of_a_plan_is_compared(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = tool("bench_coding")
    monkeypatch.setattr(bench, "NUMBERS", 1000)
    plan = bench.make_plan(bench.Placement.cyclic(4, 4, 2))
    bench.show_plan(plan, 0.001, np.random.default_rng(0))
    *steps, share = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in steps] == ["encode", "recombine", "decode"]
    assert "coding is" in share


@pytest.mark.parametrize("light", [False, True])
def test_scale_of_sessions_that_share_a_process(light: bool) -> None:
    scales = tool("measure_scale")
    placement = scales.Placement.cyclic(4, 4, 3)
    scale = scales.measure(placement, 4, 1000, 3, "relay", rounds=3, together=2, light=light)
    # 4 workers that each lack one vector; the bound is 4/3, a third of a vector from each.
    assert 4 * 1000 * (4 + 4 / 3) < scale.bytes < 4 * 1002 * (4 + 4 / 3) + 4000
    assert scale.memory_before > 10e6
    assert scale.memory < 50e6
    assert scales.cells(scale)[0] == "4 × 4 × 1,000"


@pytest.mark.root
@pytest.mark.skipif(not APART, reason="network namespaces need root and iproute2")
def test_systems_are_compared() -> None:
    compare = tool("compare_systems")
    case = compare.Case(3, 5000, 5)
    # This environment has the packages that the star needs.
    found = compare.measure_case(
        case, "open", [("relay", 2)], {"star": None, "mpi": "no wheel"}, Path(sys.executable), 60.0
    )
    star, mpi, relay, rows = found
    assert mpi.skipped == "no wheel"
    assert (relay.exchange, rows.exchange) == (False, True)
    for result in (star, relay, rows):
        assert result.measured.seconds > 0
        assert result.measured.busiest_bytes > 4 * 5000 * 3
    assert relay.measured.sent_bytes < star.measured.sent_bytes


def test_what_was_skipped_and_where_coding_does_not_pay_is_said() -> None:
    compare = tool("compare_systems")
    figures = [compare.Measured(seconds, 0.1, 0.1, 10**6, 10**6) for seconds in (0.25, 0.5, 1.0)]
    results = [
        compare.Result("star", 4, 1000, "open", 1, figures[0]),
        compare.Result("mpi", 4, 1000, "open", 1, skipped="no wheel"),
        compare.Result("uncoded", 4, 1000, "open", 2, figures[2]),
        compare.Result("relay", 4, 1000, "open", 2, figures[1]),
    ]
    ((table, said),) = compare.tables(results)
    told = f"{table.markdown()}\n{said}"
    assert "| bare asyncio + msgpack star | 1 | 1 | 0.25 s |" in told
    assert "| MPI allgather (mpi4py, MPICH) | – | – | skipped |" in told
    assert "takes 0.50 × asyncdmtl uncoded, 2 copies; 2.00 × bare asyncio + msgpack star" in told
    assert "does not pay against 1 of 2" in told
    assert "Not measured: MPI allgather (mpi4py, MPICH): no wheel." in told


def test_exchanges_alone_are_compared_with_exchanges() -> None:
    compare = tool("compare_systems")
    figures = [compare.Measured(seconds, 0.1, 0.1, 10**6, 10**6) for seconds in (0.25, 0.5, 1.0, 2.0)]
    results = [
        compare.Result("mpi", 4, 1000, "open", 1, figures[0]),
        compare.Result("mpi-training", 4, 1000, "open", 1, figures[1]),
        compare.Result("relay", 4, 1000, "open", 2, figures[2]),
        compare.Result("relay", 4, 1000, "open", 2, figures[3], exchange=True),
    ]
    ((_, said),) = compare.tables(results)
    exchange, training = said.splitlines()
    assert "exchange only takes 8.00 × MPI allgather (mpi4py, MPICH). It" in exchange
    assert (
        "takes 2.00 × MPI allgather, the same training; 4.00 × MPI allgather (mpi4py, MPICH). It" in training
    )


def test_what_went_past_the_network_does_not_count() -> None:
    runs, namespaces = tool("compare_runs"), tool("namespaces")
    case = runs.Case(2, 100, 3)
    counters = {
        "w0": namespaces.Counters(1200, 1200, 3, 3, 0),
        "w1": namespaces.Counters(1199, 1200, 3, 3, 0),
    }
    nothing = dict.fromkeys(counters, namespaces.Counters(0, 0, 0, 0, 0))
    with pytest.raises(click.ClickException, match="past the network"):
        runs.measured([0.1], nothing, counters, 3, case, case.vector_bytes)
