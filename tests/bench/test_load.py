"""Proves queueproxy.bench.load against real sockets: what is answered is counted, and so is what is not."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from queueproxy.bench import load as load_module
from queueproxy.bench.asker import Asker
from queueproxy.bench.load import MAX_ERRORS, Load, request_bytes
from queueproxy.bench.origin import Origin
from queueproxy.bench.pace import paced


class Server(asyncio.Protocol):
    """Answers every read with the same bytes; closes after it when told to."""

    def __init__(self, answer: bytes, close: bool = False) -> None:
        self.answer = answer
        self.close = close
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.answer:
            self.transport.write(self.answer)
        if self.close:
            self.transport.close()


def loaded(
    protocol: Callable[[], asyncio.Protocol] | None,
    *,
    connections: int = 4,
    seconds: float = 0.2,
    body: int = 0,
    made: Callable[[Load], Asker] = Asker,
) -> tuple[Load, float]:
    async def run() -> tuple[Load, float]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(protocol or Server, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if protocol is None:  # nobody listens there any more
            server.close()
            await server.wait_closed()
        load = Load("127.0.0.1", port, request_bytes("/", "h", body), connections, seconds, made)
        took = await load.run()
        server.close()
        return load, took

    return asyncio.run(asyncio.wait_for(run(), 30))


def test_every_answer_is_counted_once_with_its_latency() -> None:
    served = 0

    class Counting(Origin):
        def on_message_complete(self) -> None:
            nonlocal served
            served += 1
            super().on_message_complete()

    load, took = loaded(lambda: Counting({}), body=100)
    assert load.histogram.total == served > 4
    assert load.errors == 0
    assert 0.2 <= took < 5
    assert 0 < load.histogram.percentile(50) <= load.histogram.percentile(99) < 5e6


def test_the_report_is_json_with_the_histogram() -> None:
    load, took = loaded(lambda: Origin({}), connections=1, seconds=0.05)
    report = json.loads(json.dumps(load.report(took)))
    assert report["requests"] == sum(report["histogram"].values()) > 0
    assert (report["errors"], report["seconds"]) == (0, took)


def test_an_answer_that_is_not_a_success_is_an_error() -> None:
    load, _ = loaded(lambda: Server(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), connections=1)
    assert load.errors == load.histogram.total > 0


def test_a_server_that_closes_politely_is_dialled_again_without_error() -> None:
    load, _ = loaded(
        lambda: Server(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", close=True), connections=1
    )
    assert load.histogram.total > 1
    assert load.errors == 0


def test_a_connection_lost_before_its_answer_is_an_error() -> None:
    load, _ = loaded(lambda: Server(b"", close=True), connections=1)
    assert load.errors > 1
    assert load.histogram.total == 0


def test_an_answer_that_is_not_http_is_an_error() -> None:
    load, _ = loaded(lambda: Server(b"SSH-2.0-x\r\n"), connections=1)
    assert load.errors > 1


def test_nobody_listening_ends_the_run_early() -> None:
    load, took = loaded(None, seconds=20)
    assert MAX_ERRORS <= load.errors < MAX_ERRORS + 4
    assert took < 20


def test_an_answer_that_never_comes_is_an_error_after_a_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "GRACE_S", 0.1)
    load, took = loaded(lambda: Server(b""), connections=3, seconds=0.1)
    assert load.errors == 3
    assert 0.2 <= took < 5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (0, b"GET /x HTTP/1.1\r\nHost: h:1\r\n\r\n"),
        (3, b"POST /x HTTP/1.1\r\nHost: h:1\r\nContent-Length: 3\r\n\r\nxxx"),
    ],
    ids=["get", "post"],
)
def test_a_request_has_a_host_and_its_body(body: int, expected: bytes) -> None:
    assert request_bytes("/x", "h:1", body) == expected


def test_a_request_has_the_headers_it_is_given() -> None:
    assert request_bytes("/", "h", headers=("A: 1",)) == b"GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\n\r\n"
    posted = b"POST / HTTP/1.1\r\nHost: h\r\nA: 1\r\nContent-Length: 2\r\n\r\nxx"
    assert request_bytes("/", "h", 2, ("A: 1",)) == posted


def test_a_pace_is_kept_over_all_connections_whatever_an_answer_takes() -> None:
    load, took = loaded(lambda: Origin({}), connections=5, seconds=1.0, made=paced(200))
    assert load.errors == 0 and took < 3
    assert 150 <= load.histogram.total <= 201, "200 in a second; fewer only where the machine stood still"
    assert load.histogram.percentile(50) < 5000


def test_what_waits_for_a_late_answer_counts_from_when_it_was_due() -> None:
    class Slow(Origin):
        """Keeps the first answer back for 0.3 s."""

        kept = False

        def on_message_complete(self) -> None:
            if Slow.kept:
                super().on_message_complete()
            else:
                Slow.kept = True
                asyncio.get_running_loop().call_later(0.3, super().on_message_complete)

    load, _ = loaded(lambda: Slow({}), connections=1, seconds=0.6, made=paced(100))
    # Thirty were due meanwhile, each 10 ms later than the one before: 300, 290 ... of at most sixty.
    assert 100_000 <= load.histogram.percentile(75) <= 200_000
    assert load.histogram.percentile(99) >= 250_000
