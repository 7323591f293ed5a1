"""Sockets of a multicast group: one that sends to it, and one that receives from it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from asyncdmtl.errors import LinkError, UsageError
from asyncdmtl.multicast.datagrams import NAME_BYTES, OVERHEAD
from asyncdmtl.multicast.receiving import DatagramCounts
from asyncdmtl.multicast.sending import DatagramBlock

log = logging.getLogger(__name__)

# The Linux option by which the kernel cuts one large write into datagrams of a given size
# (include/uapi/linux/udp.h; Python's socket module lacks the names of this and the next options).
UDP_SEGMENT = 103

# The Linux option by which one read returns several datagrams of one size (include/uapi/linux/udp.h).
UDP_GRO = 104

# The Linux options that read the MTU of the path to the group (include/uapi/linux/in.h, in6.h).
IP_MTU = 14
IPV6_MTU = 24

# The Linux options by which root can make a socket's buffers larger than the system's limit
# (asm-generic/socket.h).
SO_RCVBUFFORCE = 33
SO_SNDBUFFORCE = 32

# Bytes of a packet if the MTU cannot be read: that of Ethernet.
USUAL_MTU = 1500

# The most bytes of a packet. The loopback interface permits larger ones, but a lost small packet costs less
# to repair.
LARGEST_PACKET = 9000

# Bytes that may wait at the receiving socket, since a worker does not read while it computes.
RECEIVE_BUFFER_BYTES = 1 << 24

# Bytes that may wait at the sending socket: as many as a fast network sends in some milliseconds.
SEND_BUFFER_BYTES = 1 << 20

# The most reads in one turn of the event loop, so that heartbeats are not late.
TURN_READS = 64

# The most reads before a loss report. All datagrams that have arrived must be counted; the limit ends the
# reading if a fast sender goes on sending.
DRAIN_READS = 1 << 14


@dataclass(frozen=True)
class Group:
    """A multicast group.

    Attributes
    ----------
    address : str
        An IPv4 or IPv6 address of the multicast range.
    port : int
    hops : int
        The time to live of datagrams: 1 keeps them in the local network, 0 on this host.
    """

    address: str = "239.192.77.77"
    port: int = 7701
    hops: int = 1

    def __post_init__(self) -> None:
        try:
            usable = ipaddress.ip_address(self.address).is_multicast
        except ValueError:
            usable = False
        if not usable:
            rule = "must be a multicast address: 224.0.0.0/4 or ff00::/8"
            raise UsageError("--group", rule, self.address)
        if not 1 <= self.port <= 65535:
            raise UsageError("--group", "must have a port from 1 to 65535", self.port)
        if not 0 <= self.hops <= 255:
            raise UsageError("--hops", "must lie between 0 and 255", self.hops)

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6, as the address requires."""
        return socket.AF_INET6 if ipaddress.ip_address(self.address).version == 6 else socket.AF_INET

    @property
    def headers(self) -> int:
        """Bytes of a datagram's headers on the wire: UDP, IP and Ethernet together."""
        return 8 + (40 if self.family == socket.AF_INET6 else 20) + 18


