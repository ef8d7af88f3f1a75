"""Runs the real `queueproxy freezer` for tests: its own process, real cgroups, the API server's stand-in over TLS.

with ApiServer() as api, Node("") as node, FreezerProcess(api, node, tmp_path) as freezer:
    app = freezer.add_pod()     # a real container in the node's kubepods, shown by the API server
    freezer.start()
    sidecar, secret = freezer.sidecar(app)
    freeze(sidecar, app, secret, generation=1)
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.support.apiserver import ApiServer
from tests.support.cgroupfs import Workload
from tests.support.freezer_calls import Reply, get, put
from tests.support.knative_pod import knative_pod, merged
from tests.support.kubepods import Node, Pod

PATIENCE = 20.0
NODE = "node1"


class Resident(NamedTuple):
    """One pod: as the API server has it, as the node has it, its token, its processes."""

    spec: dict[str, Any]
    pod: Pod
    token: str
    address: str
    work: Workload | None

    @property
    def uid(self) -> str:
        return self.pod.uid


class Sidecar:
    """One kept-open connection to 9696 from a pod's address, blocking."""

    def __init__(self, port: int, address: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE, source_address=(address, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self.socket.makefile("rb")

    def call(self, data: bytes) -> Reply:
        self.socket.sendall(data)
        return self.reply()

    def reply(self) -> Reply:
        line = self._file.readline()
        if not line:
            raise ConnectionResetError("the freezer ended the connection")
        headers = {}
        while (field := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = field.decode("latin-1").strip().partition(": ")
            headers[name.lower()] = value
        return Reply(int(line.split(b" ")[1]), headers, self._file.read(int(headers["content-length"])))

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FreezerProcess:
    """One freezer; may be killed and started again on the same journal."""

    def __init__(
        self, api: ApiServer, node: Node, folder: Path, settings: Mapping[str, Any] | None = None, *, name: str = NODE
    ) -> None:
        self.api = api
        self.node = node
        self.name = name
        self.folder = folder
        self.log: list[dict[str, Any]] = []
        self.said = ""
        self.process: subprocess.Popen[str] | None = None
        self._heard = threading.Condition()
        self._addresses = 1
        self._sidecars: list[Sidecar] = []
        base: dict[str, Any] = {
            "node": name,
            "journal": str(folder / "journal"),
            "listen": {"sidecars": "0.0.0.0:0", "operators": "127.0.0.1:0", "plain-http": True},
            "kubernetes": {"kubeconfig": str(api.kubeconfig_path)},
            "cgroups": {"kubepods": [node.root]},
            "defaults": {"freeze-after": "1s", "min-uptime": "0"},
        }
        self.config = folder / "freezer.toml"
        self.config.write_text(toml(merged(base, settings or {})))

    # -- life

    def start(self, *, ready: bool = True) -> Self:
        self.log.clear()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "queueproxy", "freezer", "--config", str(self.config)],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()
        self.heard("serving sidecars")
        if ready:
            self.heard("serving operators")
            self.until(lambda: self.ask("/readyz")[0] == 200, "ready")
        return self

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._heard:
                self.said += line
                if line.startswith("{"):
                    self.log.append(json.loads(line))
                self._heard.notify_all()
        process.stderr.close()

    def heard(self, message: str) -> dict[str, Any]:
        """Wait for a line of the log."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [line for line in self.log if line["message"] == message]
            assert self.process is not None
            return bool(found) or self.process.poll() is not None

        with self._heard:
            assert self._heard.wait_for(is_there, PATIENCE) and found, f"never said {message!r}:\n{self.said}"
        return found[0]

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for sidecar in self._sidecars:
            sidecar.close()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)

    @property
    def port(self) -> int:
        return int(self.heard("serving sidecars")["port"])

    @property
    def operators(self) -> int:
        return int(self.heard("serving operators")["port"])

    @property
    def rss(self) -> int:
        """Resident bytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) * 1024

    @property
    def cpu_s(self) -> float:
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # -- pods

    def add_pod(
        self,
        name: str = "",
        *,
        address: str = "",
        annotations: Mapping[str, str] | None = None,
        mode: str | None = "ticking",
        overrides: Mapping[str, Any] | None = None,
    ) -> Resident:
        """A container with a process in it (`mode` of the workload; None leaves it empty), and the pod around it."""
        self._addresses += 1
        address = address or f"127.0.{self._addresses // 250}.{self._addresses % 250 + 1}"
        pod = self.node.pod(("user-container",))
        work = self.node.run(pod.paths[0], mode) if mode is not None else None
        spec = self.api.add_pod(
            knative_pod(
                name or f"app-{self._addresses:05d}-deployment-x", node=self.name, uid=pod.uid, ip=address,
                ids={one.name: one.id for one in pod.containers}, annotations=annotations, overrides=overrides,
            )
        )  # fmt: skip
        return Resident(spec, pod, self.api.mint_token(spec), address, work)

    def dial(self, resident: Resident) -> Sidecar:
        sidecar = Sidecar(self.port, resident.address)
        self._sidecars.append(sidecar)
        return sidecar

    def sidecar(self, resident: Resident) -> tuple[Sidecar, str]:
        """A connection with its session, once the watch has shown the pod."""
        until = time.monotonic() + PATIENCE
        while True:
            sidecar = self.dial(resident)
            reply = sidecar.call(get(resident.token))
            if reply.status == 200:
                return sidecar, reply.json["session"]
            sidecar.close()
            assert reply.status == 503 and time.monotonic() < until, reply
            threading.Event().wait(0.02)

    # -- looking

    def ask(self, path: str, method: str = "GET") -> tuple[int, str]:
        """On the operators' port."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.operators}{path}", method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def pods(self) -> dict[str, dict[str, Any]]:
        """What it tells operators, by uid."""
        return {pod["uid"]: pod for pod in json.loads(self.ask("/v1/pods")[1])["pods"]}

    def frozen(self, resident: Resident) -> bool:
        """By the kernel."""
        events = Path(self.node.at(resident.pod.paths[0]), "cgroup.events").read_text()
        return "frozen 1" in events

    def until(self, condition: Callable[[], object], what: str, within: float = PATIENCE) -> None:
        deadline = time.monotonic() + within
        while not condition():
            assert time.monotonic() < deadline, f"still waiting after {within} s: {what}\n{self.said[-4000:]}"
            threading.Event().wait(0.01)


def idle(generation: int, lease: float = 30.0, **more: Any) -> dict[str, Any]:
    return {"state": "idle", "generation": generation, "lease_s": lease, "reason": "quiet", **more}


def active(generation: int, reason: str = "request") -> dict[str, Any]:
    return {"state": "active", "generation": generation, "reason": reason}


def freeze(sidecar: Sidecar, resident: Resident, secret: str, generation: int, lease: float = 30.0) -> Reply:
    return sidecar.call(put(resident.token, idle(generation, lease), secret=secret))


def thaw(sidecar: Sidecar, resident: Resident, secret: str, generation: int) -> Reply:
    return sidecar.call(put(resident.token, active(generation), secret=secret))


def toml(settings: Mapping[str, Any]) -> str:
    """Two levels; strings, numbers, flags and lists of strings are written as JSON writes them."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if not isinstance(value, Mapping)]
    for name, table in settings.items():
        if isinstance(table, Mapping):
            plain += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    return "\n".join(plain) + "\n"
