"""Decides what llhttp sees of a request line, and how a wrong one is refused (knative-contract 1.3, QP-053).

llhttp knows a list of methods and versions; Go takes any token and any HTTP/1.x. What is legal for Go but not for
llhttp is made plain before it is parsed a second time, so all of this is off the common path.
"""

from __future__ import annotations

from typing import Final

from queueproxy.codec.chunked import TOKEN

_CRLF: Final = b"\r\n"
_HEX: Final = frozenset(b"0123456789abcdefABCDEF")
_NOT_HOST: Final = bytes(range(33)) + b'"<>\\^`{|}\x7f/?#@,'


class BadMessage(Exception):
    """A request that is refused before anybody counts it (QP-053). `reason` is also the body of the answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def checked_host(host: bytes) -> bytes:
    """host, or a refusal when it has bytes that no host has."""
    if host.translate(None, _NOT_HOST) != host:
        raise BadMessage(400, "Bad Request: malformed Host header")
    return host


def well_escaped(target: bytes) -> bool:
    """Every percent sign of the path begins an escape; the query may say what it likes (contract 1.3, 3.12)."""
    for piece in target.partition(b"?")[0].split(b"%")[1:]:
        if len(piece) < 2 or piece[0] not in _HEX or piece[1] not in _HEX:
            return False
    return True


def wrong_version(line: bytes) -> BadMessage:
    """505 for a request line whose version is HTTP but not 1.x, as Go; 400 for everything else."""
    word = line[-9:]
    other = word.startswith(b" HTTP/") and word[6:7].isdigit() and word[7:8] == b"." and word[8:].isdigit()
    if other and word[6:7] != b"1":
        return BadMessage(505, "HTTP Version Not Supported")
    return BadMessage(400, "Bad Request")


def plain(data: bytes) -> tuple[bytes, bytes] | None:
    """A head whose request line is legal but unknown to llhttp, made plain: (method, head with POST and HTTP/1.1).

    Go forwards any token as method, reads HTTP/1.2 and up as 1.1 and percent-encodes raw non-ASCII path bytes
    (contract 1.3, 3.12). None when the line is really malformed.
    """
    line_end = data.find(_CRLF)
    parts = data[:line_end].split(b" ")
    if len(parts) != 3:
        return None
    method, target, version = parts
    if not method or method.translate(None, TOKEN) or len(version) != 8 or version[:7] != b"HTTP/1.":
        return None
    if not 48 <= version[7] <= 57 or method == b"PRI" or 127 in target:
        return None
    target = b"".join(b"%%%02X" % c if c > 126 else b"%c" % c for c in target)
    minor = b"0" if version[7] == 48 else b"1"
    return method, b"POST " + target + b" HTTP/1." + minor + data[line_end:]
