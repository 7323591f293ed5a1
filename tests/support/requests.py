"""Requests by HTTP, for tests."""

from __future__ import annotations

import asyncio


async def raw_answer(address: tuple[str, int], request: bytes) -> bytes:
    """What a server sends in answer to some bytes, until the connection ends."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()
