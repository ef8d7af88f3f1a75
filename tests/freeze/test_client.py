"""The client on real sockets, against a freezer that does what a script says: late, lost, garbage, gone, or old."""

import asyncio
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvloop

from queueproxy.clock import monotonic
from queueproxy.freeze.address import Address
from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.client import FreezerClient
from queueproxy.freeze.credential import TokenFile
from queueproxy.freeze.dialogue import Fault, Patience, Phase, Terms
from queueproxy.freeze.session import Session
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import OldAction, Problem, Wanted
from tests.support.rawhttp import PATIENCE
from tests.support.scripted_freezer import EAGER, HANG, HANG_UP, Call, ScriptedFreezer, problem, response

pytestmark = [pytest.mark.slow, pytest.mark.clock]  # real sockets, real deadlines

RUNNING, THROTTLED, FROZEN = Rung.RUNNING, Rung.THROTTLED, Rung.FROZEN
BRISK = Patience(connect=0.5, attempt=0.3, old_attempt=0.5, total=0.6, backoff=0.01, urgent_cap=0.05, backoff_cap=0.1)


class Side:
    """A client, its owner and the gate in one: remembers what it was told, and lets a test wait for it."""

    def __init__(self, freezer: ScriptedFreezer, token: Path, patience: Patience, host: str = "127.0.0.1") -> None:
        self.told: list[tuple[Any, ...]] = []
        self.session = Session(Random(7), DEFAULTS, patience)
        path = freezer._where[2]
        address = Address(path, 0) if path else Address(host, freezer.port)
        loop = asyncio.get_running_loop()
        self.client = FreezerClient(loop, address, TokenFile(str(token)), self.session, self)
        self.client.why = lambda: "because"
        self._news = asyncio.Event()

    def _tell(self, *what: Any) -> None:
        self.told.append(what)
        self._news.set()

    def found(self, generation: int, rung: Rung) -> None:
        self._tell("found", generation, rung)

    def woken(self, why: str) -> None:
        self._tell("woken", why)

    def terms(self, terms: Terms) -> None:
        self._tell("terms", terms.policy)

    def up(self, mechanism: str) -> None:
        self._tell("up", mechanism)

    def down(self, reason: str) -> None:
        self._tell("down", reason)

    def ask(self, rung: Rung, generation: int) -> None:
        self.client.ask(rung, generation, lambda *answer: self._tell("answer", *answer))

    async def heard(self, *beginning: Any) -> tuple[Any, ...]:
        """The next thing told that begins so; what came before it is forgotten."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for at, what in enumerate(self.told):
                    if what[: len(beginning)] == beginning:
                        del self.told[: at + 1]
                        return what
                self._news.clear()
                await self._news.wait()

    async def ready(self) -> None:
        self.client.begin()
        await self.heard("found")
        await self.heard("up")

    async def wished(self, rung: Rung, generation: int) -> tuple[Any, ...]:
        self.ask(rung, generation)
        return await self.heard("answer", generation)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "concurrency-state-hook"
    path.write_text("token-1\n")
    return path


@pytest.fixture
def freezer() -> Iterator[ScriptedFreezer]:
    freezer = ScriptedFreezer()
    yield freezer
    freezer.close()


Play = Callable[[Side], Awaitable[None]]


@pytest.fixture(params=["uvloop", "asyncio"])
def play(request: pytest.FixtureRequest, freezer: ScriptedFreezer, token: Path) -> Callable[..., None]:
    """Runs a scene against `freezer` on either loop; nothing may be left on the loop."""

    def run(scene: Play, patience: Patience = BRISK, *, at: ScriptedFreezer | None = None, host: str = "") -> None:
        async def whole() -> None:
            side = Side(at or freezer, token, patience, host or "127.0.0.1")
            try:
                await scene(side)
            finally:
                side.client.close()

        if request.param == "uvloop":
            uvloop.run(whole())
        else:
            asyncio.run(whole())

    return run


async def threads(what: Callable[[], None]) -> None:
    """Lets the freezer's condition be waited for without stopping the loop."""
    await asyncio.get_running_loop().run_in_executor(None, what)


# === Version 1. ===


