"""Does the app speak HTTP/2 without TLS? Asked of Node's server, of apps that do not, and of those that stare."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from queueproxy.probes.attempt import Attempt
from queueproxy.probes.detection import Http2Get
from queueproxy.probes.http import Hop
from queueproxy.probes.runner import Prober
from queueproxy.probes.spec import HttpGet, ProbeSpec, TcpSocket, decode
from tests.support.h2c import H2c, h2c_app
from tests.support.probed import App, both_loops, ok, refusing_port

Run = Callable[[Any], Any]
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


def get(port: int, path: str = "/healthz", *headers: tuple[str, str]) -> HttpGet:
    given = [{"name": name, "value": value} for name, value in headers]
    text = json.dumps({"httpGet": {"port": port, "path": path, "httpHeaders": given}})
    (spec,) = decode(text, multi=False, detect=True)
    assert isinstance(spec.handler, HttpGet)
    return spec.handler


async def outcome(what: HttpGet, timeout_for: float = 10.0) -> tuple[str | None, int]:
    """What one attempt says, and over which version of HTTP it passed."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str | None] = loop.create_future()
    attempt = Attempt(loop, what, timeout_for, future.set_result)
    try:
        return await future, attempt.spoken
    finally:
        attempt.close()


# -- who is asked


@pytest.mark.qp("QP-025", "QP-265")
def test_only_http_probes_without_tls_detect_and_only_when_told_to() -> None:
    probes = [
        {"httpGet": {"port": 1}}, {"httpGet": {"port": 1, "scheme": "HTTPS"}}, {"tcpSocket": {"port": 1}},
        {"grpc": {"port": 1}}, None,
    ]  # fmt: skip

    def detecting(told: bool) -> list[bool]:
        specs = decode(json.dumps(probes), multi=True, detect=told)
        return [isinstance(spec.handler, HttpGet) and spec.handler.detect for spec in specs]

    assert (detecting(True), detecting(False)) == ([True, False, False, False], [False] * 4)


# -- an app that speaks HTTP/2


@pytest.fixture(scope="module")
def node() -> Iterator[H2c]:
    with h2c_app() as app:
        yield app


@pytest.mark.slow
@pytest.mark.qp("QP-265")
@both_loops
def test_an_http2_app_is_asked_once_as_configured(run: Run, node: H2c) -> None:
    node.heard.clear()
    headers = ("X-Probe", "yes"), ("Host", "probe.example.com"), ("Keep-Alive", "5"), ("TE", "gzip")
    assert run(outcome(get(node.port, "/healthz?x=1", *headers))) == (None, 2)
    node.until(lambda: len(node.heard) == 1)
    assert node.heard == [{
        ":method": "GET", ":scheme": "http", ":authority": "probe.example.com", ":path": "/healthz?x=1",
        "user-agent": "kube-probe//", "x-probe": "yes", "accept-encoding": "gzip",
    }]  # fmt: skip


@pytest.mark.slow
@pytest.mark.qp("QP-262", "QP-265")
def test_every_status_is_read_as_node_writes_it(node: H2c) -> None:
    """Indexed, plain or Huffman-coded: that is for the server to choose."""

    async def main() -> None:
        for status in (*range(200, 400), 400, 404, 418, 499, 500, 503, 599):
            failure, spoken = await outcome(get(node.port, f"/{status}"))
            assert (failure is None, spoken) == (200 <= status < 400, 2 if status < 400 else 0), status

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.qp("QP-265")
@pytest.mark.parametrize("path", ["/103", "/204", "/long", "/" + "a" * 12_000], ids=["103", "204", "long", "target"])
def test_hints_emptiness_and_length_do_not_matter(path: str, node: H2c) -> None:
    assert asyncio.run(outcome(get(node.port, path))) == (None, 2)


@pytest.mark.slow
@pytest.mark.qp("QP-265")
def test_an_http2_app_that_says_no_is_not_ready(node: H2c) -> None:
    failure, spoken = asyncio.run(outcome(get(node.port, "/500")))
    assert spoken == 0 and failure is not None and failure.startswith(f'Get "http://127.0.0.1:{node.port}/500": ')


# -- an app that does not


class Plain(BaseHTTPRequestHandler):
    """The standard library's server, a HTTP/1.1 app like many."""

    heard: list[str]

    def do_GET(self) -> None:
        self.heard.append(f"{self.path} {self.headers['X-Probe']}")
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


