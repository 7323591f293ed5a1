"""The addresses of a server: which one is used, and that each must prove its identity."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohappyeyeballs
import pytest
from support.certificates import Authority
from support.ports import free_port

from asyncdmtl.errors import AuthenticationError
from asyncdmtl.net.addresses import parse_address
from asyncdmtl.net.authentication import UNSECURED_WORKER, ServerSecurity, WorkerSecurity
from asyncdmtl.net.connection import Connection
from asyncdmtl.net.route import MOST_REFUSALS, Address, Route
from asyncdmtl.net.tls import TLSChannel
from asyncdmtl.net.transport import listen
from asyncdmtl.protocol.ledger import Ledger


def make(tls: Callable[[], TLSChannel] | None) -> Connection:
    return Connection("worker", Ledger(), 30.0, tls=tls)


@contextlib.asynccontextmanager
async def listening(*securities: ServerSecurity) -> AsyncIterator[list[Address]]:
    """Servers that listen; their addresses."""

    def accept(security: ServerSecurity) -> Callable[[], Connection]:
        return lambda: Connection("server", Ledger(), 30.0, tls=security.channels)

    servers = [await listen("127.0.0.1", 0, accept(security)) for security in securities]
    try:
        yield [each.sockets[0].getsockname()[:2] for each in servers]
    finally:
        for each in servers:
            each.close()


async def used(route: Route) -> Address:
    """The address to which the route leads now."""
    connection = await route.connect(60.0)
    address = parse_address(connection.link.address, "")
    await connection.close()
    return address


async def test_addresses_are_tried_in_order() -> None:
    async with listening(ServerSecurity(), ServerSecurity()) as (one, two):
        route = Route([("127.0.0.1", free_port()), one, two], UNSECURED_WORKER, make)
        assert await used(route) == one
        # A server that did not welcome the worker: the next one, and after the last one the first one.
        route.note_end(welcomed=False, refused=False)
        assert await used(route) == two
        route.note_end(welcomed=False, refused=False)
        assert await used(route) == one
        route.note_end(welcomed=False, refused=False)
        # After a server that had welcomed the worker, the first address that serves.
        route.note_end(welcomed=True, refused=False)
        assert await used(route) == one


async def test_a_server_that_is_frozen_is_not_tried_again_first() -> None:
    async with listening(ServerSecurity(), ServerSecurity()) as (one, two):
        route = Route([one, two], UNSECURED_WORKER, make)
        assert await used(route) == one
        route.note_end(welcomed=True, refused=False, silent=True)
        assert await used(route) == two


async def test_a_server_that_says_come_back_is_tried_several_times() -> None:
    async with listening(ServerSecurity(), ServerSecurity()) as (one, two):
        route = Route([one, two], UNSECURED_WORKER, make)
        for _ in range(MOST_REFUSALS):
            assert await used(route) == one
            route.note_end(welcomed=False, refused=True)
        assert await used(route) == two


async def test_an_address_that_answers_nothing_does_not_delay_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_connection = aiohappyeyeballs.start_connection

    async def answer(addresses: Any, **options: Any) -> Any:
        if addresses[0][4][1] == 1:
            await asyncio.Event().wait()
        return await start_connection(addresses, **options)

    # A slow machine makes several attempts with each address.
    monkeypatch.setattr("asyncdmtl.net.transport.LONGEST_ATTEMPT", 0.3)
    monkeypatch.setattr("aiohappyeyeballs.start_connection", answer)
    async with listening(ServerSecurity()) as (one,):
        assert await used(Route([("127.0.0.1", 1), one], UNSECURED_WORKER, make)) == one


async def test_every_address_must_show_a_certificate_for_its_own_host(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    right, wrong = authority.issue("127.0.0.1"), authority.issue("localhost")
    first, second = (ServerSecurity.from_files(None, *files) for files in (right, wrong))
    security = WorkerSecurity.from_files("w0", tls_ca=authority.ca)
    async with listening(first, second) as (one, two):
        route = Route([one, two], security, make)
        assert await used(route) == one
        route.note_end(welcomed=False, refused=False)
        with pytest.raises(AuthenticationError, match=r"127\.0\.0\.1"):
            await used(route)
        # By its own name, the second one is accepted.
        assert await used(Route([("localhost", two[1])], security, make)) == two


async def test_a_route_may_have_one_address() -> None:
    async with listening(ServerSecurity()) as (one,):
        route = Route([one], UNSECURED_WORKER, make)
        route.note_end(welcomed=False, refused=False)
        assert await used(route) == one
        assert not route.several
