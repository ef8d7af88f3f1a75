"""The request head as the app gets it."""

import pytest

from queueproxy.codec.encode import chunk, last_chunk, request_bytes
from queueproxy.codec.http1 import RequestHead, RequestReader


class Sink:
    def __init__(self) -> None:
        self.head: RequestHead | None = None

    def head_received(self, head: RequestHead) -> None:
        self.head = head

    def body_received(self, data: bytes) -> None: ...
    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def raw_received(self, data: bytes) -> None: ...


def forwarded(lines: bytes, *, start: bytes = b"GET /p HTTP/1.1\r\nHost: a\r\n") -> bytes:
    sink = Sink()
    RequestReader(sink).feed(start + lines + b"\r\n")
    assert sink.head is not None
    return request_bytes(sink.head, b"10.0.0.9", b"127.0.0.1:8080")


def body_of(lines: bytes) -> bytes:
    return forwarded(lines).removeprefix(b"GET /p HTTP/1.1\r\nHost: a\r\n")


@pytest.mark.qp("QP-195", "QP-197", "QP-198")
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(b"", b"X-Forwarded-For: 10.0.0.9\r\n\r\n", id="nothing is added but the peer"),
        pytest.param(b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\nForwarded: for=x\r\n",
                     b"Forwarded: for=x\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.9\r\n\r\n", id="lines are folded"),
        pytest.param(b"X-Forwarded-For: 1.1.1.1\r\n",
                     b"Forwarded: for=1.1.1.1\r\nX-Forwarded-For: 1.1.1.1, 10.0.0.9\r\n\r\n",
                     id="Forwarded without the peer"),
        pytest.param(b"X-Forwarded-Proto: https\r\n",
                     b"X-Forwarded-Proto: https\r\nForwarded: proto=https\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n",
                     id="Forwarded of the protocol alone"),
        pytest.param(b"Forwarded: for=me\r\nX-Forwarded-Host: h\r\n",
                     b"Forwarded: for=me\r\nX-Forwarded-Host: h\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n",
                     id="a Forwarded of the client's stays"),
        pytest.param(b"Content-Length: 5\r\n", b"Content-Length: 5\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n", id="sized"),
        pytest.param(b"Content-Length: 0\r\n", b"Content-Length: 0\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n", id="empty"),
        pytest.param(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\nTrailer: a\r\nTrailer: b\r\n",
                     b"Trailer: a, b\r\nTransfer-Encoding: chunked\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n", id="chunked"),
        pytest.param(b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n",
                     b"Sec-WebSocket-Key: k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     b"X-Forwarded-For: 10.0.0.9\r\n\r\n",
                     id="upgrade"),
        pytest.param(b"Expect: 100-continue\r\n", b"Expect: 100-continue\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n",
                     id="Expect"),
    ],
)  # fmt: skip
def test_headers_of_our_hop(lines: bytes, expected: bytes) -> None:
    assert body_of(lines) == expected


@pytest.mark.qp("QP-194")
@pytest.mark.parametrize(
    ("lines", "host"),
    [
        pytest.param(b"K-Original-Host: o.example\r\n", b"o.example", id="restored and removed"),
        pytest.param(b"K-Original-Host:\r\n", b"a", id="an empty one is nothing"),
        pytest.param(b"", b"a", id="the client's"),
    ],
)
def test_the_host(lines: bytes, host: bytes) -> None:
    assert forwarded(lines) == b"GET /p HTTP/1.1\r\nHost: " + host + b"\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n"


@pytest.mark.qp("QP-194")
def test_a_1_0_request_without_host_gets_the_apps_address_and_our_version() -> None:
    head = forwarded(b"", start=b"GET / HTTP/1.0\r\n")
    assert head == b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n"


@pytest.mark.qp("QP-199", "QP-240")
def test_everything_else_is_passed_on_in_order_and_as_spelled() -> None:
    lines = (
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\nbaggage: c=d\r\n"
        b"X-B3-TraceId: 1\r\nCookie: a\r\nx-CUSTOM: 1\r\nCookie: b\r\nX-Custom: 2\r\nX-Bytes: \xe9\xff\r\nX-Empty: \r\n"
    )
    assert body_of(lines) == lines + b"X-Forwarded-For: 10.0.0.9\r\n\r\n"


def test_chunks() -> None:
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"
    assert last_chunk([]) == b"0\r\n\r\n"
    assert last_chunk([(b"A", b"b"), (b"C", b"")]) == b"0\r\nA: b\r\nC: \r\n\r\n"
