"""The models that workers want: checks of `--wants` against a run's strategy and updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from asyncdmtl.errors import UsageError

# The kind of updates with which a single round gives the solution.
_SINGLE_ROUND = "statistics"


def check_wants(worker: str, wants: str, strategy: str, update: str) -> None:
    """Raise UsageError if a run cannot give a worker the models that it wants, no more and no less.

    Parameters
    ----------
    worker : str
        The worker's name.
    wants : str
        As in `Declare`.
    strategy, update : str
        The run's strategy and kind of updates; "auto" where it is not known yet.
    """
    what = f"--wants of worker {worker!r}"
    if wants == "none" and update not in ("auto", _SINGLE_ROUND):
        rule = (
            f"can be none with --update {_SINGLE_ROUND} only: with other updates, a worker that computes "
            "them needs the models of the round before"
        )
        raise UsageError(what, f"{rule}; here updates are {update}", wants)
    if wants == "own" and strategy not in ("auto", "personal"):
        rule = "can be own with --strategy personal only: otherwise a worker computes all models together"
        raise UsageError(what, f"{rule}; here the strategy is {strategy}", wants)
    if wants == "all" and strategy == "personal":
        rule = "cannot be all with --strategy personal, which gives each worker the models of its own tasks"
        raise UsageError(what, rule, wants)


def check_relay(name: str, behind: Sequence[str], strategy: str, silent: int) -> None:
    """Raise UsageError if workers are behind `name`, and a run with these options can have no relays."""
    if not behind:
        return
    if silent:
        raise UsageError(f"the run that {name!r} joins", "can have relays without --silent only", silent)
    if strategy == "linear":
        rule = "can have relays with the exact strategies only"
        raise UsageError(f"the run that {name!r} joins", rule, strategy)


def unserved(wants: Mapping[str, str], strategy: str, update: str) -> dict[str, UsageError]:
    """The workers that a run cannot give what they want, each with the error that says why.

    With the strategy "auto", workers that want the models of their own tasks can be served only if no worker
    wants those of all tasks.

    Parameters
    ----------
    wants : mapping of worker name to str
        As in `Declare`.
    strategy, update : str
        As for `check_wants`.
    """
    every = [worker for worker, word in wants.items() if word == "all"]
    errors = {}
    for worker, word in wants.items():
        try:
            check_wants(worker, word, strategy, update)
            if word == "own" and strategy == "auto" and every:
                rule = f"cannot be own beside a worker that wants all: {', '.join(every)}"
                raise UsageError(f"--wants of worker {worker!r}", rule, word)
        except UsageError as error:
            errors[worker] = error
    return errors


def served_strategy(asked: str, wants: Mapping[str, str]) -> str:
    """The strategy that gives workers what they want: `asked`, but `personal` for "auto" if some want own."""
    return "personal" if asked == "auto" and "own" in wants.values() else asked
