"""The outcome of a training that solved its problem, with the results of cross-validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from asyncdmtl.arrays import Floats
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.settings import Choice, Settings
from asyncdmtl.learning.statistics_selection import MAX_STRENGTHS, Selection


@dataclass(frozen=True, eq=False)
class Outcome:
    """The outcome of a training that solved its problem, by statistics or by steps of second order.

    Attributes
    ----------
    coupling, strength, intercept : str, float, str
        The coupling, the λ and the kind of intercept of the models, as given or as chosen.
    objective, gap : float
        The objective at the models, and a bound of its distance from the minimum.
    selections : mapping of str to Selection
        The results of cross-validation by `Settings.name_of`; empty if there was nothing to choose.
    """

    coupling: str
    strength: float
    objective: float
    gap: float
    selections: Mapping[str, Selection] = field(default_factory=dict)
    intercept: str = "free"

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for JSON and msgpack; `from_dict` reads them."""
        return {
            "coupling": self.coupling,
            "strength": self.strength,
            "intercept": self.intercept,
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
            words = str(content["coupling"]), str(content["intercept"])
            return cls(words[0], strength, objective, gap, selections, words[1])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError("outcome", "must be what a trainer told", content) from error

    def checked(self, settings: Settings) -> Outcome:
        """This outcome; UsageError if it cannot be that of a run with these settings."""
        names = [settings.name_of(choice) for choice in settings.choices]
        chosen = Choice(self.coupling, self.intercept)
        if chosen not in settings.choices or not set(self.selections) <= set(names):
            told = [*chosen, *self.selections]
            raise UsageError("outcome", f"must be of a choice among {', '.join(names)}", told)
        numbers = [self.strength, self.objective, self.gap]
        if not all(map(math.isfinite, numbers)) or self.strength < 0.0:
            raise UsageError("outcome", "must have finite numbers, and a strength of at least 0", numbers)
        return self


def outcome_numbers(settings: Settings) -> int:
    """The number of numbers in the result of `packed`."""
    return 5 + (len(settings.choices) * (1 + MAX_STRENGTHS * (1 + settings.folds)) if settings.chooses else 0)


def packed(outcome: Outcome | None, settings: Settings) -> Floats:
    """The outcome of a run as a vector (outcome_numbers,), which `unpacked` reads; zeros if there is none."""
    numbers = np.zeros(outcome_numbers(settings))
    if outcome is None:
        return numbers
    choices = settings.choices
    index = choices.index(Choice(outcome.coupling, outcome.intercept))
    numbers[:5] = 1.0, index, outcome.strength, outcome.objective, outcome.gap
    if settings.chooses:
        for choice, block in zip(choices, numbers[5:].reshape(len(choices), -1), strict=True):
            if (found := outcome.selections.get(settings.name_of(choice))) is not None:
                count = len(found.strengths)
                block[0], block[1 : 1 + count] = count, found.strengths
                losses = block[1 + MAX_STRENGTHS :].reshape(MAX_STRENGTHS, -1)
                losses[:count] = found.losses
    return numbers


def unpacked(numbers: Floats, settings: Settings) -> Outcome | None:
    """Read an outcome from the result of `packed`.

    Raises
    ------
    UsageError
        The vector is no such result.
    """
    choices = settings.choices
    known, index, strength, objective, gap = numbers[:5].tolist()
    if not known and not numbers.any():
        return None
    selections = {}
    sound = (
        known == 1.0 and index in range(len(choices)) and all(map(math.isfinite, (strength, objective, gap)))
    )
    if sound and settings.chooses:
        for choice, block in zip(choices, numbers[5:].reshape(len(choices), -1), strict=True):
            if block[0] not in range(MAX_STRENGTHS + 1):
                sound = False
            elif count := int(block[0]):
                losses = block[1 + MAX_STRENGTHS :].reshape(MAX_STRENGTHS, -1)[:count]
                sound = sound and not np.isnan(losses[0]).all() and not np.isinf(losses).any()
                selections[settings.name_of(choice)] = _selection(
                    {"strengths": block[1 : 1 + count], "losses": losses}
                )
    if not sound or strength < 0.0:
        raise UsageError("state", "must hold what came of the training", numbers[:5].tolist())
    chosen = choices[int(index)]
    return Outcome(chosen.coupling, strength, objective, gap, selections, chosen.intercept)


def zero_words(strength: float, critical: float | None) -> str:
    """Sentences about models whose coefficients are all 0, with the λ from which on they are, if known."""
    words = "All coefficients are 0, so that the model of a task predicts the same for every row."
    if not critical or strength < critical * (1.0 - 1e-6):
        return words
    return f"{words} The critical strength, at which this begins, is λ = {critical:.4g}: give a smaller λ."


def settled(settings: Settings, outcome: Outcome | None) -> Settings:
    """The settings of a run, with the coupling, the λ and the intercept that were chosen in it."""
    if outcome is None or not settings.chooses:
        return settings
    return replace(
        settings, coupling=outcome.coupling, strength=outcome.strength, intercept=outcome.intercept
    )


def _selection(content: Mapping[str, Any]) -> Selection:
    strengths = np.array(content["strengths"], dtype=np.float64)
    losses: Floats = np.array(content["losses"], dtype=np.float64)
    if strengths.ndim != 1 or losses.ndim != 2 or len(losses) != len(strengths) or not losses.size:
        raise ValueError("a selection has losses for every strength and fold")
    made = Selection(0.0, strengths, losses)
    return Selection(float(strengths[int(np.argmin(made.means))]), strengths, losses)
