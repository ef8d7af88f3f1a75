"""Measures the node freezer: 250 pods, 1,000 state changes a second on one core, memory, and PUT to answer.

    python -m tests.bench.bench_freezer [--pods 250] [--rate 1000] [--seconds 10] [--json]

Needs root and cgroup v2. The freezer is the real process, pinned to one core; each pod is a real cgroup with one
`sleep` in it; the API server's stand-in and the caller share the other core. The caller is one thread over one
kept-open connection per pod, open loop: each call has its instant, and lateness counts as latency.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from queueproxy.bench.instructions import Counter, available
from queueproxy.freeze.wire import StateRequest, Wanted, encode_request
from tests.support.apiserver import ApiServer
from tests.support.freezer_calls import get, put
from tests.support.freezer_process import FreezerProcess, Resident, Sidecar
from tests.support.kubepods import Node

MEMORY = "/dev/shm"  # the journal lies in /run, which nodes have in memory; ext4 makes a quarter more instructions
_COUNTED_S = 3.0


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Fleet:
    """All pods, each with its sidecar's connection and session."""

    def __init__(self, freezer: FreezerProcess, count: int) -> None:
        self.sleeps: list[subprocess.Popen[bytes]] = []
        self.apps: list[Resident] = []
        for _ in range(count):
            app = freezer.add_pod(mode=None)
            self.apps.append(app)
            sleep = subprocess.Popen(["sleep", "1000000"], start_new_session=True)
            Path(freezer.node.at(app.pod.paths[0]), "cgroup.procs").write_text(str(sleep.pid))
            self.sleeps.append(sleep)
        self.sidecars: list[Sidecar] = []
        self.secrets: list[str] = []
        for app in self.apps:
            sidecar, secret = freezer.sidecar(app)
            self.sidecars.append(sidecar)
            self.secrets.append(secret)
        self.generations = [0] * count

    def wish(self, number: int) -> tuple[bytes, bool]:
        """The next call of a pod: it sleeps and wakes in turns."""
        self.generations[number] += 1
        generation = self.generations[number]
        wakes = generation % 2 == 0
        wanted, reason = (Wanted.ACTIVE, "request") if wakes else (Wanted.IDLE, "idle")
        said = encode_request(StateRequest(wanted, generation, reason=reason))  # as a sidecar does
        return put(self.apps[number].token, said, secret=self.secrets[number]), wakes

    def close(self) -> None:
        for sleep in self.sleeps:
            sleep.kill()
            sleep.wait()


def serial(fleet: Fleet, cycles: int) -> tuple[list[float], list[float]]:
    """One pod, one call at a time: (freeze, thaw) round trips."""
    trips: tuple[list[float], list[float]] = ([], [])
    for _ in range(2 * cycles):
        data, wakes = fleet.wish(0)
        began = time.perf_counter()
        reply = fleet.sidecars[0].call(data)
        trips[wakes].append(time.perf_counter() - began)
        assert reply.status in (200, 502), reply  # 502: on a busy machine a task may take too long to stop
        time.sleep(0.001)
    return trips


def paced(fleet: Fleet, rate: float, seconds: float) -> tuple[tuple[list[float], list[float]], int]:
    """All pods in turn at a fixed rate, answers read as they come."""
    poll, owners, busy = select.epoll(), {}, [False] * len(fleet.apps)
    for number, sidecar in enumerate(fleet.sidecars):
        sidecar.socket.setblocking(False)
        poll.register(sidecar.socket.fileno(), select.EPOLLIN)
        owners[sidecar.socket.fileno()] = number
    due_at, wakes_of = [0.0] * len(fleet.apps), [False] * len(fleet.apps)
    trips: tuple[list[float], list[float]] = ([], [])
    began, sent, failed, number = time.perf_counter(), 0, 0, 0
    total = int(rate * seconds)
    while sent < total or any(busy):
        due = began + sent / rate
        now = time.perf_counter()
        if sent < total and now >= due and not busy[number]:
            data, wakes_of[number] = fleet.wish(number)
            due_at[number], busy[number] = due, True
            fleet.sidecars[number].socket.send(data)
            sent += 1
            number = (number + 1) % len(fleet.apps)
        wait = 0.0 if busy[number] else max(0.0, due - time.perf_counter())
        for fd, _ in poll.poll(min(wait, 0.01) if sent < total else 1.0):
            whose = owners[fd]
            answer = fleet.sidecars[whose].socket.recv(65536)
            trips[wakes_of[whose]].append(time.perf_counter() - due_at[whose])
            busy[whose] = False
            failed += not answer.startswith(b"HTTP/1.1 200 ")
    poll.close()
    for sidecar in fleet.sidecars:
        sidecar.socket.setblocking(True)
    return trips, failed


