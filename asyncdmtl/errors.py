"""Every error that asyncdmtl raises on purpose.

::

    AsyncDMTLError                 exit code 1
    ├── UsageError (ValueError)         2   an argument, option or file breaks a rule
    │   ├── PlacementError              2   a placement breaks a rule
    │   └── DataError                   2   data that cannot be read or trained on
    ├── PlanError                       1   no plan exists for the request
    ├── CodingError                     6   vectors that cannot be decoded, or decoded to something else
    │   └── IntegrityError              6   digests differ: bytes were corrupted, models differ
    │       ├── DisagreementError       6   workers computed different updates from the same partition
    │       └── StateError              6   workers hold different states of the training
    ├── LinkError                       3   a connection could not be made or was lost
    ├── AuthenticationError             4   a peer could not prove its identity
    ├── WaitError                       5   a wait reached its limit; names the option that sets it
    ├── ProtocolError                   1
    │   ├── LocalProtocolError          1   ours: this side called the session wrongly
    │   └── RemoteProtocolError         1   theirs: the peer sent something that is not allowed
    │       └── CorruptionError         1   the bytes that arrived are not those that were sent
    └── PeerError                       1   the peer said that it failed, and why

    Terminated (BaseException)        143   a signal other than Ctrl-C asked this process to end

Facts that a program may need, such as the worker and the partition, are attributes of the errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class AsyncDMTLError(Exception):
    """Base of all errors; `exit_code` is the exit code of a command that fails with it."""

    exit_code = 1


class UsageError(AsyncDMTLError, ValueError):
    """An argument, option or file breaks a rule.

    `argument` is the name of the argument, option or file, `rule` is the rule, and `value` is the value that
    breaks the rule.
    """

    exit_code = 2

    def __init__(self, argument: str, rule: str, value: object) -> None:
        self.argument = argument
        self.rule = rule
        self.value = value
        # If no value was given, the message need not show it.
        absent = value is None and rule.startswith(("must be given", "needs", "must name", "must say"))
        super().__init__(f"{argument} {rule}" + ("" if absent else f", got {_short(value)}"))


class PlacementError(UsageError):
    """A placement breaks a rule: a partition without a worker, a name twice, too little storage."""


class DataError(UsageError):
    """Data cannot be read, or cannot be trained on."""


class PlanError(AsyncDMTLError):
    """No plan exists for the request."""


class CodingError(AsyncDMTLError):
    """Vectors cannot be decoded, or decode to something else than was encoded."""

    exit_code = 6


class IntegrityError(CodingError):
    """Digests differ: copies of `partitions` disagree among `workers`, or bytes were corrupted."""

    def __init__(self, message: str, *, partitions: Sequence[str], workers: Sequence[str]) -> None:
        self.partitions = tuple(partitions)
        self.workers = tuple(workers)
        super().__init__(message)


class DisagreementError(IntegrityError):
    """Workers computed different updates from the same partition.

    `odd` maps each worker in the minority to the partitions on which it differs. `undecided` says whether the
    groups of agreeing workers are equally large and have taken part equally long. Then `odd` has all of them.
    """

    def __init__(self, message: str, *, odd: Mapping[str, Sequence[str]], undecided: bool = False) -> None:
        self.undecided = undecided
        self.odd = {worker: tuple(partitions) for worker, partitions in odd.items()}
        partitions = sorted({partition for names in odd.values() for partition in names})
        super().__init__(message, partitions=partitions, workers=list(odd))


class StateError(IntegrityError):
    """Workers hold different states of the training.

    `mendable` says whether most workers hold the same state, so that the others can be given it. `workers`
    are the others; if no state has a majority, all workers. Those of them in `near` differ by no more than
    rounding errors can that grow from round to round.
    """

    def __init__(
        self, message: str, *, workers: Sequence[str], mendable: bool, near: Sequence[str] = ()
    ) -> None:
        self.mendable = mendable
        self.near = tuple(near)
        super().__init__(message, partitions=[], workers=workers)


class LinkError(AsyncDMTLError):
    """A connection to `peer` could not be made or was lost."""

    exit_code = 3

    def __init__(self, message: str, *, peer: str) -> None:
        self.peer = peer
        super().__init__(message)


class AuthenticationError(AsyncDMTLError):
    """A peer could not prove its identity."""

    exit_code = 4


class WaitError(AsyncDMTLError):
    """A wait reached its limit of `seconds`, set by `option`."""

    exit_code = 5

    def __init__(self, message: str, *, seconds: float, option: str) -> None:
        self.seconds = seconds
        self.option = option
        super().__init__(f"{message} after {seconds:g} s (the limit is set by {option})")


class ProtocolError(AsyncDMTLError):
    """The rules of the wire protocol were broken."""


class LocalProtocolError(ProtocolError):
    """The fault is ours: this side used the session wrongly."""


class RemoteProtocolError(ProtocolError):
    """The fault is theirs: the peer sent something that is not allowed."""


class CorruptionError(RemoteProtocolError):
    """The bytes that arrived are not those that the peer sent, or the peer speaks another protocol."""


class PeerError(AsyncDMTLError):
    """The peer reported that it failed; `exit_code` is the exit code that it reported."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class Terminated(BaseException):
    """SIGTERM, SIGHUP or the end of standard input asked this process to end, and it has cleaned up."""


def _short(value: object, limit: int = 200) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= limit else text[: limit - 1] + "…"
