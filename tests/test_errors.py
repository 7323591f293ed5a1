from __future__ import annotations

import pytest

import asyncdmtl
from asyncdmtl import errors
from asyncdmtl.errors import AsyncDMTLError, DisagreementError, UsageError, WaitError


@pytest.mark.parametrize(
    ("rule", "value", "words"),
    [
        ("must be at least 1", 0, "--x must be at least 1, got 0"),
        ("must be true or false", None, "--x must be true or false, got None"),
        ("must be given for a graph", None, "--x must be given for a graph"),
        ("needs --y", None, "--x needs --y"),
        ("must be short", "a" * 300, f"--x must be short, got '{'a' * 198}…"),
    ],
)
def test_a_usage_error_names_argument_rule_and_value(rule: str, value: object, words: str) -> None:
    error = UsageError("--x", rule, value)
    assert str(error) == words
    assert (error.argument, error.rule, error.value) == ("--x", rule, value)
    assert isinstance(error, ValueError)


def test_a_value_that_is_nested_too_deeply_is_told_in_words() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert str(UsageError("--x", "must be short", nested)) == (
        "--x must be short, got a list that is nested too deeply"
    )


def test_a_disagreement_names_workers_and_partitions() -> None:
    error = DisagreementError("differ", odd={"w1": ["p2", "p0"], "w2": ["p2"]})
    assert (error.workers, error.partitions) == (("w1", "w2"), ("p0", "p2"))
    assert error.odd == {"w1": ("p2", "p0"), "w2": ("p2",)}


def test_a_wait_names_the_option_of_its_limit() -> None:
    assert str(WaitError("no worker", seconds=2.5, option="--x")) == (
        "no worker after 2.5 s (the limit is set by --x)"
    )


def test_the_exit_codes_are_those_of_the_documentation() -> None:
    documented = {
        line.split()[1]: int(line.split()[2])
        for line in (errors.__doc__ or "").splitlines()
        if line.strip().startswith(("├──", "└──", "│")) and "──" in line
        for line in [line.replace("│", " ").replace("(ValueError)", "")]
    }
    found = {
        name: kind.exit_code
        for name, kind in vars(errors).items()
        if is_error(kind) and name != "AsyncDMTLError"
    }
    assert documented == found


def is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, AsyncDMTLError)


def test_every_error_has_its_name_at_the_top_of_the_package() -> None:
    kinds = {name: kind for name, kind in vars(errors).items() if is_error(kind)}
    assert kinds == {name: vars(asyncdmtl)[name] for name in kinds}
    assert kinds.keys() <= set(asyncdmtl.__all__)
