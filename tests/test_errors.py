from __future__ import annotations

import inspect
import re

from asyncdmtl import errors
from asyncdmtl.errors import (
    AsyncDMTLError,
    DataError,
    DisagreementError,
    IntegrityError,
    LinkError,
    PeerError,
    Terminated,
    UsageError,
    WaitError,
)

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, AsyncDMTLError)
}


def documented() -> dict[str, tuple[str | None, int]]:
    """Name → parent and exit code, as the tree in the module's docstring draws them."""
    assert errors.__doc__ is not None
    above: list[str] = []
    found: dict[str, tuple[str | None, int]] = {}
    for line in errors.__doc__.splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+Error)\b.*?(\d+)(?: {3}|$)", line)
        if match is not None:
            depth = len(match[1]) // 4
            above = [*above[:depth], match[2]]
            found[match[2]] = (above[depth - 1] if depth else None, int(match[3]))
    return found


def test_the_tree_in_the_docstring_is_that_of_the_classes() -> None:
    tree = documented()
    assert tree.keys() == KINDS.keys()
    for name, (parent, code) in tree.items():
        assert KINDS[name].exit_code == code, name
        if parent is not None:
            assert KINDS[parent] in KINDS[name].__bases__, name


def test_a_usage_error_says_argument_rule_and_value() -> None:
    error = UsageError("--rounds", "must be at least 1", 0)
    assert str(error) == "--rounds must be at least 1, got 0"
    assert (error.argument, error.rule, error.value) == ("--rounds", "must be at least 1", 0)
    # Code that knows nothing of this package expects a ValueError.
    assert isinstance(error, ValueError)
    assert issubclass(DataError, UsageError)


def test_long_values_are_cut() -> None:
    assert str(UsageError("x", "is", "a" * 197)).endswith("'" + "a" * 197 + "'")
    assert len("'" + "a" * 198 + "'") == 200
    cut = str(UsageError("x", "is", "a" * 5000)).removeprefix("x is, got ")
    assert (len(cut), cut[-1]) == (200, "…")


def test_disagreement_names_workers_and_partitions_once() -> None:
    error = DisagreementError("updates differ", odd={"w1": ["p2", "p0"], "w3": ["p0"]})
    assert error.odd == {"w1": ("p2", "p0"), "w3": ("p0",)}
    assert (error.partitions, error.workers) == (("p0", "p2"), ("w1", "w3"))
    assert isinstance(error, IntegrityError)
    assert str(error) == "updates differ"


def test_a_wait_names_its_limit_and_the_option_that_sets_it() -> None:
    error = WaitError("worker 'w0' sent no uplink", seconds=2.50, option="--round-timeout")
    assert str(error) == "worker 'w0' sent no uplink after 2.5 s (the limit is set by --round-timeout)"
    assert (error.seconds, error.option, error.exit_code) == (2.5, "--round-timeout", 5)


def test_a_peers_error_has_the_exit_code_that_the_peer_named() -> None:
    assert PeerError("out of memory").exit_code == PeerError.exit_code == 1
    assert PeerError("bad data", exit_code=2).exit_code == 2


def test_a_lost_link_names_the_peer() -> None:
    error = LinkError("connection reset", peer="worker 'w0'")
    assert (error.peer, str(error)) == ("worker 'w0'", "connection reset")


def test_being_terminated_is_not_caught_with_errors() -> None:
    assert not issubclass(Terminated, Exception)
