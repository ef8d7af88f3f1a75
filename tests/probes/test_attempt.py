from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from queueproxy.clock import monotonic
from queueproxy.probes import attempt as module
from queueproxy.probes.attempt import Attempt
from queueproxy.probes.spec import Handler, decode
from tests.support.probed import App, both_loops, ok, refusing_port

Run = Callable[[Any], Any]


def handler(**probe: Any) -> Handler:
    (spec,) = decode(json.dumps(probe), multi=False)
    return spec.handler


def tcp(port: int) -> Handler:
    return handler(tcpSocket={"port": port})


def http(port: int, path: str = "/healthz", **more: Any) -> Handler:
    return handler(httpGet={"port": port, "path": path, **more})


async def outcome(what: Handler, timeout_for: float = 5.0) -> str | None:
    """What one attempt says, once."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[str | None] = loop.create_future()
    attempt = Attempt(loop, what, timeout_for, future.set_result)
    assert not future.done(), "before the constructor returned"
    try:
        return await future
    finally:
        attempt.close()


@pytest.mark.qp("QP-260")
@both_loops
def test_a_tcp_connection_that_opens_passes_and_is_closed_without_a_byte(run: Run) -> None:
    async def main() -> None:
        async with App() as app:
            assert await outcome(tcp(app.port)) is None
            await app.until(lambda: app.accepted == 1 and not app.open)
            assert app.heard == [b""]

    run(main())


@pytest.mark.qp("QP-260", "QP-269")
@both_loops
@pytest.mark.parametrize("kind, text", [(tcp, "{}"), (http, 'Get "http://127.0.0.1:{port}/healthz": {}')])
def test_a_refused_connection_fails_in_gos_words(run: Run, kind: Callable[[int], Handler], text: str) -> None:
    sock, port = refusing_port()
    with sock:
        refused = f"dial tcp 127.0.0.1:{port}: connect: connection refused"
        assert run(outcome(kind(port))) == text.format(refused, port=port)


@both_loops
def test_an_app_whose_accept_queue_is_full_times_out(run: Run) -> None:
    sock, port = refusing_port()
    with ExitStack() as stack:
        stack.enter_context(sock)
        sock.listen(0)
        for _ in range(4):  # one fits; the others leave their SYN in the dark
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        started_at = monotonic()
        assert run(outcome(tcp(port), 0.1)) == f"dial tcp 127.0.0.1:{port}: i/o timeout"
        assert 0.09 < monotonic() - started_at < 1.0


@both_loops
def test_a_connection_to_ourselves_is_a_refusal(run: Run) -> None:
    """TCP's simultaneous open: what the kernel may do when it picks the dialled port as the source."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        for what in (tcp, http):
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
            sock.connect(("127.0.0.1", port))
            sock.setblocking(False)
            attempt = Attempt(_DialsWith(loop, sock), what(port), 5.0, (future := loop.create_future()).set_result)  # type: ignore[arg-type]
            assert str(await future).endswith(f"dial tcp 127.0.0.1:{port}: connect: connection refused")
            attempt.close()

    run(main())


