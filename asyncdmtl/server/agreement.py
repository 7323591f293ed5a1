"""What is believed of the partitions, where their holders tell different things of them."""

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

Camp = list[str]


@dataclass(frozen=True)
class Dissent:
    """A worker told of `partition` something else than those who are `believed`."""

    partition: str
    believed: tuple[str, ...]


def dissenters(claims: Mapping[str, Mapping[str, Any]]) -> dict[str, Dissent]:
    """The workers to do without, so that all others tell the same.

    Of a partition most of its holders are believed, and of equally many those with the first name. Who is odd
    somewhere has no voice elsewhere; so the clearest cases come first.

    Parameters
    ----------
    claims : mapping of worker to a mapping of partition to what it tells of it
    """
    odd: dict[str, Dissent] = {}
    contested = {name: camps for name, camps in _camps(claims).items() if len(camps) > 1}
    while contested:
        partition = max(contested, key=lambda name: len(contested[name][0]) - len(contested[name][1]))
        believed, *others = contested.pop(partition)
        odd.update({worker: Dissent(partition, tuple(believed)) for camp in others for worker in camp})
        left = {name: _ordered(camps, odd) for name, camps in contested.items()}
        contested = {name: camps for name, camps in left.items() if len(camps) > 1}
    return odd


def _camps(claims: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Camp]]:
    """For each partition its holders, those together who tell the same, the largest camp first."""
    found: dict[str, list[tuple[Any, Camp]]] = {}
    for worker in sorted(claims, key=natural_key):
        for partition, claim in claims[worker].items():
            camps = found.setdefault(partition, [])
            for told, camp in camps:
                if told == claim:
                    camp.append(worker)
                    break
            else:
                camps.append((claim, [worker]))
    return {name: _ordered([camp for _, camp in found[name]], ()) for name in sorted(found, key=natural_key)}


def _ordered(camps: Sequence[Camp], without: Mapping[str, Dissent] | tuple[()]) -> list[Camp]:
    """The camps as they are without some workers."""
    left = [[worker for worker in camp if worker not in without] for camp in camps]
    return sorted(filter(None, left), key=lambda camp: (-len(camp), natural_key(camp[0])))


def check_machine(worker: str, machine: Machine, arithmetic: str) -> None:
    """Compare a worker's arithmetic with that of the server.

    Parameters
    ----------
    worker : str
    machine : Machine
        What the worker says of its own.
    arithmetic : str
        The setting of the run.

    Raises
    ------
    UsageError
        It computes other bits than the server, and so would hold other models after the first round.
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
    """UsageError unless all surveys can be read; large ones take a second."""
    for part in declared:
        Survey.from_dict(part.survey)


def pooled(known: Mapping[str, Declaration], settings: Settings, holders: Callable[[str], str]) -> Encoding:
    """The encoding for all partitions.

    Raises
    ------
    DataError
        Surveys do not fit each other; names partitions that differ, and their `holders`.
    """
    surveys = {name: Survey.from_dict(part.survey) for name, part in known.items()}
    try:
        return pool(surveys, settings.loss, standardise=settings.standardise, centre=settings.centred)
    except DataError as error:
        named = [name for name in known if repr(name) in str(error)]
        held = "; ".join(f"{name!r} is at {holders(name)}" for name in named)
        rule = f"{error.rule} ({held})" if held else error.rule
        raise DataError(error.argument, rule, error.value) from error
