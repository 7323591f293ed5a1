"""Addresses as text, HOST:PORT."""

from __future__ import annotations

from asyncdmtl.errors import UsageError


def parse_address(text: str, option: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`; UsageError names `option`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(option, "must be HOST:PORT with a port from 0 to 65535", text)
    return host, int(port)


def parse_addresses(text: str, option: str) -> list[tuple[str, int]]:
    """The addresses of `HOST:PORT,HOST:PORT…`, each of which is there once; UsageError names `option`."""
    addresses = [parse_address(each.strip(), option) for each in text.split(",")]
    if len(set(addresses)) < len(addresses):
        raise UsageError(option, "must name each address once", text)
    return addresses


def format_address(host: str, port: int) -> str:
    """`HOST:PORT`, or `[IPV6]:PORT`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
