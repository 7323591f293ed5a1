"""The outcome of a run of `tools/chaos.py`, and the check whether it is allowed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trustme

from asyncdmtl.data.model_file import SavedModel
from asyncdmtl.learning.training import Trained


class ChaosError(Exception):
    """A run broke a rule: a bug."""


@dataclass
class Outcome:
    """The outcome of a run, and the cost of its faults.

    `ending` is "done" or "partitions lost". `faults` counts the faults that happened, by kind, `again` the
    rounds that were made again, and `plans` the plans. `returns` counts, by error, the workers that had
    failed and were started again. `lulls` has the seconds from each fault to the first round under a new
    plan.
    """

    ending: str = ""
    seconds: float = 0.0
    rounds: int = 0
    plans: int = 0
    again: int = 0
    sockets: int = 0
    memory: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    returns: Counter[str] = field(default_factory=Counter)
    orphans: int = 0
    lulls: list[float] = field(default_factory=list)


def check_models(folder: Path, strategy: str, twin: Trained) -> None:
    """Raise ChaosError unless all model files in a folder hold the models of the twin, bit for bit."""
    for path in folder.glob("*.model"):
        models = SavedModel.load(path).models
        if strategy != "personal" and models.tasks != twin.models.tasks:
            raise ChaosError(f"{path.stem} has models of {models.tasks} only")
        expected = twin.models.of([twin.models.tasks.index(task) for task in models.tasks])
        pairs = (models.coef_, expected.coef_), (models.intercept_, expected.intercept_)
        if any(found.tobytes() != due.tobytes() for found, due in pairs):
            raise ChaosError(f"{path.stem} ended with other models than the twin")


def check_rounds(report: Mapping[str, Any], reached: int, twin: Trained, *, blind: bool = False) -> int:
    """The number of rounds of a run; ChaosError if the rounds differ from those of the twin.

    The report of a blind server has no objectives.

    If a server is killed just after it made rounds, its successor has no records of them, but plans for the
    round after `reached`.
    """
    last: int = max([reached, *(entry["round"] for entry in report["rounds"])])
    if last != len(twin.objectives) - 1:
        raise ChaosError(f"the last round is {last}, not {len(twin.objectives) - 1}")
    if blind:
        return last + 1
    for entry in report["rounds"]:
        if entry["objective"] != twin.objectives[entry["round"]]:
            raise ChaosError(f"the objective is not that of the twin: {entry}")
    told = report["training"]["objective"]
    if twin.outcome is not None and told != twin.outcome.objective:
        raise ChaosError(f"the solution's objective is {told}, not {twin.outcome.objective}")
    return last + 1


def without_names(error: str) -> str:
    """The first words of an error, without ports and names."""
    return " ".join("…" if any(c.isdigit() or c == "'" for c in w) else w for w in error.split())[:90]


def issue_certificate(folder: Path) -> None:
    """A certificate for the loopback."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
    (folder / "server.key").touch(mode=0o600)
    issued.private_key_pem.write_to_path(folder / "server.key")
