"""Opens a netlink socket on which the kernel tells of TCP connections that ended in our network namespace, and reads
how many came.

Whether a visitor is gone can be seen by looking at all connections, but that is a walk over the whole machine's hash
table: 0.25 to 0.5 ms, most of what a probe a second costs a sleeping pod's sidecar. `Farewells` hears of ends as they
happen (the multicast groups of sock_diag; no privilege needed), `arrivals` reads the namespace's count of connections
that were ever accepted by the kernel (50 us). Together they say exactly, where nothing else happens, what the walk
would: so many came, so many left. What happens when that breaks: None, which means that nobody knows, and one looks.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection
from typing import Final

from queueproxy.net.sockdiag import BUFFER, HEAD, NETLINK_SOCK_DIAG, NLMSGHDR

__all__ = ["Farewells", "arrivals"]

_GROUPS: Final = 1 << 0 | 1 << 2  # SKNLGRP_INET_TCP_DESTROY and its INET6 sister (linux/sock_diag.h)
_MOST: Final = 64  # datagrams read at once; a pod that ends more in a moment is not one that is probed
_COUNTS: Final = "/proc/thread-self/net/snmp"
_LOOPBACK: Final = (b"\x7f", bytes(15) + b"\x01", bytes(10) + b"\xff\xff\x7f")  # how such addresses begin


class Farewells:
    """Ends of connections from elsewhere, from `listen` on."""

    __slots__ = ("_socket",)

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def __repr__(self) -> str:
        return f"<Farewells {'closed' if self._socket is None else 'open'}>"

    def listen(self) -> bool:
        """Begin anew; False where the kernel will not have it."""
        self.close()
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
            self._socket.setblocking(False)
            self._socket.bind((0, _GROUPS))
        except OSError:
            self.close()
            return False
        return True

    def count(self, ports: Collection[int]) -> int | None:
        """Connections to these ports, from outside this namespace, that have ended; None when some may have been
        missed."""
        if self._socket is None:
            return None
        count = 0
        try:
            for _ in range(_MOST):
                count += sum(_is_farewell(message, ports) for message in _messages(self._socket.recv(BUFFER)))
        except BlockingIOError:
            return count
        except OSError:  # ENOBUFS: the buffer was full
            return None
        return None

    def close(self) -> None:
        """A second call does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def arrivals() -> int | None:
    """How many connections the kernel has accepted in this namespace since it exists; None where it does not tell."""
    try:
        fd = os.open(_COUNTS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 16384)
        finally:
            os.close(fd)
        names, values = (line.split() for line in text.split(b"\n") if line.startswith(b"Tcp:"))
        return int(values[names.index(b"PassiveOpens")])
    except (OSError, ValueError, IndexError):
        return None


def _messages(datagram: bytes) -> list[bytes]:
    found, at = [], 0
    while at + NLMSGHDR.size <= len(datagram):
        length = NLMSGHDR.unpack_from(datagram, at)[0]
        if length < NLMSGHDR.size:
            break
        found.append(datagram[at + NLMSGHDR.size : at + length])
        at += (length + 3) & ~3
    return found


def _is_farewell(message: bytes, ports: Collection[int]) -> bool:
    """struct inet_diag_msg: who it was, from our side."""
    if len(message) < HEAD.size + 32:
        return False
    family, _, _, _, port, _ = HEAD.unpack_from(message)
    size = 4 if family == socket.AF_INET else 16
    here, there = message[HEAD.size : HEAD.size + size], message[HEAD.size + 16 : HEAD.size + 16 + size]
    return port in ports and here != there and not _is_loopback(there)


def _is_loopback(address: bytes) -> bool:
    first, sixth, mapped = _LOOPBACK
    return address.startswith(first) if len(address) == 4 else address == sixth or address.startswith(mapped)