def counted(fleet: Fleet, pid: int, rate: float) -> int:
    """Instructions of the freezer, user and kernel, for one state change: half of them freezes, half thaws. Attaching
    the counter is not in it, the freezer's rounds and timers are."""
    with Counter(pid) as counter:
        trips, _ = paced(fleet, rate, _COUNTED_S)
    return round(counter.instructions / (len(trips[0]) + len(trips[1])))


def figures(trips: list[float]) -> dict[str, float]:
    return {f"p{round(share * 100)}_us": round(percentile(trips, share) * 1e6) for share in (0.5, 0.99)} | {
        "calls": len(trips)
    }


def call_ns() -> float:
    """What a Python call in a loop costs here and now: 55 ns on the idle reference machine, several times that when
    others use its cores. CPU figures of a busy machine are to be read beside it."""
    began = time.process_time()
    for number in range(1_000_000):
        _next(number)
    return (time.process_time() - began) * 1e3


def _next(number: int) -> int:
    return number + 1


def measure(pods: int, rate: float, seconds: float) -> dict[str, Any]:
    settings = {"rates": {"pod": 1e6}, "listen": {"connections": 2048}}
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if os.path.isdir(MEMORY) else None) as folder,
        ApiServer() as api,
        Node("") as node,
        FreezerProcess(api, node, Path(folder), settings) as freezer,
    ):
        cores = sorted(os.sched_getaffinity(0))
        freezer.start()
        os.sched_setaffinity(0, cores[1:] or cores)
        assert freezer.process is not None
        for thread in os.listdir(f"/proc/{freezer.process.pid}/task"):
            os.sched_setaffinity(int(thread), cores[:1])
        empty = freezer.rss
        fleet = Fleet(freezer, pods)
        try:
            alone = serial(fleet, 500)
            fleet.sidecars[0].call(get(fleet.apps[0].token, secret=fleet.secrets[0]))
            cpu, began = freezer.cpu_s, time.perf_counter()
            trips, failed = paced(fleet, rate, seconds)
            took = time.perf_counter() - began
            used = freezer.cpu_s - cpu
            instructions = counted(fleet, freezer.process.pid, rate) if available() else 0
            idle_cpu, idle_began = freezer.cpu_s, time.perf_counter()
            time.sleep(5)
            idle_used = (freezer.cpu_s - idle_cpu) / (time.perf_counter() - idle_began)
            changes = len(trips[0]) + len(trips[1])
            freezer.ask("/metrics")
            return {
                "pods": pods,
                "asked_per_s": rate,
                "answered_per_s": round(changes / took),
                "failed": failed,
                "core_used": round(used / took, 3),
                "cpu_us_per_change": round(used / changes * 1e6, 1),
                "changes_per_core_second": round(changes / used),
                "instructions_per_change": instructions,
                "idle_core_used": round(idle_used, 4),
                "rss_mb_empty": round(empty / 1e6, 1),
                "rss_mb": round(freezer.rss / 1e6, 1),
                "alone": {"freeze": figures(alone[0]), "thaw": figures(alone[1])},
                "paced": {"freeze": figures(trips[0]), "thaw": figures(trips[1])},
                "call_ns": round(call_ns()),
                "load": os.getloadavg()[0],
                "cores": os.cpu_count(),
            }
        finally:
            fleet.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pods", type=int, default=250)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    result = measure(flags.pods, flags.rate, flags.seconds)
    if flags.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:<18} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
