"""Holds one TLS connection after its handshake: what the HTTP protocols expect of a transport and `ssl`'s lacks.

It stands on both sides of asyncio's (or uvloop's) SSL protocol: as the transport of an HTTP protocol, and as the
protocol of the SSL transport. A write is a bound method of the other side and costs nothing here. A read goes through
one buffer that all connections share: without one, asyncio makes a bytes object of 256 KiB for each read, which costs
28 us where the rest of it costs 4. What it adds, all of it as the cleartext transport behaves:

* `write_eof` says close_notify and goes on reading. asyncio raises NotImplementedError.
* `get_write_buffer_size` counts the TCP transport's buffer too, and both are small: 64 KiB, not 512 and more.
* `close` waits for a slow reader for as long as it reads, and not for a peer that never says close_notify. asyncio
  gives both together 30 s.

A client's own close_notify still ends the connection both ways.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, Final, cast

BUFFER: Final = 64 * 1024  # bytes each way; what uvloop's TCP transport takes before it says stop
PARTING: Final = 1.0  # seconds for a client's close_notify once ours is out; Go waits for none
NEVER: Final = 86400.0  # seconds; asyncio's own limit on the end of a connection, which `close` replaces
_SHARED: Final = memoryview(bytearray(64 * 1024))
# Passed on as they are.
_OF_TRANSPORTS: Final = ("write", "writelines", "pause_reading", "resume_reading", "is_closing")
_OF_PROTOCOLS: Final = ("data_received", "pause_writing", "resume_writing")


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """See the module docstring. Made before the handshake as its protocol; `connect` makes it a transport."""

    __slots__ = (
        "_early", "_ended", "_inner", "_loop", "_parting", "_protocol", "_raw", "data_received", "is_closing", "over",
        "pause_reading", "pause_writing", "resume_reading", "resume_writing", "write", "writelines",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, raw: asyncio.Transport) -> None:
        self._loop = loop
        self._raw = raw
        self._inner: asyncio.Transport | None = None
        self._protocol: asyncio.Protocol | None = None
        self._parting: asyncio.TimerHandle | None = None
        self.over = False  # connection_lost was called
        # asyncio hands on what came with the client's last handshake message before anybody hears of the handshake.
        self._early: list[bytes] = []
        self._ended = False
        self.data_received: Callable[[bytes], None] = self._early.append

    def __repr__(self) -> str:
        return f"<TlsTransport {self._protocol!r} over={self.over}>"

    def connect(self, inner: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        """The handshake is done: tells the protocol, before it is given any data."""
        inner.set_write_buffer_limits(high=BUFFER)
        inner.set_read_buffer_limits(high=BUFFER)  # type: ignore[attr-defined]
        self._inner = inner
        self._protocol = protocol
        early, self._early = self._early, []
        self._bind(**{name: getattr(inner, name) for name in _OF_TRANSPORTS})
        self._bind(**{name: getattr(protocol, name) for name in _OF_PROTOCOLS})
        protocol.connection_made(self)
        for data in early:
            self.data_received(data)
        if self._ended:
            self.eof_received()

    def _bind(self, **calls: Any) -> None:
        for name, call in calls.items():
            setattr(self, name, call)

    # -- protocol of the SSL transport

    def get_buffer(self, sizehint: int) -> memoryview:
        """Filled and handed back within one call of the SSL protocol, so one serves all."""
        return _SHARED

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(_SHARED[:nbytes]))

    def eof_received(self) -> None:
        """close_notify; None, because the SSL protocol would only complain about an answer."""
        self._ended = True
        if self._protocol is not None:
            self._protocol.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        self.over = True
        if self._parting is not None:
            self._parting.cancel()
            self._parting = None
        protocol, self._protocol = self._protocol, None
        if protocol is None:
            return
        # No circle is left behind: the collector hardly ever looks.
        self._bind(**_DEAF)
        protocol.connection_lost(error)

    # -- transport of the protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default if self._inner is None else self._inner.get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast(asyncio.BaseProtocol, self._protocol)

    def get_write_buffer_size(self) -> int:
        if self._inner is None or self.over:
            return 0
        return self._inner.get_write_buffer_size() + self._raw.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """We will say no more; the client may."""
        inner = self._inner
        if inner is None or self.over or inner.is_closing():
            return
        tls = inner.get_extra_info("ssl_object")
        # OpenSSL gives up on a connection that holds unread data when it is asked to end our side.
        pieces = []
        try:
            while piece := tls.read(len(_SHARED)):
                pieces.append(piece)
        except ssl.SSLError:
            pass
        try:
            tls.unwrap()
        except ssl.SSLWantReadError:
            pass  # said; theirs has not come yet
        except (ssl.SSLError, ValueError):
            self.abort()
            return
        inner.writelines([])  # sends what OpenSSL has written
        if pieces and self._protocol is not None:
            self._protocol.data_received(b"".join(pieces))

    def close(self) -> None:
        inner = self._inner
        if inner is None or self.over or self._parting is not None:
            return
        inner.close()
        if not self.over:
            self._parting = self._loop.call_later(PARTING, self._part)

    def _part(self) -> None:
        self._parting = None
        if self.over:
            return
        if self.get_write_buffer_size():
            self._parting = self._loop.call_later(PARTING, self._part)  # still taking our answer
        else:
            self._raw.close()

    def abort(self) -> None:
        if self._inner is not None and not self.over:
            self._inner.abort()


def _nothing(data: object = None) -> None:
    pass


_DEAF: Final[dict[str, Any]] = dict.fromkeys((*_OF_TRANSPORTS, *_OF_PROTOCOLS), _nothing) | {"is_closing": lambda: True}
