"""The kinds of updates, with their predicted traffic, and the choice of `--update auto` between them.

The cost of an update is the predicted number of bytes of the whole run to a relative accuracy of 1e-6, and
each round counts as `ROUND_COST` bytes more: where bytes are few, the wait for messages there and back is
what makes a round long. The number of rounds and the length of vectors are predicted for each kind; loads are
those of an average plan (`LOADS`), as the choice is made before there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from asyncdmtl.errors import DataError
from asyncdmtl.learning.candidates import STRENGTHS, CandidatesWire, strengths_of
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.curvature import SecondOrderWire
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.secants import METRIC_NUMBERS, WITH_WHOLE_MATRICES, has_low_rank
from asyncdmtl.learning.settings import AUTO, AUTO_COUPLINGS, FEW_COUPLINGS, Choice, Settings
from asyncdmtl.learning.statistics import Layout
from asyncdmtl.learning.tasks import PartitionInfo

# Rounds to a relative accuracy of 1e-6, by tools/bench_rounds.py: gradients took 48 to 1,470, with a median
# of 160, and Newton's steps 1 to 8, with a median of 6.
GRADIENT_ROUNDS, NEWTON_ROUNDS = 160, 6

# Quasi-Newton steps took 7 to 29 rounds, more of them for more numbers: this many, one more for each so many
# numbers of a model, and at most so many, for lengths that were not measured.
QUASI_NEWTON_ROUNDS, NUMBERS_A_ROUND, MOST_QUASI_NEWTON_ROUNDS = 8, 5, 60

# Rounds of Newton's steps in which λ is chosen too, and models are trained to 1e-8: the most that were seen.
CHOOSING_ROUNDS = 11

# Bytes of a partition's updates of all candidates up to which λ is chosen by Newton's steps: 64 features take
# 4.2 MB, with 10 values of λ for each of `FEW_COUPLINGS`, and with either intercept for the best.
CANDIDATES_BYTES = 5 << 20

# Bytes of headers and digests for each partition in a round, as counted by the ledger. Coding saves none of
# them.
ROUND_BYTES = 40

# Bytes that a round counts as, whatever it moves: a megabyte takes 80 ms at 100 Mbit/s, about as long as
# messages there and back over a distance, and the wait for the slowest worker.
ROUND_COST = 1_000_000

# Bytes on the wire in a round, both ways, as a multiple of those of all partitions' vectors: the median of
# what tools/bench_rounds.py moves with five workers and three copies.
LOADS = 2

# The most numbers of all tasks' models with which a quasi-Newton method is chosen where whole matrices would
# be too large: solving with what the last steps told took half a second for 18,000 numbers.
LOW_RANK_NUMBERS = 1 << 15

# The most that a run may ask for: 1 GB at each worker, and a step takes minutes.
_MOST_METRIC_NUMBERS = 1 << 27

# The reason against steps by gradients, whose length follows from a bound.
_NO_BOUND = "the curvature of {} loss has no bound"

# The reason against methods that need another operator of a coupling than its prox.
_PLUGIN = "only gradients train with the coupling of a plug-in"

# Couplings that a single task has no use for, or that are ridge regression then.
_OF_SEVERAL = ("mean-regularised", "mean", "covariance")


def minimises(aggregate: str) -> bool:
    """Whether the models that rounds leave in place are the minimum of the objective.

    Robust aggregates of gradients are not the gradient of the task's loss: such rounds end at a fixed point
    of theirs, somewhat above.
    """
    return aggregate == "mean"


@dataclass(frozen=True)
class Forecast:
    """The predicted traffic of a kind of update.

    Attributes
    ----------
    update : str
    rounds : int
        Rounds to a relative accuracy of 1e-6.
    bytes : int
        Bytes of each partition in a round, before coding.
    reason : str
        The reason why it cannot be chosen; empty if it can.
    """

    update: str
    rounds: int
    bytes: int
    reason: str = ""

    def cost(self, partitions: int) -> int:
        """Bytes of a run of so many partitions, both ways, with headers and `ROUND_COST` for each round."""
        return self.rounds * (ROUND_COST + LOADS * partitions * (self.bytes + ROUND_BYTES))


def cheapest(made: Sequence[Forecast], partitions: int) -> Forecast | None:
    """The possible kind of update that costs least in a run of so many partitions; None if there is none."""
    possible = [each for each in made if not each.reason]
    return min(possible, key=lambda each: each.cost(partitions)) if possible else None


def forecasts(settings: Settings, features: int, rows: int, tasks: int) -> tuple[Forecast, ...]:
    """The predicted traffic of each kind of update, in the order of the help.

    Parameters
    ----------
    settings : Settings
    features : int
        Features of each row.
    rows : int
        Rows of the smallest partition.
    tasks : int
    """
    layout = statistics_layout(settings, features)
    d = features + settings.has_intercept
    width = 8 if settings.dtype == "float64" else 4
    newton, rounds = SecondOrderWire(d, curvature=True).length, NEWTON_ROUNDS
    learning = min(QUASI_NEWTON_ROUNDS + d // NUMBERS_A_ROUND, MOST_QUASI_NEWTON_ROUNDS)
    if settings.chooses:
        newton, rounds = candidates_wire(settings, features, tasks).length, CHOOSING_ROUNDS
    return (
        Forecast("statistics", 1, layout.size, _why_no_statistics(settings, rows)),
        Forecast("newton", rounds, 8 * newton, _why_no_newton(settings, features, rows, tasks)),
        Forecast("quasi-newton", learning, 8 * (1 + d), _why_no_metric(settings, d, tasks)),
        Forecast("gradient", GRADIENT_ROUNDS, width * d, _why_no_gradients(settings)),
    )


def statistics_layout(settings: Settings, features: int) -> Layout:
    """The layout of a partition's vector of statistics, with folds if λ is to be chosen."""
    return Layout(features, settings.folds if settings.chooses else 1)


