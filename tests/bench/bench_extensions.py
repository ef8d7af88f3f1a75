"""Measures what extensions cost, and that none cost nothing: sidecars beside each other, alternating (root, wrk).

    python -m tests.bench.bench_extensions [--before CHECKOUT] [--rounds 5] [--seconds 2] [--starts 10]

Subjects: a checkout from before there were extensions, when given; none; one whose three hooks do nothing; the example,
which asks for an API key. Each has a network namespace, an origin and a load of its own. Prints CPU and, where the
machine counts them, instructions per request, and the time from exec to listening, as JSON; medians.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from queueproxy.bench.instructions import Counter, available
from tests.support.installed import lay
from tests.support.netns import network_namespace
from tests.support.sidecar import Sidecar, environment

KEY = "s3cret"
CONNECTIONS = 8
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "extension_apikey" / "queueproxy_apikey.py"
NOTHING = """
class Nothing:
    def __init__(self, setup): ...
    def request(self, request): ...
    def response(self, request, response): ...
    def finished(self, request, outcome): ...
"""


def subjects(place: Path, before: str | None) -> dict[str, dict[str, Any]]:
    """How each is started."""
    lay(place / "nothing", "ext_nothing", NOTHING, {"nothing": "ext_nothing:Nothing"})
    lay(place / "example", "queueproxy_apikey", EXAMPLE.read_text(), {"apikey": "queueproxy_apikey:ApiKey"})
    podinfo = place / "annotations"
    podinfo.write_text(f'example.com/apikeys="{sha256(KEY.encode()).hexdigest()}=ann"\n')
    made: dict[str, dict[str, Any]] = {"before": {"under": ("env", "-C", before)}} if before else {}
    return made | {
        "none": {},
        "nothing done": {"PYTHONPATH": str(place / "nothing")},
        "example": {"PYTHONPATH": str(place / "example"), "QUEUEPROXY_PODINFO": str(podinfo)},
    }


@contextmanager
def running(under: tuple[str, ...] = (), **changes: str) -> Iterator[tuple[Any, Sidecar]]:
    with network_namespace() as namespace, ExitStack() as stack:
        origin = namespace.popen([sys.executable, "-m", "queueproxy.bench.origin", "--port", "8080"])
        stack.callback(origin.wait, 10)
        stack.callback(origin.terminate)
        sidecar = Sidecar(namespace, environment(**changes), under=under)
        stack.callback(sidecar.stop)
        yield namespace, sidecar.started()


def cpu(pid: int) -> float:
    """Seconds of CPU the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def loaded(namespace: Any, sidecar: Sidecar, seconds: int, counts: bool) -> tuple[float, float]:
    """(microseconds of CPU, instructions) per request."""

    def load() -> int:
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-H", f"Authorization: Bearer {KEY}"]
        run = namespace.run([*command, "http://127.0.0.1:8012/"], stdout=subprocess.PIPE)
        assert b"Non-2xx" not in run.stdout, run.stdout
        found = re.search(rb"(\d+) requests in", run.stdout)
        assert found is not None, run.stdout
        return int(found[1])

    pid = sidecar.process.pid
    used = cpu(pid)
    if not counts:
        requests, instructions = load(), 0.0
    else:
        with Counter(pid) as counter:
            requests = load()
        instructions = counter.instructions / requests
    return (cpu(pid) - used) / requests * 1e6, instructions


def start(under: tuple[str, ...] = (), **changes: str) -> float:
    """Milliseconds from exec until it says that it serves."""
    with network_namespace() as namespace:
        began_at = time.perf_counter()
        sidecar = Sidecar(namespace, environment(**changes), under=under)
        try:
            sidecar.started()
            return (time.perf_counter() - began_at) * 1e3
        finally:
            sidecar.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--starts", type=int, default=10)
    flags = parser.parse_args()
    counts = available()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        wanted = subjects(place, flags.before)
        starts: dict[str, list[float]] = {name: [] for name in wanted}
        for _ in range(flags.starts):
            for name, options in wanted.items():
                starts[name].append(start(**options))
        alive = {name: stack.enter_context(running(**options)) for name, options in wanted.items()}
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in wanted}
        for round_ in range(flags.rounds + 1):
            for name, (namespace, sidecar) in alive.items():
                row = loaded(namespace, sidecar, flags.seconds, counts)
                if round_:  # the first one warms
                    figures[name].append(row)
        made: dict[str, Any] = {}
        for name, rows in figures.items():
            made[name] = {
                "cpu_us": round(statistics.median(row[0] for row in rows), 2),
                "cpu_ratio": round(
                    statistics.median(row[0] / base[0] for row, base in zip(rows, figures["none"], strict=True)), 3
                ),
                "start_ms": round(statistics.median(starts[name]), 1),
                "rss_mb": round(alive[name][1].rss / 1e6, 1),
            }
            if counts:
                made[name]["instructions"] = round(statistics.median(row[1] for row in rows))
        print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
