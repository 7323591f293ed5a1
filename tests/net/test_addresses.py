from __future__ import annotations

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.net.addresses import format_address, parse_address, parse_addresses


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:0", "::1", 0), ("host.example:65535", "host.example", 65535)],
)
def test_an_address_is_read_and_written(text: str, host: str, port: int) -> None:
    assert parse_address(text, "--connect") == (host, port)
    assert format_address(host, port) == text


@pytest.mark.parametrize("text", ["", "host", ":80", "host:", "host:x", "host:65536", "host:-1"])
def test_an_address_without_host_or_port_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--connect must be HOST:PORT with a port from 0 to 65535"):
        parse_address(text, "--connect")


def test_several_addresses_are_separated_by_commas() -> None:
    assert parse_addresses("a:1,[::1]:2, b:3", "--connect") == [("a", 1), ("::1", 2), ("b", 3)]
    with pytest.raises(UsageError, match="--connect must be HOST:PORT"):
        parse_addresses("a:1,", "--connect")
    with pytest.raises(UsageError, match="--connect must name each address once, got 'a:1,a:1'"):
        parse_addresses("a:1,a:1", "--connect")
