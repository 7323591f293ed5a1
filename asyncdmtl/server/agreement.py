"""The decision which holders of a partition are believed if their claims about it differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asyncdmtl.arithmetic.probe import Machine
from asyncdmtl.data.encoding import Encoding
from asyncdmtl.data.pooling import pool
from asyncdmtl.data.surveys import Survey
from asyncdmtl.errors import DataError, UsageError
from asyncdmtl.learning.settings import Settings
from asyncdmtl.learning.tasks import Declaration
from asyncdmtl.plan.placement import natural_key
from asyncdmtl.protocol.garbage import without_collection


@dataclass(frozen=True)
class Dissent:
    """A worker's claim about `partition` differs from that of the `believed` workers.

    If `tied`, as many workers claim the one as the other.
    """

    partition: str
    believed: tuple[str, ...]
    tied: bool = False


def dissenters(claims: Mapping[str, Mapping[str, Any]]) -> dict[str, Dissent]:
    """The workers to exclude, so that the claims of all others agree.

    For each partition, the largest group of holders that agree is believed; of groups of equal size, the one
    with the first name. A worker that was outvoted on one partition is ignored on all others. Therefore
    partitions with the clearest majorities are decided first.

    Parameters
    ----------
    claims : mapping of worker to a mapping of partition to its claim

    Returns
    -------
    dict of worker to Dissent
    """
    odd: dict[str, Dissent] = {}
    contested = {name: groups for name, groups in _groups(claims).items() if len(groups) > 1}
    while contested:
        partition = max(contested, key=lambda name: len(contested[name][0]) - len(contested[name][1]))
        believed, *others = contested.pop(partition)
        tied = len(others[0]) == len(believed)
        odd.update(
            {worker: Dissent(partition, tuple(believed), tied) for group in others for worker in group}
        )
        left = {name: _ordered(groups, odd) for name, groups in contested.items()}
        contested = {name: groups for name, groups in left.items() if len(groups) > 1}
    return odd


def _groups(claims: Mapping[str, Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """For each partition, its holders in groups that agree, the largest group first."""
    found: dict[str, list[tuple[Any, list[str]]]] = {}
    for worker in sorted(claims, key=natural_key):
        for partition, claim in claims[worker].items():
            groups = found.setdefault(partition, [])
            for told, group in groups:
                if told == claim:
                    group.append(worker)
                    break
            else:
                groups.append((claim, [worker]))
    return {
        name: _ordered([group for _, group in found[name]], ()) for name in sorted(found, key=natural_key)
    }


def _ordered(groups: Sequence[list[str]], without: Mapping[str, Dissent] | tuple[()]) -> list[list[str]]:
    """The groups without some workers, the largest first."""
    left = [[worker for worker in group if worker not in without] for group in groups]
    return sorted(filter(None, left), key=lambda group: (-len(group), natural_key(group[0])))


def check_machine(worker: str, machine: Machine, arithmetic: str) -> None:
    """Compare a worker's arithmetic with that of the server.

    Parameters
    ----------
    worker : str
    machine : Machine
        The worker's description of its arithmetic.
    arithmetic : str
        The setting of the run.

    Raises
    ------
    UsageError
        The worker computes different bits from the server, so that its models would differ after the first
        round.
    """
    here = Machine.here(arithmetic)
    if found := here.differences(machine):
        advice = {
            "reproducible": "compare what `python -m asyncdmtl.arithmetic` prints on both machines,"
            " and see the documentation's page on reproducibility",
            "fast": "install the same NumPy on both, or choose --arithmetic reproducible,"
            " for which they need not have the same",
        }[arithmetic]
        rule = f"must give the same bits as the server's; it gives {found}: {advice}"
        raise UsageError(f"arithmetic of worker {worker!r}", rule, machine.about.get("NumPy", "nothing"))


def check_surveys(declared: Iterable[Declaration]) -> None:
    """Raise UsageError if a survey is malformed. Large surveys take a second."""
    with without_collection():
        for part in declared:
            Survey.from_dict(part.survey)


def first_other(declared: Iterable[Declaration], known: Mapping[str, Declaration]) -> Declaration | None:
    """The first partition that is declared otherwise than it is known. A large survey takes 0.1 s."""
    with without_collection():
        return next((part for part in declared if known.get(part.id, part).claim != part.claim), None)


def pooled(known: Mapping[str, Declaration], settings: Settings, holders: Callable[[str], str]) -> Encoding:
    """The encoding for all partitions.

    Raises
    ------
    DataError
        Surveys do not fit each other. The error names the partitions that differ, and their `holders`.
    """
    surveys = {name: Survey.from_dict(part.survey) for name, part in known.items()}
    try:
        return pool(surveys, settings.loss, standardise=settings.standardise, centre=settings.centred)
    except DataError as error:
        named = [name for name in known if repr(name) in str(error)]
        held = "; ".join(f"{name!r} is at {holders(name)}" for name in named)
        rule = f"{error.rule} ({held})" if held else error.rule
        raise DataError(error.argument, rule, error.value) from error
