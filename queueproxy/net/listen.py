"""Opens listening sockets: the wildcard address in dual-stack form, as Go's `:PORT` (contract 1.1, QP-040)."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

# Bytes the kernel takes from us beyond what it may send; accepted connections inherit it. Without it a client that
# reads nothing gets up to 4 MiB of kernel memory, copied there in tiny pieces when its window is tiny: 200 slow readers
# made others wait 1.1 to 2.7 s, with it 0.1 s. What is in flight is not limited, so long fat paths stay as quick.
UNSENT: Final = 128 * 1024
BACKLOG: Final = 4096  # Go asks for net.core.somaxconn, 4096 on current kernels; the kernel caps it anyway


class ListenFailed(Exception):
    """A port could not be bound; the text is Go's, which operators' runbooks grep for."""


def listen(port: int, host: str = "") -> socket.socket:
    """A non-blocking listening socket; host "" is every address, IPv4 and IPv6. Raises ListenFailed."""
    try:
        return _listen(port, host)
    except OSError as error:
        what = os.strerror(error.errno).lower() if error.errno else str(error)
        raise ListenFailed(f"listen tcp {host}:{port}: bind: {what}") from error


def _listen(port: int, host: str) -> socket.socket:
    if host and ":" not in host:
        return _bound(socket.AF_INET, (host, port))
    try:
        return _bound(socket.AF_INET6, (host or "::", port))
    except OSError as error:
        if host or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _bound(socket.AF_INET, ("0.0.0.0", port))  # IPv6 is absent


def _bound(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        except OSError:
            pass  # a kernel that does not know it (QP-358): only its slow readers cost more
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock
