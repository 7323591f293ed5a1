from __future__ import annotations

from pathlib import Path

from support.problems import make_settings, run_options
from support.trees import SITES, grow, trees

from asyncdmtl.server.records import RoundRecord


async def test_relays_follow_new_plans_and_give_states(tmp_path: Path) -> None:
    options = run_options(
        settings=make_settings(rounds=9), workers=5, checkpoint=tmp_path / "c", checkpoint_every=2
    )
    async with trees(options) as (cluster, tree):
        await grow(tree)
        await cluster.event(RoundRecord, round=3)
        # The worker that has no relay comes back without a state, which some relay's worker gives.
        await tree.stop("e")
        tree.worker("e")
        record = await cluster.server
        models = [await tree.tasks[name] for name in SITES]
    assert len({each.coef_.tobytes() for each in models}) == 1
    kinds = record.ledger.kinds()
    # Members give the state of the training for checkpoints: every second round but the last one.
    assert kinds["up", "snapshot"][0] >= 3
    assert kinds["down", "restore"][0] >= 1
