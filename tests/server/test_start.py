"""The start of a run, with real members and admission, and workers that a test controls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from support.members import Script
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.digests import answer
from asyncdmtl.errors import DataError, LinkError, PeerError, PlacementError, UsageError, WaitError
from asyncdmtl.learning.tasks import Declaration, Partition
from asyncdmtl.net.authentication import UNSECURED_SERVER
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.admission import Admission
from asyncdmtl.server.events import Left, Refused, ServerEvent
from asyncdmtl.server.member import Member, other_data
from asyncdmtl.server.member_log import MemberLog
from asyncdmtl.server.membership import Membership
from asyncdmtl.server.possession import Shown
from asyncdmtl.server.start import RunStart

PARTITIONS = make_partitions(12, "squared")
SETTINGS = make_settings()

LIMIT = 20.0


class Run:
    """A run that is about to start."""

    def __init__(self, **options: Any) -> None:
        made = run_options(**{"workers": 2, "join_timeout": LIMIT, **options})
        self.events: list[ServerEvent] = []
        self.membership = Membership()
        log = MemberLog("run", self.events.append)
        admission = Admission("run", made, self.membership, Ledger(), UNSECURED_SERVER, log)
        self.start = RunStart(made, self.membership, admission, log)

    def join(self, name: str, partitions: Sequence[Partition], **facts: Any) -> Member:
        """Let a worker join, whose rows by default are encoded at once."""
        infos = tuple(part.info(SETTINGS) for part in partitions)
        member = Script(name, partitions, **{"infos": infos, **facts}).member
        self.membership.add(member)
        return member

    async def complete(self) -> tuple[Encoding, tuple[Declaration, ...]]:
        async with asyncio.timeout(LIMIT):
            return await self.start.complete()

    async def waits(self) -> asyncio.Task[Any]:
        """A task of the start, once it waits."""
        task = asyncio.create_task(self.complete())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not task.done()
        return task

    async def nobody_is_here(self) -> None:
        """Wait until all members are forgotten."""
        while self.membership.members:
            await self.membership.change(None)

    def told(self, kind: type[ServerEvent]) -> dict[str, str]:
        """The reasons in events of a kind, by worker."""
        found: list[Any] = [event for event in self.events if isinstance(event, kind)]
        return {event.worker: event.reason for event in found}


def changed(partition: Partition, **facts: Any) -> Partition:
    return replace(partition, **{"y": partition.y + 1, **facts})


async def test_all_partitions_are_settled_in_natural_order() -> None:
    run = Run()
    run.join("w1", PARTITIONS[5:])
    run.join("w0", PARTITIONS[:7])
    encoding, declared = await run.complete()
    assert encoding.is_empty
    assert [part.id for part in declared] == [f"p{n}" for n in range(12)]
    assert run.membership.known is not None
    assert set(run.membership.known) == {f"p{n}" for n in range(12)}
    assert run.membership.encoding.result() is encoding
    assert run.membership.infos == {part.id: part.info(SETTINGS) for part in PARTITIONS}
    assert run.membership.infos_settled


async def test_holders_share_one_declaration() -> None:
    run = Run()
    first, second = run.join("w0", PARTITIONS[:2]), run.join("w1", PARTITIONS[:2])
    assert first.declared[0] is not second.declared[0]
    await run.complete()
    assert first.declared[0] is second.declared[0]


async def test_the_start_waits_for_as_many_workers_as_were_asked_for() -> None:
    run = Run()
    run.join("w0", PARTITIONS)
    waiting = await run.waits()
    run.join("w1", PARTITIONS[:1])
    _, declared = await waiting
    assert len(declared) == 12


async def test_the_start_waits_until_each_partition_has_a_holder() -> None:
    run = Run(workers=None, cover=("p0", "p1", "p2"))
    run.join("w0", PARTITIONS[:2])
    waiting = await run.waits()
    run.join("w1", PARTITIONS[2:3])
    _, declared = await waiting
    assert [part.id for part in declared] == ["p0", "p1", "p2"]


async def test_the_start_waits_for_one_holder_more_than_may_be_silent() -> None:
    run = Run(workers=None, cover=("p0", "p1"), silent=1)
    run.join("w0", PARTITIONS[:2])
    run.join("w1", PARTITIONS[:1])
    waiting = await run.waits()
    run.join("w2", PARTITIONS[1:2])
    _, declared = await waiting
    assert [part.id for part in declared] == ["p0", "p1"]


async def test_the_start_waits_until_the_rows_are_encoded() -> None:
    run = Run()
    run.join("w0", PARTITIONS[:6])
    slow = run.join("w1", PARTITIONS[6:], ready=False, infos=())
    waiting = await run.waits()
    assert run.membership.encoding.done()
    slow.lost = PeerError("ended", exit_code=UsageError.exit_code)
    run.membership.note_change()
    _, declared = await waiting
    # Its own data ended it, and too few workers are left: the run includes what no worker could encode.
    assert len(declared) == 12
    assert set(run.membership.infos) == {f"p{n}" for n in range(6)}


async def left_while_it_encoded(run: Run) -> None:
    """Let the second of two workers leave before its rows are encoded."""
    run.join("w0", PARTITIONS[:6])
    member = run.join("w1", PARTITIONS[6:], ready=False, infos=())
    await asyncio.shield(run.membership.encoding)
    member.lost = LinkError("reset", peer="w1")
    run.membership.note_change()


async def test_partitions_whose_holder_left_before_it_encoded_them_are_forgotten() -> None:
    run = Run()
    waiting = asyncio.create_task(run.complete())
    await left_while_it_encoded(run)
    await run.nobody_is_here()
    # The others join again, since their encoding may depend on what is forgotten.
    assert run.membership.known is None
    assert not run.membership.encoding.done()
    run.join("w0", PARTITIONS[:6])
    run.join("w2", PARTITIONS[:2])
    _, declared = await waiting
    assert [part.id for part in declared] == [f"p{n}" for n in range(6)]
    assert run.membership.excluded == {}


async def test_a_worker_that_leaves_while_it_encodes_again_and_again_may_not_come_back() -> None:
    run = Run()
    waiting = asyncio.create_task(run.complete())
    for _ in range(3):
        await left_while_it_encoded(run)
        await run.nobody_is_here()
    assert run.membership.excluded == {"w1": "it left 3 times before its rows were encoded"}
    waiting.cancel()


async def test_partitions_to_cover_are_not_forgotten() -> None:
    run = Run(workers=None, cover=tuple(part.id for part in PARTITIONS))
    waiting = asyncio.create_task(run.complete())
    await left_while_it_encoded(run)
    _, declared = await waiting
    assert len(declared) == 12


@pytest.mark.parametrize(
    ("options", "names", "lacking"),
    [
        ({"workers": 3}, ("w10", "w9"), r"2 of 3 are here \(w9, w10\)"),
        ({"workers": 3}, (), r"0 of 3 are here \(none\)"),
        (
            {"workers": None, "cover": ("p0", "p99")},
            ("w0",),
            r"no holder of \['p99'\] is here \(joined: w0\)",
        ),
        (
            {"workers": None, "cover": ("p0", "p1"), "silent": 1},
            ("w0",),
            r"fewer than 2 holders of \['p0', 'p1'\] are here, as --silent needs \(joined: w0\)",
        ),
    ],
)
async def test_who_lacks_is_told_when_the_wait_is_over(
    options: dict[str, Any], names: Sequence[str], lacking: str
) -> None:
    run = Run(join_timeout=0.01, **options)
    for name in names:
        run.join(name, PARTITIONS)
    limit = r" after 0.01 s \(the limit is set by --join-timeout\)"
    with pytest.raises(WaitError, match=f"not all workers joined: {lacking}{limit}"):
        await run.complete()


async def test_all_partitions_to_cover_must_have_a_holder() -> None:
    run = Run(cover=("p0", "p1", "p2"))
    run.join("w0", PARTITIONS[:1])
    run.join("w1", PARTITIONS[:1])
    with pytest.raises(PlacementError, match=r"must store every partition .* holder, got \['p1', 'p2'\]"):
        await run.complete()


async def test_somebody_must_store_something() -> None:
    run = Run()
    run.join("w0", ())
    run.join("w1", ())
    with pytest.raises(PlacementError, match=r"must have at least one partition; joined, got \['w0', 'w1'\]"):
        await run.complete()


async def test_a_worker_that_left_before_the_start_is_forgotten() -> None:
    run = Run()
    gone = run.join("w0", PARTITIONS)
    waiting = await run.waits()
    gone.connection.failure = LinkError("reset", peer="w0")
    run.join("w1", PARTITIONS[:6])
    for _ in range(3):
        await asyncio.sleep(0)
    assert list(run.membership.members) == ["w1"]
    assert run.told(Left) == {"w0": "before the start"}
    run.join("w2", PARTITIONS[6:])
    await waiting


async def test_the_holder_that_most_others_contradict_is_refused() -> None:
    run = Run(workers=4)
    for name in ("w0", "w1", "w3"):
        run.join(name, PARTITIONS)
    odd = run.join("w2", [changed(PARTITIONS[4])])
    waiting = await run.waits()
    run.join("w4", PARTITIONS)
    _, declared = await waiting
    assert set(run.membership.members) == {"w0", "w1", "w3", "w4"}
    assert declared[4] == PARTITIONS[4].declaration()
    (told,) = run.told(Refused).values()
    assert "partition 'p4' of worker 'w2' must be the same data as at w0, w1, w3" in told
    assert isinstance(odd.connection.failure, DataError)


async def test_refused_workers_are_waited_for_again() -> None:
    run = Run(workers=3)
    run.join("w0", PARTITIONS)
    run.join("w1", PARTITIONS)
    run.join("a0", [changed(PARTITIONS[0])])
    waiting = asyncio.create_task(run.complete())
    # A thread makes the refusal.
    while "a0" in run.membership.members:
        await run.membership.change(0.001)
    assert set(run.membership.members) == {"w0", "w1"}
    run.join("a0", PARTITIONS[:2])
    _, declared = await waiting
    assert len(declared) == 12


async def test_a_worker_that_joins_while_others_are_compared_is_compared_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, loop = Run(workers=3), asyncio.get_running_loop()
    late = [changed(PARTITIONS[0])]

    def compared(*about: Any) -> DataError:
        if late:
            # By its name, this worker would be believed before the others.
            loop.call_soon_threadsafe(run.join, "a0", [late.pop()])
        return other_data(*about)

    monkeypatch.setattr("asyncdmtl.server.start.other_data", compared)
    for name in ("w0", "w1", "w2"):
        run.join(name, PARTITIONS)
    run.join("w3", [changed(PARTITIONS[4])])
    _, declared = await run.complete()
    assert declared[0] == PARTITIONS[0].declaration()
    assert set(run.membership.members) == {"w0", "w1", "w2"}
    assert set(run.told(Refused)) == {"a0", "w3"}


async def test_fewer_workers_than_asked_for_are_not_enough() -> None:
    run = Run(workers=3, join_timeout=0.05)
    run.join("w0", PARTITIONS)
    run.join("w1", PARTITIONS)
    run.join("w2", [changed(PARTITIONS[0])])
    with pytest.raises(WaitError, match=r"2 of 3 are here \(w0, w1; refused for their data: w2\)"):
        await run.complete()


async def test_one_worker_does_not_take_partitions_over() -> None:
    run = Run(workers=4)
    run.join("a0", [changed(part) for part in PARTITIONS])
    for k in range(3):
        run.join(f"w{k}", PARTITIONS[4 * k : 4 * k + 4])
    with pytest.raises(DataError, match="partition 'p0' of worker 'w0' must be the same data as at a0"):
        await run.complete()


def showing(partition: Partition, rows: Partition) -> dict[str, Shown]:
    """The answers of a worker that declares a partition, and has these rows."""
    return {partition.id: Shown({b"1": answer(b"1", rows.content())}, (b"2", b""))}


async def test_one_that_shows_other_rows_than_most_cannot_take_part() -> None:
    run = Run(workers=3)
    part = PARTITIONS[0]
    for name in ("w1", "w2"):
        run.join(name, [part], shown=showing(part, part))
    # Its declarations are those of the others, which it has copied.
    copier = run.join("a0", [part], shown=showing(part, changed(part)))
    await run.complete()
    assert str(copier.lost) == (
        "worker 'a0' must have the rows that w1, w2 have; its proof of possession is of other rows, got 'p0'"
    )
    assert run.membership.members["w1"].lost is None


@pytest.mark.parametrize("encodes", [True, False])
async def test_one_of_two_holders_does_not_take_a_partition_over_by_its_name(encodes: bool) -> None:
    run = Run()
    part = PARTITIONS[0]
    other = replace(part.info(SETTINGS), smoothness=1e9)
    rows = part if encodes else changed(part)
    run.join("a0", [part], shown=showing(part, rows), infos=(other if encodes else part.info(SETTINGS),))
    run.join("w1", [part], shown=showing(part, part))
    with pytest.raises(DataError, match=r"'p0' must be of the same rows .* got \['w1', 'a0'\]"):
        await run.complete()


async def test_one_holder_alone_is_believed_how_its_rows_are_encoded() -> None:
    run = Run()
    infos = [part.info(SETTINGS) for part in PARTITIONS]
    odd = replace(infos[0], smoothness=1e9)
    run.join("w0", PARTITIONS[:1], infos=(odd,))
    run.join("w1", PARTITIONS[1:])
    await run.complete()
    assert run.membership.infos["p0"] == odd


async def test_who_encodes_otherwise_than_most_cannot_take_part() -> None:
    run = Run(workers=3)
    infos = [part.info(SETTINGS) for part in PARTITIONS]
    run.join("w0", PARTITIONS)
    run.join("w1", PARTITIONS)
    other = replace(infos[3], features=infos[3].features + 1)
    odd = run.join("w2", PARTITIONS[3:4], infos=(other,))
    await run.complete()
    assert run.membership.infos["p3"] == infos[3]
    assert isinstance(odd.lost, DataError)
    assert "partition 'p3' of worker 'w2' must be encoded as at its other holders" in str(odd.lost)
    assert not odd.connection.worker_may_return
    assert set(run.told(Left)) == {"w2"}
    assert run.membership.members["w0"].lost is None


async def test_who_is_gone_has_no_say_in_what_rows_became() -> None:
    run = Run(workers=2)
    infos = [part.info(SETTINGS) for part in PARTITIONS]
    other = replace(infos[0], features=infos[0].features + 1)
    waiting = run.join("w1", PARTITIONS, ready=False)
    gone = run.join("w0", PARTITIONS[:1], infos=(other,))
    start = await run.waits()
    gone.lost = LinkError("reset", peer="w0")
    waiting.ready = True
    run.membership.note_change()
    await start
    assert run.membership.infos["p0"] == infos[0]
    assert waiting.lost is None