@pytest.mark.qp("QP-265")
@both_loops
def test_an_app_of_http1_is_ready_by_the_second_question_with_its_headers(run: Run) -> None:
    heard: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Plain,), {"heard": heard}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        assert run(outcome(get(server.server_address[1], "/healthz", ("X-Probe", "yes")))) == (None, 1)
    finally:
        server.shutdown()
        thread.join(15)
        server.server_close()
    assert heard == ["/healthz yes"]


@pytest.mark.qp("QP-265")
@both_loops
@pytest.mark.parametrize(
    "first",
    [ok(status="400 Bad Request"), ok(status="505 HTTP Version Not Supported"), b"", b"\x00" * 40, ok()],
    ids=["400", "505", "closed", "garbage", "200 to anything"],
)
def test_whatever_http1_apps_make_of_the_preface_they_are_asked_again(run: Run, first: bytes) -> None:
    async def main() -> None:
        async with App(lambda n: first if n == 1 else ok()) as app:
            assert await outcome(get(app.port)) == (None, 1)
            assert app.heard[0].startswith(b"PRI * HTTP/2.0\r\n\r\n")
            assert app.heard[1].startswith(b"GET /healthz HTTP/1.1\r\n")
            assert app.accepted == 2

    run(main())


@pytest.mark.qp("QP-265")
@both_loops
def test_an_app_that_stares_at_the_preface_has_the_whole_time_once_more(run: Run) -> None:
    async def main() -> None:
        async with App(lambda n: None if n == 1 else ok()) as app:
            assert await outcome(get(app.port), timeout_for=0.1) == (None, 1)
            assert app.accepted == 2
            await app.until(lambda: not app.open)  # the first connection is not kept

    run(main())


@pytest.mark.qp("QP-265", "QP-269")
@both_loops
def test_an_app_that_is_silent_to_both_times_out_in_gos_words(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: None) as app:
            why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            assert await outcome(get(app.port), timeout_for=0.05) == (
                f'Get "http://127.0.0.1:{app.port}/healthz": {why}', 0
            )  # fmt: skip
            assert app.accepted == 2

    run(main())


@pytest.mark.qp("QP-265")
@both_loops
def test_nobody_there_is_asked_once(run: Run) -> None:
    sock, port = refusing_port()
    with sock:
        refused = f'Get "http://127.0.0.1:{port}/healthz": dial tcp 127.0.0.1:{port}: connect: connection refused'
        assert run(outcome(get(port))) == (refused, 0)


@both_loops
def test_an_attempt_that_is_dropped_while_it_detects_says_nothing_and_keeps_nothing(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: None) as app:
            said: list[str | None] = []
            attempt = Attempt(asyncio.get_running_loop(), get(app.port), 5.0, said.append)
            await app.until(lambda: bool(app.heard and app.heard[0]))
            attempt.close()
            await app.until(lambda: not app.open)
            assert said == [] and app.accepted == 1

    run(main())


# -- what is known of the app


@pytest.mark.qp("QP-265")
def test_the_prober_knows_what_the_serving_container_last_spoke_and_asks_anew_each_time() -> None:
    answers = [SETTINGS + bytes((0, 0, 1, 1, 5, 0, 0, 0, 1, 0x88)), ok(status="404 Not Found"), ok()]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with App(lambda n: answers[min(n, 3) - 1], stay=True) as app, App() as sidecar:
            specs = [ProbeSpec(get(app.port), period_for=1.0, timeout_for=5.0)]
            specs += [ProbeSpec(TcpSocket("127.0.0.1", sidecar.port), period_for=1.0, timeout_for=5.0)]
            prober = Prober(specs, loop, lambda: False, lambda _line: None)
            told: list[int] = []
            prober.on_http2 = lambda: told.append(prober.spoken)
            spoken = [prober.spoken]
            for _ in range(2):
                ready: asyncio.Future[bool] = loop.create_future()
                prober.check(ready.set_result)
                assert await ready
                spoken.append(prober.spoken)
            assert spoken == [0, 2, 1] and app.accepted == 3
            assert told == [2]
            prober.close()
            assert Prober([], loop, lambda: False, lambda _line: None).spoken == 0

    asyncio.run(main())


@pytest.mark.qp("QP-265")
@pytest.mark.parametrize(
    ("block", "why"),
    [(b"\x00\x01a\x01b", "malformed HTTP/2 response"), (b"\x0e\x03abc", "malformed HTTP/2 response")],
)
def test_an_answer_without_a_status_is_none(block: bytes, why: str) -> None:
    exchange = Http2Get(Hop(get(1)))
    exchange.received(SETTINGS + len(block).to_bytes(3, "big") + bytes((1, 5, 0, 0, 0, 1)) + block)
    assert (exchange.failure, exchange.passed, exchange.finished) == (why, False, True)
