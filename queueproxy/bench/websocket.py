"""Encodes and decodes as much WebSocket (RFC 6455) as an echo under load needs: the handshake and whole binary frames.

Theory of operation: a run sends the same message again and again, so either side knows in advance what it will hear.
The client makes its masked frame once and compares the echo byte by byte; the app takes the mask off each message
with one exclusive-or of two large integers, quicker than any loop. Fragments, control frames and extensions do not
occur between these two and are refused.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Final

__all__ = ["FrameError", "Frames", "accepted", "handshake", "masked_frame", "plain_frame", "switching"]

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
_BINARY: Final = 0x82  # FIN, opcode 2
_MASKED: Final = 0x80
MAX_PAYLOAD: Final = 16 << 20  # as the origin's other answers


class FrameError(ValueError):
    """Not a whole masked binary frame."""


def accepted(key: bytes) -> bytes:
    """Sec-WebSocket-Accept for a client's Sec-WebSocket-Key."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def handshake(path: str, host: str, key: bytes) -> bytes:
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    return head.encode() + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"


def switching(key: bytes) -> bytes:
    """The app's 101."""
    head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    return head + b"Sec-WebSocket-Accept: " + accepted(key) + b"\r\n\r\n"


def _head(size: int, masked: int) -> bytes:
    if size < 126:
        return bytes((_BINARY, masked | size))
    if size < 1 << 16:
        return struct.pack("!BBH", _BINARY, masked | 126, size)
    return struct.pack("!BBQ", _BINARY, masked | 127, size)


def _mask(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    pad = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pad, "little")).to_bytes(size, "little")


def plain_frame(payload: bytes) -> bytes:
    """As a server sends it."""
    return _head(len(payload), 0) + payload


def masked_frame(payload: bytes, mask: bytes) -> bytes:
    """As a client sends it; `mask` is four bytes."""
    return _head(len(payload), _MASKED) + mask + _mask(payload, mask)


class Frames:
    """A server's side of one connection: `feed` returns the payloads that are whole."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def __repr__(self) -> str:
        return f"<Frames held={len(self._held)}>"

    def feed(self, data: bytes) -> list[bytes]:
        held = self._held
        held += data
        found = []
        while (frame := self._first()) is not None:
            start, end = frame
            found.append(_mask(bytes(held[start:end]), bytes(held[start - 4 : start])))
            del held[:end]
        return found

    def _first(self) -> tuple[int, int] | None:
        """Where the payload of the first frame begins and ends, None when it is not whole."""
        held = self._held
        if len(held) < 2:
            return None
        if held[0] != _BINARY or not held[1] & _MASKED:
            raise FrameError(f"frame begins {bytes(held[:2])!r}")
        size, at = held[1] & 127, 2
        if size == 126:
            size, at = int.from_bytes(held[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(held[2:10], "big"), 10
        if len(held) < at + 4:
            return None
        if size > MAX_PAYLOAD:
            raise FrameError(f"{size} bytes in one frame")
        at += 4
        return (at, at + size) if len(held) >= at + size else None