def why_no_curvature_after_local_models(settings: Settings, d: int, rows: int, tasks: int) -> str:
    """The reason why steps after local epochs learn second derivatives from gradients; empty if all are told.

    Gradients tell one direction in each round. That takes as many rounds as models have numbers where
    features are correlated and λ is small, and more where second derivatives change on the way.

    Parameters
    ----------
    settings : Settings
    d : int
        Numbers of a model.
    rows : int
        Rows of the smallest partition.
    tasks : int
    """
    return _why_too_few_rows(settings, rows, "curvatures") or _why_too_large_metrics(d, tasks)


def coupling_names(settings: Settings, features: int, tasks: int) -> tuple[str, ...]:
    """The couplings of a run with Newton's steps: if it chooses, all, or few if vectors would be too long."""
    if settings.coupling != AUTO:
        return (settings.coupling,)
    all_, few = (
        tuple(name for name in names if tasks > 1 or name not in _OF_SEVERAL)
        for names in (AUTO_COUPLINGS, FEW_COUPLINGS)
    )
    size = 8 * _wire_of(settings, features, all_, compares=True).length
    return all_ if size <= CANDIDATES_BYTES else few


def candidate_intercepts(settings: Settings) -> tuple[str, ...]:
    """The kinds of intercepts of a run with Newton's steps; the second for the best coupling only."""
    return tuple(dict.fromkeys(choice.intercept for choice in settings.choices))


def choices(settings: Settings, tasks: int) -> tuple[Choice, ...]:
    """What a run with statistics chooses among."""
    known = settings.choices
    if settings.coupling != AUTO or tasks > 1:
        return known
    return tuple(choice for choice in known if choice.coupling not in _OF_SEVERAL)


def candidates_wire(
    settings: Settings, features: int, tasks: int, *, compares: bool = False
) -> CandidatesWire:
    """The format of updates by which a run with Newton's steps chooses λ, and perhaps compares models."""
    return _wire_of(settings, features, coupling_names(settings, features, tasks), compares=compares)


def _wire_of(
    settings: Settings, features: int, couplings: Sequence[str], *, compares: bool
) -> CandidatesWire:
    paths = sum(map(strengths_of, couplings)) + STRENGTHS * (len(candidate_intercepts(settings)) - 1)
    return CandidatesWire(features + settings.has_intercept, paths, settings.folds, compares=compares)


def resolve(settings: Settings, infos: Sequence[PartitionInfo]) -> str:
    """The kind of update of a run: the kind in its settings or, for "auto", the cheapest that suits them.

    Raises
    ------
    DataError
        The wanted kind, or the only suitable one, is impossible with these partitions.
    """
    smallest = min(infos, key=lambda info: info.rows)
    tasks = len({info.task for info in infos})
    made = forecasts(settings, infos[0].features, smallest.rows, tasks)
    if settings.update != "auto":
        wanted = [
            each
            for each in made
            if each.update == settings.update and each.update in ("statistics", "newton")
        ]
        if wanted and wanted[0].reason:
            raise DataError(f"partition {smallest.id!r}", wanted[0].reason, smallest.rows)
        numbers = tasks * (infos[0].features + settings.has_intercept) ** 2
        whole = settings.coupling in WITH_WHOLE_MATRICES
        if settings.update in ("quasi-newton", "model") and whole and numbers > _MOST_METRIC_NUMBERS:
            rule = (
                f"must be so few for update {settings.update} with coupling {settings.coupling} "
                f"that the metrics of {tasks} tasks are at most "
                f"{_MOST_METRIC_NUMBERS} numbers (update gradient has no metrics)"
            )
            raise DataError("features", rule, infos[0].features)
        return settings.update
    best = cheapest(made, len(infos))
    if best is None:
        reason = made[0 if settings.loss == "squared" else 1].reason
        raise DataError(f"partition {smallest.id!r}", reason, smallest.rows)
    return best.update


