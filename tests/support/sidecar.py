"""Runs the real `queueproxy serve` in a network namespace of its own, with the environment a controller injects.

`one_pod()` is what most tests want: namespace, scripted origin on the user port, sidecar in front of it. Its fixed
ports (8012, 8022, 9090, 9091) clash with nobody in there. Waiting is by log line or by connection, never by the clock;
the exception is the autoscaler's report, which is made once a second and has no event to wait for.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import pytest

from tests.support.netns import NetworkNamespace, network_namespace
from tests.support.origin import Origin
from tests.support.rawhttp import PATIENCE, Message, Wire

REQUEST, ADMIN, AUTOSCALER, USER_METRICS, USER = 8012, 8022, 9090, 9091, 8080
STARTED = "Starting queue-proxy"
START_WITHIN = 30.0

# As the controller of Knative main injects it (contract 2.2), for an HTTP/1 revision without probe and limit.
ENVIRONMENT: Mapping[str, str] = {
    "SERVING_NAMESPACE": "default",
    "SERVING_SERVICE": "hello",
    "SERVING_CONFIGURATION": "hello",
    "SERVING_REVISION": "hello-00001",
    "QUEUE_SERVING_PORT": str(REQUEST),
    "QUEUE_SERVING_TLS_PORT": "8112",
    "CONTAINER_CONCURRENCY": "0",
    "REVISION_TIMEOUT_SECONDS": "300",
    "REVISION_RESPONSE_START_TIMEOUT_SECONDS": "0",
    "REVISION_IDLE_TIMEOUT_SECONDS": "0",
    "SERVING_POD": "hello-00001-deployment-abc",
    "SERVING_POD_IP": "10.1.2.3",
    "SERVING_LOGGING_CONFIG": "",
    "SERVING_LOGGING_LEVEL": "",
    "USER_PORT": str(USER),
    "SYSTEM_NAMESPACE": "knative-serving",
    "SERVING_READINESS_PROBE": "",
    "HOST_IP": "172.18.0.2",
    "ENABLE_HTTP2_AUTO_DETECTION": "false",
    "ENABLE_HTTP_FULL_DUPLEX": "false",
    "ROOT_CA": "",
    "ENABLE_MULTI_CONTAINER_PROBES": "false",
    "OBSERVABILITY_CONFIG": "",
}

BOTH_LOOPS = pytest.mark.parametrize("loop", ["uvloop", "asyncio"], scope="module")
ONE_LOOP = pytest.mark.parametrize("loop", ["uvloop"], scope="module")


def environment(**changes: str | None) -> dict[str, str]:
    """The environment above with changes; None takes a variable away."""
    merged = {**ENVIRONMENT, **changes}
    return {name: value for name, value in merged.items() if value is not None}


class Sidecar:
    """One process. `lines` is its stderr, `output` its stdout; `log` those lines of both that are JSON."""

    def __init__(
        self, namespace: NetworkNamespace, env: Mapping[str, str], *, loop: str = "auto", under: Sequence[str] = ()
    ) -> None:
        self.namespace = namespace
        port = env.get("QUEUE_SERVING_PORT", "")
        self.port = int(port) if port.isdecimal() else REQUEST
        self.lines: list[str] = []
        self.output: list[str] = []
        self._news = threading.Condition()
        self.process = namespace.popen(
            [*under, sys.executable, "-m", "queueproxy", "serve", "--loop", loop],
            env={"PATH": os.environ["PATH"], **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stderr, self.lines), (self.process.stdout, self.output))
        ]
        for reader in self._readers:
            reader.start()

    def __repr__(self) -> str:
        return f"<Sidecar {self.process.pid} {self.process.poll()} {self.lines[-3:]}>"

    def _read(self, stream: IO[str], lines: list[str]) -> None:
        for line in stream:
            with self._news:
                lines.append(line.rstrip("\n"))
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    # -- life

    def started(self) -> Sidecar:
        self.until(lambda: self.said(STARTED) or self.process.poll() is not None, START_WITHIN)
        assert self.process.poll() is None, f"it did not start: {self.lines}"
        return self

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self, within: float = PATIENCE) -> int:
        """Waits for the end; the exit code."""
        code = self.process.wait(within)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def stop(self) -> None:
        """No drain: two signals are an immediate exit; a kill for what does not even hear those."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)

    # -- what it says

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (*self.lines, *self.output) if line.startswith("{")]

    def said(self, message: str) -> dict[str, Any] | None:
        """The first log event whose message starts so."""
        return next((event for event in self.log if event.get("message", "").startswith(message)), None)

    def until(self, what: Callable[[], Any], within: float = PATIENCE) -> Any:
        """Waits for lines until `what` is true; its value."""
        with self._news:
            happened = self._news.wait_for(what, within)
        assert happened, f"not within {within} s: {self.lines[-10:]}"
        return happened

    def heard(self, message: str, within: float = PATIENCE) -> dict[str, Any]:
        """That log event, waiting for it."""
        event: dict[str, Any] = self.until(lambda: self.said(message), within)
        return event

    # -- talking to it

    def connect(self, port: int = 0, *, receive: int = 0) -> Wire:
        """A connection to it; `receive`: the size of our receive buffer in bytes, for readers that fall behind."""
        with self.namespace.inside():
            sock = socket.socket()
        if receive:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(("127.0.0.1", port or self.port))
        except OSError:
            sock.close()
            raise
        return Wire(sock)

    def listens(self, port: int) -> bool:
        try:
            self.connect(port).close()
        except ConnectionRefusedError:
            return False
        return True

    def get(self, target: str = "/", *lines: str, port: int = 0, method: str = "GET") -> Message:
        """One exchange on a connection of its own."""
        wire = self.connect(port)
        try:
            wire.ask(method, target, *lines)
            return wire.response(to=method)
        finally:
            wire.close()

    def health(self, *lines: str) -> Message:
        """The kubelet's readiness probe."""
        return self.get("/", "User-Agent: kube-probe/1.31", "K-Network-Probe: queue", "Connection: close", *lines)

    # -- what it reports

    def stat(self) -> dict[str, Any]:
        """The autoscaler's view: the last closed window."""
        return read_stat(self.get("/metrics", port=AUTOSCALER).body)

    def next_stat(self) -> dict[str, Any]:
        """The window that is open now, once it has closed."""
        uptime = self.stat().get("process_uptime", 0.0)
        return self._stat_after(uptime)

    def whole_stat(self) -> dict[str, Any]:
        """The next window that begins after this call, once it has closed."""
        return self._stat_after(self.next_stat()["process_uptime"])

    def _stat_after(self, uptime: float) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        wire = self.connect(AUTOSCALER)
        try:
            while time.monotonic() < deadline:
                wire.ask("GET", "/metrics")
                stat = read_stat(wire.response().body)
                if stat.get("process_uptime", 0.0) > uptime:
                    return stat
                threading.Event().wait(0.02)
        finally:
            wire.close()
        raise AssertionError("the report stands still")

    def all_zero(self) -> bool:
        """Nothing is in flight: a whole window without requests (QP-132)."""
        stat = self.whole_stat()
        return set(stat) == {"pod_name", "process_uptime"}

    @property
    def rss(self) -> int:
        """Resident bytes."""
        with open(f"/proc/{self.process.pid}/status") as status:
            found = re.search(r"VmRSS:\s+(\d+) kB", status.read())
        assert found is not None
        return int(found[1]) * 1024

    def let_go_of(self, port: int) -> None:
        """Waits until our side has closed its connection to the client of that port."""
        deadline = time.monotonic() + PATIENCE
        while self._established_to(port):
            assert time.monotonic() < deadline, f"the connection of port {port} is still held"
            threading.Event().wait(0.02)

    def _established_to(self, port: int) -> bool:
        rows: list[list[str]] = []
        for family in ("tcp", "tcp6"):
            with open(f"/proc/{self.process.pid}/net/{family}") as table:
                rows += [line.split() for line in table.readlines()[1:]]
        held = ("01", "08")  # ESTABLISHED, CLOSE_WAIT: the client has left, and we have not
        return any(row[2].endswith(f":{port:04X}") and row[3] in held for row in rows)


