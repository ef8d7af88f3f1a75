"""Everything real but the container runtime: sidecar, freezer, cgroups, an app that ticks, the API server's stand-in.

The sidecar and its app live in a network namespace of their own, the freezer outside; they meet at a Unix socket, named
by the annotation `queueproxy.dev/freezer` as the downward API would mount it. With a runtime: tests/e2e.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.apiserver import ApiServer
from tests.support.cgroupfs import real_cgroups
from tests.support.freezer_process import FreezerProcess, Resident
from tests.support.kubepods import Node
from tests.support.netns import NetworkNamespace, network_namespace
from tests.support.sidecar import USER, Sidecar, environment

pytestmark = [*real_cgroups(""), pytest.mark.xdist_group("freezer")]
APP = Path(__file__).resolve().parents[1] / "support/ticking_app.py"
PATIENCE = 20.0


class Stack:
    """One node with one pod."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self.folder = folder
        self.api = stack.enter_context(ApiServer())
        self.node = stack.enter_context(Node(""))
        self.namespace: NetworkNamespace = stack.enter_context(network_namespace())
        self.socket = folder / "freezer.sock"
        settings = {
            "listen": {"sidecars": f"unix:{self.socket}", "plain-http": None},
            "identity": {"check-peer": False},
            "defaults": {"freeze-after": "300ms", "min-uptime": "0"},
        }
        self.freezer = stack.enter_context(FreezerProcess(self.api, self.node, folder, settings)).start()
        self.pod: Resident = self.freezer.add_pod("hello-00001-deployment-abc", mode=None)
        self.out = folder / "app.out"
        with self.out.open("w") as out:
            self.app: subprocess.Popen[bytes] = self.namespace.popen(
                [sys.executable, str(APP)], env={"PORT": str(USER)}, stdout=out
            )
        stack.callback(self._end_app)
        Path(self.node.at(self.pod.pod.paths[0]), "cgroup.procs").write_text(str(self.app.pid))
        tokens = folder / "tokens"
        tokens.mkdir()
        (tokens / "concurrency-state-hook").write_text(self.pod.token)
        podinfo = folder / "podinfo"
        podinfo.write_text(f'queueproxy.dev/freezer="unix:{self.socket}"\n')
        self.env = environment(HOST_IP="127.0.0.1", QUEUEPROXY_TOKENS=str(tokens), QUEUEPROXY_PODINFO=str(podinfo))
        self.until(lambda: self.ticks() > 0, "the app to listen")
        self.sidecar = self.start_sidecar()

    def start_sidecar(self) -> Sidecar:
        sidecar = Sidecar(self.namespace, self.env).started()
        self._stack.callback(sidecar.stop)
        self.until(lambda: sidecar.health().status == 200, "ready")
        return sidecar

    def _end_app(self) -> None:
        self.app.kill()
        self.app.wait(PATIENCE)

    def ticks(self) -> int:
        return self.out.read_text().count("tick ")

    @property
    def frozen(self) -> bool:
        return self.freezer.frozen(self.pod)

    def until(self, condition: object, what: str, within: float = PATIENCE) -> None:
        assert callable(condition)
        self.freezer.until(condition, what, within)

    def asleep(self) -> None:
        self.until(lambda: self.frozen, "asleep")


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with ExitStack() as exits:
        yield Stack(exits, tmp_path)


def test_an_app_falls_silent_between_requests_and_answers_each_of_them(stack: Stack) -> None:
    for _ in range(5):
        stack.asleep()
        before = stack.ticks()
        threading.Event().wait(0.2)
        assert stack.ticks() == before, "not a tick while asleep"
        began = time.monotonic()
        assert stack.sidecar.get("/").status == 200
        assert time.monotonic() - began < 2.0
    assert stack.socket.stat().st_mode & 0o777 == 0o666, "a sidecar is not root"
    told = stack.freezer.pods()[stack.pod.uid]
    assert told["wakes"] >= 5 and told["connected"] and told["asleep_s"] > 0.5


@pytest.mark.fz("FZ-090")
def test_a_killed_sidecar_leaves_an_app_that_runs_and_its_successor_goes_on(stack: Stack) -> None:
    stack.asleep()
    stack.sidecar.process.kill()
    stack.sidecar.process.wait(PATIENCE)
    again = stack.start_sidecar()
    assert again.get("/").status == 200
    stack.asleep()
    assert again.get("/").status == 200


@pytest.mark.fz("FZ-092")
def test_a_killed_freezer_costs_no_request_not_even_one_to_a_sleeping_app(stack: Stack) -> None:
    stack.asleep()
    stack.freezer.kill()
    assert stack.frozen, "nobody thaws it meanwhile"
    stack.freezer.start(ready=False)
    assert stack.sidecar.get("/").status == 200, "woken through the successor, before it has seen the API server"
    assert not stack.frozen


@pytest.mark.fz("FZ-050", "FZ-054", "D-06")
def test_a_pod_that_ends_while_asleep_hears_its_sigterm_and_its_requests_are_answered(stack: Stack) -> None:
    stack.asleep()
    stack.sidecar.signal(signal.SIGTERM)
    stack.until(lambda: not stack.frozen, "thawed to end", within=2.0)
    assert stack.sidecar.get("/").status == 200, "draining"
    threading.Event().wait(0.6)
    assert not stack.frozen, "and for good"


@pytest.mark.fz("FZ-014")
def test_without_a_freezer_requests_are_served_as_if_nothing_had_happened(stack: Stack) -> None:
    assert stack.freezer.stop() == 0
    for _ in range(20):
        assert stack.sidecar.get("/").status == 200
    assert not stack.frozen


@pytest.mark.fz("FZ-093", "FZ-014")
def test_a_freezer_that_drains_leaves_apps_that_run_and_sidecars_that_know_it(stack: Stack) -> None:
    stack.asleep()
    assert stack.freezer.stop() == 0
    assert not stack.frozen
    began = time.monotonic()
    assert stack.sidecar.get("/").status == 200
    assert time.monotonic() - began < 1.0, "it did not wait for the next freezer"
