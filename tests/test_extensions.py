"""Couplings and aggregates of plug-ins, in this process and in those of workers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.problems import make_partitions, make_settings
from support.registries import nothing_registered

import asyncdmtl
from asyncdmtl import extensions, register_aggregate, register_coupling
from asyncdmtl.arrays import Floats
from asyncdmtl.errors import PlanError, UsageError
from asyncdmtl.extensions import Registry, digest_of
from asyncdmtl.learning.aggregation import AGGREGATES
from asyncdmtl.learning.couplings.group_sparse import L21Norm
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.training import train
from asyncdmtl.plan.codes.matrices import random_matrix, register_matrices
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.recipe import rebuild_plan

PAGE = Path(asyncdmtl.__file__).parent / "docs" / "extending.md"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with nothing_registered():
        yield


class Twin(L21Norm):
    """The coupling l21 under another name."""


def plain_mean(updates: Floats, weights: Floats) -> Floats:
    z: Floats = updates.mean(axis=0)
    return z


def test_a_registered_coupling_trains_as_the_same_one_of_this_package() -> None:
    assert register_coupling("twin", Twin) is Twin
    assert "twin" in COUPLINGS
    partitions = make_partitions(4, "squared")
    settings = make_settings(coupling="twin", rounds=20)
    twin = train(partitions, settings)
    known = train(partitions, make_settings(coupling="l21", rounds=20))
    assert twin.models.coef_.tobytes() == known.models.coef_.tobytes()


def test_names_of_this_package_and_malformed_ones_are_refused() -> None:
    for name in ("nuclear", "auto"):
        with pytest.raises(UsageError, match="coupling must be called otherwise than those of this package"):
            register_coupling(name, Twin)
    with pytest.raises(UsageError, match="aggregate must be a name of 1 to 40 small letters"):
        register_aggregate("My Mean", plain_mean)
    bad: Any = plain_mean
    with pytest.raises(UsageError, match="coupling own must be a subclass of Coupling"):
        register_coupling("own", bad)
    with pytest.raises(UsageError, match="aggregate own must be a function of updates and weights"):
        register_aggregate("own", None)  # type: ignore[arg-type]


def test_aggregates_of_another_shape_or_with_nan_are_refused() -> None:
    updates, weights = np.ones((3, 2)), np.ones(3)
    bad: list[tuple[Any, str]] = [(np.ones(3), "shape"), (2.0, "shape"), (np.array([1.0, np.nan]), "finite")]
    for result, rule in bad:

        def own(updates: Floats, weights: Floats, result: Any = result) -> Any:
            return result

        register_aggregate("own", own)
        with pytest.raises(UsageError, match=f"aggregate own must return .*{rule}"):
            AGGREGATES["own"](updates, weights)
    # Where training diverges, no aggregate is to blame.
    register_aggregate("own", plain_mean)
    assert np.isnan(AGGREGATES["own"](updates * np.nan, weights)).all()


def test_digests_of_the_code_travel_with_settings() -> None:
    register_coupling("twin", Twin)
    settings = make_settings(coupling="twin")
    told = json.loads(json.dumps(settings.as_dict()))
    assert Settings.from_dict(told) == settings
    assert told["extensions"] == {"coupling": digest_of(Twin)}
    assert "extensions" not in make_settings().as_dict()
    other = {**told, "extensions": {"coupling": "0" * 32}}
    for wrong in (other, {name: value for name, value in told.items() if name != "extensions"}):
        with pytest.raises(
            UsageError, match="plug-in must be the same code at the server and at all workers"
        ):
            Settings.from_dict(wrong)


def test_code_in_no_file_has_a_digest_too() -> None:
    made: list[Any] = []
    for factor in (2.0, 2.0, 3.0):
        space: dict[str, Any] = {"__name__": "builtins"}
        exec(f"def own(updates, weights):\n    return {factor} * updates.mean(axis=0)\n", space)
        made.append(digest_of(space["own"]))
    assert made[0] == made[1] != made[2]


def test_only_gradients_train_with_the_coupling_of_a_plugin() -> None:
    register_coupling("twin", Twin)
    for change in ({"update": "newton"}, {"update": "statistics"}, {"loss": "poisson", "update": "auto"}):
        with pytest.raises(UsageError, match="for the coupling twin of a plug-in"):
            make_settings(coupling="twin", **change)
    with pytest.raises(UsageError, match="strength must be a number for the coupling twin"):
        make_settings(coupling="twin", strength=None, update="auto")


PLACEMENT = Placement({"w0": ["a", "b"], "w1": ["b", "c"], "w2": ["c", "a"]})


def test_plans_have_the_registered_matrices() -> None:
    register_matrices(
        "own", lambda label, seed, rows, columns: random_matrix(f"own/{label}", seed, rows, columns)
    )
    plan = make_plan(PLACEMENT, matrices="own")
    assert (plan.uplink_load, plan.downlink_load) == (plan.uplink_bound, plan.downlink_bound)
    copied = rebuild_plan(plan.recipe(), plan.digest)
    assert copied.uplink_matrix.tobytes() == plan.uplink_matrix.tobytes()
    assert "matrices" not in make_plan(PLACEMENT).recipe()
    # A worker with other code under the same name finds out by the digest.
    register_matrices(
        "own", lambda label, seed, rows, columns: random_matrix(f"else/{label}", seed, rows, columns)
    )
    with pytest.raises(PlanError, match="has digest"):
        rebuild_plan(plan.recipe(), plan.digest)
    for unknown in ("none", ["own"]):
        with pytest.raises(PlanError, match=r"unknown matrices|malformed"):
            rebuild_plan({**plan.recipe(), "matrices": unknown}, plan.digest)
    with pytest.raises(UsageError, match="matrices must be one of random, own, got 'none'"):
        make_plan(PLACEMENT, matrices="none")


def test_matrices_of_another_shape_or_that_never_decode_are_refused() -> None:
    of_floats: Any = lambda label, seed, rows, columns: np.ones((rows, columns))  # noqa: E731
    register_matrices("own", of_floats)
    with pytest.raises(UsageError, match=r"matrices own must return uint8 of shape"):
        make_plan(PLACEMENT, matrices="own")
    register_matrices("own", lambda label, seed, rows, columns: np.zeros((rows, columns), np.uint8))
    with pytest.raises(PlanError, match=r"no decodable matrices .* with the matrices own of a plug-in"):
        make_plan(PLACEMENT, matrices="own")
    with pytest.raises(UsageError, match="matrices own must be a function"):
        register_matrices("own", None)  # type: ignore[arg-type]


def test_a_plugin_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extensions, "_loaded", False)
    monkeypatch.setenv("ASYNCDMTL_PLUGINS", "no_such_module")
    with pytest.raises(UsageError, match="ASYNCDMTL_PLUGINS must name modules to import"):
        list(Registry("coupling", {}))
    monkeypatch.setattr(extensions, "_loaded", True)


def test_a_plugin_that_fails_is_named_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_plugin.py").write_text("register(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(extensions, "_loaded", False)
    monkeypatch.setenv("ASYNCDMTL_PLUGINS", "failing_plugin")
    for _ in range(2):
        with pytest.raises(UsageError, match=r"NameError: name 'register' is not defined.*'failing_plugin'"):
            list(Registry("coupling", {}))
    monkeypatch.setattr(extensions, "_loaded", True)


def test_worker_processes_have_the_plugins_of_the_docs(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    # The code up to the trial of it.
    code = "\n".join(block.partition("\nX = ")[0].partition("\nplan = ")[0] for block in blocks)
    (tmp_path / "my_plugins.py").write_text(code)
    environment = os.environ | {
        "ASYNCDMTL_PLUGINS": "my_plugins",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
    }
    words = [
        *(
            "--data",
            "synthetic:tasks=2,rows=8,features=3,parts=3,test_rows=4",
            "--workers",
            "2",
            "--copies",
            "2",
        ),
        *(
            "--coupling",
            "l1",
            "--aggregate",
            "without-farthest",
            "--matrices",
            "without-zeros",
            "--strength",
            "0.01",
            "--rounds",
            "3",
            "--json",
        ),
    ]
    command = [sys.executable, "-m", "asyncdmtl", "run", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["report"]
    assert report["settings"]["coupling"] == "l1"
    assert set(report["settings"]["extensions"]) == {"coupling", "aggregate", "matrices"}
    assert report["training"]["rounds"] == 3
    environment["ASYNCDMTL_PLUGINS"] = ""
    without = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert without.returncode == 2
    assert "'l1' is not one of" in without.stderr
