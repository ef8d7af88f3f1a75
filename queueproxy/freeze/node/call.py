"""Decodes one call of a sidecar: which of the five things it is, and the three headers that matter.

Theory of operation. A head as the codec gives it becomes a `Call`; the body is collected here, bounded (FZ-134). What
a call may cost is decided before anybody looks at its token: path and method first, sizes next. The token and the
session secret are kept out of every repr (T-21).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from queueproxy.codec.http1 import RequestHead
from queueproxy.freeze.wire import MAX_BODY, OLD_TOKEN_HEADER, PATH_SELF, PATH_STATE, SESSION_HEADER, Problem

__all__ = ["KIND_WORDS", "MAX_HEAD", "Call", "Kind"]

MAX_HEAD: Final = 4096  # bytes of a head, token included; projected tokens have about 1,200 (FZ-134)

_AUTHORIZATION: Final = b"authorization"
_SESSION: Final = SESSION_HEADER.lower().encode()
_TOKEN: Final = OLD_TOKEN_HEADER.lower().encode()
_WANTED: Final = frozenset((_AUTHORIZATION, _SESSION, _TOKEN))
_SELF: Final = PATH_SELF.encode()
_STATE: Final = PATH_STATE.encode()


class Kind(IntEnum):
    """What a call asks for."""

    UNKNOWN = 0
    VIEW = 1  # GET /v1/pods/self
    STATE = 2  # PUT /v1/pods/self/state
    OLD = 3  # POST anywhere else, the protocol of container-freezer


KIND_WORDS: Final = {kind: kind.name.lower() for kind in Kind}


class Call:
    """One request from head to answer. `problem` is set when it is refused before its token is looked at."""

    __slots__ = ("_parts", "_size", "answer", "keep", "kind", "minor", "old_token", "problem", "secret", "token")

    def __init__(self, head: RequestHead) -> None:
        self.kind = _kind(head)
        self.keep = head.keep_alive
        self.minor = head.minor
        self.token = ""
        self.old_token = ""
        self.secret: str | None = None
        self.problem: Problem | None = None
        self.answer: bytes | None = None  # the whole answer, once it is known
        self._parts: list[bytes] = []
        self._size = 0
        if head.content_length > MAX_BODY or _size(head) > MAX_HEAD:
            self.problem = Problem.TOO_LARGE
        else:
            self._read_headers(head)

    def again(self, body: bytes) -> Call:
        """The same call once more, with another body."""
        call = Call.__new__(Call)
        call.kind, call.keep, call.minor, call.secret = self.kind, self.keep, self.minor, self.secret
        call.token = call.old_token = ""
        call.problem = None
        call.answer = None
        call._parts = [body]
        call._size = len(body)
        return call

    def __repr__(self) -> str:
        state = "answered" if self.answer is not None else self.problem.kind if self.problem else "open"
        return f"<Call {self.kind.name} {state} body={self._size}>"

    @property
    def body(self) -> bytes:
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def body_received(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_BODY:
            self.problem = Problem.TOO_LARGE
            self._parts.clear()
        elif self.problem is None:
            self._parts.append(data)

    def _read_headers(self, head: RequestHead) -> None:
        seen = set()
        lines = head.lines
        for at in range(0, len(lines), 4):
            name = lines[at].lower()
            if name not in _WANTED:
                continue
            if name in seen:  # two readers could believe two different ones
                self.problem = Problem.MALFORMED
                return
            seen.add(name)
            value = lines[at + 2].decode("latin-1").strip()
            if name == _AUTHORIZATION:
                scheme, _, token = value.partition(" ")
                self.token = token.strip() if scheme.lower() == "bearer" else ""
            elif name == _SESSION:
                self.secret = value
            else:
                self.old_token = value


def _kind(head: RequestHead) -> Kind:
    target, _, query = head.target.partition(b"?")
    if target == _STATE and head.method == b"PUT" and not query:
        return Kind.STATE
    if target == _SELF and head.method == b"GET" and not query:
        return Kind.VIEW
    if head.method == b"POST" and not target.startswith(b"/v"):  # the version is the first part of the path
        return Kind.OLD
    return Kind.UNKNOWN


def _size(head: RequestHead) -> int:
    return len(head.target) + sum(map(len, head.lines)) + sum(map(len, head.special.values()))
