"""The end of a run of `tools/chaos.py`, and the check whether a run may end like that."""

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
    """A run did what no run may do."""


@dataclass
class Outcome:
    """How a run ended, and what it took.

    `ending` is "done" or "partitions lost"; `faults` counts those that happened, by kind; `again` rounds that
    were made again, `plans` the plans; `returns` the workers that had ended with an error and were started
    again, by error; `lulls` seconds from each fault to the first round that was made under a new plan.
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


def check_rounds(report: Mapping[str, Any], reached: int, twin: Trained) -> int:
    """The number of rounds of a run; ChaosError unless they are those of the twin.

    Of rounds that a server made just before it was killed, the next one only knows that they were: it planned
    for the one after round `reached`.
    """
    last: int = max([reached, *(entry["round"] for entry in report["rounds"])])
    if last != len(twin.objectives) - 1:
        raise ChaosError(f"the last round is {last}, not {len(twin.objectives) - 1}")
    for entry in report["rounds"]:
        if entry["objective"] != twin.objectives[entry["round"]]:
            raise ChaosError(f"the objective is not that of the twin: {entry}")
    return last + 1


def without_names(error: str) -> str:
    """An error's first words, which do not depend on ports and names."""
    return " ".join("…" if any(c.isdigit() or c == "'" for c in w) else w for w in error.split())[:90]


def issue_certificate(folder: Path) -> None:
    """A certificate for the loopback."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "server.pem")
    (folder / "server.key").touch(mode=0o600)
    issued.private_key_pem.write_to_path(folder / "server.key")
