"""Frozen results with floats: final models of the one-process twin, and rounds without sockets.

Their bits are the same on every machine (docs/reproducibility.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np
from frozen_wire import PLACEMENTS, fixed_bytes, sha
from numpy.typing import NDArray

from asyncdmtl.arithmetic.threads import single_threaded
from asyncdmtl.exchange.sides import ServerSide, SideOptions, WorkerSide
from asyncdmtl.exchange.strategies import codable_units, strategy_of
from asyncdmtl.exchange.upload import Upload
from asyncdmtl.learning.aggregation import AGGREGATES
from asyncdmtl.learning.couplings.registry import COUPLINGS
from asyncdmtl.learning.losses import LOSSES
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, TaskModels
from asyncdmtl.learning.trainer import Trainer
from asyncdmtl.learning.training import train
from asyncdmtl.plan.linear.planning import make_linear_plan
from asyncdmtl.plan.placement import Placement
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.planner import make_plan
from asyncdmtl.plan.serialization import AnyPlan, rebuild, recipe_and_digest

Frozen = dict[str, Any]
Floats = NDArray[np.float64]

STRATEGIES = ("relay", "central", "personal", "uncoded")
CLASSES = ("logistic", "squared_hinge")


def fixed_floats(label: str, *shape: int) -> Floats:
    """Multiples of 2**-14 between -2 and 2 that follow from `label` alone."""
    raw = fixed_bytes(label, *shape, 2).astype(np.float64)
    numbers: Floats = (raw[..., 0] * 256 + raw[..., 1] - 2**15) / 2**14
    return numbers


def make_partitions(
    count: int, loss: str, *, per_task: int = 2, features: int = 9, weighted: bool = False
) -> list[Partition]:
    """Partitions `p0`, `p1`, … of unequal sizes."""
    found = []
    for n in range(count):
        X = fixed_floats(f"rows {n}", 4 + n % 3, features)
        y = X[:, :9] @ fixed_floats(f"model {n}", 9)
        y = (y > 0).astype(float) if loss in CLASSES else y
        weights = 1 + np.arange(len(X)) / 4 if weighted else None
        found.append(Partition(f"p{n}", f"t{n // per_task}", X, y, weights))
    return found


def make_settings(**changes: Any) -> Settings:
    """Settings for `make_partitions`, with some of them changed."""
    settings: dict[str, Any] = {
        "loss": "squared",
        "aggregate": "mean",
        "coupling": "nuclear",
        "strength": 0.05,
        "rounds": 4,
        "dtype": "float32",
        "intercept": "free",
        "seed": 0,
    }
    if changes.get("coupling") == "graph":
        settings["edges"] = (("t0", "t1", 1.0), ("t1", "t2", 0.5))
    return Settings(**settings | changes)


def frozen_twins() -> Frozen:
    """Models, objectives and state at the end of trainings in one process."""
    frozen = {
        f"{coupling}, {loss}, {aggregate}": _frozen_twin(
            make_partitions(12, loss, per_task=4),
            make_settings(coupling=coupling, loss=loss, aggregate=aggregate),
        )
        for coupling, loss, aggregate in product(COUPLINGS, LOSSES, AGGREGATES)
        if loss != "poisson"
        # The prox of "sparse-low-rank" takes long, so that one loss and one aggregate must suffice.
        if coupling != "sparse-low-rank" or (loss, aggregate) == ("squared", "mean")
    }
    variants: dict[str, dict[str, Any]] = {
        "float64": {"dtype": "float64"},
        "plain": {"accelerated": False},
        "no intercept": {"intercept": "none"},
        "penalised intercept": {"intercept": "penalised"},
        "tolerance": {"tolerance": 0.01, "rounds": 200},
        "models": {"update": "model", "epochs": 2, "accelerated": False},
        **{name: {"compression": name} for name in ("float16", "bfloat16", "int8")},
    }
    for name, changes in variants.items():
        frozen[name] = _frozen_twin(make_partitions(12, "squared"), make_settings(**changes))
    frozen["weighted"] = _frozen_twin(make_partitions(12, "squared", weighted=True), make_settings())
    counts = [replace(p, y=np.abs(np.rint(p.y))) for p in make_partitions(12, "squared")]
    settings = make_settings(loss="poisson", update="newton", dtype="float64")
    frozen["poisson"] = _frozen_twin(counts, settings)
    # These models are so long that steps are computed block by block.
    wide = make_partitions(12, "squared", features=24_000)
    for coupling in ("nuclear", "l21", "chain"):
        frozen[f"long, {coupling}"] = _frozen_twin(wide, make_settings(coupling=coupling, rounds=2))
    return frozen


def _frozen_twin(partitions: list[Partition], settings: Settings) -> Frozen:
    states: list[Any] = [None]

    def keep(round_: int, trainer: Trainer) -> None:
        states[0] = trainer.state()

    trained = train(partitions, settings, on_round=keep)
    return {
        "rounds": len(trained.objectives),
        "objectives": sha(trained.objectives),
        "models": _models(trained.models),
        "state": sha(states[0]),
    }


def _models(models: TaskModels) -> str:
    return sha("/".join(models.tasks).encode(), models.coef_, models.intercept_)


@dataclass
class _Hashes:
    """Hashes of everything that was sent in all rounds."""

    uplink: list[Any] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    told: list[float] = field(default_factory=list)
    downlink: list[Any] = field(default_factory=list)
    expected: list[bytes] = field(default_factory=list)


def frozen_rounds() -> Frozen:
    """All rows, digests and models of rounds of every strategy, passed between the sides by hand."""
    frozen = {}
    for (name, placement), strategy in product(PLACEMENTS.items(), STRATEGIES):
        for loss, dtype, aggregate, coupling in (
            ("squared", "float32", "mean", "nuclear"),
            ("logistic", "float64", "median", "l21"),
            ("huber", "float32", "mean", "clustered"),
        ):
            settings = make_settings(loss=loss, dtype=dtype, aggregate=aggregate, coupling=coupling)
            label = f"{name}, {strategy}, {loss}, {dtype}, {aggregate}, {coupling}"
            frozen[label] = _frozen_rounds(placement, strategy, settings)
    uneven = PLACEMENTS["uneven"]
    for strategy in STRATEGIES:
        frozen[f"long, {strategy}"] = _frozen_rounds(
            uneven, strategy, make_settings(rounds=2), features=20_001
        )
        frozen[f"grouped, {strategy}"] = _frozen_rounds(uneven, strategy, make_settings(), grouped=True)
    for strategy, compression in product(("relay", "uncoded"), ("float16", "bfloat16", "int8")):
        settings = make_settings(compression=compression, dtype="float64")
        frozen[f"{compression}, {strategy}"] = _frozen_rounds(uneven, strategy, settings)
    # "linear" is missing: its matrices come from LAPACK, and their last bits depend on the machine.
    return frozen


def _frozen_rounds(
    placement: Placement, strategy: Any, settings: Settings, *, features: int = 9, grouped: bool = False
) -> Frozen:
    partitions = make_partitions(len(placement.partitions), settings.loss, features=features)
    with single_threaded():
        problem = Problem(settings, [part.info(settings) for part in partitions])
        trainers = [Trainer(problem, {n: partitions[n] for n in stored}) for stored in placement.stored]
        plan: AnyPlan
        if strategy == "linear":
            plan = make_linear_plan(placement, problem.linear_target)
        else:
            units = codable_units(settings)
            plan = make_plan(placement, strategy, tasks=problem.task_of, units=units)
        recipe, digest = recipe_and_digest(plan)
        server = strategy_of(plan).server_side(plan, problem, options=SideOptions(grouped))
        received = rebuild(recipe, digest)
        workers = [
            strategy_of(received).worker_side(received, k, trainer, SideOptions(grouped))
            for k, trainer in enumerate(trainers)
        ]
        hashes = _Hashes()
        for round_ in range(settings.rounds):
            _round(server, workers, round_ + 1 == settings.rounds, hashes)
        told = [worker.final_check() for worker in workers]
        if isinstance(plan, Plan):
            assert told == (server.expected_checks(final=True) or told[:1] * len(told))
        return {
            "plan": digest.hex(),
            "ranges": len(server.ranges),
            "vector_bytes": server.vector_bytes,
            "uplink": sha(*hashes.uplink),
            "digests": sha(*hashes.digests),
            "told": sha(np.array(hashes.told)),
            "downlink": sha(*hashes.downlink),
            "expected": sha(*hashes.expected),
            "models": sha(*(_models(worker.models()).encode() for worker in workers)),
            "final_checks": sha(*told),
        }


def _round(server: ServerSide, workers: list[WorkerSide], last: bool, hashes: _Hashes) -> None:
    """Make one round, and add everything that is sent to `hashes`."""
    sent: list[Upload] = [worker.compute() for worker in workers]
    for k, part in enumerate(sent):
        server.check(k, part)
        hashes.uplink += [rows.copy() for rows in part.rows]
        hashes.digests += part.digests
        hashes.told += [*part.losses, part.penalty, part.residual]
    hashes.told += server.convergence(sent)[:2]
    server.agree(sent)
    replies: list[list[NDArray[np.uint8]]] = [[] for _ in workers]
    for i in range(len(server.ranges)):
        server.put(i, [part.rows[i] for part in sent])
        if server.streams:
            _reply(server, i, replies)
    if not server.streams:
        server.finish(last)
        for i in range(len(server.down_ranges)):
            _reply(server, i, replies)
    for k, (worker, reply) in enumerate(zip(workers, replies, strict=True)):
        hashes.downlink += reply
        hashes.expected.append(server.digest(k))
        for i, rows in enumerate(reply):
            worker.receive(i, rows)
        worker.apply(server.digest(k))


def _reply(server: ServerSide, i: int, replies: list[list[NDArray[np.uint8]]]) -> None:
    for k, reply in enumerate(replies):
        reply.append(np.concatenate([np.empty(0, np.uint8), *server.rows(k, i)]))