@pytest.mark.fz("FZ-060", "FZ-062", "FZ-110", "FZ-129")
def test_a_freezer_is_greeted_once_and_then_told_every_wish_on_one_connection(
    play: Callable[..., None], freezer: ScriptedFreezer
) -> None:
    async def scene(side: Side) -> None:
        side.client.begin()
        assert await side.heard("found") == ("found", 0, RUNNING)
        assert await side.heard("terms") == ("terms", EAGER)
        assert await side.heard("up") == ("up", "scripted") and side.client.name == "scripted"
        assert await side.wished(FROZEN, 1) == ("answer", 1, FROZEN, "scripted")
        assert await side.wished(RUNNING, 2) == ("answer", 2, RUNNING, "scripted")
        assert await side.wished(THROTTLED, 3) == ("answer", 3, THROTTLED, "scripted")

    play(scene)
    assert freezer.connections == 1
    greeting, *puts = freezer.calls
    assert greeting.message.start == b"GET /v1/pods/self HTTP/1.1"
    assert greeting.message.get("Host") == f"127.0.0.1:{freezer.port}".encode()
    assert greeting.message.get("Authorization") == b"Bearer token-1"
    assert greeting.message.get("Queueproxy-Session") is None
    assert [put.message.start for put in puts] == [b"PUT /v1/pods/self/state HTTP/1.1"] * 3
    assert [put.message.get("Queueproxy-Session") for put in puts] == [b"secret-1"] * 3
    assert [(put.wish.wanted, put.wish.generation, put.wish.rung) for put in puts] == [
        (Wanted.IDLE, 1, FROZEN), (Wanted.ACTIVE, 2, FROZEN), (Wanted.IDLE, 3, THROTTLED),
    ]  # fmt: skip
    assert {put.wish.reason for put in puts} == {"because"} and puts[0].wish.lease_s == 30.0


@pytest.mark.fz("FZ-032", "FZ-039")
def test_a_thaw_does_not_wait_for_the_answer_to_the_freeze_it_takes_back(
    play: Callable[..., None], freezer: ScriptedFreezer
) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        thaw_is_here = threading.Event()

        def script(call: Call) -> None:
            if call.wish.generation == 1:
                # The test's own wait is the only way on: this connection's next call must already be in the kernel.
                assert thaw_is_here.wait(PATIENCE)

        freezer.script = script
        side.ask(FROZEN, 1)
        side.ask(RUNNING, 2)
        thaw_is_here.set()
        assert await side.heard("answer") == ("answer", 2, RUNNING, "scripted")

    play(scene)
    assert [wish.generation for wish in freezer.puts] == [1, 2] and freezer.connections == 1


@pytest.mark.fz("FZ-004")
@pytest.mark.parametrize("host", ["::1"])
def test_a_node_may_have_an_ipv6_address(play: Callable[..., None], host: str) -> None:
    freezer = ScriptedFreezer(host=host)

    async def scene(side: Side) -> None:
        await side.ready()

    try:
        play(scene, at=freezer, host=host)
        assert freezer.calls[0].message.get("Host") == f"[::1]:{freezer.port}".encode()
    finally:
        freezer.close()


@pytest.mark.fz("FZ-004")
def test_a_freezer_may_listen_on_a_unix_socket(play: Callable[..., None], tmp_path: Path) -> None:
    freezer = ScriptedFreezer(path=str(tmp_path / "f.sock"))

    async def scene(side: Side) -> None:
        await side.ready()
        assert (await side.wished(FROZEN, 1))[2] is FROZEN

    try:
        play(scene, at=freezer)
        assert freezer.calls[0].message.get("Host") == b"localhost"
    finally:
        freezer.close()


# === Tokens. ===


@pytest.mark.fz("FZ-069")
def test_a_rotated_token_is_used_from_the_next_sleep_on(
    play: Callable[..., None], freezer: ScriptedFreezer, token: Path
) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        fresh = token.with_name("new")
        fresh.write_text("token-2")
        os.replace(fresh, token)
        await side.wished(FROZEN, 1)
        await side.wished(RUNNING, 2)

    play(scene)
    assert [call.token for call in freezer.calls] == ["token-1", "token-2", "token-2"]


