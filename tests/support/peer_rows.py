"""Rows between workers that are wrong."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from asyncdmtl.arrays import Bytes
from asyncdmtl.protocol.messages.registry import AskRows
from asyncdmtl.worker import peer_server


def corrupt_one_block(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let a worker give another one a wrong block in round 1; the list then has the number of the vector."""
    given, wrong = peer_server._block, list[int]()

    def corrupted(vectors: Mapping[int, Bytes], ask: AskRows) -> Bytes:
        block = given(vectors, ask)
        if ask.round == 1 and not wrong:
            wrong.append(ask.vector)
            return block ^ np.uint8(1)
        return block

    monkeypatch.setattr(peer_server, "_block", corrupted)
    return wrong
