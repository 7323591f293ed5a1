"""The settings of a run: loss, coupling, rounds and the rest, equal at the server and at every worker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from asyncdmtl.arithmetic.kinds import ARITHMETICS
from asyncdmtl.errors import UsageError
from asyncdmtl.learning.aggregation import AGGREGATES
from asyncdmtl.learning.compression import COMPRESSIONS
from asyncdmtl.learning.couplings.graphs import Edge
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.plan.codes.matrices import ENTRIES

DTYPES = ("float32", "float64")
"""Number formats of models and updates."""

INTERCEPTS = ("free", "penalised", "none")
"""Kinds of intercepts."""

UPDATES = ("auto", "statistics", "newton", "quasi-newton", "gradient", "model")
"""Kinds of local updates."""

AUTO = "auto"
"""The word in place of a coupling, and of a kind of intercept, that lets cross-validation choose."""

SINGLE_TASK, POOLED = ("ridge", "none"), ("mean",)
"""The couplings that tie no tasks, and those with one model for all."""

WITHOUT_STRENGTH = ("none", "mean")
"""The couplings on which λ has no effect."""

AUTO_COUPLINGS = ("nuclear", "mean-regularised", "l21", "covariance", *SINGLE_TASK, *POOLED)
"""The couplings among which cross-validation chooses, with a free intercept, and the best of them with a
penalised one."""

FEW_COUPLINGS = ("nuclear", "mean-regularised", "ridge")
"""The couplings among which it chooses by fits, and by steps where vectors of all would be too long."""


class Choice(NamedTuple):
    """A coupling, and a kind of intercept that is a name in `INTERCEPTS`."""

    coupling: str
    intercept: str


@dataclass(frozen=True)
class Settings:
    """The training of a run.

    Attributes
    ----------
    loss, aggregate, coupling : str
        Names in `LOSSES`, `AGGREGATES` and `COUPLINGS`. Poisson loss needs updates "newton" or "auto". The
        coupling may be "auto": cross-validation chooses one of `AUTO_COUPLINGS`, or of `FEW_COUPLINGS`.
    strength : float or None
        λ, at least 0. With None, cross-validation across the sites that hold the rows chooses it.
    edges : tuple of (task, task, weight)
        The edges of the graph of tasks, for the coupling "graph" only.
    rounds : int
        The most rounds.
    tolerance : float
        The run ends when the objective exceeds its minimum by at most this fraction, as `Trainer.residual`
        estimates, or when the models no longer change in their dtype. With aggregates other than the mean,
        it ends that near to a fixed point of the rounds, which is not the minimum. With 0, all rounds are
        made.
    update : str
        The update of a partition: its "statistics", once for the whole run; loss, gradient and curvature at
        the current models, for steps of Newton's method ("newton"); loss and gradient, from which the
        curvature is estimated ("quasi-newton"); the "gradient" alone; or first the "model" of local epochs,
        and then what is told for "newton" (`updates.why_no_curvature_after_local_models`). "auto" is the kind
        of the first four that costs least, in bytes and rounds (`updates.resolve`).
    epochs : int
        Local epochs of the first round, for updates "model".
    learner : str
        The learner of these epochs (`learners.make_learner`); "" is gradient descent on the partition.
    accelerated : bool
        Whether updates are computed ahead of the models (FISTA with restart); for updates "gradient" only.
    dtype : str
        The number format of models and updates, one of `DTYPES`.
    intercept : str
        "free" (not coupled and not penalised), "penalised" like a feature that is always 1, or "none". It may
        be "auto" if the coupling is: cross-validation then chooses free or penalised, too.
    standardise : bool
        Whether columns of files are scaled to mean 0 and standard deviation 1 over all partitions, and a
        target that is a number is shifted to mean 0 if there is an intercept.
    seed : int
        The seed of the data, and of learners and compressions that draw random numbers.
    compression : str
        The format in which updates travel, a name in `COMPRESSIONS`; only where workers aggregate.
    arithmetic : str
        "reproducible" for the same bits on every machine, or "fast" for singular values by LAPACK: then all
        machines must have the same NumPy, BLAS and kind of CPU.
    folds : int
        The folds of cross-validation, at least 2.
    least_rows : int
        Statistics of fewer rows than this are never sent, for a partition or for a fold of it.
    test_fraction : float
        The share of the rows of each partition, from 0 to below 1, that its holders hold out for tests.
    matrices : str
        How entries of coding matrices are drawn, a name in `plan.codes.matrices.ENTRIES`.

    Raises
    ------
    UsageError
        Names the setting that breaks a rule.
    """

    loss: str
    coupling: str
    strength: float | None
    rounds: int
    aggregate: str = "mean"
    edges: tuple[Edge, ...] = ()
    tolerance: float = 0.0
    update: str = "gradient"
    epochs: int = 1
    learner: str = ""
    accelerated: bool = True
    dtype: str = "float32"
    intercept: str = "free"
    standardise: bool = False
    seed: int = 0
    compression: str = "none"
    arithmetic: str = "reproducible"
    folds: int = 5
    least_rows: int = 1
    test_fraction: float = 0.0
    matrices: str = "random"

    def __post_init__(self) -> None:
        choices = {
            "loss": LOSSES, "aggregate": AGGREGATES, "coupling": (*COUPLINGS, AUTO), "dtype": DTYPES,
            "intercept": (*INTERCEPTS, AUTO), "update": UPDATES, "compression": COMPRESSIONS,
            "arithmetic": ARITHMETICS, "matrices": ENTRIES,
        }  # fmt: skip
        for name, known in choices.items():
            if getattr(self, name) not in tuple(known):
                raise UsageError(name, f"must be one of {', '.join(known)}", getattr(self, name))
        for name in ("strength", "tolerance", "test_fraction"):
            value = getattr(self, name)
            if name == "strength" and value is None:
                continue
            if not _is_number(value) or not 0.0 <= value < math.inf:
                raise UsageError(name, "must be a finite number, at least 0", value)
            object.__setattr__(self, name, float(value))
        for name, least in (("rounds", 1), ("epochs", 1), ("seed", 0), ("folds", 2), ("least_rows", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(name, f"must be a whole number, at least {least}", value)
            if value > 2**53:
                raise UsageError(name, "must be at most 2**53", value)
        if self.test_fraction >= 1.0:
            raise UsageError("test_fraction", "must be at least 0 and below 1", self.test_fraction)
        for name in ("accelerated", "standardise"):
            if not isinstance(getattr(self, name), bool):
                raise UsageError(name, "must be true or false", getattr(self, name))
        if not isinstance(self.learner, str):
            raise UsageError("learner", "must be text", self.learner)
        object.__setattr__(self, "edges", _edges(self.edges))
        self._check_together()

    @property
    def chooses(self) -> bool:
        """Whether cross-validation is part of the run."""
        return self.strength is None

    @property
    def has_intercept(self) -> bool:
        """Whether models have an intercept, penalised or not."""
        return self.intercept != "none"

    @property
    def choices(self) -> tuple[Choice, ...]:
        """What cross-validation may choose among: a single choice, unless the coupling is "auto"."""
        couplings = AUTO_COUPLINGS if self.coupling == AUTO else (self.coupling,)
        intercepts = ("free", "penalised") if self.intercept == AUTO else (self.intercept,)
        return tuple(Choice(coupling, kind) for kind in intercepts for coupling in couplings)

    def name_of(self, choice: Choice) -> str:
        """A choice in words: its coupling, and its intercept unless that is the first kind."""
        first = choice.intercept == self.choices[0].intercept
        return choice.coupling if first else f"{choice.coupling}, {choice.intercept} intercept"

    @staticmethod
    def coupling_in(name: str) -> str:
        """The coupling of a choice in words, as `name_of` writes it."""
        return name.partition(",")[0]

    @property
    def centred(self) -> bool:
        """Whether targets from files that are numbers are shifted to mean 0; the intercept holds the mean."""
        return self.standardise and self.has_intercept and not LOSSES[self.loss].counts

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON and msgpack, which `from_dict` reads. Random matrices are not named."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["edges"] = [list(edge) for edge in self.edges]
        if self.matrices == "random":
            del content["matrices"]
        return content | ({"extensions": self.extensions} if self.extensions else {})

    @property
    def extensions(self) -> dict[str, str]:
        """Digests of the code of coupling, aggregate and matrices that plug-ins have registered."""
        return (
            COUPLINGS.digests(self.coupling)
            | AGGREGATES.digests(self.aggregate)
            | ENTRIES.digests(self.matrices)
        )

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Settings:
        """Read what `as_dict` returned, after any transport; nothing in it is trusted.

        Raises
        ------
        UsageError
            A setting is missing, unknown, or breaks a rule; or a plug-in is not the one of the sender.
        """
        told = content.get("extensions", {})
        content = {name: value for name, value in content.items() if name != "extensions"}
        names = [field.name for field in fields(cls)]
        if {*content, "matrices"} != set(names):
            raise UsageError("settings", f"must be exactly {', '.join(names)}", sorted(map(str, content)))
        made = cls(**content)
        if told != made.extensions:
            rule = "must be the same code at the server and at all workers; here its digests are"
            raise UsageError("plug-in", rule, made.extensions)
        return made

    def _check_together(self) -> None:
        if self.intercept == AUTO and self.coupling != AUTO:
            raise UsageError("intercept", "can be auto only if the coupling is", self.coupling)
        if self.coupling == AUTO and self.strength is not None:
            raise UsageError("coupling", "can be auto only if λ is chosen too", self.strength)
        if COUPLINGS.digests(self.coupling):
            if self.update not in (AUTO, "gradient", "model"):
                rule = f"must be gradient, model or auto for the coupling {self.coupling} of a plug-in"
                raise UsageError("update", rule, self.update)
            if self.loss == "poisson":
                rule = f"must not be poisson for the coupling {self.coupling} of a plug-in"
                raise UsageError("loss", rule, self.loss)
            if self.chooses:
                rule = f"must be a number for the coupling {self.coupling} of a plug-in"
                raise UsageError("strength", rule, AUTO)
        if self.update == "statistics":
            self._check_told_by("squared", 'update "statistics"')
        elif self.chooses:
            self._check_told_by(self.loss, "a strength that the run chooses")
            if self.update not in (AUTO, "newton"):
                rule = "must be auto, statistics or newton for a strength that the run chooses"
                raise UsageError("update", rule, self.update)
        if self.update in ("newton", "quasi-newton", "model"):
            self._check_second_order()
        if LOSSES[self.loss].counts:
            if self.update not in (AUTO, "newton"):
                rule = f"must be auto or newton for {self.loss} loss, whose curvature has no bound"
                raise UsageError("update", rule, self.update)
            self._check_told_by(self.loss, f"{self.loss} loss")
        if self.update != "model" and (self.learner or self.epochs != 1):
            raise UsageError(
                "learner and epochs", "are for updates that are models only", (self.learner, self.epochs)
            )
        if self.edges and self.coupling != "graph":
            raise UsageError("edges", "are for the coupling graph only", self.coupling)

    def _check_second_order(self) -> None:
        """Check that the curvatures of partitions add up to the curvature of their task."""
        for name, only in (("aggregate", "mean"), ("compression", "none")):
            if getattr(self, name) != only:
                raise UsageError(name, f'must be {only} for update "{self.update}"', getattr(self, name))

    def _check_told_by(self, loss: str, needs: str) -> None:
        """Check that what partitions tell adds up to what their task would tell."""
        for name, only in (("loss", loss), ("aggregate", "mean"), ("compression", "none")):
            if getattr(self, name) != only:
                raise UsageError(name, f"must be {only} for {needs}", getattr(self, name))


def _edges(edges: object) -> tuple[Edge, ...]:
    """Edges from the plain types of Python, TOML or msgpack."""
    if not isinstance(edges, tuple | list):
        raise UsageError("edges", "must be a list of (task, task, weight)", edges)
    checked = []
    for edge in edges:
        if not isinstance(edge, tuple | list) or len(edge) != 3:
            raise UsageError("edges", "must each be (task, task, weight)", edge)
        s, t, weight = edge
        if not (isinstance(s, str) and isinstance(t, str) and _is_number(weight)):
            raise UsageError("edges", "must each be two names of tasks and a number", edge)
        checked.append((s, t, float(weight)))
    return tuple(checked)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
