"""The pool: who is taken, who is dropped, when; and dialling for real."""

import asyncio
import errno
import gc
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from queueproxy.codec.response import ResponseReader
from queueproxy.errors import Failure
from queueproxy.proxy.upstream import IDLE_FOR, Pool, UpstreamConnection
from tests.support.probed import App, both_loops, refusing_port
from tests.support.wires import GET, HELLO, Wires

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.mark.qp("QP-203")
def test_the_most_recently_used_is_taken_first() -> None:
    with Wires() as wires:
        apps = [wires.pooled() for _ in range(3)]
        assert [wires.pool.take() for _ in range(4)] == [*(app.protocol for app in reversed(apps)), None]


@pytest.mark.qp("QP-203")
def test_beyond_the_limit_the_longest_idle_is_dropped() -> None:
    with Wires(pool=2) as wires:
        apps = [wires.pooled() for _ in range(3)]
        assert [app.transport.aborted for app in apps] == [True, False, False]
        assert [wires.pool.take() for _ in range(3)] == [apps[2].protocol, apps[1].protocol, None]


@pytest.mark.qp("QP-203")
def test_an_idle_connection_lives_ninety_seconds_and_leaves_no_timer() -> None:
    with Wires() as wires:
        first = wires.pooled()
        wires.loop.advance(30.0)
        second = wires.pooled()
        wires.loop.advance(IDLE_FOR - 30.0 - 0.001)
        assert not first.transport.aborted
        wires.loop.advance(0.001)
        assert (first.transport.aborted, second.transport.aborted) == (True, False)
        wires.loop.advance(30.0)
        assert second.transport.aborted and wires.loop.timers == 0


def test_a_connection_in_use_does_not_expire() -> None:
    with Wires() as wires:
        app = wires.pooled()
        client = wires.client()
        client.says(GET)
        wires.loop.advance(IDLE_FOR + 1)
        app.says(HELLO)
        assert client.got() == HELLO
        wires.loop.advance(IDLE_FOR - 0.001)
        assert not app.transport.aborted
        wires.loop.advance(0.001)
        assert app.transport.aborted


@pytest.mark.qp("QP-202")
@pytest.mark.parametrize("end", ["says", "ends", "leaves"])
def test_an_idle_connection_that_speaks_or_ends_is_not_used_again(end: str) -> None:
    with Wires() as wires:
        app = wires.pooled()
        app.says(HELLO) if end == "says" else getattr(app, end)()
        assert app.transport.lost
        assert wires.pool.take() is None


@pytest.mark.qp("QP-202")
def test_the_kernel_is_asked_before_a_connection_is_lent() -> None:
    with Wires() as wires:
        fine = wires.pooled()
        stale = wires.pooled()
        stale.transport.make_stale()
        assert stale.protocol.is_stale() and not fine.protocol.is_stale()
        assert wires.pool.take() is fine.protocol and stale.transport.aborted
        assert wires.pool.take() is None


@pytest.mark.fz("FZ-030")
def test_before_sleep_every_idle_connection_is_dropped() -> None:
    with Wires(freezing=True) as wires:
        apps = [wires.pooled() for _ in range(3)]
        wires.put_to_sleep()
        assert all(app.transport.aborted for app in apps) and wires.loop.timers == 0


@pytest.mark.fz("FZ-030")
def test_a_dial_that_outlived_its_request_does_not_fill_the_pool_of_a_sleeping_app() -> None:
    with Wires(freezing=True) as wires:
        client = wires.client()
        client.says(GET)
        client.leaves()
        wires.put_to_sleep()
        app = wires.dialled()
        assert app.transport.aborted and wires.pool.take() is None


def test_a_dial_that_outlived_its_request_is_kept_while_the_app_runs() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(GET)
        client.leaves()
        app = wires.dialled()
        assert wires.pool.take() is app.protocol


@pytest.mark.qp("QP-203", "QP-084")
@pytest.mark.parametrize(
    "answer",
    [
        HELLO.replace(b"Date", b"Connection: close\r\nDate"),
        HELLO.replace(b"1.1", b"1.0"),
        HELLO + b"surplus",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ],
    ids=["close", "1.0", "surplus", "two framings"],
)
def test_a_connection_that_may_not_be_used_again_is_dropped(answer: bytes) -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        app.says(answer)
        assert app.transport.is_closing() and wires.pool.take() is None and client.open
        wires.at_rest()


# === Dialling for real. ===


