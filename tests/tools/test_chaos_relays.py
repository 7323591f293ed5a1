from __future__ import annotations

from chaos_relays import ROUNDS, draw


def test_every_relay_has_a_worker_and_some_relay_is_hit() -> None:
    for seed in range(50):
        tree = draw(seed)
        assert all(tree.behind(relay) >= 1 for relay in tree.relays)
        top = [name for name, parent in tree.parents.items() if not parent]
        behind = sum(tree.behind(name) if name in tree.relays else 1 for name in top)
        assert behind == len(tree.placement.workers)
        assert {fault.node for fault in tree.faults} & set(tree.relays)
        assert all(fault.round < ROUNDS for fault in tree.faults)
        assert draw(seed) == tree
