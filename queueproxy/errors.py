"""Decides what a failure means to the client: one table from kind to status, text and connection fate.

A `Failure` is a value, not an exception: it travels to `Exchange.fail`, the only place that writes an error answer.
Texts of the first group are contract (knative-contract 3.13); the 502 texts are ours, in the form the contract asks
for: one line, text/plain.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Failure(NamedTuple):
    """What went wrong with one request.

    kind: stable word, used as a metric label and in logs.
    status: HTTP status of the answer, 0 when nobody is left to answer.
    text: body without the trailing newline (added unless `bare`).
    bare: the three timeouts answer without newline and without nosniff (QP-170, QP-205).
    retry_after: seconds for Retry-After, None for no header (FZ-038).
    """

    kind: str
    status: int
    text: str
    bare: bool = False
    retry_after: int | None = None


QUEUE_FULL: Final = Failure("queue_full", 503, "pending request queue full")  # QP-151
TIMED_OUT: Final = Failure("timeout", 504, "request timeout", bare=True)  # QP-170…172
CLIENT_CLOSED: Final = 499  # recorded, never written: the client left before its answer (D10); nginx's number


def dial_failed(host: str, port: int, reason: str) -> Failure:
    """502 for an app that cannot be reached (QP-200); worded like the Go original because people grep for it."""
    return Failure("dial", 502, f"dial tcp {host}:{port}: connect: {reason}")


def dial_timed_out(host: str, port: int, took: float) -> Failure:
    """502 after every dial attempt of the schedule timed out (QP-201). took: seconds."""
    return Failure("dial_timeout", 502, f"timed out dialing {host}:{port} after {took:.2f}s")


def upstream_lost(error: Exception | None) -> Failure:
    """502 for an app that ended the connection before it answered (contract 3.13)."""
    if error is None:
        return Failure("upstream_eof", 502, "EOF")
    return Failure("upstream_lost", 502, str(error) or "connection reset by peer")


def upgrade_mismatch(switched: bytes, asked: bytes) -> Failure:
    """502 for a 101 to a protocol that nobody asked for (QP-081); Go's words."""
    new, old = switched.decode("latin-1"), asked.decode("latin-1")
    return Failure("upgrade_mismatch", 502, f'backend tried to switch protocol "{new}" when "{old}" was requested')


def malformed_response(detail: str) -> Failure:
    """502 for an app whose answer is not HTTP/1.1 (QP-200)."""
    return Failure("upstream_protocol", 502, f"malformed HTTP response: {detail}")


def malformed_body(detail: str) -> Failure:
    """502 for a request body whose chunk framing breaks after the head was forwarded (contract 3.13)."""
    return Failure("request_body", 502, detail)


def not_awake(detail: str) -> Failure:
    """503 for a request that waited for a thaw that did not come (FZ-038)."""
    return Failure("thaw", 503, detail, retry_after=1)


def not_ready(detail: str) -> Failure:
    """503 of local mode before the app has answered its first readiness probe."""
    return Failure("not_ready", 503, detail, retry_after=1)
