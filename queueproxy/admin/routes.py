"""Decides what the side ports answer: exact paths, Go's texts for everything else (contract 1.1, QP-052)."""

from __future__ import annotations

from typing import Final, NamedTuple

from queueproxy.codec.response import NOSNIFF


class Reply(NamedTuple):
    """One answer. extra: further header lines, each with its CRLF."""

    status: int
    body: bytes = b""
    content_type: bytes = b"text/plain; charset=utf-8"
    extra: bytes = b""


NOT_FOUND: Final = Reply(404, b"404 page not found\n", extra=NOSNIFF)
METHOD_NOT_ALLOWED: Final = Reply(405, b"Method Not Allowed\n", extra=b"Allow: GET, HEAD\r\n" + NOSNIFF)
PROTOBUF: Final = b"application/protobuf"  # exactly this: the autoscaler compares the whole value (QP-138)


def path_of(target: bytes) -> bytes:
    """The path of a request target, without its query."""
    return target.partition(b"?")[0]


def autoscaler(target: bytes, stat: bytes) -> Reply:
    """9090: any method, exact path."""
    return Reply(200, stat, PROTOBUF) if path_of(target) == b"/metrics" else NOT_FOUND


def user_metrics(method: bytes, target: bytes) -> Reply | None:
    """9091: None when the page is wanted."""
    if path_of(target) != b"/metrics":
        return NOT_FOUND
    return None if method in (b"GET", b"HEAD") else METHOD_NOT_ALLOWED


def is_drain(target: bytes) -> bool:
    """8022: any method, any query (contract 7.3)."""
    return path_of(target) == b"/wait-for-drain"