class Pod:
    """A namespace with an origin on the user port and a sidecar in front of it."""

    def __init__(self, namespace: NetworkNamespace, origin: Origin, sidecar: Sidecar) -> None:
        self.namespace = namespace
        self.origin = origin
        self.sidecar = sidecar
        self._clients: list[Wire] = []

    def client(self, *, receive: int = 0) -> Wire:
        """A connection to the request port, closed by `fresh`."""
        wire = self.sidecar.connect(receive=receive)
        self._clients.append(wire)
        return wire

    def hang_up(self) -> None:
        for client in self._clients:
            client.close()
        self._clients.clear()

    def fresh(self) -> None:
        """Between tests: no client, no connection to the origin."""
        self.hang_up()
        self.origin.fresh()

    def noticed(self) -> None:
        """The sidecar has read all that was sent to it before: its loop has answered something sent after."""
        for _ in range(2):  # the first answer may come from the same turn of the loop
            assert self.sidecar.get("/", "K-Network-Probe: probe", "K-Network-Hash: h").status == 200

    def served(self) -> Message:
        """One ordinary request through everything: the sidecar is well, and nothing came before it."""
        client = self.client()
        client.ask("GET", "/sentinel")
        asked = self.origin.request()
        assert asked.target == b"/sentinel", f"something came first: {asked.head!r}"
        asked.wire.answer(body=b"well")
        answer = client.response()
        assert (answer.status, answer.body) == (200, b"well")
        client.close()
        return answer


@contextmanager
def one_pod(*, loop: str = "uvloop", under: Sequence[str] = (), **changes: str | None) -> Iterator[Pod]:
    """See the module docstring; `changes` to ENVIRONMENT; `under`: a command that execs the sidecar's."""
    env = environment(**changes)
    with network_namespace() as namespace, ExitStack() as stack:
        origin = Origin(namespace, int(env["USER_PORT"]))
        stack.callback(origin.close)
        sidecar = Sidecar(namespace, env, loop=loop, under=under)
        stack.callback(sidecar.stop)
        pod = Pod(namespace, origin, sidecar.started())
        stack.callback(pod.hang_up)
        yield pod


_FIELDS = {
    1: "pod_name", 2: "average_concurrent_requests", 3: "average_proxied_concurrent_requests", 4: "request_count",
    5: "proxied_request_count", 6: "process_uptime", 7: "timestamp",
}  # fmt: skip


def read_stat(data: bytes) -> dict[str, Any]:
    """A `Stat` by the rules of protobuf, not by our encoder's: only the fields that are on the wire."""
    found: dict[str, Any] = {}
    at = 0
    while at < len(data):
        number, wire_type = data[at] >> 3, data[at] & 7
        at += 1
        if wire_type == 1:
            (found[_FIELDS[number]],) = struct.unpack_from("<d", data, at)
            at += 8
            continue
        value = shift = 0
        while True:
            value |= (data[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not data[at - 1] & 0x80:
                break
        if wire_type == 2:
            found[_FIELDS[number]] = data[at : at + value].decode()
            at += value
        else:
            assert wire_type == 0, f"wire type {wire_type}"
            found[_FIELDS[number]] = value
    return found
