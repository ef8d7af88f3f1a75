"""Opens TCP connections with Go's schedule: short, growing timeouts, retried only when an attempt timed out.

Contract 3.12 (QP-201): the first attempt may take 50 ms, each further one 1.4 times as long, 15 in all, 30 to 60 ms
apart. A refused connection fails at once: an app that is not listening will not listen 30 ms later either, and the
caller knows better what to do.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import select
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final

ATTEMPTS: Final = 15
FIRST_TIMEOUT: Final = 0.05  # seconds
GROWTH: Final = 1.4
JITTER: Final = 0.1
KEEPALIVE: Final = 5  # seconds between TCP keep-alives to the app
# Bytes, of which the kernel makes twice as many. The loop reads all there is, up to 256 KiB, and a client that takes
# nothing leaves such a read in our memory: 260 KB for each slow reader, 130 KB with this. Loopback needs no more, and
# 1 MiB answers cost half the CPU: pieces of this size come from memory that malloc keeps.
RECEIVE: Final = 64 * 1024
_CONNECTED: Final = (0, errno.EISCONN)


class DialError(Exception):
    """The kernel said no; the text is its reason in lower case."""


class DialTimeout(Exception):
    """Every attempt of the schedule timed out."""


def connect_at_once(sock: socket.socket, host: str, port: int) -> bool:
    """Connects a socket of `socket_for`, when the kernel shakes hands within `connect`, as it does on loopback.

    False: nothing came of it and the socket is closed; `dial` tries with patience, and tells why not.
    """
    try:
        # Asked again it says how the first try ended: 20 us less than poll and SO_ERROR, from cold caches.
        if sock.connect_ex((host, port)) in (0, errno.EINPROGRESS) and sock.connect_ex((host, port)) in _CONNECTED:
            return True
    except OSError:
        pass
    sock.close()
    return False


async def dial(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """A connected socket. Raises DialError or DialTimeout; about 30 s in the worst case.

    host: an address, not a name.
    """
    timeout = FIRST_TIMEOUT
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(random.uniform(0.03, 0.06))
        sock: socket.socket | None = None
        try:
            sock = socket_for(host)
            if await _connected(loop, sock, (host, port), timeout * random.uniform(1 - JITTER, 1 + JITTER)):
                return sock
        except BaseException as error:
            if sock is not None:
                sock.close()
            if isinstance(error, OSError):
                reason = os.strerror(error.errno) if error.errno else str(error)
                raise DialError(reason.lower()) from None
            raise
        sock.close()
        timeout *= GROWTH
    raise DialTimeout


def open_transport(
    loop: asyncio.AbstractEventLoop,
    protocol: Callable[[], asyncio.Protocol],
    sock: socket.socket,
    opened: Callable[[], None],
) -> None:
    """Hands a connected socket to the loop, which calls the protocol's `connection_made` in its next turn, and
    `opened` in the one after: until then a transport's `pause_reading` is undone by uvloop. Raises OSError.

    This is `create_connection` without a task, which would take two turns more while a request waits.
    """
    opening = loop.create_connection(protocol, sock=sock)
    try:
        made = opening.send(None)  # as far as the transport, which waits to have told that it is made
    except BaseException:
        sock.close()
        raise
    made.add_done_callback(lambda _: _opened(loop, opening, sock, opened))


def _opened(
    loop: asyncio.AbstractEventLoop,
    opening: Coroutine[Any, Any, Any],
    sock: socket.socket,
    opened: Callable[[], None],
) -> None:
    try:
        opening.send(None)
    except StopIteration as finished:
        transport, _ = finished.value
        if not transport.is_closing():
            _keep_alive(sock)
        elif not isinstance(loop, asyncio.BaseEventLoop):
            # It ended in this very turn. uvloop closes the descriptor and forgets the socket object, which would close
            # whatever has that number when it is collected.
            sock.detach()
        opened()
    except (OSError, asyncio.CancelledError):
        sock.close()  # the transport was closed before it was made


def socket_for(host: str) -> socket.socket:
    """A socket that can be connected to that address. Raises OSError."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)  # before the handshake, which announces it
    return sock


async def _connected(
    loop: asyncio.AbstractEventLoop, sock: socket.socket, address: tuple[str, int], within: float
) -> bool:
    """Whether the kernel shook hands in time. Raises OSError when it was told no.

    The timeouts are for the handshake, not for our own turn on a busy loop: with a thousand dials at once that turn
    comes after more than 50 ms, and giving up handshakes that are long done costs six connections for every one. On
    loopback the handshake is over before `connect` returns, so the loop is hardly ever asked.
    """
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        if not _is_settled(sock):
            settled = asyncio.Event()
            loop.add_writer(sock.fileno(), settled.set)
            try:
                async with asyncio.timeout(within):
                    await settled.wait()
            except TimeoutError:
                if not _is_settled(sock):
                    return False
            finally:
                loop.remove_writer(sock.fileno())
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))
    return True


def _is_settled(sock: socket.socket) -> bool:
    """The handshake is over, one way or the other."""
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))


def _keep_alive(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE)
    except OSError:
        pass  # the connection is gone already; its user has been told
