"""Everything real but the container runtime: sidecar, freezer, cgroups, an app that ticks, the API server's stand-in.

The sidecar and its app live in a network namespace of their own, the freezer outside; they meet at a Unix socket, named
by the annotation `queueproxy.dev/freezer` as the downward API would mount it. With a runtime: tests/e2e.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from queueproxy.freeze.node.losses import SETTLED
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

    def __init__(
        self, stack: ExitStack, folder: Path, command: Sequence[str] = (sys.executable, str(APP)), **defaults: str
    ) -> None:
        """defaults: what the freezer's configuration has for all pods, with underscores."""
        self._stack = stack
        self.folder = folder
        self.api = stack.enter_context(ApiServer())
        self.node = stack.enter_context(Node(""))
        self.namespace: NetworkNamespace = stack.enter_context(network_namespace())
        self.socket = folder / "freezer.sock"
        settings = {
            "listen": {"sidecars": f"unix:{self.socket}", "plain-http": None},
            "identity": {"check-peer": False},
            "defaults": {"freeze-after": "300ms", "min-uptime": "0"}
            | {name.replace("_", "-"): value for name, value in defaults.items()},
        }
        self.freezer = stack.enter_context(FreezerProcess(self.api, self.node, folder, settings)).start()
        self.pod: Resident = self.freezer.add_pod("hello-00001-deployment-abc", mode=None)
        self.out = folder / "app.out"
        with self.out.open("w") as out:
            # In its cgroup before it starts anything: its children have to be in there as well.
            procs = Path(self.node.at(self.pod.pod.paths[0]), "cgroup.procs")
            self.app: subprocess.Popen[bytes] = self.namespace.popen(
                ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(procs), *command],
                env={"PORT": str(USER), "PATH": os.defpath}, stdout=out,
            )  # fmt: skip
        stack.callback(self._end_app)
        tokens = folder / "tokens"
        tokens.mkdir()
        (tokens / "concurrency-state-hook").write_text(self.pod.token)
        podinfo = folder / "podinfo"
        podinfo.write_text(f'queueproxy.dev/freezer="unix:{self.socket}"\n')
        self.env = environment(HOST_IP="127.0.0.1", QUEUEPROXY_TOKENS=str(tokens), QUEUEPROXY_PODINFO=str(podinfo))
        self.until(self.listens, "the app to listen")
        self.sidecar = self.start_sidecar()

    def start_sidecar(self) -> Sidecar:
        sidecar = Sidecar(self.namespace, self.env).started()
        self._stack.callback(sidecar.stop)
        self.until(lambda: sidecar.health().status == 200, "ready")
        return sidecar

    def listens(self) -> bool:
        with self.namespace.inside():
            probe = socket.socket()
        with probe:
            return probe.connect_ex(("127.0.0.1", USER)) == 0

    def _end_app(self) -> None:
        Path(self.node.at(self.pod.pod.paths[0]), "cgroup.kill").write_text("1")
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


@pytest.mark.long
@pytest.mark.fz("FZ-084")
def test_gunicorn_whose_watchdog_kills_its_sleepers_is_throttled_from_then_on(tmp_path: Path) -> None:
    """Sync workers have to say every two seconds that they live. After a sleep of three they have not; master and
    workers race then, so it takes six workers and perhaps a few naps."""
    command = [
        sys.executable, "-m", "gunicorn", "--chdir", str(APP.parent / "servers"), "--bind", f"127.0.0.1:{USER}",
        "--workers", "6", "--timeout", "2", "wsgi:app",
    ]  # fmt: skip
    with ExitStack() as exits:
        stack = Stack(exits, tmp_path, command, min_uptime=f"{SETTLED + 1}s")

        def told() -> dict[str, object]:
            return stack.freezer.pods()[stack.pod.uid]

        for _ in range(8):
            stack.until(lambda: stack.frozen or told()["mode"] == "throttle", "asleep")
            if told()["mode"] == "throttle":
                break
            threading.Event().wait(3.0)
            stack.sidecar.get("/")  # whatever comes of it
            threading.Event().wait(0.1)
        stack.until(lambda: told()["mode"] == "throttle", "the fall-back")
        assert str(told()["why"]).startswith("harmed: ") and "died within 5 s of a thaw" in str(told()["why"])
        assert not stack.frozen