@pytest.mark.fz("FZ-126")
@pytest.mark.parametrize("which", [Problem.UNAUTHENTICATED, Problem.FORBIDDEN], ids=["401", "403"])
def test_a_refused_token_is_read_again_at_once_and_nobody_notices(
    play: Callable[..., None], freezer: ScriptedFreezer, token: Path, which: Problem
) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        freezer.script = lambda call: problem(which) if call.token == "token-1" else None
        side.ask(RUNNING, 1)  # not a sleep, so the file is not looked at
        fresh = token.with_name("new")
        fresh.write_text("token-2")
        os.replace(fresh, token)
        assert (await side.heard("answer"))[2] is RUNNING
        assert not [what for what in side.told if what[0] == "down"]

    play(scene)
    assert freezer.connections == 2


@pytest.mark.fz("FZ-014")
def test_a_token_that_stays_refused_means_no_freezer_said_once_and_tried_again(
    play: Callable[..., None], freezer: ScriptedFreezer
) -> None:
    freezer.script = lambda call: problem(Problem.FORBIDDEN)

    async def scene(side: Side) -> None:
        side.client.begin()
        assert await side.heard("down") == ("down", "refused: Not allowed")
        await threads(lambda: freezer.until(lambda: freezer.connections >= 4))
        assert side.told == []
        freezer.script = lambda call: None
        await side.heard("up")

    play(scene)


def test_a_token_that_is_not_there_yet_is_waited_for(
    play: Callable[..., None], freezer: ScriptedFreezer, token: Path
) -> None:
    token.unlink()

    async def scene(side: Side) -> None:
        side.client.begin()
        assert await side.heard("down") == ("down", "the token cannot be read")
        token.write_text("token-9")
        await side.heard("up")

    play(scene)
    assert freezer.calls[0].token == "token-9"


# === What goes wrong. ===


@pytest.mark.fz("FZ-014", "FZ-063")
def test_a_freezer_that_is_not_there_is_said_once_and_found_when_it_comes(
    play: Callable[..., None], freezer: ScriptedFreezer
) -> None:
    freezer.vanish()

    async def scene(side: Side) -> None:
        side.client.begin()
        assert "refused" in (await side.heard("down"))[1]
        while side.session.outage.failures < 4:
            await asyncio.sleep(0.005)
        assert side.told == []
        freezer.listen()
        await side.heard("up")

    play(scene)


GARBAGE = {
    "no http": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no length": b"HTTP/1.1 200 OK\r\n\r\n{}",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 3000,
    "no json": response(200, b"hello"),
    "not a view": response(200, b"{}"),
    "huge": b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n",
}


@pytest.mark.fz("FZ-063", "FZ-131")
@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_ends_the_connection_and_the_wish_is_said_again_on_another(
    play: Callable[..., None], freezer: ScriptedFreezer, garbage: bytes
) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        freezer.script = lambda call: garbage if call.connection == 1 else None
        assert await side.wished(FROZEN, 1) == ("answer", 1, FROZEN, "scripted")
        assert side.session.outage.faults == {Fault.GARBAGE: 1}

    play(scene)
    assert freezer.connections == 2


@pytest.mark.fz("FZ-063")
@pytest.mark.parametrize(
    ("loss", "fault"), [(HANG, Fault.TIMEOUT), (HANG_UP, Fault.CLOSED), (b"HTTP/1.1 200 OK\r\nCont", Fault.TIMEOUT)],
    ids=["no answer", "closed", "half an answer"],
)  # fmt: skip
def test_a_lost_answer_costs_one_attempt_not_the_wish(
    play: Callable[..., None], freezer: ScriptedFreezer, loss: bytes | str, fault: Fault
) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        freezer.script = lambda call: loss if call.connection == 1 else None
        began = monotonic()
        assert await side.wished(FROZEN, 1) == ("answer", 1, FROZEN, "scripted")
        assert side.session.outage.faults == {fault: 1}
        if fault is Fault.CLOSED:
            assert monotonic() - began < 0.3

    play(scene)
    assert [wish.generation for wish in freezer.puts] == [1, 1]


