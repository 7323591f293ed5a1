from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from asyncdmtl.cli.multicast_options import downlink_options, make_multicast, takes_from_peers
from asyncdmtl.errors import UsageError
from asyncdmtl.net.udp import Group
from asyncdmtl.server.records import MulticastOptions


def parse(*words: str) -> dict[str, Any]:
    """The values of the downlink options for a command line."""
    given: dict[str, Any] = {}

    @click.command()
    @downlink_options
    def command(**values: Any) -> None:
        given.update(values)

    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return given


def test_rows_go_to_a_group_where_that_is_asked_for() -> None:
    assert make_multicast(parse("--group", "nonsense")) is None
    asked = ("--downlink", "multicast")
    assert make_multicast(parse(*asked)) == MulticastOptions(Group("239.192.77.77", 7701, 1), "", 90e6)
    more = ("--group", "[ff15::1]:9", "--interface", "eth7", "--hops", "3", "--multicast-rate", "900")
    assert make_multicast(parse(*asked, *more)) == MulticastOptions(Group("ff15::1", 9, 3), "eth7", 900e6)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--group", "239.1.2.3"), "--group must be HOST:PORT"),
        (("--group", "10.0.0.1:7701"), "--group must be a multicast address"),
        (("--group", "239.1.2.3:0"), "--group must have a port from 1 to 65535"),
        (("--hops", "300"), "--hops must lie between 0 and 255"),
        (("--multicast-rate", "0"), "--multicast-rate must lie between 0.01 and 1,000,000 Mbit/s"),
        (("--multicast-rate", "nan"), "--multicast-rate must lie between"),
    ],
)
def test_groups_and_rates_that_are_none(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        make_multicast(parse("--downlink", "multicast", *words))


def test_rows_may_come_from_workers_or_by_the_choice_of_the_server() -> None:
    assert [takes_from_peers(parse("--downlink", kind)) for kind in ("tcp", "multicast")] == [False, False]
    assert takes_from_peers(parse("--downlink", "peers"))
    assert make_multicast(parse("--downlink", "peers")) is None
    assert takes_from_peers(parse("--downlink", "auto"))
    assert make_multicast(parse("--downlink", "auto")) is not None
