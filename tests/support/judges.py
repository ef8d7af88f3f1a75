"""Runs the sidecar before a real app for the outside judges (wrk, slowhttptest, Autobahn) and reads what it holds.

`judged()` is the stage: a namespace, an app as a process of its own, the sidecar. Readings come from the kernel and
from the sidecar's own ports, so that what the judge saw and what the sidecar counted can be compared.
"""

from __future__ import annotations

import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.netns import NetworkNamespace, network_namespace
from tests.support.rawhttp import PATIENCE
from tests.support.sidecar import REQUEST, USER, USER_METRICS, Sidecar, environment

LINE_ORIGIN = [sys.executable, "-m", "queueproxy.bench.origin", "--port", str(USER)]
MIXED_APP = [sys.executable, str(Path(__file__).with_name("mixed_app.py")), "--port", str(USER)]
METRICS_ON = '{"requestMetrics": {"protocol": "prometheus"}}'
_LOOK_EVERY = 0.02  # seconds between two looks at something that announces nothing
_SAMPLE_EVERY = 0.1
_TIME_WAIT, _LISTEN = "06", "0A"  # states of /proc/net/tcp

_WRK_SCRIPT = """
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) ok, refused, other = 0, 0, 0 end
function response(status, headers, body)
  if status == 200 then ok = ok + 1
  elseif status == 503 and body == "pending request queue full\\n" then refused = refused + 1
  else other = other + 1 end
end
function done(summary, latency, requests)
  local ok, refused, other = 0, 0, 0
  for _, thread in ipairs(threads) do
    ok, refused, other = ok + thread:get("ok"), refused + thread:get("refused"), other + thread:get("other")
  end
  local e = summary.errors
  io.write(string.format("verdict ok=%d refused=%d other=%d connect=%d read=%d write=%d timeout=%d us=%d p99_us=%d\\n",
    ok, refused, other, e.connect, e.read, e.write, e.timeout, summary.duration, latency:percentile(99)))
end
"""


class Load(NamedTuple):
    """One run of wrk: answers by kind, socket errors by kind, how long it took and the 99th percentile."""

    ok: int
    refused: int
    other: int
    connect: int
    read: int
    write: int
    timeout: int
    us: int
    p99_us: int

    @property
    def errors(self) -> int:
        return self.other + self.connect + self.read + self.write + self.timeout


class Judged:
    """The stage. `baseline` is the number of descriptors the sidecar holds when nobody talks to it."""

    def __init__(self, namespace: NetworkNamespace, sidecar: Sidecar, app: subprocess.Popen[Any]) -> None:
        self.namespace = namespace
        self.sidecar = sidecar
        self.app = app
        self.slots = 0
        self.warm()
        self.baseline = self.descriptors - self.pooled

    def __repr__(self) -> str:
        return f"<Judged {self.sidecar!r} descriptors={self.descriptors} pooled={self.pooled}>"

    def warm(self) -> None:
        """One request through everything, and its connection gone."""
        assert self.sidecar.get("/", "Connection: close").status == 200
        settled(lambda: self.clients == 0, "the first client's connection ends")

    # -- what the sidecar holds

    @property
    def descriptors(self) -> int:
        with_entries = Path(f"/proc/{self.sidecar.process.pid}/fd")
        return sum(1 for _ in with_entries.iterdir())

    @property
    def pooled(self) -> int:
        """Connections to the app."""
        return connections(self.sidecar.process.pid, far=USER)

    @property
    def clients(self) -> int:
        """Connections from clients that the kernel still holds open for the sidecar, accepted or not."""
        return connections(self.sidecar.process.pid, near=REQUEST)

    def metric(self, name: str) -> float:
        """The sum of a metric's samples on 9091, all labels together; 0 when there is none."""
        page = self.sidecar.get("/metrics", port=USER_METRICS).body.decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", page, re.M))

    # -- verdict

    def assert_at_rest(self, *, pool_limit: int) -> None:
        """Everything was given back: clients, descriptors, slots, the autoscaler's level; the pool within its limit."""
        settled(lambda: self.clients == 0, "the clients' connections end")
        settled(lambda: self.descriptors == self.baseline + self.pooled, f"descriptors go back: {self!r}")
        settled(lambda: self.pooled <= pool_limit, f"the pool is within its limit: {self!r}")
        settled(self.sidecar.all_zero, "the autoscaler sees nothing in flight")
        assert self.metric("kn_serving_queue_depth") == 0
        assert self.sidecar.process.poll() is None
        complaints = [event for event in self.sidecar.log if event.get("severity", "INFO") not in ("INFO", "DEBUG")]
        assert not complaints, complaints[:5]


