"""A run's report as a page for browsers: the dashboard of the finished run, in one file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from asyncdmtl.errors import UsageError
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.report.json_output import finite
from asyncdmtl.report.run_report import Report
from asyncdmtl.server.dashboard import MOST_NOTES, MOST_POINTS, page


def write_page(report: Report, path: Path) -> None:
    """Write the page of a report.

    Raises
    ------
    UsageError
        The file cannot be written.
    """
    try:
        path.write_text(page(finite(page_state(report))), encoding="utf-8")
    except OSError as error:
        raise UsageError("--html", f"must be writable ({error.strerror})", str(path)) from error


def page_state(report: Report) -> Report:
    """The state that the dashboard shows at the end of the run."""
    made = report["rounds"]
    last: Report = made[-1] if made else {"round": -1, "objective": None, "residual": None, "seconds": None}
    step = -(-len(made) // MOST_POINTS) or 1
    sums: Counter[tuple[str, str]] = Counter()
    for entry in report["ledger"]:
        sums[entry["worker"], entry["direction"]] += entry["payload_bytes"] + entry["framing_bytes"]
    stored = report["placement"]
    names = sorted({*stored, *(worker for worker, _ in sums)}, key=natural_key)
    up, down = report["uplink"], report["downlink_broadcast"]
    return {
        "run": report["run"],
        "phase": "finished",
        "rounds": report["training"]["max_rounds"],
        "round": last["round"] + 1,
        "objective": last["objective"],
        "residual": last["residual"],
        "round_seconds": last["seconds"],
        "seconds": report["seconds"],
        "curve": [
            (entry["round"], entry["objective"], entry["seconds"])
            for entry in made[::step]
            if entry["objective"] is not None
        ],
        "plan": {
            "strategy": report["strategy"],
            "subpackets": report["vector"]["subpackets"],
            "network": "",
            "uplink_load": up["load"],
            "uplink_bound": up["bound"],
            "uncoded_uplink_load": up["uncoded_load"],
            "downlink_load": down["load"],
            "downlink_bound": down["bound"],
            "uncoded_downlink_load": down["uncoded_load"],
        },
        "workers": [
            {
                "name": name,
                "partitions": len(stored.get(name, ())),
                "state": "present" if name in stored else "lost",
                "up": sums[name, "up"],
                "down": sums[name, "down"],
            }
            for name in names
        ],
        "notes": [
            {"round": incident["round"], "worker": incident["worker"], "text": incident["reason"]}
            for incident in report["incidents"][-MOST_NOTES:]
        ],
    }
