"""The sidecars' port over real sockets: one call, many calls, and callers that misbehave."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from queueproxy.freeze.node.port import Admission, Port
from queueproxy.freeze.node.server import SidecarConnection, plain_address
from queueproxy.freeze.node.sessions import Sessions
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import OldAction, Problem, StateRequest, Wanted
from queueproxy.log import LineWriter, Log
from tests.support.freezer_calls import Caller, Reply, ScriptedDesk, ScriptedDoor, get, old, put

POD, OTHER = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
TOKEN, OTHERS_TOKEN = f"token-of-{POD}", f"token-of-{OTHER}"
IDLE = {"state": "idle", "generation": 7, "lease_s": 30, "reason": "quiet"}
ACTIVE = {"state": "active", "generation": 8, "reason": "request"}


class Served:
    """A port on loopback with scripted parts behind it."""

    def __init__(self, port: Port, number: int, door: ScriptedDoor, desk: ScriptedDesk) -> None:
        self.port = port
        self.number = number
        self.door = door
        self.desk = desk
        self._callers: list[Caller] = []

    async def dial(self, source: str = "") -> Caller:
        caller = await Caller.dial(self.number, source=source)
        self._callers.append(caller)
        return caller

    async def close(self) -> None:
        for caller in self._callers:
            caller.close()
        for caller in self._callers:
            await caller.closed()

    async def once(self, data: bytes) -> Reply:
        """On a connection of its own."""
        caller = await self.dial()
        try:
            return await caller.call(data)
        finally:
            caller.close()


@asynccontextmanager
async def serving(log_fd: int = -1, **options: object) -> AsyncIterator[Served]:
    loop = asyncio.get_running_loop()
    null = os.open(os.devnull, os.O_WRONLY) if log_fd < 0 else log_fd
    door, desk, numbers = ScriptedDoor(), ScriptedDesk(), count(1)
    port = Port(loop, door, desk, Sessions(lambda: f"secret-{next(numbers)}"), Log(LineWriter(null)), **options)
    server = await loop.create_server(lambda: SidecarConnection(port), "127.0.0.1", 0)
    served = Served(port, server.sockets[0].getsockname()[1], door, desk)
    try:
        yield served
        if log_fd < 0:
            assert port.errors == 0, "something raised inside"
    finally:
        await served.close()
        port.close()
        server.close()
        await server.wait_closed()
        if log_fd < 0:
            os.close(null)


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Awaitable[None]], None]:
    return uvloop.run if request.param == "uvloop" else asyncio.run


# -- one call


@pytest.mark.fz("FZ-060", "FZ-129")
def test_a_sidecar_is_told_its_session_once_and_then_moves_its_pod(run: Callable) -> None:
    async def story() -> None:
        async with serving() as served:
            caller = await served.dial()
            first = await caller.call(get(TOKEN))
            assert (first.status, first.headers["content-type"]) == (200, "application/json")
            assert first.json["session"] == "secret-1" and first.json["policy"]["mode"] == "freeze"
            asleep = await caller.call(put(TOKEN, IDLE, secret="secret-1"))
            assert asleep.status == 200 and "session" not in asleep.json
            assert (asleep.json["state"], asleep.json["generation"]) == ("frozen", 7)
            assert (asleep.json["mechanism"], asleep.json["took_us"]) == ("cgroup2", 120)
            assert served.desk.asks == [(POD, StateRequest(Wanted.IDLE, 7, 30.0, "quiet", Rung.FROZEN))]

    run(story())


def test_the_first_call_may_be_a_wish_and_carries_the_session_too(run: Callable) -> None:
    async def story() -> None:
        async with serving() as served:
            assert (await served.once(put(TOKEN, ACTIVE))).json["session"] == "secret-1"

    run(story())


@pytest.mark.fz("FZ-060", "FZ-125", "FZ-127", "FZ-131", "FZ-134")
@pytest.mark.parametrize(
    ("request_bytes", "status", "kind"),
    [
        pytest.param(put("nobody", ACTIVE), 401, "unauthenticated", id="a token nobody knows"),
        pytest.param(put("", ACTIVE), 401, "unauthenticated", id="an empty token"),
        pytest.param(put(TOKEN, ACTIVE).replace(b"Bearer", b"Basic"), 401, "unauthenticated", id="another scheme"),
        pytest.param(put(TOKEN, ACTIVE).replace(b"Authorization", b"X-Auth"), 401, "unauthenticated", id="no token"),
        pytest.param(put(TOKEN, ACTIVE, path="/v2/pods/self/state"), 404, "not-found", id="another version"),
        pytest.param(put(TOKEN, ACTIVE, path=f"/v1/pods/{OTHER}/state"), 404, "not-found", id="another pod by name"),
        pytest.param(put(TOKEN, ACTIVE, path="/v1/pods/self/state?uid=x"), 404, "not-found", id="a query"),
        pytest.param(put(TOKEN, ACTIVE).replace(b"PUT", b"PATCH"), 404, "not-found", id="another method"),
        pytest.param(get(TOKEN).replace(b"GET", b"HEAD"), 404, "not-found", id="HEAD"),
        pytest.param(put(TOKEN, b"{"), 400, "malformed", id="half a body"),
        pytest.param(put(TOKEN, b""), 400, "malformed", id="no body"),
        pytest.param(put(TOKEN, b"\xff\xfe"), 400, "malformed", id="no text"),
        pytest.param(put(TOKEN, b"[" * 4000), 400, "malformed", id="a deep body"),
        pytest.param(put(TOKEN, {"state": "frozen", "generation": 1}), 400, "malformed", id="a state there is not"),
        pytest.param(put(TOKEN, {"state": "idle", "generation": -1}), 400, "malformed", id="a generation below zero"),
        pytest.param(put(TOKEN, b" " * 4097), 413, "too-large", id="a body over 4 KiB"),
        pytest.param(get("x" * 4096), 413, "too-large", id="a head over 4 KiB, just"),
        pytest.param(
            put(TOKEN, ACTIVE).replace(b"Host", b"Authorization: Bearer x\r\nHost"), 400, "malformed", id="two tokens"
        ),
        pytest.param(
            put(TOKEN, ACTIVE, secret="a").replace(b"Host", b"Queueproxy-Session: b\r\nHost"), 400, "malformed",
            id="two secrets",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_a_problem(request_bytes: bytes, status: int, kind: str) -> None:
    async def story() -> None:
        async with serving() as served:
            caller = await served.dial()
            reply = await caller.call(request_bytes)
            assert (reply.status, reply.kind, reply.json["status"]) == (status, kind, status)
            assert served.desk.asks == []
            if kind in ("unauthenticated", "not-found", "too-large"):
                assert reply.headers["connection"] == "close" and await caller.ended() == b""

    uvloop.run(story())


def test_a_chunked_body_counts_like_any_other() -> None:
    async def story() -> None:
        head = put(TOKEN, b"").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        async with serving() as served:
            body = b'{"state":"active","generation":8}'
            assert (await served.once(head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))).status == 200
            too_much = b"1000\r\n" + b" " * 4096 + b"\r\n1\r\n \r\n0\r\n\r\n"
            assert (await served.once(head + too_much)).kind == "too-large"

    uvloop.run(story())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: n\r\n\r\n", 413, id="a head over 4 KiB"),
        pytest.param(b"GET / HTTP/1.1\r\nX: " + b"a" * 5000, 413, id="half a head over 4 KiB"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", 400, id="TLS to a plain port"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no host"),
    ],
)
def test_what_is_not_http_gets_one_word_and_the_end(data: bytes, status: int) -> None:
    async def story() -> None:
        async with serving() as served:
            caller = await served.dial()
            assert (await caller.call(data)).status == status
            assert await caller.ended() == b""

    uvloop.run(story())


@pytest.mark.fz("FZ-062", "D-01")
def test_a_state_that_the_kernel_did_not_confirm_is_never_a_success() -> None:
    async def story() -> None:
        async with serving() as served:
            served.desk.refusal = (Problem.NOT_CONFIRMED, "timed out")
            for wish in (IDLE, ACTIVE):
                reply = await served.once(put(TOKEN, wish))
                assert (reply.status, reply.kind, reply.json["detail"]) == (502, "not-confirmed", "timed out")
            assert (await served.once(old(TOKEN, "resume"))).status == 500

    uvloop.run(story())


# -- who may speak


@pytest.mark.fz("FZ-129")
def test_a_token_without_the_secret_is_locked_out_while_its_sidecar_is_connected(run: Callable) -> None:
    async def story() -> None:
        async with serving() as served:
            sidecar = await served.dial()
            secret = (await sidecar.call(get(TOKEN))).json["session"]
            for attempt in (get(TOKEN), put(TOKEN, IDLE), put(TOKEN, IDLE, secret="guess")):
                assert (await served.once(attempt)).kind == "session-required"
            assert (await served.once(old(TOKEN, "pause"))).status == 403
            assert served.desk.asks == []
            assert (await sidecar.call(put(TOKEN, IDLE, secret=secret))).status == 200

    run(story())


@pytest.mark.fz("FZ-068")
def test_a_sidecar_that_starts_anew_gets_a_new_session_at_once(run: Callable) -> None:
    async def story() -> None:
        async with serving() as served:
            first = await served.dial()
            await first.call(get(TOKEN))
            first.close()
            async with asyncio.timeout(10):
                while served.port.known:
                    await asyncio.sleep(0)
            assert (await served.once(get(TOKEN))).json["session"] == "secret-2"

    run(story())


def test_a_connection_speaks_for_one_pod_only() -> None:
    async def story() -> None:
        async with serving() as served:
            caller = await served.dial()
            await caller.call(get(TOKEN))
            assert (await caller.call(get(OTHERS_TOKEN))).kind == "forbidden"
            assert (await caller.call(old(OTHERS_TOKEN, "pause"))).status == 403
            assert (await caller.call(get(TOKEN))).status == 200

    uvloop.run(story())


def test_forbidden_is_one_body_whatever_the_reason() -> None:
    async def story() -> None:
        async with serving() as served:
            served.door.refused = {f"token-{n}": Admission("", Problem.FORBIDDEN) for n in range(2)}
            first, second = [await served.once(get(f"token-{n}")) for n in range(2)]
            assert first.status == 403 and first.body == second.body

    uvloop.run(story())


def test_who_comes_too_often_is_told_when_to_come_back() -> None:
    async def story() -> None:
        async with serving() as served:
            served.door.refused = {"x": Admission("", Problem.RATE_LIMITED, 1.7)}
            reply = await served.once(get("x"))
            assert (reply.status, reply.kind, reply.headers["retry-after"]) == (429, "rate-limited", "2")

    uvloop.run(story())


@pytest.mark.fz("FZ-130")
def test_a_token_that_knocks_too_often_without_its_session_is_cut_off() -> None:
    async def story() -> None:
        async with serving() as served:
            sidecar = await served.dial()
            await sidecar.call(get(TOKEN))
            served.door.annoyed = True
            for attempt in (get(TOKEN), old(TOKEN, "pause")):
                intruder = await served.dial()
                intruder.send(attempt)
                assert await intruder.ended() == b""
            assert served.port.cut_off["locked out"] == 2

    uvloop.run(story())


@pytest.mark.fz("FZ-130")
def test_a_flood_of_freezes_is_refused_and_one_of_thaws_only_slowed() -> None:
    async def story() -> None:
        async with serving() as served:
            caller = await served.dial()
            await caller.call(get(TOKEN))
            served.door.wait = 0.02
            reply = await caller.call(put(TOKEN, IDLE))
            assert (reply.kind, reply.json["retry_after_s"], served.desk.asks) == ("rate-limited", 0.02, [])
            served.door.wait = 0.02
            began = asyncio.get_running_loop().time()
            assert (await caller.call(put(TOKEN, ACTIVE))).status == 200
            assert asyncio.get_running_loop().time() - began >= 0.015
            served.door.wait = 0.02
            assert (await caller.call(put(TOKEN, ACTIVE | {"state": "terminating"}))).status == 200

    uvloop.run(story())


def test_a_pod_that_is_gone_loses_its_connection_and_its_session() -> None:
    async def story() -> None:
        async with serving() as served:
            sidecar, other = await served.dial(), await served.dial()
            await sidecar.call(get(TOKEN))
            await other.call(get(OTHERS_TOKEN))
            served.port.gone(POD)
            assert await sidecar.ended() == b""
            assert (await other.call(get(OTHERS_TOKEN))).status == 200
            assert (await served.once(get(TOKEN))).json["session"] == "secret-3"

    uvloop.run(story())


# -- the protocol of old


@pytest.mark.fz("FZ-069")
def test_a_queue_proxy_of_old_is_served(run: Callable) -> None:
    async def story() -> None:
        async with serving() as served:
            caller = await served.dial()
            for action in ("pause", "resume"):
                reply = await caller.call(old(TOKEN, action))
                assert (reply.status, reply.body) == (200, b"")
            assert served.desk.asks == [(POD, OldAction.PAUSE), (POD, OldAction.RESUME)]

    run(story())


@pytest.mark.fz("FZ-069")
@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(old(TOKEN, "pause").replace(b"Token", b"X-Token"), 400, id="no token"),
        pytest.param(old("nobody", "pause"), 403, id="a token nobody knows"),
        pytest.param(old(TOKEN, "sleep"), 404, id="another action"),
        pytest.param(old(TOKEN, "pause").replace(b"{", b"["), 400, id="no JSON"),
    ],
)
def test_what_is_wrong_gets_the_status_that_the_daemon_of_old_gave(data: bytes, status: int) -> None:
    async def story() -> None:
        async with serving() as served:
            reply = await served.once(data)
            assert (reply.status, reply.body, served.desk.asks) == (status, b"", [])

    uvloop.run(story())


def test_the_protocol_of_old_can_be_switched_off() -> None:
    async def story() -> None:
        async with serving(old_protocol=False) as served:
            assert (await served.once(old(TOKEN, "pause"))).status == 404

    uvloop.run(story())


# -- many calls


@pytest.mark.fz("FZ-032", "FZ-061")
def test_a_thaw_is_looked_at_while_the_freeze_before_it_still_waits(run: Callable) -> None:
    async def story() -> None:
        async with serving() as served:
            caller = await served.dial()
            served.desk.hold = True
            caller.send(put(TOKEN, IDLE))
            async with asyncio.timeout(10):
                while not served.desk.held:
                    await asyncio.sleep(0)
            served.desk.hold = False
            caller.send(put(TOKEN, ACTIVE))
            async with asyncio.timeout(10):
                while len(served.desk.asks) < 2:
                    await asyncio.sleep(0)
            served.desk.held[0](None, Problem.STALE_GENERATION, "overtaken")
            first, second = await caller.reply(), await caller.reply()
            assert (first.status, second.status) == (409, 200), "and answers keep the order of the requests"

    run(story())


def test_pipelining_is_harmless_however_deep(run: Callable) -> None:
    async def story() -> None:
        async with serving() as served:
            caller = await served.dial()
            wishes = [put(TOKEN, ACTIVE | {"generation": n}) for n in range(500)]
            caller.send(b"".join(wishes))
            assert [(await caller.reply()).json["generation"] for _ in wishes] == list(range(500))

    run(story())


def test_only_a_few_calls_of_one_connection_wait_at_a_time(run: Callable) -> None:
    async def story() -> None:
        async with serving() as served:
            caller = await served.dial()
            served.desk.hold = True
            caller.send(b"".join(put(TOKEN, IDLE | {"generation": n}) for n in range(20)))
            answered = []
            while len(answered) < 20:
                async with asyncio.timeout(10):
                    while not served.desk.held:
                        await asyncio.sleep(0)
                assert len(served.desk.held) <= 4
                served.desk.held.pop(0)(None, None, "")
                answered.append((await caller.reply()).json["generation"])
            assert answered == list(range(20))

    run(story())


def test_a_review_that_takes_long_holds_nobody_else_up() -> None:
    async def story() -> None:
        async with serving() as served:
            served.door.hold = True
            slow = await served.dial()
            slow.send(get(TOKEN))
            async with asyncio.timeout(10):
                while not served.door.held:
                    await asyncio.sleep(0)
            served.door.hold = False
            assert (await served.once(get(OTHERS_TOKEN))).status == 200
            served.door.held[TOKEN](Admission(POD))
            assert (await slow.reply()).status == 200

    uvloop.run(story())


@pytest.mark.fz("D-36")
def test_an_answer_that_comes_after_its_caller_has_gone_hurts_nobody() -> None:
    async def story() -> None:
        async with serving() as served:
            served.desk.hold = served.door.hold = True
            left_at_the_door = await served.dial()
            left_at_the_door.send(get(TOKEN))
            async with asyncio.timeout(10):
                while not served.door.held:
                    await asyncio.sleep(0)
            served.door.hold = False
            left_at_the_desk = await served.dial()
            left_at_the_desk.send(put(OTHERS_TOKEN, IDLE))
            async with asyncio.timeout(10):
                while not served.desk.held:
                    await asyncio.sleep(0)
            left_at_the_desk.close()
            left_at_the_door.close()
            async with asyncio.timeout(10):
                while served.port.known or served.port.strangers:
                    await asyncio.sleep(0)
            served.door.held[TOKEN](Admission(POD))
            served.desk.held[0](None, None, "")
            assert repr(served.port) == "<Port known=0 strangers=0 errors=0>"

    uvloop.run(story())


# -- callers that misbehave


@pytest.mark.slow
@pytest.mark.fz("FZ-134")
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="silence"),
        pytest.param(b"PUT /v1/pods/self/state HTTP/1.1\r\nHost: n\r\n", id="half a head"),
        pytest.param(put(TOKEN, ACTIVE)[:-1], id="half a body"),
        pytest.param(b"\r\n", id="an empty line"),
    ],
)
def test_a_request_that_takes_too_long_is_cut_off(data: bytes) -> None:
    async def story() -> None:
        async with serving(read_for=0.05) as served:
            caller = await served.dial()
            caller.send(data)
            assert await caller.ended() == b"" and served.port.cut_off["slow"] == 1

    uvloop.run(story())


@pytest.mark.slow
@pytest.mark.fz("FZ-134")
def test_dripping_bytes_buys_no_time() -> None:
    async def story() -> None:
        async with serving(read_for=0.1) as served:
            caller = await served.dial()
            for byte in put(TOKEN, ACTIVE):
                caller.send(bytes([byte]))
                await asyncio.sleep(0.01)
            assert await caller.ended() == b"" and served.port.cut_off["slow"] == 1

    asyncio.run(story())


@pytest.mark.slow
def test_a_known_sidecar_may_be_silent_for_ever_but_not_half_way_through_a_request() -> None:
    async def story() -> None:
        async with serving(read_for=0.05) as served:
            caller = await served.dial()
            await caller.call(get(TOKEN))
            await asyncio.sleep(0.2)  # four times what a stranger gets
            assert (await caller.call(get(TOKEN))).status == 200
            caller.send(b"GET /v1")
            assert await caller.ended() == b""

    uvloop.run(story())


@pytest.mark.fz("FZ-134")
def test_a_full_house_drops_strangers_and_never_sidecars() -> None:
    async def story() -> None:
        async with serving(most=3, per_source=0) as served:
            sidecars = [await served.dial() for _ in range(2)]
            for sidecar, token in zip(sidecars, (TOKEN, OTHERS_TOKEN), strict=True):
                await sidecar.call(get(token))
            strangers = [await served.dial() for _ in range(10)]
            for stranger in strangers[:-1]:
                assert await stranger.ended() == b""
            assert (await sidecars[0].call(get(TOKEN))).status == 200
            assert (await strangers[-1].call(get("token-of-third"))).status == 200
            last = await served.dial()
            assert await last.ended() == b"", "full of sidecars: nobody else gets in"
            assert served.port.cut_off["full"] == 10

    uvloop.run(story())


@pytest.mark.fz("FZ-130", "FZ-134")
def test_one_source_gets_only_so_many_connections() -> None:
    async def story() -> None:
        async with serving(per_source=2) as served:
            greedy = [await served.dial("127.0.0.2") for _ in range(3)]
            assert await greedy[2].ended() == b"" and served.port.cut_off["source"] == 1
            assert (await served.once(get(TOKEN))).status == 200
            greedy[0].close()
            async with asyncio.timeout(10):
                while served.port.sources["127.0.0.2"] > 1:
                    await asyncio.sleep(0)
            again = await served.dial("127.0.0.2")
            assert (await again.call(get(TOKEN))).status == 200

    uvloop.run(story())


@pytest.mark.fz("FZ-102", "FZ-131")
def test_a_fault_of_ours_costs_one_connection_and_tells_the_log_no_secret(tmp_path) -> None:
    async def story() -> None:
        fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        async with serving(fd) as served:
            served.desk.broken = True
            caller = await served.dial()
            caller.send(put(TOKEN, ACTIVE, secret="s3cret"))
            assert await caller.ended() == b"" and served.port.errors == 1
            served.desk.broken = False
            assert (await served.once(put(TOKEN, ACTIVE))).status == 200

    uvloop.run(story())
    said = (tmp_path / "log").read_text()
    assert "KeyError" in said and "freezer_calls.py" in said
    assert TOKEN not in said and "s3cret" not in said and "secret of" not in said


_PIECES = st.lists(
    st.one_of(
        st.binary(max_size=80),
        st.sampled_from([
            put(TOKEN, IDLE), put(TOKEN, ACTIVE, secret="secret-1"), get(TOKEN), get("nobody"), old(TOKEN, "pause"),
            put(TOKEN, b"{}"), b"PUT /v1/pods/self/state HTTP/1.1\r\n", b"Host: n\r\n", b"Content-Length: 5\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n", b"\r\n", b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"\x00" * 9,
            b"Authorization: Bearer " + TOKEN.encode() + b"\r\n", b'{"state":"idle","generation":1}', b"Token: \r\n",
        ]),
    ),
    min_size=1, max_size=12,
)  # fmt: skip


class _Wire(asyncio.Transport):
    """Collects what is written; enough of a transport to feed millions of inputs through without sockets."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written = 0
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed and data.startswith(b"HTTP/1.1 ")
        self.written += 1

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def _feed(loop: asyncio.AbstractEventLoop, pieces: list[bytes]) -> None:
    """One hostile connection, from the accept to the end; whatever it says, nothing raises and nothing leaks."""
    log = Log(LineWriter(2))
    door, desk = ScriptedDoor(), ScriptedDesk()
    door.only = frozenset({TOKEN})
    port = Port(loop, door, desk, Sessions(lambda: "secret-1"), log)
    connection, wire = SidecarConnection(port), _Wire()
    connection.connection_made(wire)
    for piece in pieces:
        if piece and not wire.closed:
            connection.data_received(piece)
    assert port.errors == 0
    connection.connection_lost(None)
    assert not port.known and not port.strangers and not port.sources
    assert {uid for uid, _ in desk.asks} <= {POD}


