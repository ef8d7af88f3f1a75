"""Proves queueproxy.bench.origin: the app every proxy is measured in front of answers correctly."""

from typing import Any

import pytest

from queueproxy.bench.origin import MAX_BODY, Origin, answer_for
from queueproxy.bench.websocket import handshake, masked_frame, plain_frame, switching


class Wire:
    """What the protocol writes."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True


def told(*pieces: bytes, answers: dict[bytes, bytes] | None = None) -> Wire:
    wire: Any = Wire()
    origin = Origin({} if answers is None else answers)
    origin.connection_made(wire)
    for piece in pieces:
        origin.data_received(piece)
    return wire


def body_of(written: bytes) -> bytes:
    return written.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(
    ("url", "status", "size"),
    [
        (b"/", b"200", 13),
        (b"/bytes/0", b"200", 0),
        (b"/bytes/65536", b"200", 65536),
        (b"/bytes/%d" % (MAX_BODY + 1), b"400", None),
        (b"/bytes/-1", b"400", None),
        (b"/bytes/x", b"400", None),
    ],
    ids=["small", "empty", "64k", "too large", "negative", "no number"],
)
def test_a_get_is_answered_by_its_path(url: bytes, status: bytes, size: int | None) -> None:
    answer = answer_for(url)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"Content-Length: %d\r\n" % len(body_of(answer)) in answer
    assert size is None or len(body_of(answer)) == size


def test_a_body_comes_back_in_one_piece() -> None:
    wire = told(b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc", b"def")
    assert body_of(wire.written) == b"abcdef"


def test_a_body_to_the_sink_is_read_and_not_kept() -> None:
    wire = told(b"POST /sink HTTP/1.1\r\nHost: h\r\nContent-Length: 6\r\n\r\nabc", b"def")
    assert body_of(wire.written) == b"Hello, world\n"


KEY = b"AQIDBAUGBwgJCgsMDQ4PEA=="


def test_a_websocket_is_switched_to_and_echoed() -> None:
    frame = masked_frame(b"hello", b"abcd")
    wire = told(handshake("/ws", "h", KEY) + frame, frame[:3], frame[3:])  # the first in one read with the handshake
    assert wire.written == switching(KEY) + plain_frame(b"hello") * 2
    assert not wire.closed


@pytest.mark.parametrize(
    "data",
    [
        handshake("/ws", "h", KEY) + b"no frame",
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
    ids=["no frame", "another protocol"],
)
def test_what_is_no_websocket_is_closed(data: bytes) -> None:
    assert told(data).closed


def test_two_requests_in_one_read_get_two_answers_in_order() -> None:
    wire = told(
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nA" + b"GET /bytes/2 HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    assert wire.written.count(b"HTTP/1.1 200 OK") == 2
    assert wire.written.endswith(b"\r\n\r\nxx")
    assert not wire.closed


def test_a_path_cut_in_two_reads_is_one_path() -> None:
    assert body_of(told(b"GET /byt", b"es/3 HTTP/1.1\r\nHost: h\r\n\r\n").written) == b"xxx"


def test_head_has_no_body() -> None:
    written = told(b"HEAD /bytes/5 HTTP/1.1\r\nHost: h\r\n\r\n").written
    assert written.endswith(b"Content-Length: 5\r\n\r\n")


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", b"\x16\x03\x01"], ids=["asked", "TLS"]
)
def test_it_closes_when_asked_and_on_nonsense(request_: bytes) -> None:
    assert told(request_).closed


def test_what_is_remembered_is_bounded() -> None:
    answers: dict[bytes, bytes] = {}
    for size in range(100):
        told(b"GET /bytes/%d HTTP/1.1\r\nHost: h\r\n\r\n" % size, answers=answers)
    assert len(answers) == 64