@pytest.mark.fz("FZ-063", "D-08")
def test_a_freezer_that_never_answers_is_bounded_in_time(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        freezer.script = lambda call: HANG
        began = monotonic()
        assert (await side.wished(FROZEN, 1))[2] is None
        assert 0.5 < monotonic() - began < 3.0
        await side.heard("down")

    play(scene)


@pytest.mark.fz("FZ-063")
def test_an_answer_in_single_bytes_is_an_answer(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    """A slow loris in time is just slow; its deadline is that of the whole answer."""

    async def scene(side: Side) -> None:
        await side.ready()

        def dribble(call: Call) -> str:
            whole = freezer._honest(call)
            (sock,) = freezer._open
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(len(whole)):
                sock.sendall(whole[at : at + 1])
            return HANG

        freezer.script = dribble
        assert (await side.wished(FROZEN, 1))[2] is FROZEN

    play(scene, BRISK._replace(attempt=PATIENCE, total=PATIENCE))


@pytest.mark.fz("FZ-062", "FZ-065")
@pytest.mark.parametrize(
    "which", [Problem.NOT_CONFIRMED, Problem.NOT_READY, Problem.RATE_LIMITED, Problem.TERMINAL],
    ids=lambda which: which.kind,
)  # fmt: skip
def test_a_refused_freeze_has_failed_and_the_connection_stays(
    play: Callable[..., None], freezer: ScriptedFreezer, which: Problem
) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        freezer.script = lambda call: problem(which, freezer.view()) if call.wish.generation == 1 else None
        assert await side.wished(FROZEN, 1) == ("answer", 1, None, "refused: scripted")
        assert (await side.wished(RUNNING, 2))[2] is RUNNING

    play(scene)
    assert freezer.connections == 1


@pytest.mark.fz("FZ-061", "FZ-068")
def test_a_freezer_that_counted_further_is_followed(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        freezer.generation = 41
        side.ask(FROZEN, 1)
        assert await side.heard("found") == ("found", 41, RUNNING)
        assert (await side.wished(RUNNING, 42))[2] is RUNNING

    play(scene)


@pytest.mark.fz("FZ-068")
def test_what_another_sidecar_left_behind_is_found(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    freezer.generation, freezer.rung = 17, FROZEN

    async def scene(side: Side) -> None:
        side.client.begin()
        assert await side.heard("found") == ("found", 17, FROZEN)
        assert (await side.wished(RUNNING, 18))[2] is RUNNING

    play(scene)


# === Leases, and freezers that come and go. ===


@pytest.mark.fz("FZ-090")
def test_a_sleep_is_renewed_under_its_own_generation(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    freezer.lease_s = 1.5

    async def scene(side: Side) -> None:
        await side.ready()
        await side.wished(FROZEN, 1)
        await threads(lambda: freezer.until(lambda: len(freezer.puts) >= 3))
        assert side.told == []

    play(scene)
    assert {(wish.wanted, wish.generation) for wish in freezer.puts} == {(Wanted.IDLE, 1)}


@pytest.mark.fz("FZ-055", "FZ-084", "FZ-111")
def test_a_renewal_tells_that_somebody_else_woke_the_app(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    freezer.lease_s = 1.5

    async def scene(side: Side) -> None:
        await side.ready()
        await side.wished(FROZEN, 1)
        freezer.rung = RUNNING
        assert await side.heard("woken") == ("woken", "thawed: from outside")

    play(scene)


@pytest.mark.fz("FZ-092")
def test_a_freezer_that_restarts_and_adopts_wakes_nobody(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        await side.wished(FROZEN, 1)
        freezer.vanish()
        freezer.listen()
        await threads(lambda: freezer.until(lambda: len(freezer.puts) == 2))
        assert side.told == [] and side.session.phase is Phase.READY

    play(scene)
    assert freezer.puts[1].generation == 1, "the lease is renewed under the same generation"


@pytest.mark.fz("FZ-092", "FZ-093")
def test_a_freezer_that_restarts_and_thawed_says_so(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        await side.wished(FROZEN, 1)
        freezer.vanish()
        freezer.rung, freezer.generation = RUNNING, 0
        freezer.listen()
        assert await side.heard("woken") == ("woken", "thawed: while the freezer was away")

    play(scene)


@pytest.mark.fz("FZ-046", "FZ-067")
def test_a_freezer_that_dies_while_the_app_sleeps_is_given_up_and_a_thaw_is_tried_for_ever(
    play: Callable[..., None], freezer: ScriptedFreezer
) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        await side.wished(FROZEN, 1)
        freezer.vanish()
        began = monotonic()
        await side.heard("down")
        assert monotonic() - began < 3.0
        assert (await side.wished(RUNNING, 2))[2] is None
        freezer.listen()
        await side.heard("up")
        assert (await side.wished(RUNNING, 2))[2] is RUNNING

    play(scene)


@pytest.mark.fz("FZ-036")
def test_a_wish_dials_at_once_whatever_the_backoff(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    patience = BRISK._replace(urgent_cap=60.0, backoff_cap=60.0, backoff=60.0)

    async def scene(side: Side) -> None:
        await side.ready()
        freezer.hang_up()
        while side.session.phase is Phase.READY:
            await asyncio.sleep(0.001)
        assert (await side.wished(FROZEN, 1))[2] is FROZEN

    play(scene, patience)
    assert freezer.connections == 2


# === The end. ===


@pytest.mark.fz("FZ-050", "FZ-051")
@pytest.mark.parametrize("asleep", [True, False], ids=["asleep", "awake"])
def test_the_end_is_said_with_a_generation_of_its_own(
    play: Callable[..., None], freezer: ScriptedFreezer, asleep: bool
) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        await side.wished(FROZEN, 1)
        if not asleep:
            await side.wished(RUNNING, 2)
        side.client.terminate()
        if asleep:
            assert (await side.wished(RUNNING, 2))[2] is RUNNING
        await threads(lambda: freezer.until(lambda: freezer.puts[-1].wanted is Wanted.TERMINATING))

    play(scene)
    assert freezer.puts[-1].generation == 3 and freezer.puts[-1].reason == "terminating"
    assert [wish.wanted for wish in freezer.puts].count(Wanted.TERMINATING) == 1


@pytest.mark.fz("FZ-051")
def test_the_end_is_not_said_for_ever(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        freezer.script = lambda call: HANG
        side.client.terminate()
        while side.session.errand.end_by > monotonic():
            await asyncio.sleep(0.01)
        said = len(freezer.puts)
        await threads(lambda: freezer.until(lambda: freezer.calls[-1].method == "GET"))
        assert len(freezer.puts) == said

    play(scene, BRISK._replace(terminate=0.5))


# === The daemon of old. ===


@pytest.mark.fz("FZ-069")
def test_a_daemon_of_old_is_spoken_to_in_its_own_words(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    freezer.old = True

    async def scene(side: Side) -> None:
        side.client.begin()
        assert await side.heard("found") == ("found", 0, FROZEN), "whatever it holds has to be resumed"
        assert (await side.heard("terms"))[1].throttle_after_s is None
        assert await side.heard("up") == ("up", "container-freezer")
        assert (await side.wished(RUNNING, 1))[2] is RUNNING
        assert (await side.wished(FROZEN, 2))[2] is FROZEN
        side.client.terminate()
        assert (await side.wished(RUNNING, 3))[2] is RUNNING

    play(scene)
    _, *posts = freezer.calls
    assert freezer.actions == [OldAction.RESUME, OldAction.PAUSE, OldAction.RESUME]
    assert posts[0].message.start == b"POST / HTTP/1.1" and posts[0].message.get("Token") == b"token-1"
    assert posts[0].message.get("Authorization") is None and posts[1].body == b'{"action":"pause"}'


@pytest.mark.fz("FZ-069", "FZ-097")
def test_a_node_that_was_upgraded_is_spoken_to_in_version_1(
    play: Callable[..., None], freezer: ScriptedFreezer
) -> None:
    freezer.old = True

    async def scene(side: Side) -> None:
        await side.ready()
        freezer.old = False
        freezer.hang_up()
        assert await side.heard("terms") == ("terms", EAGER)

    play(scene)


# === What it leaves behind. ===


def test_nothing_is_told_and_nothing_is_open_after_close(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        freezer.script = lambda call: HANG
        side.ask(FROZEN, 1)
        side.client.close()
        await threads(lambda: freezer.until(lambda: len(freezer.puts) == 1))
        assert side.told == [] and side.client._socket is None and side.client._timer is None

    play(scene)


def test_the_repr_names_the_place_and_no_secret(play: Callable[..., None], freezer: ScriptedFreezer) -> None:
    async def scene(side: Side) -> None:
        await side.ready()
        said = repr(side.client)
        assert str(freezer.port) in said and "READY" in said
        assert "token-1" not in said and "secret-1" not in said

    play(scene)
