"""Runs a whole node for the e2e suite: containerd, a pod network, the freezer; nothing of it is there afterwards.

    with Node() as node:
        with node.pod() as pod:
            pod.ready()

All of it sits beneath one cgroup and one name (see e2e_guardian). Root only. Pods reach the node at `HOST_IP` through
a bridge, as with a CNI bridge plugin, so the freezer sees a pod's own address as its peer.
"""

from __future__ import annotations

import compileall
import http.client
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from tests.support.containerd import Containerd, require_containerd
from tests.support.e2e_guardian import PREFIX, cgroup_mounts, home, sweep_stale
from tests.support.e2e_listen import Listener
from tests.support.e2e_spec import make_rootfs
from tests.support.netns import NetworkNamespace

__all__ = ["CONTROLLERS", "HOST_IP", "Answer", "Node"]

CONTROLLERS = ("", "freezer", "cpu", "cpuacct")  # what a freezer looks at; "" is v2
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HOST_IP = "10.200.0.1"
GATEWAY, GATEWAY6 = "10.244.0.1", "fd00:244::1"
PATIENCE = 20.0
# Into the cgroups given before the dash-dash, then the command.
JOIN = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs"; shift; done; shift; exec "$@"'


class Answer(NamedTuple):
    """Of one request: `first` is seconds to its first byte."""

    status: int
    body: str
    first: float


class Node:
    """See the module docstring."""

    def __init__(self) -> None:
        self.name = PREFIX + secrets.token_hex(3)
        self.home = home(self.name)
        self.network = NetworkNamespace(f"{self.name}-node")
        self.listener = Listener()
        mounts = cgroup_mounts()
        self.hierarchies = mounts  # mount point by hierarchy, "" for v2
        self.containerd: Containerd
        self.model: dict[str, Any] = {}
        self._numbers = iter(range(2, 250))
        self._lock = threading.Lock()
        self._guardian: subprocess.Popen[bytes] | None = None
        self.left_behind: list[str] = []

    def __repr__(self) -> str:
        return f"<Node {self.name}>"

    # -- life

    def __enter__(self) -> Node:
        require_containerd()
        sweep_stale()
        os.mkdir(self.home, 0o711)
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _open(self) -> None:
        self._guardian = subprocess.Popen(
            [sys.executable, "-m", "tests.support.e2e_guardian", self.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._guardian.stdout is not None
        assert self._guardian.stdout.readline() == b"watching\n"
        for mount in dict.fromkeys(self.hierarchies[kind] for kind in CONTROLLERS if kind in self.hierarchies):
            os.mkdir(f"{mount}/{self.name}")
        for folder in self._daemons:
            os.mkdir(folder)
        self._make_network()
        for folder in ("code", "rootfs", "pods"):
            os.mkdir(f"{self.home}/{folder}")
        make_rootfs(f"{self.home}/rootfs")
        copy_code(f"{self.home}/code")
        self.containerd = Containerd(self.home, self.launch(), self.listener)
        self.containerd.start()
        self.model = self.containerd.runtime_default(f"{self.home}/rootfs")

    def __exit__(self, *_: object) -> None:
        """The guardian does the work, the same as it would after a crash of ours."""
        if self._guardian is not None:
            said, _ = self._guardian.communicate(timeout=60)
            self.left_behind = said.decode().splitlines()
            self._guardian = None
        self.listener.close()
        shutil.rmtree(self.home, ignore_errors=True)
        assert not self.left_behind, self.left_behind

    @property
    def _daemons(self) -> list[str]:
        """The cgroups that everything but the containers is in: those that can end and thaw it."""
        return [f"{self.hierarchies[kind]}/{self.name}/daemons" for kind in ("", "freezer") if kind in self.hierarchies]

    def launch(self) -> list[str]:
        """What to put before a command that runs on this node."""
        return self.network.command(["sh", "-c", JOIN, "sh", *self._daemons, "--"])

    def _make_network(self) -> None:
        ip("netns", "add", self.network.name)
        self.network.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6"], stderr=subprocess.DEVNULL)
        ip(
            "-n", self.network.name, "-batch", "-",
            said=f"""link set lo up
            link add cni0 type bridge
            address add {GATEWAY}/24 dev cni0
            address add {HOST_IP}/32 dev lo
            address add {GATEWAY6}/64 dev cni0 nodad
            link set cni0 up
            """,
        )  # fmt: skip

    def make_pod_network(self, name: str) -> tuple[NetworkNamespace, str, str]:
        """A namespace with an address of each family, on the bridge."""
        with self._lock:
            number = next(self._numbers)
        pod = NetworkNamespace(f"{self.name}-{name}")
        address, address6 = f"10.244.0.{number}", f"fd00:244::{number:x}"
        ip("netns", "add", pod.name)
        pod.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv6/conf/all/disable_ipv6"], stderr=subprocess.DEVNULL)
        ip(
            "-n", self.network.name, "-batch", "-",
            said=f"""link add veth{number} type veth peer name eth0 netns {pod.name}
            link set veth{number} master cni0 up
            """,
        )  # fmt: skip
        ip(
            "-n", pod.name, "-batch", "-",
            said=f"""link set lo up
            address add {address}/24 dev eth0
            address add {address6}/64 dev eth0 nodad
            link set eth0 up
            route add default via {GATEWAY}
            """,
        )  # fmt: skip
        return pod, address, address6

    # -- talking to what runs on it, as somebody else on the node

    def connect(self, address: str, port: int, *, timeout: float = PATIENCE) -> socket.socket:
        """A TCP connection from the node."""
        with self.network.inside():
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sock.settimeout(timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect((address, port))
        except OSError:
            sock.close()
            raise
        return sock

    def ask(
        self,
        address: str,
        port: int,
        path: str = "/",
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout: float = PATIENCE,
    ) -> Answer:
        """One request on a connection of its own."""
        sock = self.connect(address, port, timeout=timeout)
        connection = http.client.HTTPConnection(address, port)
        connection.sock = sock
        try:
            began = monotonic()
            connection.request(method, path, headers={"Connection": "close", **(headers or {})})
            response = connection.getresponse()
            first = monotonic() - began
            return Answer(response.status, response.read().decode(errors="replace"), first)
        finally:
            connection.close()


def copy_code(folder: str) -> None:
    """The package and the suite's apps as they are now, compiled: a container's file system is read-only."""
    ignore = shutil.ignore_patterns("*.c", "*.egg-info")
    shutil.copytree(f"{ROOT}/queueproxy", f"{folder}/queueproxy", ignore=ignore)
    for app in APPS:
        shutil.copy2(app, folder)
    compileall.compile_dir(folder, quiet=1)
    os.chmod(folder, 0o755)


APPS = (
    f"{ROOT}/tests/support/e2e_app.py",
    f"{ROOT}/tests/support/e2e_plain_app.py",
    f"{ROOT}/tests/support/e2e_grpc_app.py",
    f"{ROOT}/examples/sleeptalker/sleeptalker.py",
)


def ip(*args: str, said: str = "") -> None:
    """The ip command; `said` goes to its -batch."""
    lines = "\n".join(line.strip() for line in said.splitlines())
    done = subprocess.run(["ip", *args], input=lines.encode(), timeout=30, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(args)}: {done.stderr.decode()}")
