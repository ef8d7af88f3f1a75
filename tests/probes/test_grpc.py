"""The exchange on its own, frame by frame, and then against real gRPC servers."""

from __future__ import annotations

import asyncio
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.probes.attempt import Attempt
from queueproxy.probes.grpc import HealthExchange
from queueproxy.probes.http2 import MAX_ANSWER
from queueproxy.probes.spec import Grpc
from tests.support.probed import App, both_loops, refusing_port

Run = Callable[[Any], Any]

SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
SETTINGS_ACK = b"\x00\x00\x00\x04\x01\x00\x00\x00\x00"


def frame(kind: int, flags: int = 0, stream: int = 1, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def message(payload: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(payload)) + payload


def data(payload: bytes, flags: int = 0, stream: int = 1) -> bytes:
    return frame(0, flags, stream, payload)


HEADERS = frame(1, 0x4, 1, b"\x88")


def status(code: bytes) -> bytes:
    return b"\x00\x0bgrpc-status" + bytes((len(code),)) + code


TRAILERS = frame(1, 0x5, 1, status(b"0"))
SERVING = data(message(b"\x08\x01"))


def told(*pieces: bytes) -> HealthExchange:
    exchange = HealthExchange(Grpc(50051, ""), 1.0)
    for piece in pieces:
        exchange.received(piece)
    return exchange


def failed(why: str) -> str:
    return f"health rpc probe failed: {why}"


NO_ANSWER = failed("no health response")
UNIMPLEMENTED = "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
NOT_FOUND = failed("rpc error: code = NotFound")


@pytest.mark.parametrize("size", [1, 5, 1000], ids=["byte by byte", "in pieces", "whole"])
def test_serving_passes_when_the_stream_has_ended(size: int) -> None:
    answer = SETTINGS + SETTINGS_ACK + HEADERS + SERVING
    exchange = told(*(answer[i : i + size] for i in range(0, len(answer), size)))
    assert not exchange.decided
    exchange.received(TRAILERS)
    assert (exchange.decided, exchange.finished, exchange.failure) == (True, True, None)


MALFORMED = failed("malformed health response")
ANSWERS: dict[str, tuple[bytes, str | None]] = {
    "end of stream on the data": (HEADERS + data(message(b"\x08\x01"), flags=0x1), None),
    "message in two frames": (HEADERS + data(b"\0\0\0") + data(b"\0\x02\x08\x01") + TRAILERS, None),
    "padded": (HEADERS + data(b"\x04" + message(b"\x08\x01") + bytes(4), flags=0x8) + TRAILERS, None),
    "unknown fields": (
        HEADERS + data(message(b"\x12\x02hi\x1d1234\x21" + bytes(8) + b"\x28\x96\x01\x08\x01")) + TRAILERS,
        None,
    ),
    "other streams do not matter": (HEADERS + data(b"junk", 0x1, stream=3) + SERVING + TRAILERS, None),
    "unknown frames": (frame(8, 0, 0, b"\0\0\1\0") + frame(0xFA, 0, 0) + HEADERS + SERVING + TRAILERS, None),
    "graceful goaway": (HEADERS + frame(7, 0, 0, b"\0\0\0\1\0\0\0\0") + SERVING + TRAILERS, None),
    "trailers we cannot read": (HEADERS + SERVING + frame(1, 0x5, 1, b"\xbf"), None),
    "trailers in pieces": (
        HEADERS
        + SERVING
        + frame(1, 0x1, 1, status(b"0")[:5])
        + frame(9, 0, 1, b"")
        + frame(9, 0x4, 1, status(b"0")[5:]),
        None,
    ),
    "padded trailers with priority": (
        HEADERS + SERVING + frame(1, 0x2D, 1, b"\x02" + bytes(5) + status(b"5") + bytes(2)),
        NOT_FOUND,
    ),
    "serving, but an error": (
        HEADERS + SERVING + frame(1, 0x5, 1, status(b"13")),
        failed("rpc error: code = Internal"),
    ),
    "not serving": (
        HEADERS + data(message(b"\x08\x02")) + TRAILERS,
        'service unhealthy (responded with "NOT_SERVING")',
    ),
    "no status is unknown": (HEADERS + data(message(b"")) + TRAILERS, 'service unhealthy (responded with "UNKNOWN")'),
    "a status of the future": (
        HEADERS + data(message(b"\x08\x09")) + TRAILERS,
        'service unhealthy (responded with "9")',
    ),
    "not found": (frame(1, 0x5, 1, b"\x88" + status(b"5")), NOT_FOUND),
    "not found with an empty message": (HEADERS + data(message(b"")) + frame(1, 0x5, 1, status(b"5")), NOT_FOUND),
    "unimplemented": (frame(1, 0x5, 1, b"\x88" + status(b"12")), UNIMPLEMENTED),
    "no message": (HEADERS + TRAILERS, NO_ANSWER),
    "compressed": (HEADERS + data(message(b"\x08\x01", compressed=1)) + TRAILERS, MALFORMED),
    "cut message": (HEADERS + data(message(b"\x08\x01")[:-1]) + TRAILERS, MALFORMED),
    "cut varint": (HEADERS + data(message(b"\x08\x81")) + TRAILERS, MALFORMED),
    "bad wire type": (HEADERS + data(message(b"\x0f")) + TRAILERS, MALFORMED),
    "overlong field": (HEADERS + data(message(b"\x12\x7f")) + TRAILERS, MALFORMED),
    "two messages": (HEADERS + SERVING + SERVING + TRAILERS, MALFORMED),
    "reset": (HEADERS + frame(3, 0, 1, b"\0\0\0\7"), failed("stream reset by the server: REFUSED_STREAM")),
    "reset after the message": (
        HEADERS + SERVING + frame(3, 0, 1, b"\0\0\0\2"),
        failed("stream reset by the server: INTERNAL_ERROR"),
    ),
    "reset for a reason unheard of": (frame(3, 0, 1, b"\0\0\1\0"), failed("stream reset by the server: 256")),
    "went away": (frame(7, 0, 0, b"\0\0\0\0\0\0\0\x0bcalm"), failed("the server went away: ENHANCE_YOUR_CALM")),
    "frame too long": (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", failed("frame too long")),
    "message too long": (HEADERS + data(b"\0\0\0\x08\0" + bytes(2048)), failed("health response too long")),
}


@pytest.mark.qp("QP-266")
@pytest.mark.parametrize("answer, failure", ANSWERS.values(), ids=ANSWERS)
def test_what_an_answer_means(answer: bytes, failure: str | None) -> None:
    exchange = told(SETTINGS + answer)
    assert (exchange.decided, exchange.failure) == (True, failure)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n", HEADERS + SERVING + TRAILERS],
    ids=["h1", "ssh", "h2"],
)
def test_what_does_not_begin_with_settings_is_not_http2(answer: bytes) -> None:
    assert told(answer).failure == failed("the server does not speak HTTP/2")


def test_settings_and_pings_are_acknowledged_and_acknowledgements_are_not() -> None:
    exchange = HealthExchange(Grpc(1, ""), 1.0)
    ping = frame(6, 0, 0, b"12345678")
    reply = exchange.received(SETTINGS + ping + SETTINGS_ACK + frame(6, 1, 0, b"12345678"))
    assert reply == SETTINGS_ACK + frame(6, 1, 0, b"12345678")


@pytest.mark.parametrize(
    "reason, why", [("", "connection closed before the answer"), ("connection reset", "connection reset")]
)
def test_a_connection_that_ends_early_fails(reason: str, why: str) -> None:
    exchange = told(SETTINGS + HEADERS + SERVING)
    exchange.ended(reason)
    assert exchange.failure == failed(why)


def test_a_connection_that_ends_after_the_answer_changes_nothing() -> None:
    exchange = told(SETTINGS + HEADERS + SERVING + TRAILERS)
    exchange.ended("connection reset")
    exchange.received(b"junk")
    assert exchange.failure is None


def test_an_endless_answer_ends() -> None:
    exchange = HealthExchange(Grpc(1, ""), 0.0)
    pings = SETTINGS + frame(6, 0, 0, b"12345678") * 1000
    rounds = 0
    while not exchange.decided:
        exchange.received(pings)
        rounds += 1
        assert rounds <= MAX_ANSWER // len(pings) + 1
    assert exchange.failure == failed("answer too long")


@pytest.mark.slow
@given(st.lists(st.binary() | st.sampled_from([SETTINGS, HEADERS, SERVING, TRAILERS, SETTINGS_ACK])))
def test_no_bytes_break_it_and_only_serving_passes(pieces: list[bytes]) -> None:
    exchange = told(*pieces)
    if exchange.decided and exchange.failure is None:
        assert b"\x08\x01" in b"".join(pieces)


# --- real servers ---


class Recorder(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers SERVING and keeps what it was told."""

    def Check(self, request: Any, context: Any) -> Any:
        self.service = request.service
        self.metadata = dict(context.invocation_metadata())
        self.time_remaining = context.time_remaining()
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture
def serve() -> Iterator[Callable[..., int]]:
    """`serve(servicer)` starts a real gRPC server with it, or with no service at all; returns its port."""
    servers = []

    def start(servicer: Any = None) -> int:
        server = grpc.server(ThreadPoolExecutor(2))
        if servicer is not None:
            health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return int(port)

    yield start
    for server in servers:
        server.stop(None).wait()


async def outcome(port: int, service: str = "", timeout_for: float = 5.0) -> str | None:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str | None] = loop.create_future()
    attempt = Attempt(loop, Grpc(port, service), timeout_for, future.set_result)
    try:
        return await future
    finally:
        attempt.close()


@pytest.mark.qp("QP-266")
@both_loops
def test_a_real_health_service_is_believed(run: Run, serve: Callable[..., int]) -> None:
    servicer = health.HealthServicer()
    servicer.set("sick", health_pb2.HealthCheckResponse.NOT_SERVING)
    servicer.set("shop.Cart/ü", health_pb2.HealthCheckResponse.SERVING)
    port = serve(servicer)
    assert run(outcome(port)) is None
    assert run(outcome(port, "shop.Cart/ü")) is None
    assert run(outcome(port, "sick")) == 'service unhealthy (responded with "NOT_SERVING")'
    assert run(outcome(port, "nobody")) == NOT_FOUND
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    assert run(outcome(port)) == 'service unhealthy (responded with "NOT_SERVING")'


@pytest.mark.qp("QP-266")
@both_loops
def test_a_real_server_hears_the_service_the_agent_and_the_deadline(run: Run, serve: Callable[..., int]) -> None:
    servicer = Recorder()
    port = serve(servicer)
    longest = "x" * 16_000
    for service in ("", "a", "x" * 127, "x" * 128, longest):
        assert run(outcome(port, service)) is None
        assert servicer.service == service
    assert servicer.metadata["user-agent"].startswith("kube-probe//")
    assert 3.0 < servicer.time_remaining <= 5.0


@pytest.mark.qp("QP-266")
@both_loops
def test_a_server_without_the_health_protocol_is_not_ready(run: Run, serve: Callable[..., int]) -> None:
    assert run(outcome(serve())) == UNIMPLEMENTED


@both_loops
def test_a_handler_that_fails_or_hangs_is_not_ready(run: Run, serve: Callable[..., int]) -> None:
    class Fails(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
        def Check(self, request: Any, context: Any) -> Any:
            if request.service == "hang":
                ended.wait(10)
            if request.service == "abort":
                context.abort(grpc.StatusCode.INTERNAL, "no")
            context.set_code(grpc.StatusCode.UNAVAILABLE)
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    ended = threading.Event()
    port = serve(Fails())
    assert run(outcome(port, "abort")) == failed("rpc error: code = Internal")
    assert run(outcome(port, "serving, but")) == failed("rpc error: code = Unavailable")
    assert run(outcome(port, "hang", 0.15)) == "health rpc did not complete within 150ms"
    ended.set()


@pytest.mark.qp("QP-266")
@both_loops
def test_a_closed_port_fails_fast(run: Run) -> None:
    sock, port = refusing_port()
    with sock:
        started_at = time.monotonic()
        assert run(outcome(port)) == failed(f"dial tcp 127.0.0.1:{port}: connect: connection refused")
        assert time.monotonic() - started_at < 1.0


@both_loops
def test_a_silent_server_times_out(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: None) as app:
            assert await outcome(app.port, "", 0.1) == "health rpc did not complete within 100ms"
            await app.until(lambda: not app.open)

    run(main())


@both_loops
def test_an_http1_server_is_told_apart(run: Run) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 505 HTTP Version Not Supported\r\nConnection: close\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with server:
            error = await outcome(server.sockets[0].getsockname()[1])
        assert error == failed("the server does not speak HTTP/2")

    run(main())
