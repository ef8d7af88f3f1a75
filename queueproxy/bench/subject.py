"""Runs one proxy under test: starts it, times its start, reads what the kernel says about it, ends it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import IO

from queueproxy.bench import procfs

__all__ = ["START_S", "StartError", "Subject", "command_for", "require_free", "wait_for_answer", "wait_for_port"]

START_S = 20.0  # a proxy that does not answer by then is broken
POLL_S = 0.0005  # between connection attempts; a refused one costs 20 us
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
# The kubelet's readiness probe: 200 `queue` once the app answers (QP-100, QP-101); a bare relay passes it on.
_HEALTH = (
    b"GET / HTTP/1.1\r\nHost: bench\r\nUser-Agent: kube-probe/bench\r\n"
    b"K-Network-Probe: queue\r\nConnection: close\r\n\r\n"
)


class StartError(RuntimeError):
    """The proxy did not come up; the text ends with what it wrote last."""


def command_for(path: str) -> list[str]:
    """How to start a peer: a Python file with this interpreter, anything else as it is."""
    path = os.path.abspath(path)
    return [sys.executable, path] if path.endswith(".py") else [path]


def require_free(port: int) -> None:
    """Raises when somebody listens there already, whose answers would be taken for those of the process to start."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise StartError(f"somebody else listens on 127.0.0.1:{port} already")


def wait_for_port(port: int, until: float, process: subprocess.Popen[bytes] | None = None) -> bool:
    """Connects as soon as somebody listens on loopback. False once `until` (monotonic) or the process is over."""
    while time.monotonic() < until and (process is None or process.poll() is None):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(POLL_S)
    return False


def wait_for_answer(
    port: int, until: float, process: subprocess.Popen[bytes] | None = None, request: bytes = _HEALTH
) -> bool:
    """Asks until the answer is 200. False once `until` (monotonic) or the process is over."""
    while time.monotonic() < until and (process is None or process.poll() is None):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=max(0.01, until - time.monotonic())) as asked:
                asked.sendall(request)
                if asked.recv(64).startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
                    return True
        except OSError:
            pass
        time.sleep(POLL_S)
    return False


class Subject:
    """A proxy that takes Knative's environment. One life per round: `start`, load, `stop`.

    drained: its stdout is a pipe, as a container's is, and read all the time; otherwise it goes where stderr goes.
    drained_bytes: of this life and those before.
    """

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], port: int, *, drained: bool = False
    ) -> None:
        self.name = name
        self.command = command
        self.port = port
        # A pod's environment holds the contract and little else; what this shell has set must not colour the figures.
        self.environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": "/nonexistent", **environment}
        self.process: subprocess.Popen[bytes] | None = None
        self.listening_s = 0.0
        self.answering_s = 0.0
        self._said: IO[bytes] | None = None
        self._drained = drained
        self.drained_bytes = 0
        self._drain: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Subject {self.name} pid={self.process.pid if self.process else None}>"

    def start(self) -> None:
        """Returns once it is ready, with `listening_s` and `answering_s` counted from just before the fork."""
        if shutil.which(self.command[0]) is None:
            raise StartError(f"{self.name}: {self.command[0]} is not an executable file")
        require_free(self.port)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        begun = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if self._drained else self._said,
            stderr=self._said,
        )
        if self.process.stdout is not None:
            self._drain = threading.Thread(target=self._read_away, args=(self.process.stdout,), daemon=True)
            self._drain.start()
        until = begun + START_S
        listening = wait_for_port(self.port, until, self.process)
        self.listening_s = time.monotonic() - begun
        answering = listening and wait_for_answer(self.port, until, self.process)
        self.answering_s = time.monotonic() - begun
        if not answering or self.process.poll() is not None:
            ended = self.process.poll()
            what = f"ended with status {ended}" if ended is not None else f"gave no healthy answer in {START_S:.0f} s"
            tail = self.last_words()
            self.stop()
            raise StartError(f"{self.name}: {' '.join(self.command)} {what}\n{tail}")

    def last_words(self) -> str:
        if self._said is None:
            return ""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 2000))
        return self._said.read().decode(errors="replace")

    def stop(self) -> None:
        """Ends it at once: asked politely, a queue-proxy drains for half a minute (QP-282), and nothing is lost."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            if self._drain is not None:
                self._drain.join()
                self._drain = None
            self.process = None
        if self._said is not None:
            self._said.close()
            self._said = None

    def _read_away(self, pipe: IO[bytes]) -> None:
        with pipe:
            while data := os.read(pipe.fileno(), 1 << 16):
                self.drained_bytes += len(data)

    def _read(self, name: str) -> str:
        assert self.process is not None
        with open(f"/proc/{self.process.pid}/{name}") as file:
            return file.read()

    def cpu_s(self) -> float:
        """CPU used so far, all threads, user and system."""
        return procfs.cpu_ticks(self._read("stat")) * _TICK_S

    def exact_cpu_s(self) -> float:
        """The same from the run queue's own count, of the threads alive now: for stretches shorter than many ticks."""
        assert self.process is not None
        threads = os.listdir(f"/proc/{self.process.pid}/task")
        return sum(procfs.scheduled_ns(self._read(f"task/{thread}/schedstat")) for thread in threads) / 1e9

    def rss_mb(self) -> float:
        return procfs.resident_kb(self._read("status")) / 1024
