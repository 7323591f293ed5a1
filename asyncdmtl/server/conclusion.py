"""The reports of workers at the end of a run: the outcome of the training, and sums over test rows.

Holders of a partition are compared as for updates: the majority is believed; among equally large groups, that
of the first worker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import msgpack

from asyncdmtl.errors import DataError, DisagreementError, UsageError
from asyncdmtl.exchange.strategies import EXCHANGE_STRATEGIES
from asyncdmtl.learning.metric_sums import MetricSums, sums_from
from asyncdmtl.learning.outcome import Outcome
from asyncdmtl.learning.tasks import PartitionInfo
from asyncdmtl.protocol.messages.registry import Done
from asyncdmtl.server.member import Member
from asyncdmtl.server.training_progress import TrainingProgress

Read = TypeVar("Read")


def conclude(progress: TrainingProgress, done: Mapping[Member, Done]) -> None:
    """Record the members' reports, in place of earlier ones, and note members with invalid ones.

    The reports are in the order of the plan.
    """
    if progress.trainer is not None:
        progress.outcome = progress.trainer.outcome
    else:
        told = {member.name: message.outcome for member, message in done.items() if message.outcome}
        progress.outcome = _believed_outcome(progress, told)
    progress.critical_strength = _critical_strength(progress, done)
    progress.tests = _believed_tests(progress, done)


def _believed_outcome(progress: TrainingProgress, told: Mapping[str, Mapping[str, Any]]) -> Outcome | None:
    settings = progress.problem.settings
    sound = _sound(progress, told, lambda content: Outcome.from_dict(content).checked(settings))
    groups = _groups({worker: told[worker] for worker in sound})
    for worker in [worker for group in groups[1:] for worker in group]:
        progress.note(worker, DisagreementError.__name__, "told another outcome than most workers")
    return sound[groups[0][0]] if groups else None


def _critical_strength(progress: TrainingProgress, done: Mapping[Member, Done]) -> float | None:
    if progress.trainer is not None:
        return progress.trainer.critical_strength
    told = {m.name: message.critical_strength for m, message in done.items() if message.critical_strength}
    return told[_groups(told)[0][0]] if told else None


def _believed_tests(progress: TrainingProgress, done: Mapping[Member, Done]) -> dict[str, MetricSums]:
    exact = EXCHANGE_STRATEGIES[progress.strategy].exact
    found: dict[str, MetricSums] = {}
    odd: dict[str, list[str]] = {}
    for info in progress.problem.infos:
        if not info.held:
            continue
        told = {
            member.name: message.tests[info.id]
            for member, message in done.items()
            if info.id in member.partitions and info.id in message.tests
        }
        sound = _sound(progress, told, partial(_checked, progress, info))
        # Under an inexact strategy, models differ in their last bits, and so do the sums.
        groups = _groups({worker: told[worker] for worker in sound}) if exact else [list(sound)]
        for worker in [worker for group in groups[1:] for worker in group]:
            odd.setdefault(worker, []).append(info.id)
        if sound:
            found[info.id] = sound[groups[0][0]]
    for worker, names in odd.items():
        reason = f"told other sums of the test rows of {names} than their other holders"
        progress.note(worker, DisagreementError.__name__, reason)
    return found


def note_missing_tests(progress: TrainingProgress) -> None:
    """Note the partitions of whose test rows no member reported how models do."""
    if missing := [info.id for info in progress.problem.infos if info.held and info.id not in progress.tests]:
        progress.note("", "TestRowsMissing", f"nobody told how models do on the test rows of {missing}")


def _sound(
    progress: TrainingProgress, told: Mapping[str, Any], read: Callable[[Any], Read]
) -> dict[str, Read]:
    """The reports of the workers whose reports can be read. The other workers are noted."""
    found = {}
    for worker, content in told.items():
        try:
            found[worker] = read(content)
        except UsageError as error:
            progress.note(worker, type(error).__name__, str(error))
    return found


def _checked(progress: TrainingProgress, info: PartitionInfo, content: object) -> MetricSums:
    """A holder's sums of a partition; UsageError unless they are over all its test rows."""
    sums = sums_from(progress.problem.settings.loss, content)
    if sums.rows != info.held:
        raise DataError(f"test rows of partition {info.id!r}", f"must be {info.held}", sums.rows)
    return sums


def _groups(told: Mapping[str, Any]) -> list[list[str]]:
    """Groups of workers with equal reports, the largest first; among equals, that of the first worker."""
    groups: dict[bytes, list[str]] = {}
    for worker, content in told.items():
        groups.setdefault(msgpack.packb(content), []).append(worker)
    return sorted(groups.values(), key=len, reverse=True)
