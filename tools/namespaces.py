"""Simulated hosts on one machine: network namespaces, joined by a bridge in a further one. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass

import click

# The bytes that a limited link passes at once after it was idle: those of 5 ms, which are few beside what a
# round sends, but at least two frames.
BURST_SECONDS, MOST_BURST, LEAST_BURST = 0.005, 64 << 10, 3 << 10

# Units of rates, as `tc` has them, in bits per second.
UNITS = {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9}

STATISTICS = ("rx_bytes", "tx_bytes", "rx_packets", "tx_packets")


@dataclass(frozen=True)
class Counters:
    """The kernel's counters of a namespace since it was made.

    They are bytes and packets of its interface, received and sent, including headers of Ethernet, IP and TCP;
    and retransmitted TCP segments. Between namespaces, the kernel passes packets of up to 64 KiB, each of
    which has these headers once.
    """

    received_bytes: int
    sent_bytes: int
    received_packets: int
    sent_packets: int
    retransmitted_segments: int

    def __add__(self, other: Counters) -> Counters:
        return Counters(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Counters) -> Counters:
        return Counters(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True)
class Host:
    """A namespace with an address; processes that are started with `command` live in it.

    With an empty name, it is the tool's own namespace, whose traffic is not counted.
    """

    namespace: str
    address: str

    def command(self, *words: str) -> list[str]:
        """The command that runs a program on this host; it becomes that program, with the same process id."""
        if not self.namespace:
            return list(words)
        return ["ip", "netns", "exec", self.namespace, *words]

    def counters(self) -> Counters:
        """The kernel's counters so far."""
        if not self.namespace:
            return Counters(0, 0, 0, 0, 0)
        paths = [f"/sys/class/net/eth0/statistics/{name}" for name in STATISTICS]
        command = self.command("cat", *paths, "/proc/net/snmp")
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        names, values = (line.split() for line in shown if line.startswith("Tcp:"))
        again = dict(zip(names, values, strict=True))["RetransSegs"]
        received, sent, packets_in, packets_out = map(int, shown[: len(STATISTICS)])
        return Counters(received, sent, packets_in, packets_out, int(again))


HERE = Host("", "127.0.0.1")


def obstacle(rate: str | None = None) -> str | None:
    """The reason why namespaces cannot be made here; None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    wanted = ["ip", *(["tc"] if rate is not None else [])]
    if missing := [name for name in wanted if shutil.which(name) is None]:
        return f"network namespaces need {' and '.join(missing)} (iproute2)"
    made = subprocess.run(["ip", "netns", "add", _name("try")], check=False, capture_output=True, text=True)
    if made.returncode:
        return f"network namespaces cannot be had: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", _name("try")], check=False)
    return None


@contextmanager
def network(
    names: Sequence[str], rate: str | Mapping[str, str | tuple[str, str]] | None = None
) -> Iterator[dict[str, Host]]:
    """Make a namespace for each name, all on one bridge; remove everything in the end.

    Parameters
    ----------
    names : sequence of str
    rate : str or mapping of name to str, optional
        The limit of each host's link in each direction, in the format of `tc`, such as 100mbit; or of the
        links of some hosts, each with one limit, or one for what it sends and one for what it receives.

    Raises
    ------
    click.ClickException
        Namespaces cannot be made here.
    """
    rates = rate if isinstance(rate, Mapping) else {} if rate is None else dict.fromkeys(names, rate)
    limits = {name: (limit, limit) if isinstance(limit, str) else limit for name, limit in rates.items()}
    if (reason := obstacle("limited" if limits else None)) is not None:
        raise click.ClickException(reason)
    hub = _name("hub")
    # These addresses exist in these namespaces only.
    hosts = {name: Host(_name(str(i)), f"10.77.{i // 250}.{i % 250 + 1}") for i, name in enumerate(names)}
    made = [hub, *(host.namespace for host in hosts.values())]
    try:
        for namespace in made:
            _ip("netns", "add", namespace)
        _ip("-n", hub, "link", "add", "br0", "type", "bridge")
        _ip("-n", hub, "link", "set", "br0", "up")
        for i, (name, host) in enumerate(hosts.items()):
            _plug_in(host, hub, f"port{i}", limits.get(name))
        yield hosts
    finally:
        for namespace in made:
            subprocess.run(["ip", "netns", "del", namespace], check=False, stderr=subprocess.DEVNULL)


def _plug_in(host: Host, hub: str, port: str, limits: tuple[str, str] | None) -> None:
    own = host.namespace
    _ip("-n", hub, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", own)
    _ip("-n", hub, "link", "set", port, "master", "br0", "up")
    _ip("-n", own, "address", "add", f"{host.address}/16", "dev", "eth0")
    _ip("-n", own, "link", "set", "eth0", "up")
    _ip("-n", own, "link", "set", "lo", "up")
    for (namespace, device), rate in zip(((own, "eth0"), (hub, port)), limits or (), strict=False):
        shape = ["root", "tbf", "rate", rate, "burst", str(burst_of(rate)), "latency", "200ms"]
        subprocess.run(["tc", "-n", namespace, "qdisc", "add", "dev", device, *shape], check=True)


def burst_of(rate: str) -> int:
    """The bytes that a link of this rate, such as 100mbit, passes at once."""
    bits = float(rate[:-4]) * UNITS[rate[-4:]]
    return round(min(max(bits / 8 * BURST_SECONDS, LEAST_BURST), MOST_BURST))


def _name(name: str) -> str:
    """A name that is unique on this machine, since several tools may run at a time."""
    return f"dmtl{os.getpid()}-{name}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
