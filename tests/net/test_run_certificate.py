from __future__ import annotations

import asyncio
import ssl

import pytest

from asyncdmtl.net.run_certificate import RunCertificate, trusting


async def greeting(server: RunCertificate, trusted: RunCertificate, host: str) -> bytes:
    """What a client that trusts one certificate reads from a server with another."""

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    listening = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=server.server_context())
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        context = trusting(trusted.certificate)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
        try:
            return await reader.read()
        finally:
            writer.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "site.example"])
async def test_a_certificate_holds_for_its_host(host: str) -> None:
    made = RunCertificate.make(host)
    assert await greeting(made, made, host) == b"hello"


async def test_no_other_certificate_is_accepted() -> None:
    host = "127.0.0.1"
    made = RunCertificate.make(host)
    with pytest.raises(ssl.SSLCertVerificationError):
        await greeting(RunCertificate.make(host), made, host)
    with pytest.raises(ssl.SSLCertVerificationError):
        await greeting(made, made, "127.0.0.2")


def test_the_key_is_not_shown() -> None:
    assert "PRIVATE" not in repr(RunCertificate.make("127.0.0.1"))
