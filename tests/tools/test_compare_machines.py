"""Runs have the same bits under other kernels of OpenBLAS and NumPy, where LAPACK's differ."""

from __future__ import annotations

from functools import cache

import pytest
from compare_machines import MACHINES, Machine, digests_on, run_on

from asyncdmtl.arithmetic.probe import describe

AS_IT_IS, HASWELL, PRESCOTT, ZEN, SKYLAKE = MACHINES
SEVERAL = pytest.mark.skipif(
    "SkylakeX" not in describe()["BLAS"], reason="needs OpenBLAS on a CPU that has kernels to choose from"
)
OPTIONS = ["--workers=3", "--rounds=6"]


@cache
def expected(arithmetic: str) -> dict[str, str]:
    return digests_on(AS_IT_IS, arithmetic)


@pytest.mark.parametrize("machine", [HASWELL, PRESCOTT, ZEN], ids=lambda machine: machine.name)
def test_models_are_the_same_on_other_machines(machine: Machine) -> None:
    assert digests_on(machine, "reproducible") == expected("reproducible")


@SEVERAL
def test_models_of_fast_arithmetic_are_not() -> None:
    other = digests_on(PRESCOTT, "fast")
    assert {name for name in other if other[name] != expected("fast")[name]}


@pytest.mark.parametrize(
    "training", ["--coupling=nuclear", "--coupling=clustered", "--coupling=covariance --strategy=central"]
)
def test_workers_of_one_run_may_differ(training: str) -> None:
    outcome = run_on(ZEN, [HASWELL, PRESCOTT, SKYLAKE], [*OPTIONS, *training.split()])
    assert set(outcome.codes.values()) == {0}, outcome.told
    assert len(outcome.models) == 3
    assert len(set(outcome.models.values())) == 1
    assert outcome.report["report"]["incidents"] == []
