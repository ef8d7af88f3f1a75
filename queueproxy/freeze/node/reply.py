"""Encodes the freezer's answers to sidecars: a view, a problem, or the bare status of the protocol of old.

Theory of operation. What a problem is answered with is `Problem`'s business (`freeze/wire.py`); here it becomes a whole
HTTP message for the call it answers. The answer to a wish that came true is most of them and is put together at once.
"""

from __future__ import annotations

from typing import Final

from queueproxy.codec.response import answer_bytes, connection_line
from queueproxy.freeze.node.call import Call, Kind
from queueproxy.freeze.wire import PROBLEM_TYPE, Problem, View, encode_problem, encode_view

__all__ = ["answer_of", "last_word"]

_JSON: Final = b"application/json"
_PROBLEM: Final = PROBLEM_TYPE.encode()
_CLOSE: Final = b"Connection: close\r\n"
_IS_OLD: Final = Kind.OLD
# What the daemon of old answered (lineage 2.7); its clients know 200 and everything else.
_OLD_STATUS: Final = {
    Problem.UNAUTHENTICATED: 403, Problem.FORBIDDEN: 403, Problem.SESSION_REQUIRED: 403, Problem.NOT_CONFIRMED: 500,
}  # fmt: skip


def answer_of(
    call: Call,
    date: bytes,
    problem: Problem | None = None,
    detail: str = "",
    view: View | None = None,
    retry_after_s: float | None = None,
) -> tuple[int, bytes]:
    """Status and message; a call is answered with a problem, or with a view, or is one of old."""
    extra, content_type = b"", _JSON
    if call.kind is _IS_OLD:
        status = 200 if problem is None else _OLD_STATUS.get(problem, problem.status)
        body = b""
    elif problem is None:
        assert view is not None
        status, body = 200, encode_view(view)
        if call.keep and call.minor:
            return 200, (
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: %b\r\nContent-Length: %d\r\n\r\n%b"
            ) % (date, len(body), body)
    else:
        status, content_type = problem.status, _PROBLEM
        body = encode_problem(problem, detail, view, retry_after_s)
        if status == 401:
            extra = b"WWW-Authenticate: Bearer\r\n"
        elif retry_after_s is not None:
            extra = b"Retry-After: %d\r\n" % max(1, round(retry_after_s))
    connection = connection_line(keep=call.keep, minor=call.minor)
    return status, answer_bytes(status, body, date=date, content_type=content_type, extra=extra, connection=connection)


def last_word(date: bytes, problem: Problem, detail: str) -> bytes:
    """To what was no call."""
    body = encode_problem(problem, detail)
    return answer_bytes(problem.status, body, date=date, content_type=_PROBLEM, connection=_CLOSE)
