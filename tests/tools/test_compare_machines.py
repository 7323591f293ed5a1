"""Runs have the same bits under other kernels of OpenBLAS and NumPy, where LAPACK's differ."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

import pytest
from compare_machines import MACHINES, Machine, digests_on, run_on

from asyncdmtl.arithmetic.probe import describe

AS_IT_IS, HASWELL, PRESCOTT, ZEN, SKYLAKE = MACHINES
SEVERAL = pytest.mark.skipif(
    "SkylakeX" not in describe()["BLAS"], reason="needs OpenBLAS on a CPU that has kernels to choose from"
)
OPTIONS = ["--workers=3", "--rounds=6"]


@cache
def expected() -> dict[str, str]:
    return digests_on(AS_IT_IS, "reproducible")


@pytest.mark.parametrize("machine", [HASWELL, PRESCOTT, ZEN], ids=lambda machine: machine.name)
def test_models_are_the_same_on_other_machines(machine: Machine) -> None:
    assert digests_on(machine, "reproducible") == expected()


@SEVERAL
def test_models_of_fast_arithmetic_are_not() -> None:
    here, other = (digests_on(machine, "fast", coupling="nuclear") for machine in (AS_IT_IS, PRESCOTT))
    assert {name for name in other if other[name] != here[name]}


@pytest.mark.parametrize("training", ["--coupling=clustered", "--coupling=covariance --strategy=central"])
def test_workers_of_one_run_may_differ(training: str) -> None:
    outcome = run_on(ZEN, [HASWELL, PRESCOTT, SKYLAKE], [*OPTIONS, *training.split()])
    assert set(outcome.codes.values()) == {0}, outcome.told
    assert len(outcome.models) == 3
    assert len(set(outcome.models.values())) == 1
    assert outcome.report["report"]["incidents"] == []


def test_a_machine_with_other_bits_that_the_probe_did_not_see_is_named(tmp_path: Path) -> None:
    # Its updates are those of BLAS, with the kernels of another CPU; the probe's own products are as ours.
    (tmp_path / "sitecustomize.py").write_text(
        "import numpy\nfrom asyncdmtl.learning import local_updates\nlocal_updates.matmul = numpy.matmul\n",
        encoding="utf-8",
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    broken = Machine("broken", {**PRESCOTT.environment, "PYTHONPATH": path})
    options = ["--workers=4", "--rounds=6", "--coupling=l21", "--dtype=float64"]
    outcome = run_on(AS_IT_IS, [AS_IT_IS, AS_IT_IS, AS_IT_IS, broken], options)
    assert set(outcome.codes.values()) == {0}, outcome.told
    assert len(outcome.models) == 4
    assert len(set(outcome.models.values())) == 1
    incidents = outcome.report["report"]["incidents"]
    assert {incident["worker"] for incident in incidents} == {"w3"}
    for incident in incidents:
        assert "computed other bits of ['p" in incident["reason"]
        assert "python -m asyncdmtl.arithmetic" in incident["reason"]
