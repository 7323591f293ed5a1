"""What reaches a blind server in whole runs: nothing that depends on data."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.blind_runs import PARTITIONS, SECRET, SETTINGS, blind_run, hold_rounds
from support.clusters import stored_at
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings
from support.raw_partitions import encoding_of
from support.secrecy import STAYING, WORDS, Seen, heads_and_opaque, memory_of, raw

from asyncdmtl.data.stored import Stored
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import train
from asyncdmtl.server.checkpoint import Checkpoint
from asyncdmtl.server.checkpoint_store import CheckpointStore
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.worker import Worker


async def sent_in_a_run(
    partitions: Sequence[Stored], secret: bytes | None, late: pytest.MonkeyPatch | None = None, **changes: Any
) -> tuple[dict[str, bytes], list[TaskModels]]:
    """All bytes that each worker sends in a run; with `late`, the last comes late and is given the state."""
    own = stored_at(HOMOGENEOUS, partitions)
    *first, last = own
    async with blind_run(secret, workers=len(own) - bool(late), **changes) as run:
        if late:
            hold_rounds(late, run, last, 3)
        for name in first if late else own:
            await run.join(name, own[name])
        if late:
            await run.cluster.event(RoundRecord, round=1)
            await run.join(last, own[last])
        _, models = await run.end()
        return {name: b"".join(tap.sent) for name, tap in run.taps.items()}, models


async def test_nothing_that_depends_on_data_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(SETTINGS, loss="logistic", rounds=5, tolerance=1e-12, standardise=True)
    shapes = []
    for seed in (0, 1):
        partitions, seen = raw(seed), Seen(monkeypatch)
        sent, models = await sent_in_a_run(partitions, SECRET, settings=settings)
        encoding = encoding_of(*partitions, loss="logistic")
        twin = train([part.encoded(encoding) for part in partitions], settings)
        assert all(found.coef_.tobytes() == twin.models.coef_.tobytes() for found in models)
        seen.add_columns(partitions)
        everything = b"".join(sent.values())
        assert len(seen.numbers) > 300
        assert seen.found_in(everything) == set()
        assert not [word for word in WORDS if word in everything]
        read = {name: heads_and_opaque(one) for name, one in sent.items()}
        shapes.append({name: heads for name, (heads, _) in read.items()})
        opaque = np.frombuffer(read["w0"][1], np.uint8)
        assert len(opaque) > 4000
        assert stats.chisquare(np.bincount(opaque, minlength=256)).pvalue > 1e-6
        monkeypatch.undo()
    # All fields of all messages are the same whatever the data, but for bytes, of which there are as many.
    assert shapes[0] == shapes[1]


async def test_nor_does_it_from_states_and_checkpoints(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen, kept = Seen(monkeypatch), []
    save = CheckpointStore.save

    def keeping(store: CheckpointStore, checkpoint: Checkpoint) -> int:
        kept.append(checkpoint.pack())
        return save(store, checkpoint)

    monkeypatch.setattr(CheckpointStore, "save", keeping)
    settings = replace(SETTINGS, rounds=12)
    sent, models = await sent_in_a_run(
        PARTITIONS, SECRET, monkeypatch, settings=settings, checkpoint=tmp_path, checkpoint_every=5
    )
    twin = train(PARTITIONS, settings)
    assert all(found.coef_.tobytes() == twin.models.coef_.tobytes() for found in models)
    assert seen.found_in(b"".join(sent.values())) == set()
    assert any(len(checkpoint) > twin.models.coef_.nbytes for checkpoint in kept)
    assert seen.found_in(b"".join(kept)) == set()


async def test_the_search_finds_numbers_in_a_run_that_is_not_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    sent, _ = await sent_in_a_run(PARTITIONS, None, blind=False, strategy="uncoded")
    assert len(seen.found_in(b"".join(sent.values()))) > 100


async def test_a_run_may_choose_the_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = make_settings(update="statistics", strength=None, coupling="ridge", dtype="float64")
    seen = Seen(monkeypatch)
    partitions = [
        type(p)(p.id, p.task, np.tile(p.X, (5, 1)), np.tile(p.y, 5)) for p in make_partitions(6, "squared")
    ]
    sent, models = await sent_in_a_run(partitions, SECRET, settings=settings)
    twin = train(partitions, settings)
    assert all(found.coef_.tobytes() == twin.models.coef_.tobytes() for found in models)
    seen.add(twin.models.coef_)
    assert seen.found_in(b"".join(sent.values())) == set()


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs the memory of processes as a file")
async def test_the_memory_of_the_server_has_nothing_of_the_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen, partitions = Seen(monkeypatch), raw(0)
    words = ["--listen=127.0.0.1:0", "--blind", "--loss=logistic", "--strength=0.05", "--rounds=8"]
    words += ["--coupling=nuclear", "--workers=6", "--format=json", f"--checkpoint={tmp_path}"]
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STAYING.format("server"), *words, "--checkpoint-every=2",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        listening = json.loads(await server.stdout.readline())
        workers = [
            Worker(WorkerOptions(name, group_secret=SECRET), own)
            for name, own in stored_at(HOMOGENEOUS, partitions).items()
        ]
        async with asyncio.timeout(60):
            models = await asyncio.gather(*(worker.run("127.0.0.1", listening["port"]) for worker in workers))
            while (line := await server.stdout.readline()) != b"over\n":
                assert line
        memory = memory_of(server.pid)
    finally:
        server.kill()
        await server.wait()
    # What the server has: names, and MACs.
    for known in (b"nuclear", b"p5", workers[0].state.check()):
        assert known in memory
    assert not [word for word in WORDS if word in memory]
    seen.add_columns(partitions)
    seen.add(*(found.coef_ for found in models))
    assert seen.found_in(memory) == set()
