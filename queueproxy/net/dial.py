"""Opens one TCP connection with Go's schedule: short, growing timeouts, retried only when an attempt timed out.

Contract 3.12 (QP-201): the first attempt may take 50 ms, each further one 1.4 times as long, 15 in all, 30 to 60 ms
apart. A refused connection fails at once: an app that is not listening will not listen 30 ms later either, and the
caller knows better what to do.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import Callable
from typing import Final

ATTEMPTS: Final = 15
FIRST_TIMEOUT: Final = 0.05  # seconds
GROWTH: Final = 1.4
JITTER: Final = 0.1
KEEPALIVE: Final = 5  # seconds between TCP keep-alives to the app


class DialError(Exception):
    """The kernel said no; the text is its reason in lower case."""


class DialTimeout(Exception):
    """Every attempt of the schedule timed out."""


async def dial(
    loop: asyncio.AbstractEventLoop, protocol: Callable[[], asyncio.Protocol], host: str, port: int
) -> asyncio.Transport:
    """Connects and returns the transport. Raises DialError or DialTimeout; about 30 s in the worst case."""
    timeout = FIRST_TIMEOUT
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(random.uniform(0.03, 0.06))
        try:
            async with asyncio.timeout(timeout * random.uniform(1 - JITTER, 1 + JITTER)):
                transport, _ = await loop.create_connection(protocol, host, port)
        except TimeoutError:
            timeout *= GROWTH
            continue
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise DialError(reason.lower()) from None
        _keep_alive(transport)
        return transport
    raise DialTimeout


def _keep_alive(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE)
    except OSError:
        pass  # the peer is gone already; the first write will tell
