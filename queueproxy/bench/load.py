"""Runs a closed loop of requests: N connections, each asking again as soon as it is answered, latencies counted.

    python -m queueproxy.bench.load --port 8012 --connections 32 --seconds 3

With `--websocket` each connection upgrades first and then says messages of `--body` bytes, one per echo. With `--rate`
the connections ask that often a second together instead of as often as they are answered. Writes one JSON object:
requests, errors, seconds and the histogram. It stands in for wrk where that is not installed; being Python it costs
more of the shared CPU, so compare figures of one generator only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from time import perf_counter_ns
from typing import Any

from queueproxy.bench.asker import Asker
from queueproxy.bench.histogram import Histogram
from queueproxy.bench.loop import run
from queueproxy.bench.pace import paced
from queueproxy.bench.talk import Talker, talkers

__all__ = ["Load", "main", "request_bytes"]

GRACE_S = 5.0  # what an answer may take after the end of the run before it counts as an error
MAX_ERRORS = 1000  # a target that refuses everything must not be dialled for the whole run


def request_bytes(path: str, host: str, body: int = 0, headers: Sequence[str] = ()) -> bytes:
    """A request like wrk's: a Host header, others and a body when they are asked for."""
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", f"Host: {host}", *headers]
    lines += [f"Content-Length: {body}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + b"x" * body


class Load:
    """One run: keeps its number of connections open until the time is over. `made` makes each, an Asker by default."""

    def __init__(
        self,
        host: str,
        port: int,
        request: bytes,
        connections: int,
        seconds: float,
        made: Callable[[Load], Asker | Talker] = Asker,
    ) -> None:
        self.host = host
        self.port = port
        self.request = request
        self.made = made
        self.connections = connections
        self.seconds = seconds
        self.histogram = Histogram()
        self.errors = 0
        self.until_ns = 0
        self.open = 0
        self.done: asyncio.Future[None] | None = None
        self.dials: set[asyncio.Task[None]] = set()
        self.askers: set[Asker | Talker] = set()

    def __repr__(self) -> str:
        return f"<Load open={self.open} errors={self.errors} {self.histogram!r}>"

    async def run(self) -> float:
        """Returns the seconds from the first dial to the last answer."""
        loop = asyncio.get_running_loop()
        self.done = loop.create_future()
        begun_ns = perf_counter_ns()
        self.until_ns = begun_ns + int(self.seconds * 1e9)
        overdue = loop.call_later(self.seconds + GRACE_S, self.give_up)
        for _ in range(self.connections):
            self.dial()
        await self.done
        overdue.cancel()
        return (perf_counter_ns() - begun_ns) / 1e9

    def dial(self) -> None:
        self.open += 1
        task = asyncio.get_running_loop().create_task(self.connect())
        self.dials.add(task)
        task.add_done_callback(self.dials.discard)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, asker = await loop.create_connection(lambda: self.made(self), self.host, self.port)
            self.askers.add(asker)
        except OSError:
            self.left(None, failed=True)

    def left(self, asker: Asker | Talker | None, *, failed: bool) -> None:
        """A connection is gone: replaced while the run lasts."""
        self.open -= 1
        if asker is not None:
            self.askers.discard(asker)
        self.errors += failed
        if perf_counter_ns() < self.until_ns and self.errors < MAX_ERRORS:
            self.dial()
        elif not self.open and self.done is not None and not self.done.done():
            self.done.set_result(None)

    def give_up(self) -> None:
        for asker in list(self.askers):
            asker.transport.abort()

    def report(self, seconds: float) -> dict[str, Any]:
        return {
            "requests": self.histogram.total,
            "errors": self.errors,
            "seconds": seconds,
            "histogram": self.histogram.as_counts(),
        }


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m queueproxy.bench.load", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/")
    parser.add_argument("--body", type=int, default=0, help="bytes to POST with every request (default: GET)")
    parser.add_argument("--websocket", action="store_true", help="upgrade, then say --body bytes per message")
    parser.add_argument("--header", action="append", default=[], metavar="'NAME: VALUE'", help="as often as you like")
    parser.add_argument(
        "--rate", type=int, default=0, help="requests per second over all connections (default: no pause)"
    )
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=3.0)
    flags = parser.parse_args(argv)
    host = f"{flags.host}:{flags.port}"
    request = request_bytes(flags.path, host, flags.body, flags.header)
    made: Callable[[Load], Asker | Talker] = paced(flags.rate) if flags.rate else Asker
    if flags.websocket:
        made = talkers(flags.path, host, flags.body)
    load = Load(flags.host, flags.port, request, flags.connections, flags.seconds, made)
    print(json.dumps(load.report(run(load.run()))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
