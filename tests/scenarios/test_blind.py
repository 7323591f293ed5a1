"""Whole runs whose server is blind: what reaches it, and the models in spite of faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from scipy import stats
from support.clusters import Cluster, stored_at
from support.groups import LOOPBACK, free_group
from support.placements import HOMOGENEOUS
from support.problems import make_partitions, make_settings, run_options
from support.proxies import Proxy
from support.raw_partitions import encoding_of, raw_partition

from asyncdmtl.data.stored import Stored
from asyncdmtl.errors import DataError, IntegrityError, PeerError, UsageError, WaitError
from asyncdmtl.exchange.coded_worker import CodedWorkerSide
from asyncdmtl.exchange.sides import Upload
from asyncdmtl.learning.tasks import TaskModels
from asyncdmtl.learning.training import Trained, train
from asyncdmtl.protocol.frame_reader import FrameReader
from asyncdmtl.server import replanning
from asyncdmtl.server.checkpoint import Checkpoint
from asyncdmtl.server.checkpoint_store import CheckpointStore
from asyncdmtl.server.events import Left, Planned, Refused, Resumed
from asyncdmtl.server.records import MulticastOptions, RoundRecord, RunRecord
from asyncdmtl.server.server import Server
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.participation import Participation
from asyncdmtl.worker.worker import Worker

SECRET = b"a secret that the server does not have"
PARTITIONS = make_partitions(6, "squared")
SETTINGS = make_settings(rounds=6, dtype="float64", coupling="mean")
OWN = stored_at(HOMOGENEOUS, PARTITIONS)

options = partial(run_options, settings=SETTINGS, blind=True)


class Tap(Proxy):
    """A proxy that keeps all bytes that a worker sends."""

    def __init__(self, server: tuple[str, int]) -> None:
        super().__init__(server)
        self.sent: list[bytes] = []
        self.up = self._keep

    def _keep(self, data: bytes) -> bytes:
        self.sent.append(data)
        return data


class BlindRun:
    """A cluster with a tap between each worker and the server."""

    def __init__(self, cluster: Cluster, secret: bytes | None) -> None:
        self.cluster, self.secret = cluster, secret
        self.taps: dict[str, Tap] = {}
        self.workers: dict[str, asyncio.Task[TaskModels]] = {}
        self.stack = AsyncExitStack()

    async def join(self, name: str, partitions: Sequence[Stored]) -> asyncio.Task[TaskModels]:
        self.taps[name] = Tap(self.cluster.address)
        await self.stack.enter_async_context(self.taps[name].running())
        there, self.cluster.address = self.cluster.address, self.taps[name].address
        task = self.cluster.join(name, partitions, group_secret=self.secret)
        self.cluster.address = there
        self.workers[name] = task
        return task

    async def end(self) -> tuple[RunRecord, list[TaskModels]]:
        record = await self.cluster.server
        return record, list(await asyncio.gather(*self.workers.values()))


@asynccontextmanager
async def blind_run(secret: bytes | None = SECRET, **changes: Any) -> AsyncIterator[BlindRun]:
    async with asyncio.timeout(60), Cluster(options(**changes)) as cluster:
        made = BlindRun(cluster, secret)
        async with made.stack:
            yield made


def check(record: RunRecord, models: Iterable[TaskModels], twin: Trained) -> None:
    for found in models:
        assert found.coef_.tobytes() == twin.models.coef_.tobytes()
        assert found.intercept_.tobytes() == twin.models.intercept_.tobytes()
    assert [entry.round for entry in record.rounds] == list(range(len(twin.objectives)))


class Seen:
    """What the workers of a run computed: every number of which the server must not see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.numbers: set[float] = set()
        compute = CodedWorkerSide.compute

        def watched(side: CodedWorkerSide) -> Upload:
            upload = compute(side)
            models = side.trainer.state()
            self.add(side._own_updates, models[: len(models) // 8 * 8].view(np.float64))
            self.add(np.array([*upload.losses, upload.penalty, upload.residual]))
            return upload

        monkeypatch.setattr(CodedWorkerSide, "compute", watched)

    def add(self, *arrays: Any) -> None:
        for array in arrays:
            self.numbers |= set(np.asarray(array, np.float64).ravel().tolist())

    def found_in(self, sent: bytes) -> set[float]:
        """The numbers that occur in some bytes, in either order of bytes."""
        known = dict[bytes, float]()
        for value in self.numbers:
            words = struct.pack("<d", value), struct.pack(">d", value)
            # Round numbers, such as counts, occur by chance.
            if np.isfinite(value) and len(set(words[0])) > 5 and words[0][:2] != bytes(2):
                known |= dict.fromkeys(words, value)
        assert len(known) > 50
        # Places where the first two bytes are those of a number.
        begins = np.zeros(1 << 16, bool)
        begins[[int.from_bytes(word[:2], "little") for word in known]] = True
        content, places = np.frombuffer(sent, np.uint8), []
        for first in (0, 1):
            pairs = content[first : first + (len(content) - first) // 2 * 2].view("<u2")
            places += (2 * np.flatnonzero(begins[pairs]) + first).tolist()
        return {known[word] for place in places if (word := sent[place : place + 8]) in known}


def raw(seed: int) -> list[Any]:
    """Partitions as from files, with numbers, words and two classes; all seeds have the same shapes."""
    rng = np.random.default_rng(seed)
    words = [
        np.array(["ward-alpha", "ward-bravo", "ward-delta"], object),
        np.array(["ward-kilos", "ward-oscar", "ward-tango"], object),
    ][seed]
    classes = [np.array(["wellness", "sickened"], object), np.array(["mildened", "grimness"], object)][seed]
    return [
        raw_partition(
            f"p{n}",
            {
                "sulfacol": rng.standard_normal(9) + 100 * (seed + 1),
                "ward": words[np.arange(9) % 3],
                "age": rng.standard_normal(9),
            },
            classes[rng.permutation(9) % 2],
            task=f"t{n // 2}",
        )
        for n in range(6)
    ]


def heads_and_opaque(sent: bytes) -> tuple[list[Any], bytes]:
    """The heads of the frames, with each field of bytes replaced by its length; and all these bytes."""
    opaque = []

    def shape(value: Any) -> Any:
        if isinstance(value, bytes):
            opaque.append(value)
            return f"{len(value)} bytes"
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        return [shape(item) for item in value] if isinstance(value, list) else value

    heads = []
    for frame in FrameReader(1 << 26, 1 << 26).feed(sent):
        head = msgpack.unpackb(bytes(frame.head))
        if head[0] != 14:  # heartbeats come when they come
            heads.append([shape(head), len(frame.body)])
            opaque.append(frame.body.tobytes())
    # Each once: holders of a partition send the same bytes about it.
    return heads, b"".join(dict.fromkeys(opaque))


async def sent_in_a_run(
    partitions: Sequence[Stored], secret: bytes | None, *, late: bool = False, **changes: Any
) -> tuple[dict[str, bytes], list[TaskModels]]:
    """All bytes that each worker sends in a run; the last one may come `late`, and is given the state."""
    own = stored_at(HOMOGENEOUS, partitions)
    *first, last = own
    async with blind_run(secret, workers=len(own) - late, **changes) as run:
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
        for part in partitions:
            seen.add(*(part.columns[name] for name in ("sulfacol", "age")))
            seen.add(*(part.columns[name].mean() for name in ("sulfacol", "age")))
        everything = b"".join(sent.values())
        assert len(seen.numbers) > 300
        assert seen.found_in(everything) == set()
        for word in (b"sulfacol", b"ward-", b"wellness", b"sickened", b"mildened", b"grimness"):
            assert word not in everything
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
    # Enough rounds for a worker to come late.
    settings = replace(SETTINGS, rounds=60)
    sent, models = await sent_in_a_run(
        PARTITIONS, SECRET, late=True, settings=settings, checkpoint=tmp_path, checkpoint_every=10
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


async def test_loads_and_bytes_of_rows_are_those_of_a_run_that_is_not_blind() -> None:
    own, totals = stored_at(HOMOGENEOUS, PARTITIONS), []
    for secret in (SECRET, None):
        async with blind_run(secret, blind=secret is not None, strategy="uncoded") as run:
            for name in own:
                await run.join(name, own[name])
            record, models = await run.end()
        check(record, models, train(PARTITIONS, SETTINGS))
        uplink = record.ledger.total(lambda entry: entry.kind == "uplink")[0]
        totals.append((uplink, record.ledger.total(lambda entry: entry.kind == "downlink")[0]))
    assert totals[0] == totals[1]


@pytest.mark.parametrize("tolerance", [0.0, 0.2])
async def test_a_worker_whose_connection_is_cut_comes_back(
    monkeypatch: pytest.MonkeyPatch, tolerance: float
) -> None:
    settings = replace(SETTINGS, rounds=16, tolerance=tolerance)
    twin = train(PARTITIONS, settings)
    rounds = len(twin.objectives)
    assert rounds == 16 if not tolerance else 4 < rounds < 16
    async with blind_run(settings=settings) as run:
        for name, own in OWN.items():
            await run.join(name, own)
        await run.cluster.event(RoundRecord, round=2)
        run.taps["w1"].cut()
        # At the end of a run that the workers end, the server knows nothing of the end yet.
        await run.cluster.event(RoundRecord, round=rounds - 1)
        run.taps["w2"].cut()
        record, models = await run.end()
    check(record, models, twin)
    assert {"w1", "w2"} >= {incident.worker for incident in record.incidents} >= {"w1"}


async def test_all_workers_may_be_cut_off_when_they_alone_know_that_training_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = replace(SETTINGS, rounds=16, tolerance=0.2)
    twin = train(PARTITIONS, settings)
    async with blind_run(settings=settings) as run:
        leave, cut = Participation._leave, list[bool]()

        async def cut_first(part: Participation) -> None:
            if not cut:
                cut.append(True)
                for tap in run.taps.values():
                    tap.cut()
            await leave(part)

        monkeypatch.setattr(Participation, "_leave", cut_first)
        for name, own in OWN.items():
            await run.join(name, own)
        record, models = await run.end()
    assert cut
    check(record, models, twin)


async def test_a_resumed_server_goes_on_with_new_workers_from_a_sealed_state(tmp_path: Path) -> None:
    chosen = options(checkpoint=tmp_path, checkpoint_every=3, settings=replace(SETTINGS, rounds=16))
    async with Cluster(chosen) as cluster:
        for name, own in OWN.items():
            cluster.join(name, own, group_secret=SECRET)
        await cluster.event(RoundRecord, round=9)
    with pytest.raises(UsageError, match="--resume needs --blind if, and only if, the run that is resumed"):
        Server(replace(chosen, resume=True, blind=False), print)
    async with Cluster(replace(chosen, resume=True)) as again:
        resumed = await again.event(Resumed)
        assert resumed.round >= 6
        workers = [again.join(name, own, group_secret=SECRET) for name, own in OWN.items()]
        record = await again.server
        check(record, await asyncio.gather(*workers), train(PARTITIONS, chosen.settings))


async def test_workers_wait_for_a_blind_server_that_will_be_resumed(tmp_path: Path) -> None:
    chosen = options(checkpoint=tmp_path, settings=replace(SETTINGS, rounds=16, tolerance=0.2))
    async with Cluster(chosen) as cluster:
        workers = [cluster.join(name, own, group_secret=SECRET) for name, own in OWN.items()]
        await cluster.event(RoundRecord, round=3)
        cluster.server.cancel()
        await asyncio.wait([cluster.server])
        again = Cluster(replace(chosen, resume=True))
        again.server = asyncio.create_task(again.instance.run(*cluster.address))
        record = await again.server
        check(record, await asyncio.gather(*workers), train(PARTITIONS, chosen.settings))


async def test_a_holder_that_computes_other_bits_is_outvoted(monkeypatch: pytest.MonkeyPatch) -> None:
    partitions = make_partitions(4, "squared")
    compute, own = CodedWorkerSide._fill_units, dict.fromkeys(("w0", "w1", "w2"), partitions)

    def other_bits(side: CodedWorkerSide) -> Any:
        if side.plan.placement.workers[side.worker] == "w1":
            side._own_updates[0, 0] += 1.0
        return compute(side)

    monkeypatch.setattr(CodedWorkerSide, "_fill_units", other_bits)
    own = {**own, "w3": partitions[:1]}
    async with blind_run(workers=4) as run:
        for name, parts in own.items():
            await run.join(name, parts)
        record = await run.cluster.server
        with pytest.raises(PeerError, match="holders computed other bits"):
            await run.workers.pop("w1")
        _, models = await run.end()
    check(record, models, train(partitions, SETTINGS))
    assert {incident.worker for incident in record.incidents} == {"w1"}


async def test_a_run_with_a_worker_that_sends_wrong_rows_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    compute = CodedWorkerSide.compute

    def wrong_rows(side: CodedWorkerSide) -> Upload:
        upload = compute(side)
        if side.plan.placement.workers[side.worker] == "w1" and side.place[1] == 2:
            upload.rows[0][:] ^= 1
        return upload

    monkeypatch.setattr(CodedWorkerSide, "compute", wrong_rows)
    monkeypatch.setattr(replanning, "MOST_MISLED_PLANS", 2)
    async with blind_run() as run:
        for name, own in OWN.items():
            await run.join(name, own)
        with pytest.raises(IntegrityError, match=r"under 2 plans of one round: .* blind server cannot tell"):
            await run.cluster.server
        plans = [event for event in run.cluster.events if isinstance(event, Planned)]
        assert {plan.strategy for plan in plans} == {"relay"}


async def test_a_group_carries_masked_rows() -> None:
    fast = MulticastOptions(free_group(), LOOPBACK, 1e10)
    async with blind_run(multicast=fast) as run:
        for name, own in OWN.items():
            await run.join(name, own)
        record, models = await run.end()
    check(record, models, train(PARTITIONS, SETTINGS))
    assert record.multicast is not None
    assert record.multicast.listeners == HOMOGENEOUS.workers


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


# A server that stays when its run is over, until its standard input ends.
STAYING_SERVER = """
import sys
from asyncdmtl.cli.server import main
main.main(sys.argv[1:], standalone_mode=False)
print("over", flush=True)
sys.stdin.read()
"""


def memory_of(pid: int) -> bytes:
    """All that a process has written to its memory."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, stop = (int(place, 16) for place in span.split("-"))
                memory.seek(start)
                with contextlib.suppress(OSError):
                    found.append(memory.read(stop - start))
    return b"".join(found)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs the memory of processes as a file")
async def test_the_memory_of_the_server_has_nothing_of_the_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen, partitions = Seen(monkeypatch), raw(0)
    words = ["--listen=127.0.0.1:0", "--blind", "--loss=logistic", "--strength=0.05", "--rounds=8"]
    words += ["--coupling=nuclear", "--workers=6", "--format=json", f"--checkpoint={tmp_path}"]
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STAYING_SERVER, *words, "--checkpoint-every=2",
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
    for word in (b"sulfacol", b"ward-al", b"wellness", b"sickened"):
        assert word not in memory
    for part in partitions:
        seen.add(*(part.columns[name] for name in ("sulfacol", "age")), part.columns["sulfacol"].mean())
    seen.add(*(found.coef_ for found in models))
    assert seen.found_in(memory) == set()


@pytest.mark.parametrize(
    ("blind", "secret", "complaint"),
    [
        (True, None, "--group-secret-file must be given, the same to all workers"),
        (False, SECRET, "--group-secret-file is for a server with --blind"),
    ],
)
async def test_server_and_worker_must_agree_whether_the_run_is_blind(
    blind: bool, secret: bytes | None, complaint: str
) -> None:
    async with Cluster(options(blind=blind)) as cluster:
        with pytest.raises(UsageError, match=complaint):
            await cluster.join("w0", OWN["w0"], group_secret=secret)
        await cluster.event(Refused, worker="w0")


async def test_a_worker_with_another_secret_is_left_out_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Cluster(options(workers=2, join_timeout=5.0)) as cluster:
        one = cluster.join("w0", OWN["w0"], group_secret=SECRET)
        other = cluster.join("w1", OWN["w1"], group_secret=b"another secret of a group")
        for worker in (one, other):
            with pytest.raises((IntegrityError, PeerError, WaitError)):
                await worker


async def test_errors_of_workers_are_told_without_their_values() -> None:
    odd = [raw_partition("p0", {"dose": np.array([1.5, 2.5])}, np.array(["well", "sick"], object))]
    async with Cluster(options(workers=1)) as cluster:
        with pytest.raises(DataError, match="sick"):
            await cluster.join("w0", odd, group_secret=SECRET)
        left = await cluster.event(Left, worker="w0")
        assert "DataError; the worker's own log has the reason" in left.reason
        assert "sick" not in repr(cluster.events)


async def test_rows_for_tests_are_refused() -> None:
    async with Cluster(options(workers=1)) as cluster:
        with pytest.raises(UsageError, match="--test-fraction must be 0 in a blind run"):
            await cluster.join("w0", PARTITIONS, group_secret=SECRET, test_fraction=0.3)
