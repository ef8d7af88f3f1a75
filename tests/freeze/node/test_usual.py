"""A wish with the head that a connection always sends: known by its digest, and read no otherwise than by the codec."""

import asyncio
import os
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queueproxy.freeze.node.call import Call
from queueproxy.freeze.node.port import Port
from queueproxy.freeze.node.server import SidecarConnection
from queueproxy.freeze.node.sessions import Sessions
from queueproxy.freeze.node.usual import UsualHead
from queueproxy.freeze.wire import MAX_BODY, StateRequest, Wanted, encode_request
from queueproxy.log import LineWriter, Log
from tests.freeze.node.test_call import call
from tests.support.freezer_calls import ScriptedDesk, ScriptedDoor, get, old, put

TOKEN = "token-of-11111111-1111-1111-1111-111111111111"
KEY = sha256(TOKEN.encode()).digest()


def wish(generation: int, wanted: Wanted = Wanted.IDLE) -> bytes:
    return put(TOKEN, encode_request(StateRequest(wanted, generation, reason="idle")), secret="secret")


LEARNT = wish(7)


def learnt(data: bytes = LEARNT) -> UsualHead | None:
    return UsualHead.learnt(data, call(data), KEY)


def of(read: Call | None) -> Any:
    return None if read is None else (read.kind, read.secret, read.keep, read.minor, read.problem, read.body)


@pytest.mark.parametrize("again", [LEARNT, wish(8), wish(123_456_789), wish(9, Wanted.ACTIVE)])
def test_the_same_head_with_another_body_is_the_same_call_with_that_body(again: bytes) -> None:
    usual = learnt()
    assert usual is not None and usual.key == KEY
    assert of(usual.call(again)) == of(call(again))


HEAD, _, BODY = LEARNT.partition(b"\r\n\r\n")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(get(TOKEN), id="no body"),
        pytest.param(old(TOKEN, "pause"), id="the protocol of old"),
        pytest.param(LEARNT.replace(b"HTTP/1.1", b"HTTP/1.0"), id="1.0"),
        pytest.param(HEAD + b"\r\nConnection: close\r\n\r\n" + BODY, id="the last one"),
        pytest.param(HEAD + b"\r\nX-Last: 1\r\n\r\n" + BODY, id="another last line"),
        pytest.param(put(TOKEN, b" " * (MAX_BODY + 1)), id="too large"),
        pytest.param(LEARNT + b"G", id="more than one message"),
    ],
)
def test_other_heads_are_not_learnt(data: bytes) -> None:
    assert learnt(data) is None


@pytest.mark.parametrize(
    "length",
    [b"", b"0", b"-1", b"+77", b"077", b" 77", b"77 ", b"7_7", b"77, 77", b"\xb7\xb7", b"99999999", b"76", b"78"],
)
def test_a_length_that_is_not_plainly_that_of_what_follows_goes_the_long_way(length: bytes) -> None:
    usual = learnt()
    at = HEAD.rindex(b" ") + 1
    body = b"x" * 77
    assert usual is not None and usual.call(HEAD[:at] + b"77\r\n\r\n" + body) is not None
    assert usual.call(HEAD[:at] + length + b"\r\n\r\n" + body) is None


def test_neither_token_nor_secret_is_told() -> None:
    assert TOKEN not in repr(learnt()) and "secret" not in repr(learnt())


class Wire:
    """What a connection writes, and whether it ended."""

    def __init__(self) -> None:
        self.said = b""
        self.ended = False

    def write(self, data: bytes) -> None:
        self.said += data

    def get_extra_info(self, name: str) -> object:
        return ("10.0.0.9", 4711) if name == "peername" else None

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def outcome(pieces: list[bytes], *, forgets: bool) -> tuple[object, ...]:
    """Of a connection that has learnt its head, or of one that forgets it each time: answers, wishes, and its end."""

    async def story() -> tuple[object, ...]:
        null = os.open(os.devnull, os.O_WRONLY)
        desk, door, wire = ScriptedDesk(), ScriptedDoor(), Wire()
        loop = asyncio.get_running_loop()
        port = Port(loop, door, desk, Sessions(lambda: "secret"), Log(LineWriter(null)))
        connection = SidecarConnection(port)
        connection.connection_made(wire)  # type: ignore[arg-type]
        for piece in [wish(5), wish(6), *pieces]:
            connection.data_received(piece)
            if forgets:
                connection._usual = None
        assert port.errors == 0 and (door.again == 0) is forgets
        waits = (connection._timer is not None, len(connection._calls), connection._reader.state)
        said = [line for line in wire.said.split(b"\r\n") if not line.startswith(b"Date:")]
        os.close(null)
        connection.drop()
        return said, desk.asks, wire.ended, waits

    return asyncio.run(story())


def mutilated(at: int, instead: bytes, gone: int, cut: int) -> list[bytes]:
    data = LEARNT[:at] + instead + LEARNT[at + gone :]
    return [piece for piece in (data[:cut], data[cut:]) if piece]


@pytest.mark.fz("FZ-131")
@given(
    st.builds(
        mutilated,
        st.integers(0, len(LEARNT)),
        st.binary(max_size=3) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"0", b"1", LEARNT]),
        st.integers(0, 3),
        st.integers(0, len(LEARNT) + 8),
    )
)
@example([LEARNT, LEARNT])
@example([LEARNT + LEARNT])
@example([LEARNT + get(TOKEN)])
@example([LEARNT[:-1], LEARNT[-1:] + LEARNT])
def test_whatever_comes_after_it_is_answered_as_if_nothing_had_been_learnt(pieces: list[bytes]) -> None:
    pieces = [*pieces, wish(9)]
    assert outcome(pieces, forgets=False) == outcome(pieces, forgets=True)


@pytest.mark.fz("FZ-126", "FZ-129")
def test_the_token_the_session_and_the_rate_are_looked_at_each_time() -> None:
    async def story() -> None:
        null = os.open(os.devnull, os.O_WRONLY)
        desk, door = ScriptedDesk(), ScriptedDoor()
        uid, secrets = TOKEN.removeprefix("token-of-"), iter(["secret", "other"])
        sessions = Sessions(lambda: next(secrets))
        port = Port(asyncio.get_running_loop(), door, desk, sessions, Log(LineWriter(null)))
        connection, wire = SidecarConnection(port), Wire()
        connection.connection_made(wire)  # type: ignore[arg-type]
        connection.data_received(wish(1))
        connection.data_received(wish(2))
        assert door.again == 1 and len(desk.asks) == 2
        door.wait = 1.0
        connection.data_received(wish(3))
        assert b" 429 " in wire.said and len(desk.asks) == 2
        sessions.forget(uid)
        sessions.enter(uid, "another connection", None)
        connection.data_received(wish(4))
        assert door.again == 3 and b" 403 " in wire.said and len(desk.asks) == 2
        door.only = frozenset()
        connection.data_received(wish(5))
        assert door.again == 3 and b" 401 " in wire.said
        os.close(null)
        connection.drop()

    asyncio.run(story())
