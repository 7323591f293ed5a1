"""The end of a run at the server, with members that are lost before they hear of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.rounds import OWN, Hand, Run

from asyncdmtl.protocol.messages.registry import Done, Finish
from asyncdmtl.server import absent


@pytest.mark.parametrize("returns", [True, False])
async def test_a_worker_that_is_lost_after_its_report_may_come_back_for_the_end(
    monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    monkeypatch.setattr(absent, "LINGER", 600.0 if returns else 0.0)
    run = Run()
    hand, peers = run.hands["w3"], run.rounds._peers
    hear, back = peers.hear, Hand("w3", OWN["w3"], run.progress.problem)

    async def lose(answers: Any) -> Any:
        found = await hear(answers)
        if hand.member in found and isinstance(found[hand.member], Done):
            hand.vanish()
            if returns:
                asyncio.get_running_loop().call_soon(run.membership.add, back.member)
        return found

    monkeypatch.setattr(peers, "hear", lose)
    await run.make()
    assert len(run.plans()) == (2 if returns else 1)
    assert [incident.worker for incident in run.progress.incidents] == ["w3"]
    if returns:
        run.hands["w3"] = back
    run.check(*([] if returns else ["w3"]))
    assert not any(isinstance(message, Finish) for message in hand.sent[:-1])
