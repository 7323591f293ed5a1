"""The outcome of a training that solved its problem, with the results of cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.choosing import Selection
from asyncdmtl.learning.settings import Settings


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcome of a training that solved its problem, by statistics or by steps of second order.

    Attributes
    ----------
    coupling, strength : str, float
        The coupling and the λ of the models, as given or as chosen.
    objective, gap : float
        The objective at the models, and a bound of its distance from the minimum.
    selections : mapping of coupling to Selection
        The results of cross-validation; empty if there was nothing to choose.
    """

    coupling: str
    strength: float
    objective: float
    gap: float
    selections: Mapping[str, Selection] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and msgpack; `from_dict` reads them."""
        return {
            "coupling": self.coupling,
            "strength": self.strength,
            "objective": self.objective,
            "gap": self.gap,
            "selections": {
                name: {"strengths": found.strengths.tolist(), "losses": found.losses.tolist()}
                for name, found in self.selections.items()
            },
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Outcome:
        """Read what `as_dict` returned.

        Raises
        ------
        UsageError
            The content is malformed.
        """
        try:
            strength, objective, gap = (float(content[name]) for name in ("strength", "objective", "gap"))
            selections = {str(name): _selection(found) for name, found in content["selections"].items()}
            return cls(str(content["coupling"]), strength, objective, gap, selections)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError("outcome", "must be what a trainer told", content) from error


def settled(settings: Settings, outcome: Outcome | None) -> Settings:
    """The settings of a run, with the coupling and the λ that were chosen in it."""
    if outcome is None or not settings.chooses:
        return settings
    return replace(settings, coupling=outcome.coupling, strength=outcome.strength)


def _selection(content: Mapping[str, Any]) -> Selection:
    strengths = np.array(content["strengths"], dtype=np.float64)
    losses: Floats = np.array(content["losses"], dtype=np.float64)
    if strengths.ndim != 1 or losses.ndim != 2 or len(losses) != len(strengths) or not losses.size:
        raise ValueError("a selection has losses for every strength and fold")
    made = Selection(0.0, strengths, losses)
    return Selection(float(strengths[int(np.argmin(made.means))]), strengths, losses)