class GroupSender:
    """Sends datagrams to a group.

    Parameters
    ----------
    group : Group
    interface : str
        The network interface: its name, or one of its addresses. If it is empty, the kernel's routes decide.

    Attributes
    ----------
    piece_bytes : int
        Bytes of coded rows that fit a datagram.

    Raises
    ------
    UsageError
        There is no such interface.
    LinkError
        Nothing can be sent to the group.
    """

    def __init__(self, group: Group, interface: str) -> None:
        self.group = group
        self._loop = asyncio.get_running_loop()
        self._segmented = sys.platform == "linux"
        self._warned = False
        self._socket = made = socket.socket(group.family, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            _make_room(made, socket.SO_SNDBUF, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
            _send_by(made, group, interface)
            made.connect((group.address, group.port))
        except UsageError:
            made.close()
            raise
        except OSError as error:
            made.close()
            told = f"nothing can be sent to the group {group.address}: {error.strerror} (--interface)"
            raise LinkError(told, peer=group.address) from error
        self.piece_bytes = _payload(made, group) - OVERHEAD

    async def send(self, block: DatagramBlock) -> None:
        """Send datagrams. Datagrams that this machine's network refuses count as lost."""
        while True:
            try:
                self._send_now(block)
                return
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                if not self._warned:
                    log.warning("datagrams to %s are lost: %s", self.group.address, error.strerror)
                    self._warned = True
                return

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _send_now(self, block: DatagramBlock) -> None:
        if self._segmented and block.count > 1:
            control = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", block.size))]
            try:
                self._socket.sendmsg([block.datagrams], control)
                return
            except BlockingIOError:
                raise
            except OSError:
                # The kernel (before 4.18) or the network card cannot do this: datagrams are sent one by one
                # from now on.
                self._segmented = False
        for at in range(0, len(block.datagrams), block.size):
            self._socket.send(block.datagrams[at : at + block.size])

    async def _writable(self) -> None:
        ready = self._loop.create_future()

        def done() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_writer(self._socket.fileno(), done)
        try:
            await ready
        finally:
            self._loop.remove_writer(self._socket.fileno())


class GroupReceiver:
    """Receives datagrams of a group, and passes each to the function that is registered for its stream.

    Parameters
    ----------
    group : Group
    interface : str
        As for `GroupSender`.

    Attributes
    ----------
    counts : DatagramCounts
        The counts of all datagrams of the group.

    Raises
    ------
    UsageError
        There is no such interface.
    LinkError
        The group cannot be joined.
    """

    def __init__(self, group: Group, interface: str) -> None:
        self.counts = DatagramCounts()
        self._loop = asyncio.get_running_loop()
        self._streams: dict[bytes, Callable[[memoryview], object]] = {}
        self._buffer = memoryview(bytearray(1 << 16))
        self._socket = made = socket.socket(group.family, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _make_room(made, socket.SO_RCVBUF, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
            made.bind((group.address if sys.platform == "linux" else "", group.port))
            _join(made, group, interface)
            if sys.platform == "linux":
                with contextlib.suppress(OSError):
                    made.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        except UsageError:
            made.close()
            raise
        except OSError as error:
            made.close()
            told = f"the group {group.address} cannot be joined: {error.strerror} (--interface)"
            raise LinkError(told, peer=group.address) from error
        self._loop.add_reader(made.fileno(), self.read)

    def listen(self, name: bytes, take: Callable[[memoryview], object]) -> None:
        """Pass the datagrams of a stream to `take`; each is valid during the call only."""
        self._streams[name] = take

    def forget(self, name: bytes) -> None:
        """Stop passing on the datagrams of a stream."""
        self._streams.pop(name, None)

    def read(self, most: int = TURN_READS) -> None:
        """Pass on the datagrams that have arrived, in at most `most` reads."""
        for _ in range(most):
            try:
                length, control, _, _ = self._socket.recvmsg_into([self._buffer], 64)
            except BlockingIOError:
                return
            except OSError as error:
                log.debug("the group's socket: %s", error)
                return
            size = length
            for level, kind, content in control:
                if (level, kind) == (socket.SOL_UDP, UDP_GRO):
                    size = struct.unpack_from("=H", content)[0]
            for at in range(0, length, size or 1):
                self._hand_over(self._buffer[at : min(at + size, length)])

    def close(self) -> None:
        """Leave the group and close the socket."""
        self._loop.remove_reader(self._socket.fileno())
        self._socket.close()

    def _hand_over(self, datagram: memoryview) -> None:
        take = self._streams.get(bytes(datagram[:NAME_BYTES]))
        if take is None:
            self.counts.foreign += 1
        else:
            take(datagram)


def _make_room(made: socket.socket, option: int, forced: int, size: int) -> None:
    """Let `size` bytes wait at a socket, if the kernel permits it."""
    with contextlib.suppress(OSError):
        made.setsockopt(socket.SOL_SOCKET, option, size)
    if sys.platform == "linux" and made.getsockopt(socket.SOL_SOCKET, option) < size:
        # Only root may exceed the system's limit.
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, forced, size)


def _send_by(made: socket.socket, group: Group, interface: str) -> None:
    if group.family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, group.hops)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _membership(group, interface))
    else:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, group.hops)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface_index(interface))


def _join(made: socket.socket, group: Group, interface: str) -> None:
    if group.family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, _membership(group, interface))
    else:
        membership = socket.inet_pton(socket.AF_INET6, group.address)
        membership += struct.pack("=I", interface_index(interface))
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, membership)


def _membership(group: Group, interface: str) -> bytes:
    """A struct ip_mreqn: the group, an address of the interface, and the index of the interface."""
    local, index = socket.inet_aton("0.0.0.0"), 0
    try:
        # A server that listens on :: sees IPv4 addresses in this form.
        local = socket.inet_aton(str(ipaddress.IPv4Address(interface.removeprefix("::ffff:"))))
    except ValueError:
        index = interface_index(interface)
    return socket.inet_aton(group.address) + local + struct.pack("=i", index)


def interface_index(interface: str) -> int:
    """The kernel's number of a network interface; 0 if `interface` is empty.

    Parameters
    ----------
    interface : str
        The interface's name, or one of its IPv6 addresses.

    Raises
    ------
    UsageError
        There is no such interface.
    """
    if not interface:
        return 0
    names = {name: index for index, name in socket.if_nameindex()}
    index = names.get(interface) or names.get(_name_by_address(interface) or "")
    if index is None:
        rule = f"must be one of the interfaces {', '.join(names)}, or the address of one"
        raise UsageError("--interface", rule, interface)
    return index


def _name_by_address(address: str) -> str | None:
    """The name of the interface that has an IPv6 address; None if the kernel knows none."""
    try:
        digits = ipaddress.IPv6Address(address.partition("%")[0]).exploded.replace(":", "")
        with Path("/proc/net/if_inet6").open() as listed:
            found = [line.split() for line in listed]
    except (ValueError, OSError):
        return None
    return next((words[-1] for words in found if words[0] == digits), None)


def _payload(connected: socket.socket, group: Group) -> int:
    """Bytes of the largest datagram that goes to the group in one packet."""
    six = group.family == socket.AF_INET6
    mtu = USUAL_MTU
    if sys.platform == "linux":
        level, option = (socket.IPPROTO_IPV6, IPV6_MTU) if six else (socket.IPPROTO_IP, IP_MTU)
        mtu = connected.getsockopt(level, option)
    return min(mtu, LARGEST_PACKET) - (40 if six else 20) - 8
