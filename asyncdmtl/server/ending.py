"""The end of a run as a checkpoint keeps it: what the workers reported, and which workers there were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from asyncdmtl.learning.metric_sums import MetricSums, sums_from
from asyncdmtl.learning.outcome import Outcome


@dataclass(frozen=True, eq=False)
class Ending:
    """The end of a run, after which its workers may be gone.

    Attributes
    ----------
    check : bytes
        The check of the final state of the training; empty if the server has the state itself.
    outcome : Outcome or None
    critical_strength : float or None
    tests : mapping of partition to MetricSums
        The workers' reports, as in `TrainingProgress`.
    workers : mapping of worker to (partitions, wants)
        The workers under the last plan, with the partitions that each stores and the models that it wants, as
        in `Member`.
    """

    check: bytes
    outcome: Outcome | None
    critical_strength: float | None
    tests: Mapping[str, MetricSums]
    workers: Mapping[str, tuple[tuple[str, ...], str]]

    def pack(self) -> dict[str, Any]:
        """Plain types, for msgpack; `unpack` reads them."""
        return {
            "check": self.check,
            "outcome": None if self.outcome is None else self.outcome.as_dict(),
            "critical_strength": self.critical_strength,
            "tests": {name: sums.as_list() for name, sums in self.tests.items()},
            "workers": dict(self.workers),
        }

    @classmethod
    def unpack(cls, facts: Mapping[str, Any], loss: str) -> Ending:
        """Read the result of `pack` of a run with this loss.

        Raises
        ------
        KeyError, TypeError, ValueError, UsageError
            The content is malformed.
        """
        outcome, critical, check = facts["outcome"], facts["critical_strength"], facts["check"]
        if type(check) is not bytes:
            raise TypeError("the check must be bytes")
        return cls(
            check,
            None if outcome is None else Outcome.from_dict(outcome),
            None if critical is None else float(critical),
            {str(name): sums_from(loss, sums) for name, sums in facts["tests"].items()},
            {
                str(name): (tuple(map(str, held)), str(what))
                for name, (held, what) in facts["workers"].items()
            },
        )