class _DialsWith:
    """A loop that hands out one connected socket as if it had dialled."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    async def create_connection(self, protocol: Any, _host: str, _port: int, **_kw: Any) -> Any:
        return await self._loop.create_connection(protocol, sock=self._sock)


@pytest.mark.qp("QP-261")
@both_loops
def test_an_http_probe_says_what_it_should_on_a_connection_of_its_own(run: Run) -> None:
    async def main() -> None:
        async with App() as app:
            what = http(app.port, "/healthz?x=1", httpHeaders=[{"name": "X-Custom", "value": "v"}])
            assert await outcome(what) is None
            assert await outcome(what) is None
            await app.until(lambda: not app.open)
            assert app.accepted == 2
            assert (
                app.heard[0]
                == app.heard[1]
                == (
                    b"GET /healthz?x=1 HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: kube-probe//\r\nX-Custom: v\r\n"
                    b"Accept-Encoding: gzip\r\nConnection: close\r\n\r\n" % app.port
                )
            )

    run(main())


@pytest.mark.qp("QP-262")
@both_loops
@pytest.mark.parametrize("status", [200, 204, 299, 301, 304, 399])
def test_two_and_three_hundreds_pass(run: Run, status: int) -> None:
    async def main() -> None:
        async with App(lambda _n: b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status) as app:
            assert await outcome(http(app.port)) is None

    run(main())


@pytest.mark.qp("QP-262", "QP-269")
@both_loops
@pytest.mark.parametrize("status", [101, 400, 404, 500, 503])
def test_every_other_status_fails_and_is_named(run: Run, status: int) -> None:
    async def main() -> None:
        async with App(lambda _n: b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status) as app:
            wanted = f"HTTP probe did not respond Ready, got status code: {status}"
            assert await outcome(http(app.port)) == wanted

    run(main())


@both_loops
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nX: y"], ids=["nothing", "half a head"])
def test_a_connection_closed_too_early_fails(run: Run, answer: bytes) -> None:
    async def main() -> None:
        async with App(lambda _n: answer) as app:
            assert await outcome(http(app.port)) == f'Get "http://127.0.0.1:{app.port}/healthz": EOF'

    run(main())


@pytest.mark.qp("QP-256")
@both_loops
@pytest.mark.parametrize(
    "answer", [None, b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"], ids=["silent", "interim", "half a head"]
)
def test_an_app_that_does_not_finish_its_head_times_out(run: Run, answer: bytes | None) -> None:
    async def main() -> None:
        async with App(lambda _n: answer, stay=True) as app:
            error = await outcome(http(app.port), 0.1)
            assert error is not None and error.endswith(
                "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            )
            await app.until(lambda: not app.open)  # the connection is gone with the attempt

    run(main())


@both_loops
def test_a_timeout_of_zero_waits(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: None) as app:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[str | None] = loop.create_future()
            attempt = Attempt(loop, http(app.port), 0.0, future.set_result)
            await app.until(lambda: app.accepted == 1 and app.heard[0].endswith(b"\r\n\r\n"))
            await asyncio.sleep(0.05)  # a deadline of zero, or of the last look, would have passed
            assert not future.done()
            app.close()
            assert await future == f'Get "http://127.0.0.1:{app.port}/healthz": EOF'
            attempt.close()

    run(main())


@both_loops
def test_a_body_that_goes_on_does_not_hold_up_the_answer_and_is_cut(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINGER_FOR", 0.05)

    async def main() -> None:
        async with App(lambda _n: b"HTTP/1.1 200 OK\r\n\r\nstreaming", stay=True) as app:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[str | None] = loop.create_future()
            attempt = Attempt(loop, http(app.port), 5.0, future.set_result)
            assert await future is None
            assert app.open  # still polite
            await app.until(lambda: not app.open)
            attempt.close()

    run(main())


@both_loops
def test_a_large_body_is_read_without_resetting_the_app(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: ok(b"x" * 40_000)) as app:
            future: asyncio.Future[str | None] = app.loop.create_future()
            attempt = Attempt(app.loop, http(app.port), 5.0, future.set_result)
            assert await future is None
            await app.until(lambda: not app.open)
            assert app.lost == [None]
            attempt.close()

    run(main())


@both_loops
def test_a_closed_attempt_never_answers_and_lets_go_of_the_app(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: None) as app:
            answers: list[str | None] = []
            attempt = Attempt(app.loop, http(app.port), 0.1, answers.append)
            await app.until(lambda: app.accepted == 1 and app.heard[0].endswith(b"\r\n\r\n"))
            attempt.close()
            await app.until(lambda: not app.open)
            at_once = Attempt(app.loop, http(app.port), 0.1, answers.append)
            at_once.close()
            await asyncio.sleep(0.15)
            assert answers == []
            assert app.accepted == 1

    run(main())


@pytest.mark.qp("QP-263")
@both_loops
def test_a_redirect_is_followed_over_a_new_connection(run: Run) -> None:
    async def main() -> None:
        def answer(n: int) -> bytes:
            return ok(b"", "302 Found", b"Location: /ready") if n == 1 else ok()

        async with App(answer) as app:
            assert await outcome(http(app.port)) is None
            assert app.accepted == 2
            assert app.heard[1].startswith(b"GET /ready HTTP/1.1\r\n")
            assert b"\r\nReferer: http://127.0.0.1:%d/healthz\r\n" % app.port in app.heard[1]

    run(main())


@pytest.mark.qp("QP-263")
@both_loops
def test_the_last_status_counts_and_an_unreachable_redirect_fails(run: Run) -> None:
    async def main() -> None:
        sock, closed = refusing_port()
        with sock:
            location = b"Location: http://127.0.0.1:%d/x" % closed
            async with App(lambda _n: ok(b"", "302 Found", location)) as app:
                wanted = f'Get "http://127.0.0.1:{closed}/x": dial tcp 127.0.0.1:{closed}: connect: connection refused'
                assert await outcome(http(app.port)) == wanted

        def then_error(n: int) -> bytes:
            return ok(b"", "307 Temporary Redirect", b"Location: /x") if n == 1 else ok(b"", "500 No")

        async with App(then_error) as app:
            assert await outcome(http(app.port)) == "HTTP probe did not respond Ready, got status code: 500"

    run(main())


@pytest.mark.qp("QP-263")
@both_loops
def test_a_redirect_elsewhere_is_ready_and_nobody_is_called(run: Run) -> None:
    async def main() -> None:
        async with App() as elsewhere:
            location = b"Location: http://localhost:%d/login" % elsewhere.port
            async with App(lambda _n: ok(b"", "302 Found", location)) as app:
                assert await outcome(http(app.port)) is None
            assert elsewhere.accepted == 0

    run(main())


@pytest.mark.qp("QP-263")
@both_loops
def test_a_redirect_loop_ends_after_ten_requests(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: ok(b"", "301 Moved", b"Location: /again")) as app:
            error = await outcome(http(app.port))
            assert error == f'Get "http://127.0.0.1:{app.port}/again": stopped after 10 redirects'
            assert app.accepted == 10

    run(main())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A self-signed certificate for another name, long expired on arrival: everything a verifier would refuse."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl command to make a certificate with")
    folder: Path = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-subj", "/CN=somebody.else", "-days", "1"]
        + ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.qp("QP-264")
@both_loops
def test_https_does_not_mind_a_self_signed_certificate(run: Run, certificate: ssl.SSLContext) -> None:
    async def main() -> None:
        async with App(tls=certificate) as app:
            assert await outcome(http(app.port, scheme="HTTPS")) is None
            assert app.heard[0].startswith(b"GET /healthz HTTP/1.1\r\n")
        async with App(lambda _n: ok(b"", "503 No"), tls=certificate) as app:
            wanted = "HTTP probe did not respond Ready, got status code: 503"
            assert await outcome(http(app.port, scheme="HTTPS")) == wanted

    run(main())


@both_loops
def test_an_https_app_that_says_nothing_times_out_and_is_let_go(run: Run, certificate: ssl.SSLContext) -> None:
    async def main() -> None:
        async with App(lambda _n: None, tls=certificate) as app:
            error = await outcome(http(app.port, scheme="HTTPS"), 0.2)
            assert error is not None and "context deadline exceeded" in error
            await app.until(lambda: app.accepted == 1 and not app.open)

    run(main())


@both_loops
def test_https_to_a_plain_server_fails_in_time(run: Run) -> None:
    """A server that hangs up on the hello, and one that just waits for the rest of its request."""

    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            error = await outcome(http(port, scheme="HTTPS"))
            assert error is not None and error.startswith(f'Get "https://127.0.0.1:{port}/healthz": ')
        async with App(lambda _n: None) as app:
            error = await outcome(http(app.port, scheme="HTTPS"), 0.1)
            assert error is not None and "context deadline exceeded" in error

    run(main())


@pytest.mark.qp("QP-267")
@both_loops
@pytest.mark.parametrize(
    "probe, text", [({"exec": {}}, "exec probe not supported"), ({}, "no probe found")], ids=["exec", "none"]
)
def test_what_cannot_be_probed_fails_with_its_text(run: Run, probe: dict[str, Any], text: str) -> None:
    assert run(outcome(handler(**probe))) == text


@both_loops
def test_a_name_that_does_not_resolve_fails(run: Run) -> None:
    error = run(outcome(handler(tcpSocket={"port": 1, "host": "no-such-host.invalid"})))
    assert error.startswith("dial tcp no-such-host.invalid:1: lookup")


@both_loops
def test_an_ipv6_app_is_reached(run: Run) -> None:
    async def main() -> None:
        sock = socket.socket(socket.AF_INET6)
        try:
            sock.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 loopback here")
        async with App(sock=sock) as app:
            assert await outcome(http(app.port, host="::1")) is None

    run(main())


@pytest.mark.qp("QP-350")
@both_loops
def test_a_stalled_loop_is_not_taken_for_a_silent_app(run: Run) -> None:
    """The app, a thread, answers at once while our loop is stuck past the attempt's deadline."""
    sock, port = refusing_port()
    sock.listen()

    def serve() -> None:
        peer, _ = sock.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(ok())
            answered.set()

    async def main() -> str | None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[str | None] = loop.create_future()
        attempt = Attempt(loop, http(port), 0.1, future.set_result)
        while not answered.is_set():  # the request goes out, the answer comes in, unread
            await asyncio.sleep(0)
        deadline = monotonic() + 0.12
        while monotonic() < deadline:
            time.sleep(0.01)  # the stall itself: the loop must not run here
        try:
            return await future
        finally:
            attempt.close()

    answered = threading.Event()
    thread = threading.Thread(target=serve)
    thread.start()
    with sock:
        assert run(main()) is None
    thread.join()


@both_loops
def test_many_attempts_leave_no_descriptor_behind(run: Run) -> None:
    async def main() -> None:
        refusing, port = refusing_port()
        with refusing:
            async with App(lambda n: [ok(), None, b""][n % 3]) as app:
                await outcome(http(app.port), 0.02)
                await app.until(lambda: not app.open)
                before = len(os.listdir("/proc/self/fd"))
                for _ in range(10):
                    await outcome(tcp(app.port))
                    await outcome(tcp(port))
                    await outcome(http(app.port), 0.02)
                await app.until(lambda: not app.open)
                await asyncio.sleep(0.01)
                assert len(os.listdir("/proc/self/fd")) <= before

    run(main())
