from __future__ import annotations

import logging
from threading import Event

import pytest

from asyncdmtl.report.callbacks import Callbacks
from asyncdmtl.server.events import Failed, Joined, ServerEvent

ONE, TWO = Joined("w0", 1), Joined("w1", 1)


def test_functions_get_all_events_in_order() -> None:
    seen: list[ServerEvent] = []
    with Callbacks([seen.append]) as callbacks:
        callbacks.note(ONE)
        callbacks.note(TWO)
    assert seen == [ONE, TWO]


def test_a_function_that_fails_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[ServerEvent] = []

    def broken(event: ServerEvent) -> None:
        raise RuntimeError("the disk is full")

    with caplog.at_level(logging.WARNING), Callbacks([broken, seen.append]) as callbacks:
        callbacks.note(ONE)
        callbacks.note(TWO)
    assert seen == [ONE, TWO]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "broken failed and gets no more events: the disk is full" in caplog.text


def test_a_failure_without_a_message_is_named(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: ServerEvent) -> None:
        raise TimeoutError

    with Callbacks([broken]) as callbacks:
        callbacks.note(ONE)
    assert "broken failed and gets no more events: TimeoutError" in caplog.text


def test_the_end_of_a_failed_run_is_an_event() -> None:
    seen: list[ServerEvent] = []
    with pytest.raises(ValueError, match="no worker"), Callbacks([seen.append]):
        raise ValueError("no worker")
    assert seen == [Failed("no worker")]


def test_a_function_that_hangs_does_not_hold_up_the_end(caplog: pytest.LogCaptureFixture) -> None:
    free = Event()

    def hangs(event: ServerEvent) -> None:
        free.wait()

    with Callbacks([hangs], patience=0.01) as callbacks:
        callbacks.note(ONE)
    assert "a callback has not ended after 0.01 s" in caplog.text
    free.set()
