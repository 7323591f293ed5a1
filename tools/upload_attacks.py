"""Attacks of `tools/attack.py` by what a member sends in a round: messages that fit no plan, and lies.

Lies that come now and then, or differ little from the truth, are among them, and complaints about others. As
in `attacks`, each changes the worker of one process.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from planting import HONEST, put_in, send_unchecked

from asyncdmtl.errors import IntegrityError
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.registry import Message, MoreRows, Snapshot, Uplink
from asyncdmtl.worker.participation import Participation
from asyncdmtl.worker.state import WorkerState
from asyncdmtl.worker.uplink_sender import UplinkSender

Change = Callable[[Uplink], Sequence[Message]]


def _advance(connection: Connection, honest: Sequence[Message]) -> None:
    """Let this end go on as if it had sent honest messages."""
    for message in honest:
        connection.session.send(message)


def messages(change: Change) -> Callable[[], None]:
    """Send other messages instead of each upload but the first ones, past the checks of this end."""

    def plant() -> None:
        begin = UplinkSender.begin

        async def changed(
            sender: UplinkSender, connection: Any, made: Any, *given: Any, **named: Any
        ) -> None:
            if made[0].round < HONEST:
                await begin(sender, connection, made, *given, **named)
            else:
                _advance(connection, made)
                send_unchecked(connection, [*change(made[0]), *made[1:]])

        put_in(UplinkSender, "begin", changed)

    return plant


def _grown(uplink: Uplink) -> Uplink:
    return replace(uplink, body=np.concatenate([uplink.body, np.zeros(1, np.uint8)]))


# By name: the messages that are sent instead of an upload.
MESSAGES: dict[str, Change] = {
    "told-short": lambda up: [replace(up, told=up.told[:-1])],
    "told-long": lambda up: [replace(up, told=up.told + b"\0")],
    "rows-long": lambda up: [_grown(up)],
    "rest": lambda up: [replace(up, rest=up.rest + 9)],
    "old-round": lambda up: [replace(up, round=up.round - 1)],
    "next-round": lambda up: [replace(up, round=up.round + 1)],
    "old-plan": lambda up: [replace(up, plan=up.plan - 1)],
    "twice": lambda up: [up, up],
    "more-rows": lambda up: [up, *[MoreRows(up.plan, up.round, (np.zeros(64, np.uint8),))] * 1000],
    "timing": lambda up: [replace(up, timing=(0.0, 1e18))],
}


def misled(every: int) -> Callable[[], None]:
    """Claim, every so many rounds, that what was decoded does not match its digests."""

    def plant() -> None:
        apply = WorkerState.apply

        def complain(state: WorkerState, downlink: Any) -> None:
            if state.round >= HONEST and state.round % every == 0:
                raise IntegrityError("all rows are wrong", partitions=[], workers=[state.name])
            apply(state, downlink)

        put_in(WorkerState, "apply", complain)

    return plant


def leaves(*, after: bool) -> Callable[[], None]:
    """Cut the connection after each upload, or when the final models are due."""

    def plant() -> None:
        send, leave = Participation._send_round, Participation._leave

        async def sent(part: Participation) -> None:
            await send(part)
            if part._state.round >= HONEST:
                part._connection.abort()

        async def left(part: Participation) -> None:
            part._connection.abort()
            await leave(part)

        put_in(Participation, "_send_round" if after else "_leave", sent if after else left)

    return plant


def cut_once() -> None:
    """Cut the connection in one round, so that this member joins again."""
    send, cut = Participation._send_round, list[int]()

    async def sent(part: Participation) -> None:
        if part._state.round >= HONEST and not cut:
            cut.append(part._state.round)
            part._connection.abort()
        await send(part)

    put_in(Participation, "_send_round", sent)


def gives_state(change: Callable[[Participation, Snapshot], Awaitable[Snapshot]]) -> Callable[[], None]:
    """Give another state of the training than is asked for."""

    def plant() -> None:
        async def give(part: Participation) -> None:
            snapshot = Snapshot(part._plan, part._state.round, *part._state.snapshot())
            changed = await change(part, snapshot)
            _advance(part._connection, [snapshot])
            send_unchecked(part._connection, [changed])

        put_in(Participation, "_give", give)

    return plant


async def short_state(_part: Participation, given: Snapshot) -> Snapshot:
    """A state that ends too early, under a digest of it."""
    body = given.body[:-8]
    return replace(given, body=body, digest=_part._state._on_the_way(body))


async def old_state(part: Participation, given: Snapshot) -> Snapshot:
    """The state of another round."""
    return replace(given, round=given.round - 1)


async def no_state(_part: Participation, given: Snapshot) -> Snapshot:
    """No state, for as long as the server waits."""
    await asyncio.sleep(1e6)
    return given


async def bad_digest(_part: Participation, given: Snapshot) -> Snapshot:
    """A state under another digest."""
    return replace(given, digest=os.urandom(16))
