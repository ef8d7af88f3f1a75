"""The knock against real listening sockets; time passes by calling its timer."""

import asyncio
import os
import select
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from typing import Any

import pytest

from queueproxy.freeze import knock as module
from queueproxy.freeze.budget import LONG, SHORT, WakeBudget
from queueproxy.freeze.knock import Knock
from queueproxy.freeze.rhythm import COARSE
from queueproxy.freeze.vocabulary import Look
from queueproxy.net.sockdiag import Listener, SockDiagError
from tests.support.cgroupfs import PATIENCE, until
from tests.support.netns import NetworkNamespace
from tests.support.veth import INSIDE, pod_network

LOOK = Look(1, True, None)


class Gate:
    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def touched(self, why: str, hold_for: float | None = None) -> None:
        self.told.append(("touched", why, hold_for))

    def app_restarted(self) -> None:
        self.told.append(("restarted",))


class Timers:
    """call_later, fired by hand."""

    def __init__(self) -> None:
        self.set: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, call: Callable[[], None]) -> "Timers":
        self.set = [(delay, call)]
        return self

    def cancel(self) -> None:
        self.set = []

    def fire(self) -> None:
        (_, call), self.set = self.set[0], []
        call()


@pytest.fixture
def app() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as app:
        yield app


def port_of(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])


def others(*tests: socket.socket) -> set[int]:
    """Of this machine's listeners, present and to come, all but the test's are as good as ours."""
    return set(range(1, 1 << 16)).difference(map(port_of, tests))


class Scene:
    def __init__(self, app: socket.socket, *more: socket.socket) -> None:
        self.timers, self.gate = Timers(), Gate()
        loop: Any = self.timers
        self.port = port_of(app)
        self.knock = Knock(loop, self.gate, self.port, others(app, *more))

    def look(self) -> str | None:
        found: list[str | None] = []
        self.knock.look(LOOK, lambda number, obstacle: found.append(obstacle))
        (obstacle,) = found
        return obstacle

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        with module.SocketWatch() as watch:
            until(lambda: watch.listeners()[self.port].waiting, "the connection to wait")
        return sock


@pytest.fixture
def scene(app: socket.socket) -> Iterator[Scene]:
    scene = Scene(app)
    yield scene
    scene.knock.close()


@pytest.mark.fz("FZ-098")
def test_a_waiting_connection_wakes_the_app_for_a_moment_and_the_looking_ends(scene: Scene) -> None:
    scene.knock.start()
    scene.timers.fire()
    assert scene.gate.told == [] and scene.timers.set[0][0] == COARSE
    with closing(scene.connect()):
        scene.timers.fire()
    assert scene.gate.told == [("touched", "knock", SHORT)]
    assert scene.timers.set == [] and scene.knock.knocks == 1


@pytest.mark.fz("FZ-098")
def test_after_a_long_quiet_the_next_knock_is_seen_as_well(scene: Scene, app: socket.socket) -> None:
    scene.knock.start()
    for _ in range(5):
        scene.timers.fire()
    assert scene.knock._quiet is not None, "what was looked at is not looked at again"
    with closing(scene.connect()):
        scene.timers.fire()
        assert scene.gate.told == [("touched", "knock", SHORT)]
        app.accept()[0].close()
    scene.knock.start()
    scene.timers.fire()
    assert len(scene.gate.told) == 1 and scene.timers.set != []
    app.close()
    with socket.create_server(("127.0.0.1", scene.port)):
        scene.timers.fire()
    assert scene.gate.told[1:] == [("restarted",)]


@pytest.mark.fz("FZ-098")
def test_a_probe_that_closed_again_is_still_a_knock(scene: Scene) -> None:
    """A TCP probe connects and hangs up; its connection stays in the queue of an app that does not accept."""
    scene.knock.start()
    scene.connect().close()
    scene.timers.fire()
    assert scene.gate.told == [("touched", "knock", SHORT)]


@pytest.mark.fz("FZ-098", "FZ-005")
def test_another_port_counts_when_it_waits_twice(app: socket.socket) -> None:
    """Its process may be awake and about to accept: a mesh proxy, a container that is not put to sleep."""
    with socket.create_server(("127.0.0.1", 0)) as other, closing((scene := Scene(app, other)).knock):
        scene.knock.start()
        with closing(socket.create_connection(("127.0.0.1", port_of(other)), PATIENCE)):
            with module.SocketWatch() as watch:
                until(lambda: watch.listeners()[port_of(other)].waiting, "the connection to wait")
            scene.timers.fire()
            assert scene.gate.told == [] and scene.timers.set[0][0] == module.FINE
            scene.timers.fire()
            assert scene.gate.told == [("touched", "knock", SHORT)]