@pytest.mark.slow
@pytest.mark.fz("FZ-131")
@settings(max_examples=300, deadline=None)
@given(_PIECES)
def test_malformed_anything_never_raises(pieces: list[bytes]) -> None:
    loop = asyncio.new_event_loop()
    try:
        _feed(loop, pieces)
    finally:
        loop.close()


@pytest.mark.long
@pytest.mark.fz("FZ-131")
def test_a_million_mutilated_inputs_never_raise() -> None:
    """`FREEZER_FUZZ` inputs, a seed that the failure names."""
    seed = int(os.environ.get("FREEZER_FUZZ_SEED", "1"))
    rounds = int(os.environ.get("FREEZER_FUZZ", "1000000"))
    dice = random.Random(seed)
    good = [put(TOKEN, IDLE), put(TOKEN, ACTIVE, secret="secret-1"), get(TOKEN), old(TOKEN, "pause"), get("x")]
    loop = asyncio.new_event_loop()
    try:
        for number in range(rounds):
            pieces = []
            for _ in range(dice.randint(1, 3)):
                data = bytearray(dice.choice(good))
                for _ in range(dice.randint(0, 6)):
                    at = dice.randrange(len(data))
                    kind = dice.randrange(4)
                    if kind == 0:
                        data[at] = dice.randrange(256)
                    elif kind == 1:
                        del data[at : at + dice.randint(1, 40)]
                    elif kind == 2:
                        data[at:at] = dice.randbytes(dice.randint(1, 8))
                    else:
                        data[at:at] = data[at : at + dice.randint(1, 60)]
                    if not data:
                        data = bytearray(b"\r\n")
                cut = dice.randrange(len(data))
                pieces += [bytes(data[:cut]), bytes(data[cut:])]
            try:
                _feed(loop, pieces)
            except Exception as error:
                raise AssertionError(f"seed {seed}, input {number}: {pieces!r}") from error
    finally:
        loop.close()


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("10.0.0.7", "10.0.0.7"),
        ("::ffff:10.0.0.7", "10.0.0.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("fd00::7", "fd00::7"),
        ("::ffff:1", "::ffff:1"),
    ],
)
def test_addresses_are_written_as_the_api_server_writes_them(host: str, plain: str) -> None:
    assert plain_address(host) == plain
