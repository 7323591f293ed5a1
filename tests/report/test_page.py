from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.reports import full_report

from asyncdmtl.errors import UsageError
from asyncdmtl.report.page import page_state, write_page

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    made = full_report()
    made["incidents"] = [{"round": 3, "worker": "w7", "reason": "it was lost <b>"}]
    return made


def test_the_state_at_the_end(report: dict[str, Any]) -> None:
    state = page_state(report)
    assert (state["phase"], state["round"], state["rounds"]) == ("finished", 30, 30)
    assert len(state["curve"]) == 30
    assert [worker["name"] for worker in state["workers"]] == ["w0", "w1", "w2"]
    assert sum(worker["up"] for worker in state["workers"]) >= report["uplink"]["payload_bytes"]
    json.dumps(state, allow_nan=False)


def test_a_page_that_cannot_be_written_is_named(report: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--html must be writable"):
        write_page(report, tmp_path / "no" / "page.html")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [1300, 400])
def test_a_browser_shows_the_page(report: dict[str, Any], tmp_path: Path, width: int) -> None:
    assert CHROMIUM is not None
    write_page(report, tmp_path / "page.html")
    shown = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
            f"--user-data-dir={tmp_path}/profile", "--dump-dom", f"file://{tmp_path}/page.html",
        ],
        capture_output=True, text=True, check=True, timeout=90,
    ).stdout  # fmt: skip
    assert "30 of 30" in shown
    assert "round 3, w7: it was lost &lt;b&gt;" in shown
    assert shown.count('class="present"') == 3
    assert '<path d="M' in shown
