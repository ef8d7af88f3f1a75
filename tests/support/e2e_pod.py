"""Runs one Knative pod in real containers: a sandbox, the revision's containers and queue-proxy in one network.

What the kubelet and its CRI plugin would do, each by name: cgroups of both drivers and all QoS classes, container
labels, one shim per pod, namespaces of the sandbox, the token volume, environment as captured, uid 65532, a read-only
root, no capability and the runtime's default seccomp profile for the sidecar; stop by preStop, SIGTERM, grace, SIGKILL.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import sys
import threading
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any

from tests.support.containerd import NotFound
from tests.support.e2e_listen import Log
from tests.support.e2e_node import HOST_IP, Answer, ip
from tests.support.e2e_spec import CODE, container_spec
from tests.support.knative_pod import knative_pod
from tests.support.sidecar import ADMIN, REQUEST, USER, USER_METRICS, environment

if TYPE_CHECKING:
    from tests.support.e2e_node import Node

__all__ = ["SIDECAR", "Container", "Pod"]

SIDECAR = "queue-proxy"
AUDIENCE = "concurrency-state-hook"
PATIENCE = 20.0
READY_WITHIN = 20.0
# The pause image's program: reaps nothing, ends when told.
PAUSE = ("/bin/sh", "-c", "trap 'exit 0' TERM INT; while :; do sleep 86400 & wait $!; done")
APP = (sys.executable, f"{CODE}/e2e_app.py")


class Container:
    """One attempt of one container."""

    def __init__(self, pod: Pod, name: str, args: Sequence[str], env: Mapping[str, str], attempt: int = 0) -> None:
        self.pod = pod
        self.name = name
        self.args = args
        self.env = env
        self.attempt = attempt
        self.id = secrets.token_hex(32)
        self.log = Log(f"{pod.name}/{name}#{attempt}")
        self.cgroup = f"{pod.cgroup}/{pod.leaf(self.id)}"
        self.pid = 0
        self._fifo = -1
        self._path = f"{pod.home}/{name}-{attempt}"

    def __repr__(self) -> str:
        state = "frozen" if self.frozen else "running"
        return f"<Container {self.name}#{self.attempt} {self.id[:8]} pid={self.pid} {state}>"

    # -- life

    def start(self, spec: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        containerd = self.pod.node.containerd
        self._fifo = self.pod.node.listener.fifo(self._path, self.log)
        self.pid = containerd.create(self.id, spec, labels, self._path)
        containerd.start_task(self.id)

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Through containerd, as the kubelet does."""
        self.pod.node.containerd.signal(self.id, number)

    def kill(self) -> None:
        """As `kill -9` of its first process; its pid namespace ends with it."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, within: float = PATIENCE) -> int:
        """Its exit status."""
        return self.pod.node.containerd.wait(self.id, within)

    def remove(self) -> None:
        """The ended container; what it said last is in its log."""
        with suppress(NotFound):
            self.pod.node.containerd.delete(self.id)
        if self._fifo >= 0:
            self.pod.node.listener.forget(self._fifo)
            self._fifo = -1
            os.unlink(self._path)

    # -- what the kernel says of it

    def path(self, kind: str = "") -> str:
        """Its cgroup in a hierarchy; "" is v2."""
        return f"{self.pod.node.hierarchies[kind]}{self.cgroup}"

    @property
    def frozen(self) -> bool:
        """By either freezer; a cgroup that is gone is not frozen."""
        if "frozen 1" in self.read("cgroup.events"):
            return True
        return self.read("freezer.state", "freezer") in ("FROZEN", "FREEZING")

    @property
    def frozen_usec(self) -> int:
        """How long it has been frozen, by the kernel's own account (0 where it keeps none)."""
        return int(dict(line.split() for line in self.read("cgroup.stat.local").splitlines()).get("frozen_usec", 0))

    @property
    def cpu_seconds(self) -> float:
        """CPU it has used."""
        return int(dict(line.split() for line in self.read("cpu.stat").splitlines())["usage_usec"]) / 1e6

    def read(self, file: str, kind: str = "") -> str:
        """A file of its cgroup; "" when it or the hierarchy is not there."""
        try:
            with open(f"{self.path(kind)}/{file}") as found:
                return found.read().strip()
        except (OSError, KeyError):
            return ""

    def pids(self) -> list[int]:
        return [int(line) for line in self.read("cgroup.procs").split()]

    def freeze(self, frozen: bool = True) -> None:
        """Directly, without anybody's knowledge."""
        with open(f"{self.path()}/cgroup.freeze", "w") as file:
            file.write("1" if frozen else "0")
        self.until_frozen(frozen)

    def until_frozen(self, frozen: bool = True, within: float = PATIENCE) -> float:
        """Waits for the kernel's word; when it was seen."""
        until = monotonic() + within
        poll = select.poll()
        with suppress(FileNotFoundError), open(f"{self.path()}/cgroup.events") as events:
            poll.register(events, select.POLLPRI)
            while self.frozen != frozen:
                left = until - monotonic()
                assert left > 0, (
                    f"not {'frozen' if frozen else 'running'} within {within} s: {self!r}\n{self.pod.tell()}"
                )
                events.seek(0)
                events.read()
                poll.poll(min(left, 0.02) * 1000)  # v1 has no event, and v2 at most 100 a second
        return monotonic()

    # -- what it says

    def ticks(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Its own stamps, of the clock that everybody here has; what is on its way through the pipe is not in it."""
        return [at for text in self.log.all("tick ") if since < (at := float(text)) < until]


class Pod:
    """See the module docstring. Not started until entered."""

    def __init__(
        self,
        node: Node,
        *,
        name: str = "",
        containers: Sequence[str] = ("user-container",),
        args: Sequence[str] = APP,
        app_env: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        qos: str = "burstable",
        driver: str = "cgroupfs",
        token: str = "",
        podinfo: bool = False,
        namespace: str = "default",
        overrides: Mapping[str, Any] | None = None,
        wait_for: str = "listening",
        **sidecar_env: str | None,
    ) -> None:
        self.node = node
        self.revision = name or f"hello-{secrets.token_hex(2)}-00001"
        self.name = f"{self.revision}-deployment-{secrets.token_hex(3)}"
        self.namespace = namespace
        self.uid = str(uuid.uuid4())
        self.annotations = dict(annotations or {})
        self.overrides = overrides
        self.token = token
        self._wait_for = wait_for  # what the app says when it has started
        self.cgroup = f"/{node.name}" + pod_cgroup(self.uid, qos, driver)
        self.qos = qos
        self.driver = driver
        self.home = f"{node.home}/pods/{self.uid[:8]}"
        self.ip = self.ip6 = ""
        self.sandbox: Container
        self.containers: dict[str, Container] = {}
        self._names = tuple(containers)
        self._args = args
        self._app_env = dict(app_env or {})
        self._podinfo = podinfo
        self._sidecar_env = sidecar_env
        self._removed = False

    def __repr__(self) -> str:
        return f"<Pod {self.name} {self.ip} {list(self.containers.values())}>"

    def leaf(self, container: str) -> str:
        """What the runtime calls a container's cgroup."""
        return container if self.driver == "cgroupfs" else f"cri-containerd-{container}.scope"

    # -- life

    def __enter__(self) -> Pod:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        os.makedirs(f"{self.home}/tokens")
        self.write_token(self.token)
        self.network, self.ip, self.ip6 = self.node.make_pod_network(self.uid[:8])
        self.sandbox = Container(self, "POD", PAUSE, {"PATH": "/usr/bin:/bin"})
        self._start(self.sandbox)
        for name in self._names:
            env = {"PORT": str(USER), "NAME": name, **self._app_env}
            if len(self._names) > 1 and name != self._names[0]:
                env["PORT"] = str(9000 + self._names.index(name))  # only one of them serves the revision
            self.containers[name] = Container(self, name, self._args, env | {"K_REVISION": self.revision})
        env = environment(
            SERVING_NAMESPACE=self.namespace, SERVING_REVISION=self.revision, SERVING_POD=self.name,
            SERVING_POD_IP=self.ip, HOST_IP=HOST_IP,
            **{"SERVING_READINESS_PROBE": PROBE, **self._sidecar_env},
        )  # fmt: skip
        serve = (sys.executable, "-m", "queueproxy", "serve")
        self.containers[SIDECAR] = Container(self, SIDECAR, serve, env)
        for container in self.containers.values():
            self._start(container)

    def restart(self, name: str, within: float = PATIENCE) -> Container:
        """A new attempt of a container that has ended, as the kubelet would start it."""
        old = self.containers[name]
        old.wait(within)
        old.remove()
        self.containers[name] = Container(self, name, old.args, old.env, old.attempt + 1)
        self._start(self.containers[name])
        return self.containers[name]

    def stop(self, grace: float = 30.0) -> dict[str, int]:
        """As the kubelet ends a pod: preStop, SIGTERM, grace, SIGKILL, all containers at once; exit status by name."""
        statuses: dict[str, int] = {}
        until = monotonic() + grace

        def end(container: Container) -> None:
            if container.name != SIDECAR:  # what Knative gives every container of the revision
                with suppress(OSError):
                    self.node.ask(self.ip, ADMIN, "/wait-for-drain", timeout=grace)
            with suppress(NotFound):
                container.signal(signal.SIGTERM)
                try:
                    statuses[container.name] = container.wait(max(0.1, until - monotonic()))
                except RuntimeError:
                    container.signal(signal.SIGKILL)
                    statuses[container.name] = container.wait()

        threads = [threading.Thread(target=end, args=(container,)) for container in self.containers.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(grace + PATIENCE)
        return statuses

    def remove(self) -> None:
        """At once and without grace."""
        if self._removed:
            return
        self._removed = True
        everyone = [*self.containers.values(), *([self.sandbox] if hasattr(self, "sandbox") else [])]
        for container in everyone:
            if container.pid:
                for file, kind, text in (("cgroup.freeze", "", "0"), ("freezer.state", "freezer", "THAWED")):
                    with suppress(OSError, KeyError), open(f"{container.path(kind)}/{file}", "w") as freezer:
                        freezer.write(text)
                with suppress(NotFound):
                    container.signal(signal.SIGKILL)
        for container in everyone:
            if container.pid:
                with suppress(NotFound):
                    container.wait()
                container.remove()
        for mount in dict.fromkeys(self.node.hierarchies.values()):
            with suppress(OSError):
                os.rmdir(f"{mount}{self.cgroup}")
        if self.ip:
            ip("netns", "del", self.network.name)
        shutil.rmtree(self.home, ignore_errors=True)

    def _start(self, container: Container) -> None:
        is_sandbox = container.name == "POD"
        namespaces = {"network": self.network.path}
        if not is_sandbox:
            namespaces |= {"ipc": f"/proc/{self.sandbox.pid}/ns/ipc", "uts": f"/proc/{self.sandbox.pid}/ns/uts"}
        mounts = {}
        if container.name == SIDECAR:
            mounts["/var/run/secrets/tokens"] = f"{self.home}/tokens"
            if self._podinfo:
                mounts["/etc/podinfo"] = f"{self.home}/podinfo"
                self._write_podinfo()
        spec = container_spec(
            self.node.model,
            args=container.args,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": CODE, "HOSTNAME": self.name, **container.env},
            rootfs=f"{self.node.home}/rootfs",
            code=f"{self.node.home}/code",
            cgroup=container.cgroup,
            namespaces=namespaces,
            hostname=self.name,
            is_sidecar=container.name == SIDECAR,
            mounts=mounts,
            cpu_shares=25 if container.name == SIDECAR else 2,
            annotations={
                "io.kubernetes.cri.container-type": "sandbox" if is_sandbox else "container",
                "io.kubernetes.cri.sandbox-id": self.sandbox.id,  # one shim per pod
                "io.kubernetes.cri.sandbox-name": self.name,
                "io.kubernetes.cri.sandbox-namespace": self.namespace,
                **({} if is_sandbox else {"io.kubernetes.cri.container-name": container.name}),
            },
        )
        labels = {
            "io.cri-containerd.kind": "sandbox" if is_sandbox else "container",
            "io.kubernetes.pod.name": self.name,
            "io.kubernetes.pod.namespace": self.namespace,
            "io.kubernetes.pod.uid": self.uid,
            **({} if is_sandbox else {"io.kubernetes.container.name": container.name}),
        }
        container.start(spec, labels)

    def tell(self) -> str:
        """What its sidecar said last, for whoever wonders."""
        sidecar = self.containers.get(SIDECAR)
        return "\n".join(f"{at:.3f} {line}" for at, line in sidecar.log.lines[-12:]) if sidecar else ""

    # -- its parts

    @property
    def app(self) -> Container:
        """The container that serves the user port."""
        return self.containers[self._names[0]]

    @property
    def apps(self) -> list[Container]:
        return [self.containers[name] for name in self._names]

    @property
    def sidecar(self) -> Container:
        return self.containers[SIDECAR]

    def manifest(self, *, pending: bool = False) -> dict[str, Any]:
        """The pod as the kubelet reports it; `pending`: as it was before its containers ran."""
        pod = knative_pod(
            self.name,
            namespace=self.namespace,
            node=self.node.name,
            uid=self.uid,
            ip=self.ip,
            containers=self._names,
            ids={name: container.id for name, container in self.containers.items()},
            annotations=self.annotations,
            overrides=self.overrides,
        )
        pod["status"].update(hostIP=HOST_IP, podIPs=[{"ip": self.ip}, {"ip": self.ip6}], qosClass=QOS[self.qos])
        if pending:
            pod["status"] = {"phase": "Pending", "qosClass": QOS[self.qos]}
        return pod

    def write_token(self, token: str) -> None:
        """Rotated as the kubelet does it: a link is swapped, no reader sees half a token. Without one: no file."""
        folder = f"{self.home}/tokens"
        version = f"..{secrets.token_hex(4)}"
        os.mkdir(f"{folder}/{version}")
        if token:
            with open(f"{folder}/{version}/{AUDIENCE}", "w") as file:
                file.write(token)
        os.symlink(version, f"{folder}/..new")
        os.rename(f"{folder}/..new", f"{folder}/..data")
        if not os.path.lexists(f"{folder}/{AUDIENCE}"):
            os.symlink(f"..data/{AUDIENCE}", f"{folder}/{AUDIENCE}")
        for other in os.listdir(folder):
            if other.startswith("..") and other not in ("..data", version):
                shutil.rmtree(f"{folder}/{other}")

    def _write_podinfo(self) -> None:
        os.makedirs(f"{self.home}/podinfo", exist_ok=True)
        with open(f"{self.home}/podinfo/annotations", "w") as file:
            file.writelines(f'{name}="{value}"\n' for name, value in self.annotations.items())

    # -- talking to it, as somebody on the node

    def ready(self, within: float = READY_WITHIN) -> Pod:
        """Waits until the kubelet's readiness probe succeeds."""
        self.app.log.heard(self._wait_for, within=within)
        until = monotonic() + within
        while True:
            with suppress(OSError):
                if self.health().status == 200:
                    return self
            assert monotonic() < until, f"not ready within {within} s: {self.sidecar.log!r}"
            threading.Event().wait(0.02)

    def health(self) -> Answer:
        return self.ask("/", headers={"User-Agent": "kube-probe/1.36", "K-Network-Probe": "queue"}, timeout=2.0)

    def ask(self, path: str = "/", *, port: int = REQUEST, timeout: float = PATIENCE, **options: Any) -> Answer:
        """One request through the sidecar, or straight to another port."""
        return self.node.ask(self.ip, port, path, timeout=timeout, **options)

    def metrics(self) -> str:
        """The sidecar's on 9091."""
        return self.ask("/metrics", port=USER_METRICS).body


# Names of the kubelet's: pkg/kubelet/cm/cgroup_manager_linux.go.
QOS = {"guaranteed": "Guaranteed", "burstable": "Burstable", "besteffort": "BestEffort"}
PROBE = '{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}'


def pod_cgroup(uid: str, qos: str, driver: str) -> str:
    """Where the kubelet puts a pod. With the systemd driver too these are ordinary directories: a slice of systemd's is
    nothing else to the kernel."""
    if driver == "cgroupfs":
        return "/kubepods" + ("" if qos == "guaranteed" else f"/{qos}") + f"/pod{uid}"
    uid = uid.replace("-", "_")
    if qos == "guaranteed":
        return f"/kubepods.slice/kubepods-pod{uid}.slice"
    return f"/kubepods.slice/kubepods-{qos}.slice/kubepods-{qos}-pod{uid}.slice"
