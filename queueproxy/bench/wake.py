"""Runs an app under `queueproxy run`, lets it fall asleep and asks again, many times: what a wake adds.

One client on one kept connection. Each cycle asks once while the app is frozen and once while it is awake, both after
the same pause, so both find caches and clock speeds equally cold; the difference of the medians is what sleep added,
with the fresh upstream connection a thawed app needs included.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import IO

from queueproxy.bench.events import Moved, moved, phase_means_ms
from queueproxy.bench.figures import Measure
from queueproxy.bench.histogram import Histogram
from queueproxy.bench.subject import START_S, StartError, require_free, wait_for_answer

__all__ = ["Sleeper", "measure_wakes"]

FREEZE_AFTER_S = 0.2
PAUSE_S = 0.1  # half of it: the second request of a cycle must find the app awake
ASLEEP_WITHIN_S = 10.0
_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"
_PLAIN = b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"


class Sleeper:
    """`queueproxy run --json` around the bench's origin."""

    def __init__(self, port: int, app_port: int, metrics_port: int, driver: str) -> None:
        self.port = port
        self.metrics_port = metrics_port
        origin = [sys.executable, "-m", "queueproxy.bench.origin"]
        flags = ["--mode=freeze", f"--cgroup={driver}", f"--freeze-after={FREEZE_AFTER_S * 1e3:.0f}ms", "--json"]
        flags += [f"--port={port}", f"--app-port={app_port}", f"--metrics-port={metrics_port}"]
        self.command = [sys.executable, "-m", "queueproxy", "run", *flags, "--", *origin]
        self.process: subprocess.Popen[bytes] | None = None
        self._tail = b""

    def __repr__(self) -> str:
        return f"<Sleeper pid={self.process.pid if self.process else None}>"

    def __enter__(self) -> Sleeper:
        require_free(self.port)
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        os.set_blocking(self._events.fileno(), False)
        if (
            not wait_for_answer(self.port, time.monotonic() + START_S, self.process, _PLAIN)
            or self.process.poll() is not None
        ):
            self.__exit__()
            raise StartError(f"{' '.join(self.command)} did not serve (its last words are above)")
        return self

    def __exit__(self, *_: object) -> None:
        """Asks politely first, so that it thaws and removes what it made."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._events.close()

    @property
    def _events(self) -> IO[bytes]:
        assert self.process is not None and self.process.stdout is not None
        return self.process.stdout

    def told(self) -> list[Moved]:
        """The changes of state told since the last call."""
        try:
            while data := os.read(self._events.fileno(), 65536):
                self._tail += data
        except BlockingIOError:
            pass
        *lines, self._tail = self._tail.split(b"\n")
        return [found for line in lines if (found := moved(line.decode(errors="replace")))]

    def wait_until_frozen(self) -> list[Moved]:
        """Every change of state up to the confirmed freeze."""
        changes = self.told()
        until = time.monotonic() + ASLEEP_WITHIN_S
        while not changes or changes[-1].to != "frozen":
            if not select.select([self._events], [], [], max(0.0, until - time.monotonic()))[0]:
                raise StartError(f"the app did not fall asleep within {ASLEEP_WITHIN_S:.0f} s; told so far: {changes}")
            fresh = self.told()
            if not fresh and self.process is not None and self.process.poll() is not None:
                raise StartError(f"queueproxy run ended with status {self.process.returncode}")
            changes += fresh
        return changes

    def phases_ms(self) -> dict[str, float]:
        """From its metrics; empty when it serves none."""
        try:
            with socket.create_connection(("127.0.0.1", self.metrics_port), timeout=5) as asked:
                asked.sendall(b"GET /metrics HTTP/1.0\r\nHost: bench\r\n\r\n")
                pieces = []
                while piece := asked.recv(65536):
                    pieces.append(piece)
        except OSError:
            return {}
        return phase_means_ms(b"".join(pieces).decode(errors="replace"))


def _first_byte_us(connection: socket.socket) -> int:
    begun = time.perf_counter_ns()
    connection.sendall(_REQUEST)
    answer = connection.recv(65536)
    took = (time.perf_counter_ns() - begun) // 1000
    if not answer.startswith(b"HTTP/1.1 200"):
        raise StartError(f"a request failed: {answer[:200]!r}")
    while b"\r\n\r\n" not in answer or answer.endswith(b"\r\n\r\n"):  # the small body may follow in a second segment
        answer += connection.recv(65536)
    return took


def measure_wakes(sleeper: Sleeper, wakes: int, say: Callable[[str], None]) -> dict[Measure, float]:
    asleep, awake = Histogram(), Histogram()
    confirmed_us: list[float] = []
    with sleeper, socket.create_connection(("127.0.0.1", sleeper.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        said_at = 0.0
        while asleep.total < wakes:
            for change in sleeper.wait_until_frozen():
                if change.to == "running" and change.took_us is not None:
                    confirmed_us.append(change.took_us)
            time.sleep(PAUSE_S)  # as long as before the other request: the freeze itself has warmed our caches
            asleep.record(_first_byte_us(connection))
            time.sleep(PAUSE_S)
            took = _first_byte_us(connection)
            told = sleeper.told()
            if not any(change.to == "frozen" for change in told):  # else the machine stalled us past the delay
                awake.record(took)
            confirmed_us += [change.took_us for change in told if change.to == "running" and change.took_us is not None]
            if time.monotonic() - said_at > 2:
                said_at = time.monotonic()
                say(f"wake: {asleep.total}/{wakes}")
        phases = sleeper.phases_ms()
    figures = {
        Measure("wake_asleep_p50_ms"): asleep.percentile(50) / 1e3,
        Measure("wake_asleep_p99_ms"): asleep.percentile(99) / 1e3,
        Measure("wake_awake_p50_ms"): awake.percentile(50) / 1e3,
        Measure("wake_awake_p99_ms"): awake.percentile(99) / 1e3,
        Measure("wake_added_p50_ms"): (asleep.percentile(50) - awake.percentile(50)) / 1e3,
    }
    if confirmed_us:
        figures[Measure("phase_ask_to_confirmed_p50_ms")] = median(confirmed_us) / 1e3
    figures.update({Measure(f"phase_{phase}_mean_ms"): mean for phase, mean in phases.items()})
    return figures
