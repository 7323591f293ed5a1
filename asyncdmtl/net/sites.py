"""The site of an address, for limits on connections from one site."""

from __future__ import annotations

import ipaddress


def site_of(address: str) -> str:
    """The site of an address: an IPv4 address, or the first 64 bits of an IPv6 address.

    A site with IPv6 has all addresses that begin with its 64 bits. Other text, such as a name or the path of
    a socket, is a site of its own.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
