"""Passes the events of a run to functions, whose failures must not end the run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Self

from asyncdmtl.server.events import Failed, OnEvent, ServerEvent

log = logging.getLogger(__name__)

# Seconds that the end of a run waits for callbacks that have events left. Trackers send to other hosts.
PATIENCE = 30.0


class Callbacks:
    """Passes events to functions while a `with` block lasts, in a thread of its own.

    A slow function therefore delays no round. One that raises an exception is warned of once, and gets no
    more events. If the block ends with an exception, the last event is `Failed`.

    Parameters
    ----------
    functions : sequence of callable
        Each is called with every `ServerEvent`, in their order.
    patience : float
        Seconds to wait for the functions at the end of the block.
    """

    def __init__(self, functions: Sequence[OnEvent], patience: float = PATIENCE) -> None:
        self._functions = list(functions)
        self._patience = patience
        self._events: SimpleQueue[ServerEvent | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="asyncdmtl-callbacks", daemon=True)

    def note(self, event: ServerEvent) -> None:
        """Pass on an event; returns at once."""
        self._events.put(event)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.note(Failed(str(error) or kind.__name__))
        self._events.put(None)
        self._thread.join(self._patience)
        if self._thread.is_alive():
            log.warning(
                "a callback has not ended after %g s, and the rest of its events is lost", self._patience
            )

    def _work(self) -> None:
        while (event := self._events.get()) is not None:
            for function in list(self._functions):
                try:
                    function(event)
                except Exception as error:
                    self._functions.remove(function)
                    name = getattr(function, "__qualname__", type(function).__name__)
                    log.warning(
                        "the callback %s failed and gets no more events: %s",
                        name,
                        str(error) or type(error).__name__,
                    )
