"""The knock against real listening sockets; time passes by calling its timer."""

import asyncio
import socket
from collections.abc import Callable, Iterator
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


def others() -> set[int]:
    """Listeners of this machine that are none of the test's: as good as ours."""
    with module.SocketWatch() as watch:
        return set(watch.listeners())


class Scene:
    def __init__(self, app: socket.socket) -> None:
        self.timers, self.gate = Timers(), Gate()
        loop: Any = self.timers
        self.port = port_of(app)
        self.knock = Knock(loop, self.gate, self.port, others() - {self.port})

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
def test_another_port_counts_when_it_waits_twice(scene: Scene) -> None:
    """Its process may be awake and about to accept: a mesh proxy, a container that is not put to sleep."""
    with socket.create_server(("127.0.0.1", 0)) as other:
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
        knock = Knock(asyncio.get_running_loop(), gate, port_of(app), others() - {port_of(app)})
        knock.start()
        with closing(knock), closing(socket.create_connection(("127.0.0.1", port_of(app)), PATIENCE)):
            async with asyncio.timeout(PATIENCE):
                while not gate.told:
                    await asyncio.sleep(0.01)

    asyncio.run(play())
