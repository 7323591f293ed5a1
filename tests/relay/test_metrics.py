from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families
from support.problems import make_settings, run_options
from support.trees import grow, trees

from asyncdmtl.relay.metrics import RelayMetrics
from asyncdmtl.server.admission import REFUSED
from asyncdmtl.server.events import Joined, Listening, Refused
from asyncdmtl.server.records import RoundRecord


async def test_the_bytes_of_every_link_are_those_of_ledger_and_kernel() -> None:
    async with trees(run_options(settings=make_settings(rounds=9), workers=5)) as (cluster, tree):
        await grow(tree)
        relay = tree.relays["north"]
        metrics = RelayMetrics(relay)
        before = metrics.ready
        await cluster.event(RoundRecord, round=2)
        assert metrics.progress() == {"run": None, "relay": "north", "workers": ["a", "b"]}
        for event in (
            Listening("r1", "127.0.0.1", 1),
            Joined("a", 2),
            Joined("b", 2, True),
            Refused("x", "no"),
        ):
            metrics.note(event)
        await cluster.server
        await tree.tasks["north"]
    relay.below.count(REFUSED, "up", "hello", None, payload=0, size=30)
    relay.below.count(REFUSED, "down", "failure", None, payload=0, size=40)
    assert (before, metrics.ready) == (False, True)
    samples = {
        # In the order of the labels' names.
        (sample.name, *dict(sorted(sample.labels.items())).values()): sample.value
        for family in text_string_to_metric_families(metrics.exposition().decode())
        for sample in family.samples
    }
    counts = [samples[f"asyncdmtl_{name}_total",] for name in ("joined", "reconnects", "refused")]
    assert counts == [2, 1, 1]
    for level, ledger in (("above", relay.up), ("below", relay.below)):
        for node, told in ledger.workers().items():
            key = "asyncdmtl_link_bytes_total"
            sums = [
                samples[key, way, level, node, "payload"] + samples[key, way, level, node, "framing"]
                for way in ("up", "down")
            ]
            assert sums == list(told)
    # Names under which the ledger counts other bytes are not those of nodes.
    present = {key[1]: value for key, value in samples.items() if key[0] == "asyncdmtl_worker_up"}
    assert present == {"a": 0.0, "b": 0.0}
    # The kernel counts the same on each link.
    sent, received = relay.up.workers()["north"]
    if above := relay.kernel.get("north"):
        assert (above.sent_bytes - above.retransmitted_bytes, above.received_bytes) == (sent, received)
        for node in ("a", "b"):
            count = relay.kernel[node]
            taken, given = relay.below.workers()[node]
            assert (count.received_bytes, count.sent_bytes - count.retransmitted_bytes) == (taken, given)
