"""Opens one TCP connection with Go's schedule: short, growing timeouts, retried only when an attempt timed out.

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
from collections.abc import Callable
from typing import Final

ATTEMPTS: Final = 15
FIRST_TIMEOUT: Final = 0.05  # seconds
GROWTH: Final = 1.4
JITTER: Final = 0.1
KEEPALIVE: Final = 5  # seconds between TCP keep-alives to the app
# Bytes, of which the kernel makes twice as many. The loop reads all there is, up to 256 KiB, and a client that takes
# nothing leaves such a read in our memory: 260 KB for each slow reader, 130 KB with this. Loopback needs no more, and
# 1 MiB answers cost half the CPU: pieces of this size come from memory that malloc keeps.
RECEIVE: Final = 64 * 1024


class DialError(Exception):
    """The kernel said no; the text is its reason in lower case."""


class DialTimeout(Exception):
    """Every attempt of the schedule timed out."""


async def dial(
    loop: asyncio.AbstractEventLoop, protocol: Callable[[], asyncio.Protocol], host: str, port: int
) -> asyncio.Transport:
    """Connects and returns the transport. Raises DialError or DialTimeout; about 30 s in the worst case.

    host: an address, not a name.
    """
    timeout = FIRST_TIMEOUT
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(random.uniform(0.03, 0.06))
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)  # before the handshake, which announces it
            if await _connected(loop, sock, (host, port), timeout * random.uniform(1 - JITTER, 1 + JITTER)):
                transport, _ = await loop.create_connection(protocol, sock=sock)
                loop.call_soon(_keep_alive, sock)  # after the request that waits for this connection has been sent
                return transport
        except OSError as error:
            sock.close()
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise DialError(reason.lower()) from None
        except BaseException:
            sock.close()
            raise
        sock.close()
        timeout *= GROWTH
    raise DialTimeout


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
