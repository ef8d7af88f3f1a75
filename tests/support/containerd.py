"""Runs a containerd of the suite's own on private directories and speaks to it over gRPC.

What it touches: the directory and the cgroups it is given, and, because containerd has these paths compiled in, socket
names and runc's state beneath /run/containerd (named by hash and container id: no system container is met). Messages
are written by hand; the numbers are containerd's own (api/services/{containers,tasks}/v1, namespaces/v1, 1.6).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import grpc
import pytest

from tests.support.e2e_listen import Listener, Log

__all__ = ["Containerd", "Exited", "NotFound", "missing", "require_containerd"]

NAMESPACE = "k8s.io"  # the kubelet's
RUNTIME = "io.containerd.runc.v2"
SPEC = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
COMMANDS = {
    "containerd": "containerd", "containerd-shim-runc-v2": "containerd", "ctr": "containerd", "runc": "runc",
    "ip": "iproute2", "nsenter": "util-linux", "setpriv": "util-linux",
}  # fmt: skip
ANSWER_WITHIN = 20.0
START_WITHIN = 20.0

# Nothing of a kubelet's own: containers are made by the suite, with the specs a CRI plugin would write.
CONFIG = """version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{home}/containerd.sock"
[ttrpc]
  address = "{home}/containerd.ttrpc"
"""


class NotFound(Exception):
    """No such container or task, or its process has ended."""


class Exited(NamedTuple):
    """How a task ended."""

    status: int
    pid: int


def missing() -> str:
    """What keeps real containers from running on this machine; "" when nothing does."""
    if os.geteuid() != 0:
        return "root"
    packages = {package for command, package in COMMANDS.items() if shutil.which(command) is None}
    return f"apt-get install {' '.join(sorted(packages))}" if packages else ""


def require_containerd() -> None:
    """Skips loudly where real containers cannot run."""
    if what := missing():
        pytest.skip(f"NOT PROVEN HERE: real containers need {what}")


def message(*fields: tuple[int, Any]) -> bytes:
    """Protocol buffers: strings, bytes, integers, maps of strings; nested messages as bytes. Defaults stay out."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, Mapping):
            for key, item in value.items():
                out += message((number, message((1, key), (2, item))))
        elif isinstance(value, int):
            if value:
                out += _varint(number << 3) + _varint(value)
        elif value:
            data = value.encode() if isinstance(value, str) else value
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return bytes(out)


def fields(data: bytes) -> dict[int, Any]:
    """By field number, the last of each; what is nested stays bytes."""
    found: dict[int, Any] = {}
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        value, at = _read_varint(data, at)
        if tag & 7 == 2:
            found[tag >> 3] = data[at : at + value]
            at += value
        else:
            assert tag & 7 == 0, f"wire type {tag & 7}"
            found[tag >> 3] = value
    return found


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


class Containerd:
    """One daemon. It may be killed and started again; its containers do not notice."""

    def __init__(self, home: str, launch: list[str], listener: Listener) -> None:
        self.home = home
        self.socket = f"{home}/containerd.sock"
        self.log = Log("containerd")
        self._launch = launch
        self._listener = listener
        self._channel: grpc.Channel | None = None
        self.process: subprocess.Popen[bytes] | None = None
        with open(f"{home}/containerd.toml", "w") as file:
            file.write(CONFIG.format(home=home))

    def __repr__(self) -> str:
        return f"<Containerd {self.socket} pid={self.process.pid if self.process else None}>"

    # -- life

    def start(self) -> None:
        since = len(self.log.lines)
        command = [*self._launch, "containerd", "-c", f"{self.home}/containerd.toml"]
        self.process = self._listener.popen(command, self.log)
        self.log.until(lambda: self.log.find("successfully booted", since=since), START_WITHIN)
        # Go's server refuses the percent-encoded path that gRPC's C core sends as authority of a Unix socket.
        self._channel = grpc.insecure_channel(f"unix:{self.socket}", options=[("grpc.default_authority", "localhost")])
        grpc.channel_ready_future(self._channel).result(START_WITHIN)
        if since == 0:
            self._call("namespaces.v1.Namespaces/Create", message((1, message((1, NAMESPACE)))))

    def kill(self) -> None:
        """As `kill -9`."""
        assert self.process is not None
        self._hang_up()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(ANSWER_WITHIN)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def runtime_default(self, rootfs: str) -> dict[str, Any]:
        """The spec this containerd would write: its default mounts, masks, capabilities and seccomp profile."""
        ctr = ["ctr", "--address", self.socket, "--namespace", NAMESPACE, "container"]
        said = b""
        for command in ("create --rootfs --seccomp " + rootfs, "info --spec", "rm"):
            args = [*ctr, *command.split(), "model"]
            said += subprocess.run(args, check=True, timeout=ANSWER_WITHIN, capture_output=True).stdout
        spec: dict[str, Any] = json.JSONDecoder().raw_decode(said.decode())[0]
        return spec

    # -- containers and their tasks

    def create(self, container: str, spec: Mapping[str, Any], labels: Mapping[str, str], output: str) -> int:
        """A container with a task that has been made and not started; its pid. `output` is a FIFO."""
        self._call(
            "containers.v1.Containers/Create",
            message((1, message(
                (1, container), (2, labels), (4, message((1, RUNTIME))),
                (5, message((1, SPEC), (2, json.dumps(spec)))),
            ))),
        )  # fmt: skip
        answer = self._call("tasks.v1.Tasks/Create", message((1, container), (5, output), (6, output)))
        return int(fields(answer)[2])

    def start_task(self, container: str) -> None:
        self._call("tasks.v1.Tasks/Start", message((1, container)))

    def signal(self, container: str, number: int) -> None:
        self._call("tasks.v1.Tasks/Kill", message((1, container), (3, number)))

    def pause(self, container: str) -> None:
        self._call("tasks.v1.Tasks/Pause", message((1, container)))

    def resume(self, container: str) -> None:
        self._call("tasks.v1.Tasks/Resume", message((1, container)))

    def status(self, container: str) -> str:
        process = fields(fields(self._call("tasks.v1.Tasks/Get", message((1, container))))[1])
        return ("unknown", "created", "running", "stopped", "paused", "pausing")[process.get(4, 0)]

    def wait(self, container: str, within: float) -> int:
        """Its exit status, once it has ended."""
        return int(fields(self._call("tasks.v1.Tasks/Wait", message((1, container)), within)).get(1, 0))

    def delete(self, container: str) -> Exited:
        """The ended task and its container; how it ended."""
        answer = fields(self._call("tasks.v1.Tasks/Delete", message((1, container))))
        self._call("containers.v1.Containers/Delete", message((1, container)))
        return Exited(answer.get(3, 0), answer.get(2, 0))

    def tasks(self) -> Iterator[str]:
        """The ids of all tasks."""
        data, at = self._call("tasks.v1.Tasks/List", b""), 0
        while at < len(data):
            at += 1
            size, at = _read_varint(data, at)
            yield fields(data[at : at + size])[2].decode()
            at += size

    def _call(self, method: str, request: bytes, within: float = ANSWER_WITHIN) -> bytes:
        assert self._channel is not None, "containerd does not run"
        call = self._channel.unary_unary(f"/containerd.services.{method}")
        try:
            answer: bytes = call(request, timeout=within, metadata=[("containerd-namespace", NAMESPACE)])
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise NotFound(error.details()) from None
            raise RuntimeError(f"containerd {method}: {error.code().name} {error.details()}") from None
        return answer