async def dialled(pool: Pool) -> UpstreamConnection | Failure:
    future: asyncio.Future[UpstreamConnection | Failure] = asyncio.get_running_loop().create_future()
    pool.dial(future.set_result, future.set_result)
    return await future


@pytest.mark.qp("QP-190", "QP-201")
@both_loops
def test_a_dial_brings_a_connection_or_the_kernels_reason(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with App() as app:
            pool = Pool(loop, "127.0.0.1", app.port, 10)
            connection = await dialled(pool)
            await app.until(lambda: app.accepted == 1)
            assert isinstance(connection, UpstreamConnection) and pool.opened == 1 and not connection.is_stale()
            connection.drop()
        sock, port = refusing_port()
        with sock:
            failure = await dialled(Pool(loop, "127.0.0.1", port, 10))
        assert isinstance(failure, Failure)
        assert (failure.status, failure.text) == (502, f"dial tcp 127.0.0.1:{port}: connect: connection refused")

    run(main())


@pytest.mark.qp("QP-202")
@both_loops
def test_a_real_connection_knows_that_it_is_stale_before_the_loop_says_so(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(loop, "127.0.0.1", 0, 10)
        server = await asyncio.start_server(lambda _r, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            pool.port = server.sockets[0].getsockname()[1]
            connection = await dialled(pool)
            assert isinstance(connection, UpstreamConnection)
            connection.transport.pause_reading()  # the loop shall not notice
            for _ in range(1000):
                if connection.is_stale():
                    break
                await asyncio.sleep(0.001)
            assert connection.is_stale() and not connection.closed
            pool.give_back(connection, loop.time())
            assert pool.take() is None and connection.closed
            pool.close()

    run(main())


@pytest.mark.qp("QP-353")
@both_loops
def test_nothing_is_left_of_a_connection_without_the_collector(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with App() as app:
            pool = Pool(loop, "127.0.0.1", app.port, 10)
            connection = await dialled(pool)
            assert isinstance(connection, UpstreamConnection)
            pool.give_back(connection, loop.time())
            await app.until(lambda: app.accepted == 1)
            pool.close()
            await app.until(lambda: not app.open)
            while hasattr(connection.reader, "on_header"):
                await asyncio.sleep(0)

    gc.collect()
    gc.disable()
    try:
        run(main())
        assert [one for one in gc.get_objects() if type(one) in (UpstreamConnection, ResponseReader)] == []
    finally:
        gc.enable()


@pytest.mark.fz("FZ-035")
def test_a_dial_that_outlives_its_request_does_not_reach_a_sleeping_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queueproxy.proxy.upstream.connect_at_once", lambda sock, host, port: sock.close())

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        accepted: list[object] = []
        server = await loop.create_server(lambda: _Accepts(accepted), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pool = Pool(loop, "127.0.0.1", port, 1)
        called: list[object] = []
        pool.dial(called.append, called.append)
        pool.rest()  # the client has left, and the app is put to sleep before the dial's first turn
        for _ in range(5):
            await asyncio.sleep(0)
        assert (called, accepted) == ([], [])
        pool.leave_alone()
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


@both_loops
@pytest.mark.fz("FZ-030", "FZ-035")
def test_one_socket_is_ready_for_the_request_that_wakes_the_app(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "")

    async def main() -> None:
        async with App() as app:
            pool = Pool(asyncio.get_running_loop(), "127.0.0.1", app.port, 1)
            before = set(os.listdir("/proc/self/fd"))
            pool.rest()
            pool.rest()
            assert app.accepted == 0 and len(set(os.listdir("/proc/self/fd")) - before) == 1
            monkeypatch.setattr("queueproxy.proxy.upstream.socket_for", none_left)
            monkeypatch.setattr("queueproxy.net.dial.socket_for", none_left)
            got: list[Any] = []
            pool.dial(got.append, pytest.fail)
            pool.dial(pytest.fail, got.append)  # the next one makes its own, and there is none to be had
            await app.until(lambda: app.accepted == 1 and len(got) == 2)
            assert b"too many open files" in got[1].text.encode()
            got[0].drop()
            await app.until(lambda: not app.open)
            monkeypatch.undo()
            pool.rest()
            pool.leave_alone()
            await app.until(lambda: set(os.listdir("/proc/self/fd")) == before)

    run(main())


class _Accepts(asyncio.Protocol):
    def __init__(self, accepted: list[object]) -> None:
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._accepted.append(transport)