@contextmanager
def judged(app: Sequence[str], *, loop: str = "uvloop", **changes: str | None) -> Iterator[Judged]:
    """See the module docstring; `changes` to the sidecar's environment."""
    env = environment(**{"OBSERVABILITY_CONFIG": METRICS_ON, **changes})
    with network_namespace() as namespace, many_descriptors():
        process = namespace.popen(app)
        settled(lambda: _listens(namespace, USER, process), "the app listens")
        sidecar = Sidecar(namespace, env, loop=loop)
        try:
            sidecar.started()
            settled(lambda: sidecar.listens(USER_METRICS), "9091 is served")
            yield Judged(namespace, sidecar, process)
        finally:
            sidecar.stop()


class Watch:
    """Samples the sidecar's resident memory until closed; `samples` are bytes."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._over = threading.Event()
        self.samples = [sidecar.rss]
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)

    def _look(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY):
            self.samples.append(self._sidecar.rss)

    @property
    def before(self) -> int:
        return self.samples[0]

    @property
    def peak(self) -> int:
        return max(self.samples)

    def second_half_growth(self) -> int:
        """How much higher the second half of the run went than the first."""
        middle = len(self.samples) // 2
        return max(self.samples[middle:]) - max(self.samples[:middle])


class Others:
    """Asks 20 times a second, alternately on a kept and on a fresh connection, while something else goes on."""

    PERIOD = 0.05

    def __init__(self, sidecar: Sidecar, target: str = "/") -> None:
        self._sidecar = sidecar
        self._target = target
        self._over = threading.Event()
        self.took: list[float] = []
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self._thread.start()

    def __enter__(self) -> Others:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._thread.join(PATIENCE)

    def _ask_on(self) -> None:
        kept = self._sidecar.connect()
        due = time.monotonic()
        try:
            while not self._over.wait(max(0.0, due - time.monotonic())):
                due += self.PERIOD
                began = time.monotonic()
                fresh = len(self.took) % 2
                wire = self._sidecar.connect() if fresh else kept
                try:
                    wire.ask("GET", self._target)
                    answer = wire.response()
                    if answer.status != 200:
                        self.failures.append(repr(answer))
                finally:
                    if fresh:
                        wire.close()
                self.took.append(time.monotonic() - began)
        except (OSError, AssertionError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
        finally:
            kept.close()


def wrk(judged: Judged, path: str, *, connections: int, seconds: int) -> Load:
    """A closed loop of that many connections through the sidecar."""
    with started_wrk(judged, path, connections=connections, seconds=seconds) as run:
        return run()


@contextmanager
def started_wrk(judged: Judged, path: str, *, connections: int, seconds: int) -> Iterator[Callable[[], Load]]:
    """The same, under way; call the value to wait for its report."""
    needed("wrk", "wrk")
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(scratch) / "verdict.lua"
        script.write_text(_WRK_SCRIPT)
        process = judged.namespace.popen(
            # The time-out is wrk's for one answer; 2 s, its default, is short for 1,000 connections on a busy machine.
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", str(script),
             f"http://127.0.0.1:{REQUEST}{path}"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

        def report() -> Load:
            out, err = process.communicate(timeout=seconds + 30.0)
            assert process.returncode == 0, err
            found = re.search(r"^verdict (.*)$", out, re.M)
            assert found is not None, out
            return Load(**{key: int(value) for key, value in (pair.split("=") for pair in found[1].split())})

        try:
            yield report
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def needed(command: str, package: str) -> None:
    """Skips, and says so, when the judge is not here."""
    if shutil.which(command) is None:
        pytest.skip(f"needs the command {command} (Debian package {package})")


def settled(what: Callable[[], object], say: str, within: float = PATIENCE) -> None:
    """Waits for a state of the kernel or of another process that announces nothing."""
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline, f"not within {within} s: {say}"
        threading.Event().wait(_LOOK_EVERY)


def connections(pid: int, *, near: int = 0, far: int = 0) -> int:
    """Connections with that port at their near or far end, both families, in the namespace of that process.

    Those in TIME_WAIT are nobody's any more and do not count.
    """
    column, port = (1, near) if near else (2, far)
    count = 0
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as rows:
            for row in list(rows)[1:]:
                fields = row.split()
                count += fields[column].endswith(f":{port:04X}") and fields[3] not in (_TIME_WAIT, _LISTEN)
    return count


@contextmanager
def many_descriptors() -> Iterator[None]:
    """wrk and the app get as many descriptors as they may have: 1,000 connections need more than the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _listens(namespace: NetworkNamespace, port: int, process: subprocess.Popen[Any]) -> bool:
    assert process.poll() is None, "the app did not start"
    with namespace.inside():
        probe = socket.socket()
    try:
        return probe.connect_ex(("127.0.0.1", port)) == 0
    finally:
        probe.close()
