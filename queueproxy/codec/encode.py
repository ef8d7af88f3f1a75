"""Encodes what goes to the app: the request head as our hop writes it, and chunked body framing."""

from __future__ import annotations

from typing import Final

from queueproxy.codec.headers import (
    CONTENT_LENGTH,
    FORWARDED,
    HOST,
    K_ORIGINAL_HOST,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    forwarded,
)  # fmt: skip
from queueproxy.codec.http1 import RequestHead

_CRLF: Final = b"\r\n"


def request_bytes(head: RequestHead, peer: bytes, default_host: bytes) -> bytes:
    """The head as the app gets it: HTTP/1.1, origin form, our hop's headers (contract 3.12).

    peer: the client's address, appended to X-Forwarded-For (QP-195). default_host: for HTTP/1.0 without Host.
    """
    special = head.special
    host = special.get(K_ORIGINAL_HOST) or special.get(HOST) or default_host  # QP-194
    xff = special.get(X_FORWARDED_FOR)
    parts = [head.method, b" ", head.target, b" HTTP/1.1\r\nHost: ", host, _CRLF, *head.lines]
    if not xff and FORWARDED not in special and (X_FORWARDED_HOST in special or X_FORWARDED_PROTO in special):
        value = forwarded([], special.get(X_FORWARDED_HOST), special.get(X_FORWARDED_PROTO))
        if value:
            parts += (b"Forwarded: ", value, _CRLF)
    if head.body == 2:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    elif CONTENT_LENGTH in special:
        parts += (b"Content-Length: ", special[CONTENT_LENGTH], _CRLF)
    if head.upgrade is not None:
        parts += (b"Connection: Upgrade\r\nUpgrade: ", head.upgrade, _CRLF)
    if xff:
        parts += (b"X-Forwarded-For: ", xff, b", ", peer, b"\r\n\r\n")
    else:
        parts += (b"X-Forwarded-For: ", peer, b"\r\n\r\n")
    return b"".join(parts)


def chunk(data: bytes) -> bytes:
    """One chunk (RFC 9112 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: list[tuple[bytes, bytes]]) -> bytes:
    """The end of a chunked body with its trailer section."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + b"".join(b"%b: %b\r\n" % field for field in trailers) + _CRLF
