"""One TCP connection with Go's schedule: refused at once, repeated only after a timeout."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest

from queueproxy.net import dial as dialling
from queueproxy.net.dial import (
    ATTEMPTS,
    FIRST_TIMEOUT,
    GROWTH,
    JITTER,
    KEEPALIVE,
    RECEIVE,
    DialError,
    DialTimeout,
    connect_at_once,
    dial,
    open_transport,
    socket_for,
)
from tests.support.probed import App, both_loops, refusing_port

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def opened(port: int) -> asyncio.Transport:
    """A connection with its transport, as the pool makes it."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    made: list[Any] = []

    class Keeps(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)

    open_transport(loop, Keeps, await dial(loop, "127.0.0.1", port), ready.set)
    await ready.wait()
    return cast(asyncio.Transport, made[0])


@both_loops
def test_on_loopback_a_connection_needs_no_turn_of_the_loop(run: Run) -> None:
    async def main() -> None:
        async with App() as app:
            with socket_for("127.0.0.1") as sock:
                assert connect_at_once(sock, "127.0.0.1", app.port)
                assert sock.getpeername() == ("127.0.0.1", app.port)

    run(main())


def test_what_cannot_be_connected_at_once_leaves_nothing_open() -> None:
    before = set(os.listdir("/proc/self/fd"))
    refusing, port = refusing_port()
    with refusing, socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        assert not connect_at_once(socket_for("127.0.0.1"), "127.0.0.1", port)
        assert not connect_at_once(socket_for("127.0.0.1"), *full.getsockname())
        for one in crowd:
            one.close()
    assert set(os.listdir("/proc/self/fd")) == before


@both_loops
def test_a_transport_that_is_aborted_before_it_is_made_frees_its_socket(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        lost = asyncio.Event()

        class Aborts(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                transport.abort()

            def connection_lost(self, _: Exception | None) -> None:
                lost.set()

        async with App() as app:
            sock = await dial(loop, "127.0.0.1", app.port)
            opened = asyncio.Event()
            open_transport(loop, Aborts, sock, opened.set)
            await asyncio.wait_for(lost.wait(), 10)
            await asyncio.wait_for(opened.wait(), 10)
            for _ in range(3):
                await asyncio.sleep(0)
            assert sock.fileno() == -1, "whoever has its number next would be closed with it"

    run(main())


@pytest.mark.qp("QP-190")
@both_loops
def test_a_connection_is_kept_alive_by_tcp(run: Run) -> None:
    async def main() -> None:
        async with App() as app:
            transport = await opened(app.port)
            await app.until(lambda: app.accepted == 1)
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == KEEPALIVE
            transport.abort()

    run(main())


@both_loops
def test_the_kernel_holds_little_of_what_nobody_reads(run: Run) -> None:
    """It bounds a single read of the loop, and so what a client that takes nothing leaves in our memory."""

    async def main() -> None:
        async with App() as app:
            transport = await opened(app.port)
            await app.until(lambda: app.accepted == 1)
            sock = transport.get_extra_info("socket")
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 2 * RECEIVE
            transport.abort()

    run(main())


@pytest.mark.qp("QP-201")
@both_loops
def test_a_refusal_is_not_repeated(run: Run) -> None:
    async def main() -> None:
        sock, port = refusing_port()
        with sock, pytest.raises(DialError, match="connection refused"):
            await dial(asyncio.get_running_loop(), "127.0.0.1", port)

    run(main())


def test_without_a_descriptor_to_be_had_the_kernels_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(dialling, "socket_for", none_left)

    async def main() -> None:
        with pytest.raises(DialError, match="too many open files"):
            await dial(asyncio.get_running_loop(), "127.0.0.1", 1)

    asyncio.run(main())


class Script:
    """Handshakes that are never over in time until `after` of them were tried; no time passes."""

    def __init__(self, after: int) -> None:
        self._after = after
        self.timeouts: list[float] = []
        self.pauses: list[float] = []

    async def connected(self, _loop: object, _sock: object, _address: object, within: float) -> bool:
        self.timeouts.append(within)
        return len(self.timeouts) > self._after

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.mark.qp("QP-201")
@pytest.mark.parametrize("after", [0, 3, ATTEMPTS - 1, ATTEMPTS])
def test_timeouts_are_repeated_with_growing_patience_fifteen_times_in_all(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = Script(after)
    monkeypatch.setattr(dialling, "_connected", script.connected)
    monkeypatch.setattr(dialling, "asyncio", script)
    loop: Any = None  # not needed: no handshake is waited for
    if after < ATTEMPTS:
        asyncio.run(dial(loop, "127.0.0.1", 1)).close()
    else:
        with pytest.raises(DialTimeout):
            asyncio.run(dial(loop, "127.0.0.1", 1))
    attempts = min(after + 1, ATTEMPTS)
    assert len(script.timeouts) == attempts and len(script.pauses) == attempts - 1
    for number, timeout in enumerate(script.timeouts):
        middle = FIRST_TIMEOUT * GROWTH**number
        assert middle * (1 - JITTER) <= timeout <= middle * (1 + JITTER)
    assert all(0.03 <= pause <= 0.06 for pause in script.pauses)


@pytest.mark.slow
@pytest.mark.qp("QP-201")
@both_loops
def test_a_handshake_that_hangs_is_given_up_and_tried_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "ATTEMPTS", 2)

    async def main() -> None:
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            crowd = [socket.socket() for _ in range(4)]  # fills the accept queue: the kernel answers nobody else
            try:
                for one in crowd:
                    one.setblocking(False)
                    one.connect_ex(server.getsockname())
                with pytest.raises(DialTimeout):
                    await dial(asyncio.get_running_loop(), *server.getsockname())
            finally:
                for one in crowd:
                    one.close()

    run(main())
