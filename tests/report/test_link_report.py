"""Runs over links of different speeds and prices, and what their reports say."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import pytest
from support.clusters import run_cluster
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.learning.training import train
from asyncdmtl.net.kernel import KernelCount
from asyncdmtl.plan.links import Links
from asyncdmtl.plan.placement import Placement
from asyncdmtl.report.link_report import late_words, link_words, speed_words, wire_shares
from asyncdmtl.report.run_report import report_run
from asyncdmtl.report.run_tables import show_run

PARTITIONS = make_partitions(6, "squared", features=999)
PLACEMENT = Placement.cyclic(5, 6, 3)
STORED = {
    worker: [f"p{n}" for n in stored]
    for worker, stored in zip(PLACEMENT.workers, PLACEMENT.stored, strict=True)
}
SPEEDS = dict(zip(PLACEMENT.workers, map(Fraction, (10, 20, 50, 100, 100)), strict=True))


async def a_report(strategy: str, links: Links, silent: int = 0) -> dict[str, Any]:
    """The report of a run whose models are those of its twin."""
    options = run_options(settings=make_settings(), strategy=strategy, workers=5, links=links, silent=silent)
    record, models = await run_cluster(options, Placement(STORED), PARTITIONS)
    twin = train(PARTITIONS, options.settings).models
    assert all(own.coef_.tobytes() == twin.coef_.tobytes() for own in models)
    return report_run(record)


async def test_a_run_follows_the_speeds_of_its_links(capsys: pytest.CaptureFixture[str]) -> None:
    report = await a_report(
        "auto", Links(speeds=SPEEDS, down_speeds={"w4": Fraction(40)}, server=Fraction(250))
    )
    assert report["strategy"] == "relay"
    links = report["links"]
    assert links["kind"] == "time"
    assert links["speeds"] == {name: str(speed) for name, speed in SPEEDS.items()}
    assert links["down_speeds"] == links["speeds"] | {"w4": "40"}
    assert 0.0 < links["bound"] <= links["uplink"] <= 1.01 * links["bound"]
    # Vectors of so few numbers travel in one range; w0 lacks more than others can send in that time.
    assert links["slowest"] == "w0"
    assert links["rows"] == pytest.approx(links["uplink"] + links["downlink"])
    assert links["uplink"] < links["planned"] <= 1.05 * links["rows"] + links["computing"]
    # Segments on the loopback are long.
    assert 0.99 < links["payload_share"] < 1.0
    assert links["server_speed"] == "250"
    assert links["measured"] > 0.0
    assert all(0.0 < entry["uplink_seconds"] <= entry["seconds"] for entry in report["rounds"])
    show_run(report)
    shown = " ".join(capsys.readouterr().out.split())
    assert "By the speeds of the links, rows take" in shown
    assert "s down to w0," in shown
    assert "s of computing, a round takes" in shown


async def test_a_worker_that_is_dear_sends_nothing_that_others_can_send() -> None:
    report = await a_report(
        "central", Links(prices={name: Fraction(1) for name in PLACEMENT.workers} | {"w0": Fraction(9)})
    )
    assert report["links"]["planned"] == report["links"]["bound"]
    assert "no rates cost less" in link_words(report["links"])
    sent = {
        entry["worker"]: entry["payload_bytes"] for entry in report["ledger"] if entry["kind"] == "uplink"
    }
    assert sent["w0"] == 0 < sent["w1"]


@pytest.mark.parametrize("strategy", ["central", "relay"])
async def test_rows_that_tolerate_late_workers_cost_the_least(strategy: str) -> None:
    prices = {name: Fraction(1) for name in PLACEMENT.workers} | {"w0": Fraction(9)}
    report = await a_report(strategy, Links(prices=prices), silent=1)
    # The bound that a run may exceed by a twentieth, for few packets.
    planned, bound = (float(Fraction(report["links"][key])) for key in ("planned", "bound"))
    assert 0.0 < bound <= planned <= 1.05 * bound


async def test_without_tables_nothing_is_said_of_links() -> None:
    assert (await a_report("relay", Links()))["links"] is None


async def test_measured_speeds_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    report = await a_report("auto", Links(learned=True))
    assert report["strategy"] == "relay"
    assert set(report["speeds"]) == set(PLACEMENT.workers)
    assert all(speed["computing"] > 0.0 for speed in report["speeds"].values())
    show_run(report)
    assert "Measured in a round, links in Mbit/s:" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("links", "share"),
    [
        (Links(speeds=SPEEDS), 1448 / 1514),
        (Links(speeds=SPEEDS, learned=True), 1.0),
        (Links(prices=SPEEDS), 1.0),
    ],
)
def test_headers_take_their_share_of_the_speeds_of_links_that_are_given(links: Links, share: float) -> None:
    counts = {"w0": KernelCount(1, 1, 0, 1, 1, 9000), "w1": KernelCount(1, 1, 0, 1, 1, 1448)}
    record: Any = SimpleNamespace(links=links, kernel=counts)
    assert wire_shares(record) == pytest.approx((share, (1 - share) / 4))
    record.kernel = {}
    assert wire_shares(record) == (1.0, 0.0)


def test_speeds_and_lateness_are_told_in_words() -> None:
    speeds = {"w0": {"computing": 0.25, "up": 9.5, "down": 98.0}}
    assert speed_words(speeds) == (
        "Measured in a round, links in Mbit/s: w0 computes 0.25 s, link 9.5 up, 98 down."
    )
    unknown = {"w0": {"computing": 0.25, "up": 0.0, "down": 98.0}}
    assert "link not known up, 98 down." in speed_words(unknown)
    late = {
        "w1": {"rounds": 3, "ignored_bytes": 70, "states": 2},
        "w2": {"rounds": 1, "ignored_bytes": 0, "states": 0},
    }
    assert late_words(late, 9) == (
        "Rounds went on without late workers: w1 in 3 of 9 (70 bytes came too late, caught up by a state "
        "2 times); w2 in 1 of 9 (0 bytes came too late)."
    )
