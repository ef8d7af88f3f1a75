"""Apps to probe: a scripted server on loopback that counts, and the two event loops everything is tried on."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

__all__ = ["App", "both_loops", "ok", "refusing_port"]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def _run_on(factory: Callable[[], asyncio.AbstractEventLoop]) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(main)

    return run


# The argument `run` runs a coroutine to its end on one of the loops.
both_loops = pytest.mark.parametrize("run", [_run_on(factory) for factory in LOOPS.values()], ids=list(LOOPS))


def ok(body: bytes = b"ok", status: str = "200 OK", *headers: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status}".encode(), *headers, b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


def refusing_port() -> tuple[socket.socket, int]:
    """A port that is ours but refuses connections until somebody calls `listen` on the socket."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock, sock.getsockname()[1]


Answer = Callable[[int], bytes | None]  # connection number, from 1 -> what to say, or None: nothing, for ever


class App:
    """`async with App(answer) as app`: reads up to a blank line, says what `answer` says once and closes.

    Counts `accepted` connections, keeps the `heard` bytes of each and how each was `lost`.
    """

    def __init__(
        self,
        answer: Answer = lambda _n: ok(),
        *,
        sock: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
        stay: bool = False,  # leave closing to the prober
    ) -> None:
        self.answer = answer
        self.stay = stay
        self.accepted = 0
        self.heard: list[bytes] = []
        self.lost: list[Exception | None] = []  # how each connection ended
        self.open: set[asyncio.Transport] = set()
        self._sock = sock
        self._tls = tls
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def __aenter__(self) -> App:
        self.loop = asyncio.get_running_loop()
        if self._sock is None:
            self._sock, _ = refusing_port()
        self._server = await self.loop.create_server(lambda: _AppConnection(self), sock=self._sock, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self.close()
        await self._server.wait_closed()
        await self.until(lambda: not self.open)

    def close(self) -> None:
        self._server.close()
        for transport in list(self.open):
            transport.abort()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for a change of the counters above that makes `condition` true."""
        if not condition():
            changed: asyncio.Future[None] = self.loop.create_future()
            self._watchers.append((condition, changed))
            await changed

    def changed(self) -> None:
        for watcher in list(self._watchers):
            condition, future = watcher
            if condition() and not future.done():
                self._watchers.remove(watcher)
                future.set_result(None)


class _AppConnection(asyncio.Protocol):
    def __init__(self, app: App) -> None:
        self._app = app
        self._number = 0
        self._answered = False
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._app.accepted += 1
        self._number = self._app.accepted
        self._app.heard.append(b"")
        self._app.open.add(self._transport)
        self._app.changed()

    def data_received(self, data: bytes) -> None:
        app, at = self._app, self._number - 1
        app.heard[at] += data
        app.changed()
        if not self._answered and b"\r\n\r\n" in app.heard[at]:
            self._answered = True
            answer = app.answer(self._number)
            if answer is not None:
                self._transport.write(answer)
                if not app.stay:
                    self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._app.lost.append(exc)
        self._app.open.discard(self._transport)
        self._app.changed()
