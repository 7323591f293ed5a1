"""Newton's steps choose λ across sites while workers or all processes are killed: real signals."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from support.sites import NAMES, Site, site

SPEC = "synthetic:tasks=3,rows=12,features=3,parts=2,test_rows=0"
ROUNDS = 16
OPTIONS = (
    "--loss=huber", "--update=newton", "--coupling=nuclear", "--strength=auto", "--folds=2", "--tolerance=0",
    f"--rounds={ROUNDS}",
)  # fmt: skip


def started(made: Site) -> None:
    """Start a run, and wait until it has made some rounds."""
    made.serve()
    for name in NAMES:
        made.work(name)
    made.event("round", round=3)


def ended(made: Site) -> dict[str, Any]:
    """Wait for the end. All models, and with them the chosen λ, are those of a run without faults."""
    report = made.end(ROUNDS, "relay", strength=None)
    assert report["settings"]["strength"] > 0.0
    return report


def test_killed_workers_that_are_started_again_take_part_in_the_choice(tmp_path: Path) -> None:
    with site(tmp_path, *OPTIONS, spec=SPEC) as made:
        started(made)
        # Only these two hold p4 and p5, so that the run waits for them.
        for name in ("b", "c"):
            os.kill(made.workers[name].pid, signal.SIGKILL)
        assert made.event("waiting")["partitions"] == ["p4", "p5"]
        for name in ("b", "c"):
            made.work(name)
        made.event("joined", again=True)
        report = ended(made)
        assert {incident["worker"] for incident in report["incidents"]} == {"b", "c"}


def test_a_choice_survives_the_end_of_all_processes(tmp_path: Path) -> None:
    with site(tmp_path, *OPTIONS, spec=SPEC) as made:
        started(made)
        for process in made.processes:
            process.kill()
            process.wait()
        made.serve("--resume")
        assert made.event("resumed")["round"] >= 0
        for name in NAMES:
            made.work(name)
        ended(made)
