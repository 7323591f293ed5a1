"""A checkpoint with something in every field."""

from __future__ import annotations

import numpy as np
from support.problems import make_partitions, make_settings

from asyncdmtl.data.encoding import Encoding
from asyncdmtl.protocol.ledger import Ledger
from asyncdmtl.server.checkpoint import Checkpoint
from asyncdmtl.server.records import Incident, RoundRecord
from asyncdmtl.server.round_log import RoundLog

SETTINGS = make_settings()
PARTITIONS = make_partitions(2, "squared")


def make_checkpoint() -> Checkpoint:
    """A checkpoint of round 4."""
    ledger = Ledger()
    ledger.count("w0", "up", "uplink", 3, payload=7, size=19)
    ledger.count("w0", "up", "uplink", 3, payload=1, size=2)
    return Checkpoint(
        run="abc",
        settings=SETTINGS,
        strategy="relay",
        encoding=Encoding.empty(),
        declared=tuple(part.declaration() for part in PARTITIONS),
        infos=tuple(part.info(SETTINGS) for part in PARTITIONS),
        workers=("w0", "w1"),
        plans=3,
        round=4,
        over=False,
        rounds=RoundLog([RoundRecord(3, 0.5, float("inf"), 10, 20, 0.25)]),
        incidents=(Incident(2, "w1", "was lost"),),
        ledger=ledger,
        distrusted=(("w1", "p0"),),
        state=np.arange(100, dtype=np.uint8),
    )


CHECKPOINT = make_checkpoint()


def facts(checkpoint: Checkpoint) -> dict[str, object]:
    """All fields, as values that can be compared."""
    plain = {**vars(checkpoint), "ledger": checkpoint.ledger.as_list(), "state": checkpoint.state.tobytes()}
    return plain | {"kinds": checkpoint.ledger.kinds(), "bytes": checkpoint.ledger.round_bytes(3, "up")}
