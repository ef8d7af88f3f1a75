"""Runs WebSocket conversations under load: each connection upgrades once, then says the next message when it has heard
the echo of the last. Every echo is compared byte by byte: a relay that is quick and wrong gives no figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any, Final

from queueproxy.bench.websocket import handshake, masked_frame, plain_frame, switching

if TYPE_CHECKING:
    from queueproxy.bench.load import Load

__all__ = ["Talker", "talkers"]

_KEY: Final = b"cXVldWVwcm94eSBiZW5jaA=="  # 16 bytes in base64; nobody caches an echo, so one key serves all
_MASK: Final = b"\x9e\x37\x79\xb9"
_MAX_HEAD: Final = 16 * 1024


def talkers(path: str, host: str, size: int) -> Callable[[Load], Talker]:
    """A factory of connections that say `size` bytes at a time."""
    payload = (b"queueproxy " * (size // 11 + 1))[:size]
    asked, said, echo = handshake(path, host, _KEY), masked_frame(payload, _MASK), plain_frame(payload)
    return lambda load: Talker(load, asked, said, echo)


class Talker(asyncio.Protocol):
    """One connection, one message at a time."""

    __slots__ = ("answering", "asked", "asked_ns", "echo", "head", "heard", "load", "said", "transport")

    def __init__(self, load: Load, asked: bytes, said: bytes, echo: bytes) -> None:
        self.load = load
        self.asked = asked
        self.said = said
        self.echo = echo
        self.transport: Any = None
        self.head: bytes | None = b""  # of the 101, while it is not whole
        self.heard = 0
        self.asked_ns = 0
        self.answering = True  # a message is out

    def __repr__(self) -> str:
        return f"<Talker heard={self.heard} of {len(self.echo)}>"

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.write(self.asked)

    def data_received(self, data: bytes) -> None:
        if self.head is not None:
            self._answered(data)
            return
        heard = self.heard
        if data != self.echo[heard : heard + len(data)]:
            self._wrong()
            return
        self.heard = heard + len(data)
        if self.heard < len(self.echo):
            return
        now_ns = perf_counter_ns()
        self.load.histogram.record((now_ns - self.asked_ns) // 1000)
        self.answering = False
        if now_ns >= self.load.until_ns:
            self.transport.close()
        else:
            self._say()

    def _answered(self, data: bytes) -> None:
        """Bytes of the answer to the handshake; nothing follows it before we speak."""
        assert self.head is not None
        self.head += data
        if b"\r\n\r\n" in self.head:
            accepted = switching(_KEY).rpartition(b"Accept: ")[2].rstrip()
            if self.head.startswith(b"HTTP/1.1 101 ") and accepted in self.head and self.head.endswith(b"\r\n\r\n"):
                self.head = None
                self._say()
            else:
                self._wrong()
        elif len(self.head) > _MAX_HEAD:
            self._wrong()

    def _say(self) -> None:
        self.heard = 0
        self.answering = True
        self.asked_ns = perf_counter_ns()
        self.transport.write(self.said)

    def _wrong(self) -> None:
        """Counted as failed by `connection_lost`."""
        self.answering = True
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.load.left(self, failed=self.answering)
