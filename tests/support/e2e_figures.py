"""Measures what waking a real container adds to the first byte, beside what the runtime's own resume costs.

Cycles over several pods, because a sidecar that is woken more than 20 times a minute sleeps less (FZ-024). Each asks
once asleep and once awake over one kept connection, both after the same pause, so that both find caches and clock
speeds equally cold; the difference is what sleep added, the fresh upstream connection included.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from statistics import median
from time import monotonic, perf_counter
from typing import NamedTuple

from queueproxy.bench.events import phase_means_ms
from tests.support.e2e_pod import Container, Pod
from tests.support.e2e_world import World
from tests.support.sidecar import REQUEST

__all__ = ["Wakes", "measure_resume", "measure_wakes", "percentile", "share_of_core", "undisturbed"]

CORE = 3e9  # cycles in a second of the reference machine
PAUSE = 0.1  # shorter than the shortest time awake
_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\nX-Id: 1\r\n\r\n"


class Wakes(NamedTuple):
    """Milliseconds to the first byte; phases as the sidecars counted them."""

    asleep: list[float]
    awake: list[float]
    phases: dict[str, float]

    def added(self, part: float) -> float:
        """Of the asleep ones at this percentile, over the median of the awake ones: nothing is forgiven."""
        return percentile(self.asleep, part) - median(self.awake)

    def __str__(self) -> str:
        phases = ", ".join(f"{phase} {value:.2f}" for phase, value in sorted(self.phases.items()))
        return (
            f"{len(self.asleep)} wakes: first byte asleep p50 {percentile(self.asleep, 50):.2f} "
            f"p99 {percentile(self.asleep, 99):.2f} ms, awake p50 {percentile(self.awake, 50):.2f} "
            f"p99 {percentile(self.awake, 99):.2f} ms; added p50 {self.added(50):.2f} p99 {self.added(99):.2f} ms; "
            f"phases (mean ms): {phases or 'not told'}"
        )


@contextmanager
def undisturbed(world: World) -> Iterator[None]:
    """What is measured goes before other work of this machine, as far as that is to be had: whoever runs already
    finishes its slice of 3 ms first."""
    node = world.node
    assert world.freezer.process is not None
    assert node.containerd.process is not None
    for kind, file, most in (("cpu", "cpu.shares", "262144"), ("", "cpu.weight", "10000")):
        with suppress(OSError, KeyError), open(f"{node.hierarchies[kind]}/{node.name}/{file}", "w") as share:
            share.write(most)
    pids = (0, world.freezer.process.pid, node.containerd.process.pid)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    for pid in pids:
        os.setpriority(os.PRIO_PROCESS, pid, -15)
    try:
        yield
    finally:
        for pid in pids:
            os.setpriority(os.PRIO_PROCESS, pid, before)


def percentile(values: Sequence[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part / 100))]


def first_byte(connection: socket.socket) -> float:
    """Milliseconds."""
    began = perf_counter()
    connection.sendall(_REQUEST)
    answer = connection.recv(65536)
    took = (perf_counter() - began) * 1000
    assert answer.startswith(b"HTTP/1.1 200"), answer
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(
        next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    )
    while len(body) < length:
        body += connection.recv(65536)
    return took


def measure_wakes(pods: Sequence[Pod], wakes: int) -> Wakes:
    asleep: list[float] = []
    awake: list[float] = []
    pause = threading.Event()
    connections = [pod.node.connect(pod.ip, REQUEST) for pod in pods]
    try:
        for pod in pods:
            pod.ready()
        for connection in connections:
            first_byte(connection)  # the connection and everybody's code are warm
        while len(asleep) < wakes:
            for pod, connection in zip(pods, connections, strict=True):
                pod.app.until_frozen(within=90.0)
                pause.wait(PAUSE)
                asleep.append(first_byte(connection))
                thawed_at = monotonic()
                pause.wait(PAUSE)
                took = first_byte(connection)
                if not pod.app.frozen and monotonic() - thawed_at < 0.2:  # else the machine stalled us past its delay
                    awake.append(took)
    finally:
        for connection in connections:
            connection.close()
    phases = [phase_means_ms(pod.metrics()) for pod in pods]
    means = {name: sum(each.get(name, 0.0) for each in phases) / len(phases) for name in phases[0]}
    return Wakes(asleep, awake, means)


def measure_resume(pod: Pod, times: int) -> list[float]:
    """Milliseconds of containerd's Tasks.Resume, as seen by its caller."""
    took = []
    for _ in range(times):
        pod.node.containerd.pause(pod.app.id)
        began = perf_counter()
        pod.node.containerd.resume(pod.app.id)
        took.append((perf_counter() - began) * 1000)
    return took


def share_of_core(container: Container, seconds: float) -> float:
    """How much of one core a container of one process uses. By cycles where the machine counts them: time that others
    take away is billed to whoever was running, and a virtual machine cannot tell."""
    before = container.cpu_seconds
    if shutil.which("perf") is not None:
        argv = ["perf", "stat", "-x,", "-e", "cycles", "-p", str(container.pid), "sleep", f"{seconds:g}"]
        report = subprocess.run(argv, capture_output=True, text=True, check=False).stderr
        for cycles, _, event, *_ in (line.split(",") for line in report.splitlines() if line.count(",") > 2):
            if event == "cycles" and cycles.isdigit():
                return int(cycles) / seconds / CORE
    threading.Event().wait(seconds)  # nothing happens, that is the point
    return (container.cpu_seconds - before) / seconds
