"""One TCP connection with Go's schedule: refused at once, repeated only after a timeout."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

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
    dial,
)
from tests.support.probed import App, both_loops, refusing_port

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.mark.qp("QP-190")
@both_loops
def test_a_connection_is_kept_alive_by_tcp(run: Run) -> None:
    async def main() -> None:
        async with App() as app:
            transport = await dial(asyncio.get_running_loop(), asyncio.Protocol, "127.0.0.1", app.port)
            await app.until(lambda: app.accepted == 1)
            await asyncio.sleep(0)  # set in the turn after, when the waiting request has been sent
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
            transport = await dial(asyncio.get_running_loop(), asyncio.Protocol, "127.0.0.1", app.port)
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
            await dial(asyncio.get_running_loop(), asyncio.Protocol, "127.0.0.1", port)

    run(main())


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
    made: list[socket.socket] = []

    class Loop:
        async def create_connection(self, _: object, *, sock: socket.socket) -> tuple[asyncio.Transport, None]:
            made.append(sock)
            return asyncio.Transport({"socket": sock}), None

        def call_soon(self, call: Callable[[socket.socket], None], sock: socket.socket) -> None:
            call(sock)

    loop: Any = Loop()
    if after < ATTEMPTS:
        assert asyncio.run(dial(loop, asyncio.Protocol, "127.0.0.1", 1)).get_extra_info("socket") is made[0]
        made[0].close()
    else:
        with pytest.raises(DialTimeout):
            asyncio.run(dial(loop, asyncio.Protocol, "127.0.0.1", 1))
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
                    await dial(asyncio.get_running_loop(), asyncio.Protocol, *server.getsockname())
            finally:
                for one in crowd:
                    one.close()

    run(main())
