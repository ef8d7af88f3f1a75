"""The real containers are what they claim to be, and nothing of them outlives the suite, even when it is killed.

What the other e2e tests show is worth as much as this.
"""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from glob import glob
from pathlib import Path
from time import monotonic

import pytest

from tests.support.containerd import require_containerd
from tests.support.e2e_guardian import cgroup_mounts, home
from tests.support.e2e_node import ROOT, Node
from tests.support.e2e_pod import Pod
from tests.support.e2e_watch import Kubelet, QueueWatch

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("e2e")]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as running:
        yield running


@pytest.fixture(scope="module")
def pod(node: Node) -> Iterator[Pod]:
    with Pod(node) as started:
        yield started.ready()


def proc(pid: int, file: str) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def is_alive(pid: int) -> bool:
    """A zombie is not: its new parent, pid 1, collects it when it likes."""
    try:
        return not proc(pid, "status")["State"].startswith("Z")
    except FileNotFoundError:
        return False


def test_a_request_from_the_node_reaches_the_app_through_the_sidecar(pod: Pod) -> None:
    since = len(pod.app.log.lines)
    answer = pod.ask("/", headers={"X-Id": "42"})
    assert (answer.status, answer.body) == (200, "user-container 42\n")
    pod.app.log.heard("/ 42", since=since)


@pytest.mark.qp("QP-004")
def test_the_sidecar_has_no_privilege_whatever(pod: Pod) -> None:
    status = proc(pod.sidecar.pid, "status")
    assert status["Uid"].split() == ["65532"] * 4
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    mounts = Path(f"/proc/{pod.sidecar.pid}/mountinfo").read_text().splitlines()
    (root,) = (line.split() for line in mounts if line.split()[4] == "/")
    assert "ro" in root[5].split(",")


def test_all_containers_of_a_pod_share_one_network_and_nothing_else_of_the_node(pod: Pod) -> None:
    networks = {os.readlink(f"/proc/{each.pid}/ns/net") for each in (pod.sandbox, pod.app, pod.sidecar)}
    assert len(networks) == 1
    assert networks != {os.readlink("/proc/self/ns/net")}
    assert len({os.readlink(f"/proc/{each.pid}/ns/pid") for each in (pod.sandbox, pod.app, pod.sidecar)}) == 3


@pytest.mark.parametrize("driver", ["cgroupfs", "systemd"])
@pytest.mark.parametrize("qos", ["guaranteed", "burstable", "besteffort"])
def test_a_container_sits_where_the_kubelet_puts_it(node: Node, driver: str, qos: str) -> None:
    with Pod(node, driver=driver, qos=qos) as placed:
        container = placed.app
        shown = proc(container.pid, "cgroup")
        leaf = container.id if driver == "cgroupfs" else f"cri-containerd-{container.id}.scope"
        assert all(line.endswith(f"/{leaf}") for line in Path(f"/proc/{container.pid}/cgroup").read_text().splitlines())
        assert shown["0"].lstrip(":").startswith(f"/{node.name}/kubepods")
        assert container.pids() == [container.pid]


def test_a_frozen_app_does_not_tick_and_goes_on_afterwards(pod: Pod) -> None:
    pod.app.freeze()
    frozen_at = monotonic()
    threading.Event().wait(0.3)  # fifteen ticks that must not be: there is no event to wait for
    thawed_at = monotonic()
    pod.app.freeze(False)
    since = len(pod.app.log.lines)
    pod.app.log.heard("tick", since=since)
    assert pod.app.ticks(frozen_at, thawed_at) == []


def test_a_frozen_app_that_nobody_wakes_fails_the_kubelets_probe(node: Node, pod: Pod) -> None:
    target = f"http:{pod.ip}:8080/healthz"
    with Kubelet(node, target, period=0.2, timeout=0.3) as kubelet, QueueWatch(pod.network, 8080) as queue:
        kubelet.log.until(lambda: kubelet.probes)
        assert not kubelet.failed
        pod.app.freeze()
        kubelet.log.until(lambda: len(kubelet.failed) >= 3)
        pod.app.freeze(False)
        assert queue.longest >= 2  # nobody takes the dead probes out


def test_containerd_may_be_killed_and_its_containers_do_not_notice(node: Node, pod: Pod) -> None:
    pid = pod.app.pid
    node.containerd.kill()
    assert pod.ask("/").status == 200
    node.containerd.start()
    assert node.containerd.status(pod.app.id) == "running"
    assert pod.app.pids() == [pid]


def test_a_killed_container_is_started_anew(pod: Pod) -> None:
    old = pod.sidecar
    old.kill()
    assert old.wait() == 137
    assert pod.restart("queue-proxy").attempt == old.attempt + 1
    assert pod.ready().ask("/").status == 200


SUITE = """
import json, sys
from tests.support.e2e_node import Node
from tests.support.e2e_pod import Pod
from tests.support.e2e_watch import Kubelet, QueueWatch
node = Node().__enter__()
pod = Pod(node).__enter__().ready()
for kind, file, text in (("freezer", "freezer.state", "FROZEN"), ("", "cgroup.freeze", "1")):
    if kind in node.hierarchies:
        open(pod.app.path(kind) + "/" + file, "w").write(text)
pids = [pod.app.pid, pod.sidecar.pid, node.containerd.process.pid, node._guardian.pid]
print(json.dumps([node.name, *pids]), flush=True)
sys.stdin.read()
"""


def test_nothing_is_left_when_the_suite_itself_is_killed_even_with_a_frozen_container() -> None:
    require_containerd()
    with subprocess.Popen(
        [sys.executable, "-c", SUITE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as suite:
        assert suite.stdout is not None
        name, *pids, guardian = json.loads(suite.stdout.readline())
        suite.send_signal(signal.SIGKILL)
        suite.wait(10)
    with suppress(ProcessLookupError):  # it may be through already
        descriptor = os.pidfd_open(guardian)  # it is no child of ours to wait for
        try:
            assert select.select([descriptor], [], [], 20)[0], "the guardian does not come to an end"
        finally:
            os.close(descriptor)
    assert not os.path.exists(home(name))
    assert not glob(f"/run/netns/{name}*")
    assert not [mount for mount in cgroup_mounts().values() if os.path.exists(f"{mount}/{name}")]
    assert not [pid for pid in pids if is_alive(pid)]
