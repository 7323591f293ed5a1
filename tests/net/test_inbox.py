from __future__ import annotations

import asyncio
from collections.abc import Callable

from support.messages import EXAMPLES

from asyncdmtl.net.inbox import Inbox
from asyncdmtl.protocol.messages.rounds import Assign, Downlink


def assign(plan: int) -> Assign:
    return Assign(plan, 0, False, "keep", {}, bytes(16), ())


async def test_messages_are_taken_in_the_order_in_which_they_came() -> None:
    inbox = Inbox()
    messages = [EXAMPLES[kind] for kind in ("welcome", "prepare", "assign")]
    for message in messages:
        inbox.put(message)
    assert len(inbox) == 3
    assert [inbox.take_any() for _ in messages] == messages
    assert not inbox


async def test_a_message_is_taken_if_it_is_of_the_wanted_kind() -> None:
    inbox = Inbox()
    assert inbox.take(Assign) is None
    inbox.put(EXAMPLES["downlink"])
    inbox.put(EXAMPLES["assign"])
    assert inbox.take(Assign) is None
    assert inbox.take(Downlink) is EXAMPLES["downlink"]
    assert inbox.take(Assign) is EXAMPLES["assign"]


async def test_a_message_that_is_put_back_comes_first() -> None:
    inbox = Inbox()
    inbox.put(EXAMPLES["prepare"])
    inbox.put_back(EXAMPLES["welcome"])
    assert inbox.take_any() is EXAMPLES["welcome"]


async def test_a_newer_plan_replaces_one_that_nobody_has_received() -> None:
    inbox = Inbox()
    for plan in range(1000):
        inbox.put(assign(plan))
    assert len(inbox) == 1
    newest = inbox.take(Assign)
    assert newest is not None
    assert newest.plan == 999
    for message in (assign(0), EXAMPLES["downlink"], assign(1)):
        inbox.put(message)
    assert len(inbox) == 3
    inbox.clear()
    assert not inbox


async def test_a_task_that_waits_is_woken_by_a_message_or_without_one() -> None:
    inbox = Inbox()
    wakes: list[Callable[[], None]] = [
        lambda: inbox.put(EXAMPLES["assign"]),
        lambda: inbox.put_back(assign(1)),
        inbox.wake,
    ]
    for wake in wakes:
        waiting = asyncio.create_task(inbox.changed())
        await asyncio.sleep(0)
        assert not waiting.done()
        wake()
        await waiting


async def test_a_later_message_is_found_and_those_before_it_dropped() -> None:
    inbox = Inbox()
    assert not inbox.starts_with(Assign)
    for message in (EXAMPLES["downlink"], assign(1), EXAMPLES["finish"]):
        inbox.put(message)
    assert inbox.starts_with(type(EXAMPLES["downlink"]))
    found = inbox.find(Assign)
    assert found is not None
    assert inbox.find(type(EXAMPLES["hello"])) is None
    inbox.drop_through(found)
    assert inbox.take_any() is EXAMPLES["finish"]
