from __future__ import annotations

import asyncio

import pytest
from support.clusters import stored_at
from support.members import make_member
from support.problems import make_partitions, make_settings, run_options
from support.trees import PATIENCE, PLACEMENT, grow, trees

from asyncdmtl.digests import CHALLENGE_BYTES, CONTENT_DIGEST_BYTES
from asyncdmtl.errors import DataError, PeerError, WaitError
from asyncdmtl.net.authentication import UNSECURED_SERVER
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.transport import connect, listen
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.protocol.messages.registry import Welcome
from asyncdmtl.relay.gathering import Gathering, PassedChallenges, whole_answer
from asyncdmtl.relay.options import RelayOptions
from asyncdmtl.relay.relay import Relay
from asyncdmtl.server.possession import Possession, Shown
from asyncdmtl.server.records import RoundRecord
from asyncdmtl.worker.options import WorkerOptions


def test_the_challenges_of_the_parent_are_passed_on() -> None:
    one, other = (bytes([n]) * CHALLENGE_BYTES for n in (1, 2))
    passed = PassedChallenges({"p0": one + other})
    asked = passed.challenge(["p0", "new"], settled=False).challenges
    assert asked["p0"] == (one, other)
    # The parent does not know this partition, so that the relay draws a challenge for it.
    (own,) = asked["new"]
    assert len(own) == CHALLENGE_BYTES
    assert passed.challenge(["new"], settled=False).challenges["new"] != (own,)


def test_a_worker_answers_all_challenges_of_the_parent_and_the_parent_reads_them() -> None:
    parent = Possession()

    def answer(challenge: bytes) -> bytes:
        return challenge[::-1][:CONTENT_DIGEST_BYTES]

    parent.keep("a", {"p0": Shown({}, (b"x" * CHALLENGE_BYTES, answer(b"x" * CHALLENGE_BYTES)))})
    asked = parent.challenge(["p0"], settled=True)
    passed = PassedChallenges(dict(zip(asked.challenges, asked.packed, strict=True)))
    below = passed.challenge(["p0"], settled=True)
    told = [b"".join(map(answer, each)) for each in below.challenges.values()]
    shown = passed.checked("node", below, told)
    # What the relay passes on is what the node said, and shows the parent that it has the rows of worker a.
    assert whole_answer(shown["p0"]) == told[0]
    parent.checked("relay", asked, [whole_answer(shown["p0"])])
    with pytest.raises(DataError, match="must have the rows that a have"):
        parent.checked("relay", asked, [bytes(len(told[0]))])
    # A relay has no rows to compare answers with: only its parent can tell that these are wrong.
    passed.checked("node", below, [bytes(len(told[0]))])


async def test_late_workers_join_at_their_site() -> None:
    options = run_options(settings=make_settings(rounds=30), workers=5, rejoin_timeout=PATIENCE)
    async with trees(options) as (cluster, tree):
        await grow(tree)
        await cluster.event(RoundRecord, round=2)
        late = stored_at(PLACEMENT, make_partitions(6, "squared"))["c"]
        tree.worker("late", "north", late)
        record = await cluster.server
        models = [await tree.tasks[name] for name in ("late", "a", "e")]
    assert len({each.coef_.tobytes() for each in models}) == 1
    # Since then north stores what the late worker does, too.
    assert record.plan.placement.as_dict()["north"] == ["p0", "p1", "p2", "p3"]


async def test_a_relay_that_was_started_again_goes_on_without_workers_that_do_not_come() -> None:
    options, settings = RelayOptions(WorkerOptions("r"), 2, PATIENCE, 0.01), make_settings()
    welcome = Welcome("run", settings.as_dict(), 10.0, b"", False)
    gathering = Gathering(options, welcome, settings, Ledger(), UNSECURED_SERVER, lambda event: None)
    waiting = asyncio.create_task(gathering.complete())
    await asyncio.sleep(0)
    gathering.membership.add(make_member("a"))
    for _ in range(9):
        await asyncio.sleep(0)
    assert not waiting.done()
    # This one has made rounds, so that the run has begun long since.
    gathering.membership.forget("a")
    gathering.membership.add(make_member("a", round=3))
    async with asyncio.timeout(PATIENCE):
        await waiting
    assert gathering.workers == 1


async def test_a_node_that_was_accepted_too_late_is_told_to_come_back() -> None:
    options, settings = RelayOptions(WorkerOptions("r"), 1), make_settings()
    welcome = Welcome("run", settings.as_dict(), 10.0, b"", False)
    gathering = Gathering(options, welcome, settings, Ledger(), UNSECURED_SERVER, lambda event: None)
    await gathering.close()
    async with await listen("127.0.0.1", 0, gathering.accept) as listener:
        address = listener.sockets[0].getsockname()[:2]
        node = await connect(address[0], address[1], lambda: Connection("worker", Ledger(), 10.0), 10.0)
        with pytest.raises(PeerError, match="the server takes no workers now"):
            await node.receive((Welcome,), 60.0, "")
        assert node.worker_may_return
        await node.close()


async def test_a_relay_says_for_which_workers_it_waited() -> None:
    options = run_options(settings=make_settings(rounds=2), workers=5)
    async with trees(options) as (cluster, tree):
        relay = Relay(RelayOptions(WorkerOptions("north"), 2, join_timeout=0.2), lambda event: None)
        with pytest.raises(WaitError, match=r"not all workers joined: 0 of 2 are here \(none\)"):
            await relay.run([cluster.address], ("127.0.0.1", 0))
        assert not tree.tasks
