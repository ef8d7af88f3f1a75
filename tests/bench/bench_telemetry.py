"""Measures what metrics and traces cost per request: sidecars beside each other, alternating in one run (root, wrk).

    python -m tests.bench.bench_telemetry [--rounds 7] [--seconds 3]

Subjects: nothing; metrics on 9091; those and traces of 0 %, 1 % and 100 % of the requests, sent to a collector over
OTLP/HTTP. Each has a network namespace, an origin and a load of its own. Prints CPU and, where the machine counts them,
instructions per request of each, and each as a ratio of metrics alone, as JSON; medians of the rounds.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from queueproxy.bench.instructions import Counter, available
from tests.bench.bench_request_log import CONNECTIONS, HEADERS, cpu
from tests.support.collector import http_collector
from tests.support.netns import network_namespace
from tests.support.sidecar import Sidecar, environment

BASE = "metrics"
SUBJECTS = {"off": None, BASE: None, "traces 0 %": 0.0, "traces 1 %": 0.01, "traces 100 %": 1.0}


@contextmanager
def subject(name: str) -> Iterator[tuple[Any, Sidecar]]:
    with network_namespace() as namespace, http_collector(namespace) as received, ExitStack() as stack:
        received.keep = False
        origin = namespace.popen([sys.executable, "-m", "queueproxy.bench.origin", "--port", "8080"])
        stack.callback(origin.wait, 10)
        stack.callback(origin.terminate)
        rate = SUBJECTS[name]
        document = {
            "requestMetrics": {"protocol": "none" if name == "off" else "prometheus"},
            "tracing": {"protocol": "none"}
            if rate is None
            else {
                "protocol": "http/protobuf",
                "endpoint": f"http://127.0.0.1:{received.port}/v1/traces",
                "samplingRate": rate,
            },
        }
        sidecar = Sidecar(namespace, environment(OBSERVABILITY_CONFIG=json.dumps(document)))
        stack.callback(sidecar.stop)
        sidecar.started()
        yield namespace, sidecar


def load(namespace: Any, seconds: float) -> int:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s"]
    for header in HEADERS:
        if not header.startswith("traceparent"):  # the sampler decides, not a caller
            command += ["-H", header]
    run = namespace.run([*command, "http://127.0.0.1:8012/shop/basket?item=17&amount=2"], stdout=subprocess.PIPE)
    found = re.search(rb"(\d+) requests in", run.stdout)
    assert found is not None, run.stdout
    return int(found[1])


def measure(namespace: Any, sidecar: Sidecar, seconds: float, counts: bool) -> tuple[float, float]:
    """(microseconds of CPU, instructions) per request."""
    pid = sidecar.process.pid
    before = cpu(pid)
    if counts:
        with Counter(pid) as counter:
            requests = load(namespace, seconds)
        instructions = counter.instructions / requests
    else:
        requests, instructions = load(namespace, seconds), 0.0
    return (cpu(pid) - before) / requests * 1e6, instructions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=3.0)
    flags = parser.parse_args()
    counts = available()
    with ExitStack() as stack:
        subjects = {name: stack.enter_context(subject(name)) for name in SUBJECTS}
        figures: dict[str, list[tuple[float, float]]] = {name: [] for name in subjects}
        for namespace, sidecar in subjects.values():
            measure(namespace, sidecar, 1.0, counts)  # warm
        for _ in range(flags.rounds):
            for name, (namespace, sidecar) in subjects.items():
                figures[name].append(measure(namespace, sidecar, flags.seconds, counts))
        made: dict[str, Any] = {}
        for name, rows in figures.items():
            # Ratios within a round, then their median: the machine's mood is in both.
            ratios = [row[0] / base[0] for row, base in zip(rows, figures[BASE], strict=True)]
            made[name] = {
                "cpu_us": round(statistics.median(row[0] for row in rows), 2),
                "cpu_ratio": round(statistics.median(ratios), 3),
                "rss_mb": round(subjects[name][1].rss / 1e6, 1),
            }
            if counts:
                made[name]["instructions"] = round(statistics.median(row[1] for row in rows))
        print(json.dumps(made, indent=2))


if __name__ == "__main__":
    main()
