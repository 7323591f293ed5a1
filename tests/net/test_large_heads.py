from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.messages import EXAMPLES

from asyncdmtl.errors import RemoteProtocolError
from asyncdmtl.net.large_heads import read_large
from asyncdmtl.protocol.frame_reader import Frame
from asyncdmtl.protocol.messages import registry
from asyncdmtl.protocol.messages.base import Message

EMPTY = np.empty(0, np.uint8)


async def read(head: bytes) -> Callable[[], Message]:
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    read_large(Frame(head, EMPTY, len(head)), done.set_result)
    found: Callable[[], Message] = await asyncio.wait_for(done, 10)
    return found


async def test_heads_are_read_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def unpack(head: bytes, body: Any) -> Message:
        threads.append(threading.current_thread())
        return registry.KINDS[head[1]].parse([], body)

    hello = registry.pack(EXAMPLES["hello"])
    assert (await read(hello))().fields() == EXAMPLES["hello"].fields()
    monkeypatch.setattr(registry, "unpack", unpack)
    await read(registry.pack(EXAMPLES["heartbeat"]))
    await read(registry.pack(EXAMPLES["heartbeat"]))
    assert threads[0] is threads[1] is not threading.main_thread()


async def test_a_head_that_cannot_be_read_is_an_error_of_the_result() -> None:
    result = await read(b"nonsense")
    with pytest.raises(RemoteProtocolError, match="head"):
        result()
