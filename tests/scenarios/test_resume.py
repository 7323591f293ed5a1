"""A server that is killed or stopped, and started again: real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.clusters import Cluster, stored_at
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options
from support.sites import LIMIT, NAMES, SPEC, site

from asyncdmtl.data import recipes
from asyncdmtl.errors import PeerError, UsageError
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import train
from asyncdmtl.plan.parameters import STRATEGIES
from asyncdmtl.server.checkpoint_store import CheckpointStore
from asyncdmtl.server.events import Checkpointed
from asyncdmtl.server.records import RoundRecord

ROUNDS = 300


@pytest.mark.parametrize(("strategy", "every"), [("relay", 10**6), ("personal", 7), ("personal", 10**6)])
def test_a_killed_server_is_resumed_with_its_workers(tmp_path: Path, strategy: str, every: int) -> None:
    with site(tmp_path, f"--strategy={strategy}", f"--rounds={ROUNDS}") as made:
        made.serve(f"--checkpoint-every={every}")
        for name in NAMES:
            made.work(name)
        made.event("round", round=40)
        made.server.kill()
        made.server.wait()
        made.serve("--resume")
        resumed, planned = made.event("resumed")["round"], made.event("planned")["round"]
        assert resumed == 0 if every > 40 else resumed >= 35
        # The workers have a later state than the checkpoint, unless only the server has all models.
        assert planned == resumed if strategy == "personal" else planned >= 40
        made.end(ROUNDS, strategy)
    assert list(made.checkpoints.iterdir()) == []


def test_a_server_that_is_killed_before_its_report_is_written_reports_when_it_is_resumed(
    tmp_path: Path,
) -> None:
    report = tmp_path / "report.json"
    os.mkfifo(report)
    with site(tmp_path, "--strategy=relay", "--rounds=5", f"--report={report}") as made:
        made.serve()
        for name in NAMES:
            made.work(name)
        made.event("checkpointed", round=5)
        for process in made.workers.values():
            assert process.wait(LIMIT) == 0
        # The server waits for a reader of its report.
        made.server.kill()
        made.server.wait()
        report.unlink()
        made.serve("--resume", "--join-timeout=30")
        made.end(5, "relay")
    assert len(json.loads(report.read_text())["rounds"]) == 5
    assert list(made.checkpoints.iterdir()) == []


@pytest.mark.parametrize("strategy", ["central", "personal"])
def test_a_run_survives_the_end_of_all_processes(tmp_path: Path, strategy: str) -> None:
    with site(tmp_path, f"--strategy={strategy}", f"--rounds={ROUNDS}") as made:
        made.serve()
        for name in NAMES:
            made.work(name)
        made.event("round", round=40)
        for process in made.processes:
            process.kill()
            process.wait()
        latest = max(made.checkpoints.iterdir())
        latest.write_bytes(latest.read_bytes()[:-20])
        made.serve("--resume")
        resumed = made.event("resumed")
        assert resumed["round"] >= 28
        for name in NAMES:
            made.work(name)
        assert made.event("planned")["round"] == resumed["round"]
        made.end(ROUNDS, strategy)
        assert "cannot be used" in made.server.communicate()[1]


def test_without_a_sound_state_a_server_goes_on_from_what_the_workers_hold(tmp_path: Path) -> None:
    with site(tmp_path, "--strategy=relay", f"--rounds={ROUNDS}") as made:
        made.serve()
        for name in NAMES:
            made.work(name)
        made.event("round", round=40)
        made.server.kill()
        made.server.communicate()
        first, *later = sorted(made.checkpoints.glob("*.checkpoint"))
        assert len(later) == 2
        for file in later:
            file.write_bytes(file.read_bytes()[:-20])
        made.serve("--resume")
        assert made.event("resumed")["round"] == 0
        assert made.event("planned")["round"] >= 40
        made.end(ROUNDS, "relay")
    assert not first.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_server_writes_down_where_it_stands(tmp_path: Path, number: int, code: int) -> None:
    with site(tmp_path, f"--rounds={ROUNDS}") as made:
        made.serve("--checkpoint-every=1000000")
        for name in NAMES:
            made.work(name)
        made.event("round", round=40)
        made.server.send_signal(number)
        round_ = made.event("checkpointed")["round"]
        made.server.communicate(timeout=LIMIT)
        assert made.server.returncode == code
        checkpoint = CheckpointStore(made.checkpoints).load()
        assert checkpoint is not None
        assert checkpoint.round == round_ >= 41
        partitions = recipes.load(SPEC, seed=0).partitions
        there = train(partitions, replace(checkpoint.settings, rounds=round_)).models
        trainer = Trainer(Problem(checkpoint.settings, checkpoint.infos), {})
        trainer.restore(checkpoint.state)
        assert trainer.models().coef_.tobytes() == there.coef_.tobytes()


def test_a_killed_worker_that_is_started_again_takes_part_again(tmp_path: Path) -> None:
    with site(tmp_path, f"--rounds={ROUNDS}") as made:
        made.serve()
        for name in NAMES:
            made.work(name)
        made.event("round", round=40)
        # Only these two hold p4 and p5, so that the others wait.
        for name in ("b", "c"):
            os.kill(made.workers[name].pid, signal.SIGKILL)
        assert made.event("waiting")["partitions"] == ["p4", "p5"]
        for name in ("b", "c"):
            made.work(name)
        made.event("joined", again=True)
        report = made.end(ROUNDS, "relay")
        assert {incident["worker"] for incident in report["incidents"]} == {"b", "c"}
        assert sorted(report["placement"]) == ["a", "b", "c"]


PARTITIONS = make_partitions(6, "squared")
OWN = stored_at(HOMOGENEOUS, PARTITIONS)


options = partial(run_options, settings=make_settings(rounds=60, dtype="float64"))


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_workers_wait_for_a_server_that_will_be_resumed(tmp_path: Path, strategy: Any) -> None:
    chosen = options(strategy=strategy, checkpoint=tmp_path, checkpoint_every=7)
    twin = train(PARTITIONS, chosen.settings)
    async with Cluster(chosen) as cluster:
        workers = [cluster.join(name, parts) for name, parts in OWN.items()]
        await cluster.event(RoundRecord, round=20)
        cluster.server.cancel()
        await asyncio.wait([cluster.server])
        again = Cluster(replace(chosen, resume=True))
        again.server = asyncio.create_task(again.instance.run(*cluster.address))
        record = await again.server
        models = await asyncio.gather(*workers)
    for found in models:
        expected = twin.models.of([twin.models.tasks.index(task) for task in found.tasks])
        assert found.coef_.tobytes() == expected.coef_.tobytes()
    # Nothing is lost: the server wrote a checkpoint at the round in which it was stopped.
    assert [entry.objective for entry in record.rounds] == list(twin.objectives)
    assert sum(entry.messages for entry in record.ledger.entries() if entry.kind == "ready") == 12


async def test_without_checkpoints_workers_end_with_a_server_that_is_stopped() -> None:
    async with Cluster(options(settings=make_settings(rounds=10**6))) as cluster:
        workers = [cluster.join(name, parts) for name, parts in OWN.items()]
        await cluster.event(RoundRecord, round=3)
        cluster.server.cancel()
        for worker in workers:
            with pytest.raises(PeerError, match="the server was stopped"):
                await worker


async def test_options_must_be_those_of_the_run_that_is_resumed(tmp_path: Path) -> None:
    chosen = options(checkpoint=tmp_path)
    async with Cluster(replace(chosen, resume=True)) as cluster:  # nothing to resume: a new run
        for name, parts in OWN.items():
            cluster.join(name, parts)
        await cluster.event(Checkpointed)
    for changes, complaint in (
        ({}, "--checkpoint must be a directory without checkpoints, unless --resume"),
        ({"resume": True, "settings": make_settings()}, "--resume needs the options of the run"),
        ({"resume": True, "strategy": "central"}, "--resume needs --strategy relay"),
        ({"resume": True, "checkpoint": None}, "--resume needs --checkpoint"),
    ):
        with pytest.raises(UsageError, match=complaint):
            Cluster(replace(chosen, **changes))
