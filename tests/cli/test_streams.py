from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.clusters import run_cluster
from support.problems import make_partitions, make_settings, run_options

from asyncdmtl.cli.streams import OutcomePrinter
from asyncdmtl.errors import DataError
from asyncdmtl.plan.placement import Placement
from asyncdmtl.server.jobs import Job, JobOutcome

OPTIONS = run_options(settings=make_settings(rounds=2), workers=3)


@pytest.mark.parametrize("format", ["text", "json"])
async def test_each_job_has_its_report(
    format: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record, _ = await run_cluster(OPTIONS, Placement.cyclic(3, 6, 2), make_partitions(6, "squared"))
    printer = OutcomePrinter(format, tmp_path / "report.json")
    printer.note(JobOutcome(Job("good", OPTIONS), record))
    printer.finish()
    printer.note(JobOutcome(Job("bad", OPTIONS), None, DataError("rows", "must be there", 0)))
    shown = capsys.readouterr().out
    if format == "json":
        events = [json.loads(line) for line in shown.splitlines()]
        told = [(event["event"], event["job"]) for event in events]
        assert told == [("finished", "good"), ("failed", "bad")]
        assert events[0]["report"]["run"] == record.run
    else:
        assert shown.startswith("job good:\n")
        assert "job bad: failed: rows must be there, got 0\n" in shown
    written = json.loads((tmp_path / "report.json").read_text())["jobs"]
    assert [(entry["job"], "report" in entry) for entry in written] == [("good", True), ("bad", False)]
    with pytest.raises(Exception, match=r"1 of 2 jobs failed \(bad\); the first: rows must be there") as end:
        printer.finish()
    assert getattr(end.value, "exit_code", None) == DataError.exit_code
    # Jobs of other programs are theirs to judge.
    printer.finish({"good"})
