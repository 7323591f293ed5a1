"""The steps by which a worker joins a run: greeting, declaration, encoding, multicast group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.blinding.sealed import pooled_encoding, sealed_declaration, sealed_info, split
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.digests import CONTENT_DIGEST_BYTES
from asyncdmtl.errors import DataError, LinkError, RemoteProtocolError, UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import SEALED, Declaration
from asyncdmtl.net.authentication import greet_server
from asyncdmtl.net.connection import Connection
from asyncdmtl.protocol.messages.joining import NO_RUN
from asyncdmtl.protocol.messages.pieces import pieces
from asyncdmtl.protocol.messages.registry import (
    VERSION,
    Declare,
    DeclareSome,
    Hello,
    JoinedGroup,
    JoinGroup,
    Prepare,
    Ready,
    Welcome,
)
from asyncdmtl.worker.multicast_client import MulticastClient
from asyncdmtl.worker.options import WorkerOptions
from asyncdmtl.worker.own_partitions import OwnPartitions
from asyncdmtl.worker.state import WorkerState

log = logging.getLogger(__name__)


async def be_welcomed(connection: Connection, options: WorkerOptions, secret: bytes | None) -> Welcome:
    """Greet the server. If there is a secret, both ends prove that they know it.

    Raises
    ------
    StandbyOrdered
        The server makes a stream of jobs, and asks the worker to stand by.
    AuthenticationError
        The server did not prove its identity, or asks for a proof that this worker cannot give.
    """
    hello = Hello(VERSION, options.name, options.silence_timeout, options.place.run)
    welcome = await greet_server(connection, hello, secret, options.silence_timeout)
    if options.place.run not in (NO_RUN, welcome.run):
        raise RemoteProtocolError(f"{connection.peer} welcomes to run {welcome.run}, not {options.place.run}")
    return welcome


def read_settings(connection: Connection, welcome: Welcome) -> Settings:
    """The settings of the run; RemoteProtocolError if they break a rule."""
    try:
        return Settings.from_dict(welcome.settings)
    except UsageError as error:
        raise RemoteProtocolError(f"{connection.peer} sent settings that break a rule: {error}") from error


async def declare_and_encode(
    connection: Connection,
    options: WorkerOptions,
    settings: Settings,
    partitions: OwnPartitions,
    state: WorkerState,
) -> None:
    """Declare the partitions, the state of the training and the arithmetic; then encode the rows.

    Digests of contents leave this worker only in the form that is keyed for the run.

    Raises
    ------
    DataError
        The rows cannot be encoded, do not suit the loss, have too many columns, or are fewer than this worker
        permits.
    RemoteProtocolError
        The server's encoding breaks a rule.
    """
    limit = options.round_timeout, "--round-timeout"
    group = state.group
    async with options.place.turn():
        try:
            await asyncio.to_thread(partitions.check, settings)
        except DataError as error:
            # The reason is not sent to the server, since it names a partition and its size.
            rule = "permits this worker no part in the run"
            await connection.fail(UsageError("--least-rows", rule, options.least_rows))
            raise error
        declarations = await asyncio.to_thread(partitions.declare)
    if group is None:
        declared = tuple(replace(part, digest=state.digest.keyed(part.digest)) for part in declarations)
    else:
        _refuse_test_rows(declarations)
        declared = await asyncio.to_thread(
            lambda: tuple(sealed_declaration(group, part) for part in declarations)
        )
    check = await asyncio.to_thread(state.check)
    machine = await asyncio.to_thread(Machine.here, settings.arithmetic)
    *some, last = await asyncio.to_thread(lambda: list(pieces(declared)))
    # The server reads large declarations in turn.
    connection.be_patient(patient=True)
    for part in some:
        await connection.send(DeclareSome(part), *limit)
    declare = Declare(last, state.round, state.over, check, machine, options.wants)
    await connection.send(declare, *limit)
    prepare = await connection.receive((Prepare,), options.start_timeout, "--start-timeout")
    connection.be_patient(patient=False)
    try:
        if group is None:
            encoding = Encoding.from_dict(prepare.encoding)
        else:
            encoding = await asyncio.to_thread(pooled_encoding, group, prepare.encoding.get(SEALED), settings)
    except DataError:
        raise
    except UsageError as error:
        raise RemoteProtocolError(
            f"{connection.peer} sent an encoding that breaks a rule: {error}"
        ) from error
    async with options.place.turn():
        infos = await asyncio.to_thread(partitions.encode, encoding, settings)
        answers = await asyncio.to_thread(partitions.answers, prepare.challenges)
    if group is None:
        ready = Ready(tuple(replace(info, digest=state.digest.keyed(info.digest)) for info in infos), answers)
    else:
        keys = group.digest.keyed
        keyed = tuple(b"".join(map(keys, split(several, CONTENT_DIGEST_BYTES))) for several in answers)
        ready = Ready(tuple(sealed_info(group, info) for info in infos), keyed)
    await connection.send(ready, *limit)


def check_blindness(welcome: Welcome, options: WorkerOptions) -> None:
    """Raise UsageError unless server and worker agree whether the server learns nothing of the data."""
    if welcome.blind and not options.blind:
        rule = "must be given, the same to all workers, or --group-ca: the server makes a blind run (--blind)"
        raise UsageError("--group-secret-file", rule, None)
    if options.blind and not welcome.blind:
        option = "--group-secret-file" if options.group_secret is not None else "--group-agree"
        rule = "is for a server with --blind, and this one would see what the worker sends"
        raise UsageError(option, rule, "a server without --blind")


def _refuse_test_rows(declared: Sequence[Declaration]) -> None:
    """Raise UsageError if rows are held out for tests, whose scores the server would report."""
    for part in declared:
        if part.held:
            rule = "must be 0 in a blind run: the server would read the scores of rows for tests"
            raise UsageError("--test-fraction", rule, f"{part.held} test rows of {part.id!r}")


async def join_group(
    connection: Connection, options: WorkerOptions, log_fields: Mapping[str, Any], message: JoinGroup
) -> MulticastClient | None:
    """Join the multicast group, and tell the server whether a probe arrived; None if it did not."""
    client, reason = None, ""
    try:
        try:
            client = MulticastClient(connection, message, options.interface)
            if not await client.receives_probe():
                reason = f"nothing was heard of the group {message.address} at {connection.link.local}"
        except (LinkError, UsageError) as error:
            reason = str(error)
        if reason:
            log.warning("worker %s: %s", options.name, reason, extra=log_fields)
            if client is not None:
                client.close()
                client = None
        await connection.send(JoinedGroup(reason), options.round_timeout, "--round-timeout")
    except BaseException:
        # The connection ended meanwhile, or the worker was stopped: nobody else has the client yet.
        if client is not None:
            client.close()
        raise
    return client
