"""Serves the operators' port 9697 with aiohttp.web: pods, thaw, events, health, metrics.

It is node-local by default. Where somebody opens it to the network (for a scraper), what changes anything is still
refused to callers from elsewhere (threat model 6.2: thaw any, list and drain are for root on the node). Nothing here is
on the wake path, and nothing here is trusted with more than `Node` offers.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from aiohttp import web

from queueproxy.freeze.annotations import parse_duration
from queueproxy.freeze.node.config import Address
from queueproxy.freeze.node.events import Events, Happening
from queueproxy.freeze.node.metrics import CONTENT_TYPE
from queueproxy.freeze.node.server import plain_address
from queueproxy.freeze.wire import PROBLEM_TYPE

__all__ = ["Node", "Operators"]

_HOLD_MAX: Final = 86_400.0  # seconds: longer is a matter for the annotation
_BATCH: Final = 256  # events per write
_BODY: Final = 4096
_LOCAL: Final = ("127.", "::1")


class Node(Protocol):
    """What operators may see and do."""

    @property
    def events(self) -> Events: ...
    def pods(self) -> list[dict[str, object]]: ...
    def status(self) -> dict[str, object]: ...
    def thaw(self, uid: str | None, hold_for: float) -> bool: ...
    def readiness(self) -> str:
        """Why it is not ready; empty when it is."""

    def metrics(self) -> bytes: ...


class Operators:
    """One listener; `start` before use, `close` when done."""

    def __init__(self, node: Node, address: Address) -> None:
        self._node = node
        self._address = address
        self._readers: set[asyncio.Event] = set()
        self._closing = False
        app = web.Application(client_max_size=_BODY, middlewares=[_problems])
        app.add_routes([
            web.get("/v1/pods", self._pods),
            web.post("/v1/pods/{uid}/thaw", self._thaw),
            web.post("/v1/thaw-all", self._thaw),
            web.get("/v1/events", self._events),
            web.get("/healthz", self._healthz),
            web.get("/readyz", self._readyz),
            web.get("/metrics", self._metrics),
        ])  # fmt: skip
        # No access log, and SIGTERM is the application's: our own log has what happened.
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self.port = 0

    async def start(self) -> None:
        """OSError when the address is taken."""
        await self._runner.setup()
        address = self._address
        site: web.BaseSite
        if address.path:
            site = web.UnixSite(self._runner, address.path)
        else:
            site = web.TCPSite(self._runner, address.host, address.port)
        await site.start()
        if address.path:
            os.chmod(address.path, 0o600)  # root's alone: who may open it may thaw anything
        name = self._runner.addresses[0] if self._runner.addresses else ""
        self.port = int(name[1]) if isinstance(name, tuple) else 0

    async def close(self) -> None:
        self._closing = True
        for news in self._readers:
            news.set()
        await self._runner.cleanup()

    async def _pods(self, request: web.Request) -> web.Response:
        return _json({**self._node.status(), "pods": self._node.pods()})

    async def _thaw(self, request: web.Request) -> web.Response:
        """One pod or all, and keep awake for `?hold=`."""
        if not _is_local(request):
            raise web.HTTPForbidden(text="from this node only")
        try:
            hold = parse_duration(request.query.get("hold", "0"))
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"hold: write {error}") from None
        if hold > _HOLD_MAX:
            raise web.HTTPBadRequest(text="hold: at most 24h; for longer, annotate the pod")
        uid = request.match_info.get("uid")
        if not self._node.thaw(uid, hold):
            raise web.HTTPNotFound(text="no such pod on this node")
        return _json({"thawing": uid or "all", "hold_s": hold}, status=202)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """NDJSON for as long as the reader likes; `?after=STREAM:NUMBER` goes on where it was, `?follow=false` ends."""
        events = self._node.events
        stream, _, number = request.query.get("after", "").rpartition(":")
        seen = int(number) if number.isascii() and number.isdigit() and stream in ("", events.stream) else 0
        follow = request.query.get("follow", "true") != "false"
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(request)
        news = asyncio.Event()
        self._readers.add(news)
        leave = events.listen(news.set)
        try:
            while not self._closing:
                news.clear()
                lost, found = events.after(seen, _BATCH)
                if lost:
                    await response.write(_line({"kind": "lost", "count": lost, "stream": events.stream}))
                if found:
                    seen = found[-1].number
                    await response.write(b"".join(_line(_event(events.stream, event)) for event in found))
                elif follow:
                    await news.wait()
                else:
                    break
        except ConnectionError:
            pass
        finally:
            leave()
            self._readers.discard(news)
        return response

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        why = self._node.readiness()
        return web.Response(text=f"{why}\n" if why else "ok\n", status=503 if why else 200)

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=self._node.metrics(), headers={"Content-Type": CONTENT_TYPE})


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refusals in the form the other port has them."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        said = {"type": "about:blank", "title": error.reason, "status": error.status, "detail": error.text}
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return web.json_response(said, status=error.status, content_type=PROBLEM_TYPE, headers=allow)


def _is_local(request: web.Request) -> bool:
    """From this node: over a Unix socket or the loopback interface. What a proxy may have written is not asked."""
    name = request.transport.get_extra_info("peername") if request.transport is not None else None
    return not isinstance(name, tuple) or plain_address(str(name[0])).startswith(_LOCAL)


def _json(said: object, status: int = 200) -> web.Response:
    return web.json_response(said, status=status, dumps=lambda value: json.dumps(value) + "\n")


def _line(said: object) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


def _event(stream: str, event: Happening) -> dict[str, object]:
    said = event._asdict()
    return {"id": f"{stream}:{said.pop('number')}", **said}