def compares(settings: Settings, update: str, d: int) -> bool:
    """Whether models of each task alone, and one for all, can be trained beside those of a run.

    Statistics determine them. Steps of Newton's method train them in the same rounds; if λ is given, vectors
    are some 15 times as long for them, up to `CANDIDATES_BYTES`.
    """
    if update != "newton" or settings.chooses:
        return update in ("statistics", "newton")
    return 8 * SecondOrderWire(d, curvature=True, compares=True).length <= CANDIDATES_BYTES


def chooses_across(settings: Settings, features: int, rows: int, tasks: int) -> bool:
    """Whether λ can be chosen in a run with these settings; the others as for `forecasts`."""
    if settings.update not in ("auto", "statistics", "newton") or _why_no_curvature(settings):
        return False
    settings = replace(settings, strength=None)
    if settings.loss == "squared" and settings.update != "newton":
        suits = not _why_no_statistics(settings, rows)
    else:
        suits = settings.update != "statistics" and not _why_no_newton(settings, features, rows, tasks)
    return suits and (settings.least_rows == 1 or rows // settings.folds >= settings.least_rows)


def _why_no_statistics(settings: Settings, rows: int) -> str:
    for name, only in (("loss", "squared"), ("aggregate", "mean"), ("compression", "none")):
        if getattr(settings, name) != only:
            return f"{name} must be {only}"
    if COUPLINGS.digests(settings.coupling):
        return _PLUGIN
    return _why_too_few_rows(settings, rows, "statistics of them")


def _why_no_newton(settings: Settings, features: int, rows: int, tasks: int) -> str:
    """The reason against Newton's method, if any. Curvatures reveal as much of the rows as statistics."""
    if reason := _why_too_few_rows(settings, rows, "curvatures"):
        return reason
    size = 8 * candidates_wire(settings, features, tasks).length
    if settings.chooses and size > CANDIDATES_BYTES:
        return f"the updates of all candidates would be {size} bytes, more than {CANDIDATES_BYTES}"
    return _why_no_curvature(settings)


def _why_too_few_rows(settings: Settings, rows: int, told: str) -> str:
    """The reason against telling something of so few rows, if there are too few."""
    in_each = rows // settings.folds if settings.chooses else rows
    if in_each >= settings.least_rows or settings.least_rows == 1:
        return ""
    whose = f"each of {settings.folds} folds" if settings.chooses else "a partition"
    return f"needs {settings.least_rows} rows in {whose} (--least-rows) for {told} to be told"


def _why_no_curvature(settings: Settings) -> str:
    for name, only in (("aggregate", "mean"), ("compression", "none")):
        if getattr(settings, name) != only:
            return f"{name} must be {only}"
    return _PLUGIN if COUPLINGS.digests(settings.coupling) else ""


def _why_no_metric(settings: Settings, d: int, tasks: int) -> str:
    numbers = tasks * d
    if not has_low_rank(settings.coupling, tasks, d):
        reason = _why_too_large_metrics(d, tasks)
    elif numbers > LOW_RANK_NUMBERS:
        reason = f"the models are {numbers} numbers, more than {LOW_RANK_NUMBERS}: steps would take seconds"
    else:
        reason = ""
    if reason:
        return reason
    if not settings.accelerated:
        return "gradients are to be plain"
    return _why_no_curvature(settings) or _why_no_gradients(settings)


def _why_too_large_metrics(d: int, tasks: int) -> str:
    numbers = tasks * d * d
    if numbers <= METRIC_NUMBERS:
        return ""
    return f"the metrics of {tasks} tasks would be {numbers} numbers, more than {METRIC_NUMBERS}"


def _why_no_gradients(settings: Settings) -> str:
    if LOSSES[settings.loss].counts:
        return _NO_BOUND.format(settings.loss)
    return "λ is chosen by statistics or Newton's steps" if settings.chooses else ""
