"""Checks a plan from the server, and makes the worker's side of the rounds under it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asyncdmtl.blinding.group_key import GroupKey
from asyncdmtl.blinding.sealed import content_mark, opened_info
from asyncdmtl.digests import UNKEYED, Digest
from asyncdmtl.errors import PlanError, RemoteProtocolError
from asyncdmtl.exchange.sides import SideOptions, WorkerSide
from asyncdmtl.exchange.strategies import BLIND_SIDES, MOST_PACKETS, MOST_SILENT_PACKETS, strategy_of
from asyncdmtl.learning.problem import Problem
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Partition, PartitionInfo
from asyncdmtl.learning.training import make_trainer
from asyncdmtl.plan.limits import MOST_SUBPACKETS
from asyncdmtl.plan.plan import Plan
from asyncdmtl.plan.serialization import AnyPlan, rebuild
from asyncdmtl.protocol.messages.registry import Assign


def make_worker_side(
    assign: Assign,
    name: str,
    settings: Settings,
    partitions: Mapping[str, Partition],
    digest: Digest = UNKEYED,
    group: GroupKey | None = None,
) -> WorkerSide:
    """The side of worker `name` under an assigned plan, with the initial models.

    Matrices, tables and buffers of the plan are made here, which may take seconds.

    Parameters
    ----------
    assign : Assign
    name : str
        The worker's name.
    settings : Settings
        The settings of the run.
    partitions : mapping of name to Partition
        The worker's encoded partitions.
    digest : Digest, optional
        The digests of the run.
    group : GroupKey, optional
        The key of the workers of a blind run.

    Raises
    ------
    PlanError
        The plan is malformed, or not for this worker.
    RemoteProtocolError
        Plan, partitions and tasks do not fit each other.
    """
    check_recipe(assign, name)
    plan = rebuild(assign.recipe, assign.digest)
    placement = plan.placement
    worker = placement.workers.index(name)
    own = {n: placement.partitions[n] for n in placement.stored[worker]}
    if unknown := [partition for partition in own.values() if partition not in partitions]:
        raise PlanError(f"the plan has partitions at {name!r} that are not here: {unknown}")
    if group is not None:
        _check_blind(plan)
    infos = assign.partitions if group is None else [opened_info(group, info) for info in assign.partitions]
    problem = Problem(settings, infos)
    if isinstance(plan, Plan) and problem.task_of != plan.tasks:
        raise RemoteProtocolError("plan and tasks do not fit each other")
    trainer = make_trainer(problem, {n: partitions[partition] for n, partition in own.items()})
    blind, keys = group is not None, {worker: assign.key}
    how = assign.grouped, digest, assign.detailed, assign.carried, blind, group, assign.origin, keys
    options = SideOptions(*how)
    return strategy_of(plan).worker_side(plan, worker, trainer, options)


def check_contents(side: WorkerSide, own: Iterable[PartitionInfo], group: GroupKey) -> None:
    """Raise RemoteProtocolError if a blind run has other contents of a worker's partitions than the worker.

    Masks follow from the marks of contents, so that other contents get other masks.

    Parameters
    ----------
    side : WorkerSide
    own : iterable of PartitionInfo
        The facts about the worker's encoded partitions.
    group : GroupKey
    """
    known = {info.id: info.sealed for info in side.trainer.problem.infos}
    wrong = [info.id for info in own if known.get(info.id) != content_mark(group, info)]
    if wrong:
        raise RemoteProtocolError(f"the plan has other contents of {wrong} than this worker")


def _check_blind(plan: AnyPlan) -> None:
    """Raise RemoteProtocolError if somebody without the key of the workers could read what this one gives."""
    if not isinstance(plan, Plan) or plan.strategy not in BLIND_SIDES:
        raise RemoteProtocolError("the plan is of a strategy whose server is not blind")
    # More rows go up than are independent, so that masks would not hide in which bits holders differ.
    if plan.silent:
        raise RemoteProtocolError("a blind run waits for all workers, and this plan tolerates late ones")


def check_recipe(assign: Assign, name: str) -> None:
    """Check the size of the plan before its matrices are made.

    The worker knows the partitions of the run, and that it must be one of the workers. The denominator of an
    optimal load is less than the number of workers. Only plans for speeds, prices or silent workers have more
    packets, and a run takes those whose matrices stay small (`exchange.strategies`).
    """
    workers, packets = assign.recipe.get("workers"), assign.recipe.get("subpackets")
    if not isinstance(workers, list) or name not in workers:
        raise PlanError(f"the plan has no worker {name!r}")
    if assign.recipe.get("partitions") != [info.id for info in assign.partitions]:
        raise RemoteProtocolError("plan and partitions do not fit each other")
    most = max(len(workers), MOST_SILENT_PACKETS, MOST_PACKETS // len(assign.partitions))
    if assign.recipe.get("senders"):
        # Below a relay vectors are cut as between relays and server.
        most = MOST_SUBPACKETS
    if not isinstance(packets, int) or packets > most:
        raise PlanError(f"the plan cuts vectors into {packets!r} packets for {len(workers)} workers")
