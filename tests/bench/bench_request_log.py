"""Measures what the request log costs per request: two sidecars, one with it, alternating in one run (root, wrk).

    python -m tests.bench.bench_request_log [--rounds 7] [--seconds 3]

Each has a network namespace, an origin and a load of its own. Prints CPU and, where the machine counts them,
instructions per request of each, and the difference, as JSON; medians of the rounds. stdout of the sidecars is a pipe
that is read all the time.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from queueproxy.bench.instructions import Counter, available
from tests.support.netns import network_namespace
from tests.support.sidecar import Sidecar, environment

HEADERS = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) bench", "Accept: */*", "X-Forwarded-For: 10.0.0.9",
    "X-Forwarded-Proto: http", "X-Request-Id: 0c9d7e2c-9f6c-4f9e-8a63-2f0cf2a1b9b1",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)  # fmt: skip
CONNECTIONS = 32
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu(pid: int) -> float:
    """Seconds, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


class Counted(Sidecar):
    """Throws its stdout away instead of keeping it; counts the bytes."""

    read = 0

    def _read(self, stream: Any, lines: list[str]) -> None:
        if lines is not self.output:
            super()._read(stream, lines)
            return
        while data := os.read(stream.fileno(), 1 << 16):
            self.read += len(data)


@contextmanager
def subject(observability: dict[str, object]) -> Iterator[tuple[Any, Counted]]:
    with network_namespace() as namespace, ExitStack() as stack:
        origin = namespace.popen([sys.executable, "-m", "queueproxy.bench.origin", "--port", "8080"])
        stack.callback(origin.wait, 10)
        stack.callback(origin.terminate)
        sidecar = Counted(namespace, environment(OBSERVABILITY_CONFIG=json.dumps(observability)))
        stack.callback(sidecar.stop)
        sidecar.started()
        yield namespace, sidecar


def load(namespace: Any, seconds: float) -> int:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s"]
    for header in HEADERS:
        command += ["-H", header]
    run = namespace.run([*command, "http://127.0.0.1:8012/shop/basket?item=17&amount=2"], stdout=subprocess.PIPE)
    found = re.search(rb"(\d+) requests in", run.stdout)
    assert found is not None, run.stdout
    return int(found[1])


def measure(namespace: Any, sidecar: Sidecar, seconds: float, counts: bool) -> tuple[float, float]:
    """(microseconds of CPU, instructions) per request."""
    pid = sidecar.process.pid
    before = cpu(pid)
    if not counts:
        requests = load(namespace, seconds)
        return (cpu(pid) - before) / requests * 1e6, 0.0
    with Counter(pid) as counter:
        requests = load(namespace, seconds)
    return (cpu(pid) - before) / requests * 1e6, counter.instructions / requests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    counts = available()
    results: dict[str, list[tuple[float, float]]] = {"off": [], "on": []}
    with subject({}) as off, subject({"enableRequestLog": True}) as on:
        for pair in (off, on):
            load(pair[0], 1.0)
        for _ in range(options.rounds):
            results["off"].append(measure(*off, options.seconds, counts))
            results["on"].append(measure(*on, options.seconds, counts))
        written = on[1].read
        dropped = [line for line in on[1].lines if "dropped" in line]
    median = {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in results.items()}
    print(
        json.dumps(
            {
                "cpu_us": {name: round(row[0], 2) for name, row in median.items()},
                "cpu_us_more": round(
                    statistics.median(b[0] - a[0] for a, b in zip(results["off"], results["on"], strict=True)), 2
                ),
                "instructions": {name: round(row[1]) for name, row in median.items()},
                "instructions_more": round(median["on"][1] - median["off"][1]),
                "log_bytes": written,
                "dropped": dropped,
            }
        )
    )


if __name__ == "__main__":
    main()
