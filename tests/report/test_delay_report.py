from __future__ import annotations

from pathlib import Path

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.delay.queueing import Stream
from asyncdmtl.plan.placement_file import PlanRequest, read_request
from asyncdmtl.report import delay_report
from asyncdmtl.report.console import make_console
from asyncdmtl.report.delay_report import delay_table, predicted_delays


def asked(folder: Path, speeds: str = "speeds = {w0 = 1, w1 = 2, w2 = 4}", copies: int = 2) -> PlanRequest:
    stored = [[f"p{(k + i) % 3}" for i in range(copies)] for k in range(3)]
    workers = ", ".join(f"w{k} = {held}" for k, held in enumerate(stored))
    file = folder / "placement.toml"
    file.write_text(f"workers = {{{workers}}}\n{speeds}\n")
    return read_request(file)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_report, "MOST_JOBS", 2000)


def test_shares_by_speed_are_between_the_ideal_and_equal_shares(tmp_path: Path) -> None:
    rows = predicted_delays(asked(tmp_path), Stream(0.3))["splits"]
    assert rows["ideal"]["delay"] < rows["speeds"]["delay"] < rows["uniform"]["delay"]
    for name in ("uniform", "speeds"):
        row = rows[name]
        assert row["at_least"] < 1.05 * row["together"] < 1.1 * row["delay"]
    assert rows["silent"]["waits_for"] == 2


@pytest.mark.parametrize("variation", [0.0, 1.0])
def test_a_silent_worker_pays_where_times_vary(tmp_path: Path, variation: float) -> None:
    request = asked(tmp_path, "speeds = {w0 = 1, w1 = 1, w2 = 1}")
    rows = predicted_delays(request, Stream(0.1, variation=variation))["splits"]
    assert (rows["silent"]["round"] < rows["speeds"]["round"]) == (variation == 1.0)


def test_nothing_travels_where_every_worker_has_everything(tmp_path: Path) -> None:
    rows = predicted_delays(asked(tmp_path, copies=3), Stream(1.0))["splits"]
    assert rows["speeds"]["delay"] == rows["speeds"]["together"] == 0.0


def test_jobs_that_come_too_fast_wait_without_end(tmp_path: Path) -> None:
    report = predicted_delays(asked(tmp_path), Stream(5.0))
    assert report["splits"]["uniform"]["delay"] is None
    assert report["splits"]["uniform"]["together"] is None
    console = make_console()
    with console.capture() as shown:
        console.print(delay_table(report))
    assert "endless" in shown.get()
    assert "shares by speed" in shown.get()


def test_a_single_copy_permits_no_silence_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert "silent" not in predicted_delays(asked(tmp_path, copies=1), Stream(0.1))["splits"]


def test_speeds_are_needed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--arrivals needs a table speeds"):
        predicted_delays(asked(tmp_path, ""), Stream(0.1))
