"""Times one request through the proxy's own code without sockets, beside the bare pair: where user time goes.

    python tests/bench/bench_exchange.py [--requests N] [--headers N] [--profile]

Real connections and pool, transports that only count. Prints JSON; with --profile the costliest functions on stderr.
What a kernel and an event loop add (two reads, two writes) is the same for every relay and not in these figures.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import importlib.util
import json
import os
import pstats
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

from queueproxy.app import Sidecar
from queueproxy.bench.environment import environment
from queueproxy.bench.instructions import Counter, available
from queueproxy.config import load
from queueproxy.log import LineWriter, Log
from queueproxy.probes.spec import decode
from queueproxy.proxy.unmade import Unmade
from queueproxy.proxy.upstream import UpstreamConnection

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world\n"


class Transport:
    """Counts what it is given. Its socket is a real one on which nothing happens: the pool asks the kernel about it."""

    def __init__(self) -> None:
        self.writes = 0
        self.last = b""
        self.socket, self._other_end = socket.socketpair()

    def write(self, data: bytes) -> None:
        self.writes += 1
        self.last = data

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 40000), "socket": self.socket}.get(name, default)

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None: ...

    def close(self) -> None: ...


def request(headers: int) -> bytes:
    """Like wrk's (Host alone), or with so many more that a browser or an ingress sends."""
    more = "".join(f"X-Header-{number}: value-{number}\r\n" for number in range(headers))
    return f"GET / HTTP/1.1\r\nHost: 127.0.0.1:8012\r\n{more}\r\n".encode()


def ours(loop: asyncio.AbstractEventLoop, data: bytes) -> tuple[Callable[[], None], Transport]:
    config = load(environment(8012, 8080))
    log = Log(LineWriter(2), {})
    sidecar = Sidecar(config, decode(config.probe_json, multi=False), loop, log, lambda line: None)
    sidecar.gate.ready()
    front, back = Transport(), Transport()
    client = sidecar.accept()  # what listens is made by: request metrics are on, as they are by default
    client.connection_made(front)  # type: ignore[arg-type]
    upstream = UpstreamConnection(sidecar.pool, Unmade(None))  # type: ignore[arg-type]
    upstream.connection_made(back)  # type: ignore[arg-type]
    upstream.opened()
    sidecar.pool.give_back(upstream, 0.0)

    def exchange() -> None:
        client.data_received(data)
        upstream.data_received(ANSWER)

    return exchange, front


def bare(data: bytes) -> tuple[Callable[[], None], Transport]:
    spec = importlib.util.spec_from_file_location("bare_pair", Path(__file__).with_name("bare_pair.py"))
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pool = module.Pool(None, 0)
    front, back = Transport(), Transport()
    client, upstream = module.Client(pool), module.Upstream(pool)
    client.connection_made(front)
    upstream.connection_made(back)
    pool.idle.append(upstream)

    def exchange() -> None:
        client.data_received(data)
        upstream.data_received(ANSWER)

    return exchange, front


def timed(exchange: Callable[[], None], front: Transport, requests: int) -> float:
    """CPU microseconds per exchange. Every one must have been answered."""
    before = front.writes
    begun = process_time()
    for _ in range(requests):
        exchange()
    took = process_time() - begun
    assert front.writes == before + requests, "an exchange was not answered"
    assert front.last.endswith(b"Hello, world\n")
    return took * 1e6 / requests


def instructions(exchange: Callable[[], None], front: Transport, requests: int) -> int:
    """Instructions per exchange: the steadiest figure there is, where a counter can be had."""
    with Counter(os.getpid()) as counter:
        timed(exchange, front, requests)
    return counter.instructions // requests


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--headers", type=int, default=0, help="headers beside Host")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    flags = parser.parse_args()
    data = request(flags.headers)
    loop = asyncio.new_event_loop()
    mine, theirs = ours(loop, data), bare(data)
    pairs = []
    for _ in range(flags.rounds + 1):
        pairs.append((timed(*mine, flags.requests), timed(*theirs, flags.requests)))
    del pairs[0]  # warm-up
    if flags.profile:
        profile = cProfile.Profile()
        profile.runcall(timed, *mine, flags.requests)
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    counted = {}
    if available():
        counted = {
            "ours_instructions": instructions(*mine, flags.requests),
            "bare_instructions": instructions(*theirs, flags.requests),
        }
    loop.close()
    result: dict[str, float] = {
        "ours_us": round(median(mine for mine, _ in pairs), 2),
        "bare_us": round(median(theirs for _, theirs in pairs), 2),
        "ratio": round(median(mine / theirs for mine, theirs in pairs), 2),
        "headers": flags.headers,
        **counted,
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
