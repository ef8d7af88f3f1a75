"""Runs real servers as the app of a namespace: uvicorn, which says what it was asked, and grpcio with its health."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import uvicorn
from grpc_health.v1 import health, health_pb2_grpc

from tests.support.netns import NetworkNamespace


async def _app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A real app for a real server: says what it was asked."""
    body = b""
    more = True
    while more:
        event = await receive()
        body += event.get("body", b"")
        more = event.get("more_body", False)
    said = {
        "method": scope["method"],
        "path": scope["path"],
        "headers": [[name.decode(), value.decode()] for name, value in scope["headers"]],
        "body": body.decode(),
    }
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})


@contextmanager
def http_app(namespace: NetworkNamespace, port: int) -> Iterator[None]:
    """uvicorn on that port of the namespace."""
    config = uvicorn.Config(_app, host="127.0.0.1", port=port, log_level="critical", lifespan="off", loop="asyncio")
    with namespace.inside():
        sock = config.bind_socket()
    server = uvicorn.Server(config)

    def run() -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(server.serve(sockets=[sock]))

    thread = threading.Thread(target=run)
    sock.listen(128)  # from here on nobody is refused; uvicorn takes over
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(15)
        sock.close()


@contextmanager
def grpc_app(namespace: NetworkNamespace, port: int) -> Iterator[health.HealthServicer]:
    """grpcio with its own health service on that port of the namespace."""
    servicer = health.HealthServicer()
    with ThreadPoolExecutor(2) as pool, namespace.inside():
        server = grpc.server(pool)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield servicer
        finally:
            server.stop(None).wait(15)
