"""Sites in network namespaces: each has one link to the server, and links of its own to its workers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from namespaces import Host, network

# The length in bytes of the headers of Ethernet, IPv4 and TCP with timestamps, which every packet has once.
HEADERS = 66


@contextmanager
def site_network(
    server: str, sites: Mapping[str, Sequence[str]], rate: str
) -> Iterator[tuple[dict[str, Host], dict[str, str]]]:
    """Make a namespace for the server, for each site and for each worker; remove everything in the end.

    The link between a site and the server has the rate `rate`, such as 100mbit, in each direction; those
    between a site and its workers are open. A site forwards packets between its workers and the server.

    Yields
    ------
    hosts : dict of name to Host
    inside : dict of site to str
        The site's address towards its workers.
    """
    with network([server, *sites], dict.fromkeys(sites, rate)) as above:
        hosts, made, inside = dict(above), [], {}
        try:
            for s, (site, workers) in enumerate(sites.items()):
                here, net = above[site], f"10.{90 + s}.0"
                inside[site] = f"{net}.254"
                _ip("-n", here.namespace, "link", "add", "br0", "type", "bridge")
                _ip("-n", here.namespace, "address", "add", f"{inside[site]}/24", "dev", "br0")
                _ip("-n", here.namespace, "link", "set", "br0", "up")
                subprocess.run(here.command("sysctl", "-qw", "net.ipv4.ip_forward=1"), check=True)
                _ip("-n", above[server].namespace, "route", "add", f"{net}.0/24", "via", here.address)
                for k, worker in enumerate(workers):
                    own = f"{here.namespace}w{k}"
                    _ip("netns", "add", own)
                    made.append(own)
                    hosts[worker] = Host(own, f"{net}.{k + 1}")
                    port = ("link", "add", f"w{k}", "type", "veth", "peer", "name", "eth0", "netns", own)
                    _ip("-n", here.namespace, *port)
                    _ip("-n", here.namespace, "link", "set", f"w{k}", "master", "br0", "up")
                    _ip("-n", own, "address", "add", f"{net}.{k + 1}/24", "dev", "eth0")
                    for device in ("eth0", "lo"):
                        _ip("-n", own, "link", "set", device, "up")
                    _ip("-n", own, "route", "add", "default", "via", inside[site])
            yield hosts, inside
        finally:
            for namespace in made:
                subprocess.run(["ip", "netns", "del", namespace], check=False, stderr=subprocess.DEVNULL)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
