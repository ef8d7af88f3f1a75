"""Decodes a wish whose head is the same, byte for byte, as an earlier one's of the same connection.

Theory of operation. A sidecar sends one head for as long as its token lives; only the number in its last line, the
length of the body, varies. Once such a head has been parsed by the codec, judged and let in, the same bytes mean the
same again, so they need not be parsed again: 110,000 instructions of a state change's 700,000, and the most scattered
ones, which a process that has slept pays for twice. What is remembered is a digest, not the head: a token is kept
nowhere in clear (FZ-126). Whatever differs in one byte, or is not exactly one message, goes the long way.

The verdict on the token, the address, the session and the rate are looked at each time all the same: see `server.py`.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final

from queueproxy.freeze.node.call import Call, Kind
from queueproxy.freeze.wire import MAX_BODY

__all__ = ["UsualHead"]

_LENGTH: Final = b"content-length: "
_END: Final = b"\r\n\r\n"


class UsualHead:
    """One head. `key` is what its token is known by."""

    __slots__ = ("_call", "_digest", "_size", "key")

    def __init__(self, head: bytes, call: Call, key: bytes) -> None:
        self._size = len(head)
        self._digest = sha256(head).digest()
        self._call = call
        self.key = key

    def __repr__(self) -> str:
        return f"<UsualHead {self._size} bytes>"

    @classmethod
    def learnt(cls, data: bytes, call: Call, key: bytes) -> UsualHead | None:
        """Of a message that came in one piece, was parsed as `call` and let in; None when it is not of the kind."""
        end = data.find(_END)
        at = data.rfind(b"\r\n", 0, end) + 2
        if call.kind is not Kind.STATE or not call.keep or not call.minor or call.problem is not None:
            return None
        if end < 0 or at < 2 or data[at : at + len(_LENGTH)].lower() != _LENGTH:
            return None
        head = data[: at + len(_LENGTH)]
        if _body(data, len(head)) != call.body:
            return None
        return cls(head, call.again(b""), key)

    def call(self, data: bytes) -> Call | None:
        """The message in `data`, when it is one with this head; None: nothing is known about it."""
        body = _body(data, self._size)
        if body is None or sha256(data[: self._size]).digest() != self._digest:
            return None
        return self._call.again(body)


def _body(data: bytes, size: int) -> bytes | None:
    """What follows a head of `size` bytes and the length that it ends with: exactly one body."""
    end = data.find(_END, size, size + 8)
    length = data[size:end]
    if end < 0 or not length.isdigit() or length[0] == 48:  # "0": it says nothing, and signs and zeroes mislead
        return None
    count = int(length)
    body = data[end + 4 :]
    return body if count == len(body) <= MAX_BODY else None
