"""The chaos tool runs, finds no bug in the code, and finds planted bugs."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from support.problems import make_settings

from asyncdmtl.cli.training_options import make_settings as settings_of_options
from asyncdmtl.cli.training_options import training_options

pytestmark = pytest.mark.slow

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(autouse=True)
def _tools_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(TOOLS)


def tool(name: str) -> Any:
    return importlib.import_module(f"chaos_{name}")


def calm(fault: Any, **changes: Any) -> Any:
    """A scenario with one fault only."""
    scenario = tool("scenario").trial(fault)
    settings = replace(scenario.settings, rounds=60)
    return replace(scenario, settings=settings, data=scenario.data.replace("1000", "20"), **changes)


async def outcome(scenario: Any, limit: float = 60.0) -> Any:
    async with tool("processes").ForkServer() as fork_server:
        return await tool("run").run_one(scenario, fork_server, limit)


def test_two_seeds() -> None:
    done = subprocess.run(
        [sys.executable, TOOLS / "chaos.py", "--runs=2", "--first=5", "--jobs=2"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "2 runs, 0 bugs" in done.stdout
    faults = re.search(r"faults: (\d+)", done.stdout)
    assert faults is not None
    assert int(faults[1]) >= 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "coupling": "l21",
            "dtype": "float64",
            "intercept": "none",
            "standardise": True,
            "accelerated": True,
        },
        {
            "update": "model",
            "accelerated": False,
            "epochs": 3,
            "learner": "SGDRegressor(eta0=0.1)",
            "seed": 5,
        },
        {"strength": 0.1 + 0.2, "tolerance": 1e-3},
    ],
)
def test_a_server_gets_just_the_settings_of_its_scenario(changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {}

    @click.command()
    @training_options
    @click.option("--test-fraction", type=float)
    def command(**values: Any) -> None:
        given.update(values)

    settings = make_settings(**changes)
    words = tool("scenario").settings_options(settings)
    CliRunner().invoke(command, words, catch_exceptions=False)
    assert settings_of_options({}, given) == settings


async def test_a_seed_in_which_the_server_dies_twice() -> None:
    scenario = tool("scenario").draw(3132)
    assert scenario.group
    found = await outcome(scenario)
    assert found.ending == "done"
    assert {"kill server", "terminate server"} <= set(found.faults)


def test_a_seed_always_means_the_same_and_all_faults_are_drawn() -> None:
    draw, kinds, options = tool("scenario").draw, Counter[str](), set[str]()
    for seed in range(200):
        scenario = draw(seed)
        assert seed % 20 or draw(seed) == scenario
        kinds.update(fault.kind for fault in scenario.faults)
        words = scenario.server_words(TOOLS)
        options |= {"--downlink=peers", "--downlink=multicast", "--blind", "--silent=1"} & set(words)
    scenario = tool("scenario")
    expected = {*scenario.WORKER, *scenario.LINK, *scenario.SERVER, *scenario.OTHERS, *scenario.GROUP}
    assert set(kinds) == {*expected, scenario.FOR_GOOD, scenario.LIE}
    assert len(options) == 4


async def test_a_wrong_result_is_found() -> None:
    scenario = tool("scenario")
    # No other worker holds the partition of the worker with wrong updates, so that none contradicts it.
    planted = calm(scenario.Fault(scenario.LIE, "w1", "round", 5))
    stored = {w: tuple(u for u in units if w == "w1" or u != "p0") for w, units in planted.stored.items()}
    holders = {**planted.holders, "p0": ("w1",)}
    with pytest.raises(tool("run").ChaosError, match="twin"):
        await outcome(replace(planted, stored=stored, holders=holders))


async def test_a_lie_that_others_contradict_changes_nothing() -> None:
    scenario = tool("scenario")
    found = await outcome(calm(scenario.Fault(scenario.LIE, "w3", "round", 5, place=1)))
    assert (found.ending, found.rounds, found.plans) == ("done", 60, 2)


async def test_a_hang_is_found_and_nothing_is_left_behind(tmp_path: Path) -> None:
    frozen = calm(tool("scenario").Fault("stop", "w1", "round", 3, seconds=60.0), silence=60.0)
    async with tool("processes").ForkServer() as fork_server:
        run = tool("run").Run
        started: list[Any] = []

        class Watched(run):  # type: ignore[misc, valid-type]
            async def _start(self, *words: Any, **options: Any) -> Any:
                started.append(await super()._start(*words, **options))
                return started[-1]

        with pytest.raises(tool("run").ChaosError, match="no end after 6 s"):
            await Watched(frozen, fork_server, tmp_path, 6.0).run()
    assert len(started) == 5
    assert {process.code for process in started} == {-9}


async def test_partitions_that_nobody_holds_any_more_are_named() -> None:
    scenario = tool("scenario")
    deaths = tuple(scenario.Fault(scenario.FOR_GOOD, f"w{k}", "round", 5) for k in (1, 2, 3))
    planted = calm(deaths[0])
    found = await outcome(replace(planted, faults=deaths, rejoin=0.5))
    assert found.ending == "partitions lost"
    assert found.faults == {scenario.FOR_GOOD: 3}


def test_limits_and_faults_last_longer_on_a_busy_machine(tmp_path: Path) -> None:
    scenario = tool("scenario").draw(5)
    slowed = scenario.slowed(3.0)
    assert [fault.seconds for fault in slowed.faults] == [3 * fault.seconds for fault in scenario.faults]
    words = slowed.server_words(tmp_path)
    assert {
        "--join-timeout=120.0",
        "--round-timeout=90.0",
        f"--silence-timeout={3 * scenario.silence}",
    } <= set(words)
