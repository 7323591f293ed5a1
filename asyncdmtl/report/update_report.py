"""The predicted traffic of each kind of update under a plan."""

from __future__ import annotations

from typing import Any

from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.updates import ROUND_BYTES, cheapest, forecasts
from asyncdmtl.plan.placement_file import PlanRequest
from asyncdmtl.plan.plan import Plan

# An assumed number of rows per partition, so large that statistics are never refused.
_MANY_ROWS = 1 << 30


def predicted_updates(request: PlanRequest, plan: Plan, features: int, loss: str) -> dict[str, Any]:
    """Rounds and bytes to a relative accuracy of 1e-6, for models of float64 with an intercept.

    Parameters
    ----------
    request : PlanRequest
    plan : Plan
    features : int
        Features of each row.
    loss : str
        A name in `LOSSES`.

    Returns
    -------
    dict
        For each kind of update: `rounds`; `vector_bytes` of one vector; `up_bytes` and `down_bytes` of the
        whole run over TCP, without joining; `chosen`, whether `--update auto` would take it; and `reason`
        why it is not possible, or "".
    """
    tasks = len(set(request.tasks))
    settings = Settings(
        loss=loss,
        coupling="nuclear",
        strength=1.0,
        rounds=1,
        dtype="float64",
        intercept="free",
        update="auto",
    )
    wire = plan.wire_downlink_load
    headers = ROUND_BYTES * len(request.placement.partitions)
    made = forecasts(settings, features, _MANY_ROWS, tasks)
    chosen = cheapest(made, len(request.placement.partitions))
    return {
        each.update: {
            "rounds": each.rounds,
            "vector_bytes": each.bytes,
            "up_bytes": each.rounds * (int(plan.uplink_load * each.bytes) + headers),
            "down_bytes": each.rounds * int(wire * each.bytes),
            "chosen": each is chosen,
            "reason": each.reason,
        }
        for each in made
    }
