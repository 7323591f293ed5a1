"""Messages that have arrived on a connection and have not been received yet."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeVar, cast

from asyncdmtl.protocol.messages.base import Message
from asyncdmtl.protocol.messages.rounds import Assign

Wanted = TypeVar("Wanted", bound=Message)


class Inbox:
    """A queue of messages, in the order in which they arrived."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Add a message that has arrived.

        A new plan replaces a plan at the end of the queue, which is out of date. So a server cannot fill a
        worker's memory with plans.
        """
        if isinstance(message, Assign) and self._messages and isinstance(self._messages[-1], Assign):
            self._messages.pop()
        self._messages.append(message)
        self._changed.set()

    def put_back(self, message: Message) -> None:
        """Return a message to the front of the queue."""
        self._messages.appendleft(message)
        self._changed.set()

    def take(self, wanted: type[Wanted]) -> Wanted | None:
        """Remove and return the first message if it is of the kind `wanted`; else None."""
        if self._messages and isinstance(self._messages[0], wanted):
            return cast(Wanted, self._messages.popleft())
        return None

    def starts_with(self, wanted: type[Message]) -> bool:
        """Whether the first message is of the kind `wanted`."""
        return bool(self._messages) and isinstance(self._messages[0], wanted)

    def find(self, wanted: type[Wanted]) -> Wanted | None:
        """The first message of the kind `wanted`, which stays in the queue."""
        return next((message for message in self._messages if isinstance(message, wanted)), None)

    def take_any(self) -> Message:
        """Remove and return the first message, of any kind."""
        return self._messages.popleft()

    def drop_through(self, message: Message) -> None:
        """Drop a message in the queue, and all before it."""
        while self._messages.popleft() is not message:
            pass

    def clear(self) -> None:
        """Drop all messages."""
        self._messages.clear()

    def wake(self) -> None:
        """Wake up the task that waits in `changed`, although no message has arrived."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait until a message arrives or `wake` is called."""
        self._changed.clear()
        await self._changed.wait()