def test_our_own_ports_are_nobodys_knock(app: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        scene = Scene(app)
        with closing(scene.knock), closing(socket.create_connection(("127.0.0.1", port_of(ours)), PATIENCE)):
            scene.knock.start()
            scene.timers.fire()
            scene.timers.fire()
            assert scene.gate.told == [] and scene.look() is None


@pytest.mark.fz("FZ-098")
def test_a_spent_budget_lengthens_the_wake_and_refuses_none(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    scene.knock._budget = WakeBudget(now)
    with closing(scene.connect()):
        for _ in range(80):
            scene.knock.start()
            scene.timers.fire()
    holds = [told[2] for told in scene.gate.told]
    assert len(holds) == 80 and holds[0] == SHORT and holds[-1] == LONG
    assert scene.gate.told[-1][1] == "knock: wake budget spent"


@pytest.mark.fz("FZ-028")
def test_sleep_waits_for_who_is_waiting(scene: Scene, app: socket.socket) -> None:
    assert scene.look() is None
    with closing(scene.connect()):
        assert scene.look() == f"1 connections wait at port {scene.port}"
        app.accept()[0].close()
        assert scene.look() is None


@pytest.mark.fz("FZ-028", "FZ-098")
def test_sleep_waits_for_a_visitor_of_the_last_knock_but_not_for_ever(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow probe handler: accepted, not answered yet."""
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    scene.knock.start()
    scene.connect().close()
    scene.timers.fire()
    monkeypatch.setattr(scene.knock._watch.__class__, "listeners", lambda self: {scene.port: Listener(0, frozenset())})
    monkeypatch.setattr(scene.knock._watch.__class__, "visitors", lambda self, ports: dict.fromkeys(ports, 2))
    scene.knock._inodes = frozenset()
    assert scene.look() == f"2 visitors talk to port {scene.port}"
    now += module.VISIT
    assert scene.look() is None


class Pod:
    """An app in a network of its own, its knock, and visitors from the node; sleep and wake are the test's."""

    def __init__(self, network: NetworkNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.network = network
        self.walks = 0
        self.timers, self.gate = Timers(), Gate()
        with network.inside():
            self.app = socket.create_server(("0.0.0.0", 0))
            self.port = port_of(self.app)
            loop: Any = self.timers
            self.knock = Knock(loop, self.gate, self.port, ())
            self.knock._watch.listeners()  # its socket belongs here
        visitors = module.SocketWatch.visitors

        def walked(watch: module.SocketWatch, ports: Collection[int]) -> dict[int, int]:
            self.walks += 1
            return visitors(watch, ports)

        monkeypatch.setattr(module.SocketWatch, "visitors", walked)

    def visit(self) -> socket.socket:
        """Somebody connects while the app sleeps."""
        visitor = socket.create_connection((INSIDE, self.port), PATIENCE)
        until(lambda: self.knock._watch.listeners()[self.port].waiting, "the visitor to wait")
        return visitor

    def peek(self) -> None:
        """The app sleeps, until it is woken."""
        with self.network.inside():
            self.knock.start()
            self.timers.fire()
            assert self.gate.told.pop() == ("touched", "knock", SHORT)
            self.knock.stop()

    def look(self) -> str | None:
        found: list[str | None] = []
        with self.network.inside():
            self.knock.look(LOOK, lambda number, obstacle: found.append(obstacle))
        return found[0]

    def served(self) -> None:
        """A visitor comes, is answered, and goes, as a probe does."""
        with closing(self.visit()):
            self.peek()
            self.app.accept()[0].close()

    def ends(self, count: int) -> None:
        """The kernel tells of ends a moment later."""
        heard = self.knock._farewells
        until(lambda: select.select([heard._socket], [], [], 0)[0], "farewells")
        threading.Event().wait(0.1 * count)

    def close(self) -> None:
        self.knock.close()
        self.app.close()


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    with pod_network() as network, closing(Pod(network, monkeypatch)) as pod:
        yield pod


in_a_network = [
    pytest.mark.xdist_group("veth"),  # all of them have the same address
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="NOT PROVEN HERE: needs root for a network namespace"),
]


def marked(test: Callable[..., None]) -> Callable[..., None]:
    for mark in in_a_network:
        test = mark(test)
    return test


@marked
@pytest.mark.fz("FZ-028", "FZ-098")
def test_probes_that_come_and_go_are_accounted_for_without_a_walk(pod: Pod) -> None:
    pod.served()
    assert pod.look() is None and pod.walks == 1, "nothing was known before"
    for _ in range(3):
        pod.served()
        pod.ends(1)
        assert pod.look() is None and pod.walks == 1
    with closing(pod.visit()), closing(pod.visit()):
        pod.peek()
        pod.app.accept()[0].close()
        pod.app.accept()[0].close()
    pod.ends(2)
    assert pod.look() is None and pod.walks == 1, "two at once"


@marked
@pytest.mark.fz("FZ-028", "FZ-098")
def test_a_slow_one_among_them_is_waited_for(pod: Pod) -> None:
    pod.served()
    assert pod.look() is None
    with closing(pod.visit()), closing(pod.visit()):
        pod.peek()
        pod.app.accept()[0].close()
        slow = pod.app.accept()[0]
        for _ in range(3):
            assert pod.look() == f"1 visitors talk to port {pod.port}"
        slow.close()
    until(lambda: pod.look() is None, "the slow one to be gone")


@marked
@pytest.mark.fz("FZ-028", "FZ-098")
@pytest.mark.parametrize("when", ["before", "awake"], ids=["as the app fell asleep", "while it was awake"])
def test_who_came_uncounted_is_looked_for(pod: Pod, when: str) -> None:
    """As many left as had waited, but it was not they."""
    pod.served()
    assert pod.look() is None
    walks = pod.walks
    stays = None
    if when == "before":
        stays = socket.create_connection((INSIDE, pod.port), PATIENCE), pod.app.accept()[0]
    with closing(pod.visit()):
        pod.peek()
        accepted = pod.app.accept()[0]
        if stays is None:
            stays = socket.create_connection((INSIDE, pod.port), PATIENCE), pod.app.accept()[0]
        if when == "awake":
            accepted.close()
        else:
            for sock in stays:
                sock.close()
            stays = accepted, accepted
        assert pod.look() == f"1 visitors talk to port {pod.port}" and pod.walks == walks + 1
        for sock in stays:
            sock.close()


@marked
@pytest.mark.fz("FZ-028")
def test_an_account_is_closed_when_no_look_follows(pod: Pod) -> None:
    pod.served()
    assert pod.look() is None
    with closing(pod.visit()):
        with pod.network.inside():
            pod.knock.start()
            pod.timers.fire()
        (delay, close) = pod.timers.set[0]
        assert delay == module.VISIT and "open" in repr(pod.knock._farewells)
        close()
        assert "closed" in repr(pod.knock._farewells) and pod.knock._account is None


@pytest.mark.fz("FZ-012")
@pytest.mark.parametrize("asleep", [True, False], ids=["asleep", "before sleep"])
def test_another_listener_at_the_apps_port_is_another_app(scene: Scene, app: socket.socket, asleep: bool) -> None:
    assert scene.look() is None
    app.close()
    with socket.create_server(("127.0.0.1", scene.port)):
        if asleep:
            scene.knock.start()
            scene.timers.fire()
            assert scene.timers.set == []
        else:
            assert scene.look() == "the app was restarted"
        assert scene.gate.told == [("restarted",)]
        assert scene.look() is None, "told once"


@pytest.mark.fz("FZ-012")
def test_workers_that_come_and_go_are_still_the_app(scene: Scene, app: socket.socket) -> None:
    app.close()
    first = socket.create_server(("127.0.0.1", scene.port), reuse_port=True)
    scene.look()
    with first, socket.create_server(("127.0.0.1", scene.port), reuse_port=True):
        assert scene.look() is None
        first.close()
        assert scene.look() is None and scene.gate.told == []


@pytest.mark.fz("FZ-098")
def test_a_kernel_that_does_not_say_keeps_the_app_awake(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(self: object) -> dict[int, Listener]:
        raise SockDiagError(1, "sock_diag: not permitted")

    scene.knock.start()
    monkeypatch.setattr(scene.knock._watch.__class__, "listeners", silent)
    scene.timers.fire()
    (told,) = scene.gate.told
    assert told[0] == "touched" and "not permitted" in told[1] and told[2] == module.VISIT
    assert "not permitted" in (scene.look() or "")


def test_nothing_is_looked_for_after_stop(scene: Scene) -> None:
    scene.knock.start()
    assert "watching" in repr(scene.knock)
    scene.knock.stop()
    assert scene.timers.set == [] and "resting" in repr(scene.knock)


def test_a_loop_takes_it_as_it_is(app: socket.socket) -> None:
    async def play() -> None:
        gate = Gate()
        knock = Knock(asyncio.get_running_loop(), gate, port_of(app), others(app))
        knock.start()
        with closing(knock), closing(socket.create_connection(("127.0.0.1", port_of(app)), PATIENCE)):
            async with asyncio.timeout(PATIENCE):
                while not gate.told:
                    await asyncio.sleep(0.01)

    asyncio.run(play())
