"""Sends on a connection to the app before the event loop has made its transport.

Making a transport takes the loop a quarter of a millisecond from cold caches. A request that woke the app leaves
before that, and the app works on it meanwhile. What the kernel does not take at once waits for the transport. An end
and the wish not to read wait one turn more, until `create_connection` is through: before that uvloop forgets the one
and closes a descriptor twice after the other.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any


class Unmade(asyncio.Transport):
    """As much of a transport as an exchange may ask for; passes all on as soon as there is a real one."""

    __slots__ = ("_closed", "_paused", "_socket", "_transport", "_unsent")

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._transport: asyncio.Transport | None = None
        self._unsent = bytearray()
        self._paused = False
        self._closed: str = ""  # how: "close" or "abort"

    def __repr__(self) -> str:
        return f"<Unmade unsent={len(self._unsent)} paused={self._paused} closed={self._closed!r} {self._transport!r}>"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._transport is not None:
            self._transport.write(data)
            return
        sent = 0
        if not self._unsent:
            try:
                sent = self._socket.send(data)
            except OSError:
                pass  # full, or broken: then the transport will find that out and say so
        self._unsent += data[sent:]

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.write(data)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False

    def close(self) -> None:
        self._closed = self._closed or "close"

    def abort(self) -> None:
        self._closed = "abort"

    def is_closing(self) -> bool:
        return bool(self._closed)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._socket if name == "socket" else default

    def made(self, transport: asyncio.Transport) -> None:
        """The loop has made it."""
        self._transport = transport
        if self._unsent:
            transport.write(self._unsent)

    def handed_over(self) -> asyncio.Transport:
        """The real transport, which is used from here on."""
        transport = self._transport
        assert transport is not None
        if self._closed == "abort":
            transport.abort()
        elif self._closed:
            transport.close()
        elif self._paused and not transport.is_closing():
            transport.pause_reading()
        return transport
