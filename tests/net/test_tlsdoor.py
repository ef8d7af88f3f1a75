"""Who gets to shake hands, when, and who is shown out: a real door on loopback, its limits made small."""

import gc
import ssl
from collections.abc import Coroutine
from typing import Any

import pytest

from queueproxy.net import tlsdoor
from queueproxy.net.keypair import KeyPair
from queueproxy.net.tls import make_context
from queueproxy.net.tlsdoor import BEGIN_PER_TURN, CLEARTEXT, NOT_TLS, TlsDoor
from queueproxy.net.tlsterms import Terms
from tests.support.tlsends import LOOPS, Client, Ends, Run, Told, ends
from tests.support.tlspair import client_context, made, mount
from tests.support.waiting import until
from tests.support.wires import Clock, Loop

BOTH = ("h2", "http/1.1")


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> list[ssl.SSLContext]:
    """Two, with different certificates."""
    folder = tmp_path_factory.mktemp("certs")
    found = []
    for name in ("one", "two"):
        pair = KeyPair.mounted(str(mount(folder / name, made(folder, f"kn-user-{name}"))))
        assert pair is not None
        found.append(make_context(pair, Terms(), BOTH))
    return found


def hello() -> bytes:
    ours = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        client_context().wrap_bio(ssl.MemoryBIO(), ours).do_handshake()
    return ours.read()


@LOOPS
@pytest.mark.qp("QP-322")
@pytest.mark.parametrize(
    ("offered", "spoken"),
    [((), "http/1.1"), (("http/1.1",), "http/1.1"), (("http/1.1", "h2"), "h2"), (("h2",), "h2")],
    ids=["none", "old", "both", "new"],
)
def test_alpn_chooses_from_the_table(
    run: Run, contexts: list[ssl.SSLContext], offered: tuple[str, ...], spoken: str
) -> None:
    async def scene() -> None:
        async with ends(lambda: contexts[0], *BOTH) as here:
            client = await here.client(client_context(alpn=offered))
            client.writer.write(b"hi")
            await until(lambda: here.made and here.made[0].data == b"hi")
            assert here.made[0].spoken == spoken
            client.drop()

    run(scene())


@LOOPS
@pytest.mark.qp("QP-323")
def test_each_handshake_asks_for_the_present_context(run: Run, contexts: list[ssl.SSLContext]) -> None:
    async def scene() -> None:
        turn = [contexts[0]]
        async with ends(lambda: turn[0], *BOTH) as here:
            first = await here.client()
            turn[0] = contexts[1]
            second = await here.client()
            shown = [
                client.writer.get_extra_info("ssl_object").getpeercert(binary_form=True) for client in (first, second)
            ]
            assert shown[0] != shown[1]
            first.writer.write(b"still")
            await until(lambda: here.made[0].data == b"still")
            first.drop()
            second.drop()

    run(scene())


@LOOPS
@pytest.mark.qp("QP-326")
def test_cleartext_is_answered_though_more_of_it_comes(run: Run, contexts: list[ssl.SSLContext]) -> None:
    async def scene() -> None:
        async with ends(lambda: contexts[0]) as here:
            client = await here.bare(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n" + b"x" * 100_000)
            assert await client.reader.read() == CLEARTEXT
            client.drop()
            assert here.told.lines == [] and here.made == []

    run(scene())


@LOOPS
def test_the_oldest_of_too_many_silent_connections_makes_room(
    run: Run, contexts: list[ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlsdoor, "WAITING_MAX", 3)

    async def scene() -> None:
        async with ends(lambda: contexts[0]) as here:
            silent = []
            for count in range(1, 6):
                silent.append(await here.bare())
                await until(lambda count=count: f"waiting={min(count, 3)}" in repr(here.door))
            for early in silent[:2]:
                assert await early.ended() == b""
            assert not any(late.reader.at_eof() for late in silent[2:])
            fine = await here.client()
            await until(lambda: len(here.made) == 1)
            for client in (*silent, fine):
                client.drop()

    run(scene())


@LOOPS
@pytest.mark.qp("QP-350")
def test_handshakes_that_stall_make_room_for_those_that_wait(
    run: Run, contexts: list[ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SHAKING_MAX", 2), ("MAKE_ROOM_AFTER", 0.1), ("SWEEP", 0.05)):
        monkeypatch.setattr(tlsdoor, name, value)

    async def scene() -> None:
        async with ends(lambda: contexts[0]) as here:
            stalled = [await here.bare(hello()) for _ in range(6)]
            await until(lambda: "queued=4 shaking=2" in repr(here.door))
            fine = await here.client()  # after four others, who had their time
            await until(lambda: len(here.made) == 1)
            for client in (*stalled, fine):
                client.drop()
            await until(lambda: "queued=0 shaking=0" in repr(here.door))

    run(scene())


@LOOPS
@pytest.mark.parametrize("part", [0, 3, 100, 10_000], ids=["silent", "no header", "half a hello", "a hello"])
def test_a_handshake_has_a_minute(
    run: Run, contexts: list[ssl.SSLContext], monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    assert tlsdoor.HANDSHAKE_FOR == 60.0
    for name, value in (("HANDSHAKE_FOR", 0.2), ("SWEEP", 0.05)):
        monkeypatch.setattr(tlsdoor, name, value)

    async def scene() -> None:
        async with ends(lambda: contexts[0]) as here:
            client = await here.bare(hello()[:part])
            await client.ended()
            client.drop()
            await until(lambda: "waiting=0 queued=0 shaking=0" in repr(here.door))
            assert len(here.told.reasons) == 1

    run(scene())


@LOOPS
def test_a_flood_before_the_handshake_is_cut_off(run: Run, contexts: list[ssl.SSLContext]) -> None:
    """No client says more than its hello before it is answered."""

    async def scene() -> None:
        async with ends(lambda: contexts[0]) as here:
            client = await here.bare(b"\x16\x03\x01\x3f\xff" + b"x" * 200_000)
            await client.ended()
            client.drop()
            await until(lambda: "waiting=0 queued=0 shaking=0" in repr(here.door))
            assert here.made == []

    run(scene())


@LOOPS
def test_failures_are_told_once_a_second_with_the_number_of_the_others(
    run: Run, contexts: list[ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    clock.now = 1000.0
    monkeypatch.setattr(tlsdoor, "monotonic", clock)

    async def scene() -> None:
        async with ends(lambda: contexts[0]) as here:

            async def fail() -> None:
                client = await here.bare(b"garbage")
                await client.ended()
                client.drop()

            for _ in range(5):
                await fail()
            assert here.told.reasons == [NOT_TLS]
            assert here.told.lines[0][0] == "http: TLS handshake error"
            assert str(here.told.lines[0][1]["client"]).startswith("127.0.0.1:")
            clock.now += 1.0
            await fail()
            assert here.told.lines[1][1]["moreBefore"] == 4

    run(scene())


@LOOPS
def test_closing_ends_what_is_not_https_yet_and_nothing_else(run: Run, contexts: list[ssl.SSLContext]) -> None:
    async def scene() -> None:
        async with ends(lambda: contexts[0]) as here:
            fine, silent, stalled = await here.client(), await here.bare(), await here.bare(hello())
            await until(lambda: "waiting=1 queued=0 shaking=1" in repr(here.door))
            here.door.close()
            for client in (silent, stalled):
                await client.ended()
                client.drop()
            fine.writer.write(b"alive")
            await until(lambda: here.made[0].data == b"alive")
            fine.drop()
            late = await here.bare(b"x")
            assert await late.ended() == b""
            late.drop()
            assert here.told.lines == [], "nobody is to blame"

    run(scene())


@LOOPS
def test_a_client_is_told_why_not(run: Run, contexts: list[ssl.SSLContext]) -> None:
    async def scene() -> None:
        async with ends(lambda: contexts[0]) as here:
            with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
                await here.client(client_context(newest="1.2"))
            await until(lambda: here.told.reasons)
            assert here.told.reasons == ["tls: unsupported protocol"]

    run(scene())


@LOOPS
@pytest.mark.qp("QP-353")
def test_without_descriptors_a_handshake_fails_and_gives_its_place_back(
    run: Run, contexts: list[ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(fd: int) -> int:
        raise OSError(24, "Too many open files")

    async def scene() -> None:
        async with ends(lambda: contexts[0]) as here:
            with monkeypatch.context() as short:
                short.setattr(tlsdoor.os, "dup", none_left)
                client = await here.bare(hello())
                assert await client.ended() == b""
            assert here.told.reasons == ["[Errno 24] Too many open files"]
            assert "waiting=0 queued=0 shaking=0" in repr(here.door)
            await here.client()
            await until(lambda: len(here.made) == 1)

    run(scene())


@pytest.mark.slow
@LOOPS
@pytest.mark.qp("QP-353")
def test_nothing_is_left_of_a_connection_without_the_collector(run: Run, contexts: list[ssl.SSLContext]) -> None:
    """A sidecar's collector looks every 20,000 objects; 200 KB per connection may not wait for it."""

    async def visit(here: Ends) -> None:
        clients: list[Client] = [await here.client() for _ in range(3)]
        clients[0].writer.write(b"x" * 100_000)
        await until(lambda: len(here.made) == 3 and len(here.made[0].data) == 100_000)
        for client in clients[:2]:
            client.writer.close()
        here.made[2].transport.close()
        await until(lambda: all(talker.lost for talker in here.made))
        for client in clients:
            client.drop()

    async def scene() -> None:
        async with ends(lambda: contexts[0]) as here:
            await visit(here)
            here.made.clear()
            await until(lambda: not here.all)

    gc.collect()
    gc.disable()
    try:
        run(scene())
    finally:
        gc.enable()


class Tasks(Loop):
    """Counts the handshakes that are begun, and begins none."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.begun = 0

    def create_task(self, task: Coroutine[Any, Any, None]) -> Any:
        task.close()
        self.begun += 1
        return object()


class Step:
    """As much of a doorstep as a queue needs."""

    address = "a"
    came_at = begun_at = 0.0

    def __init__(self) -> None:
        self.transport = self
        self.aborted = False

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


@pytest.mark.qp("QP-350")
def test_only_so_many_handshakes_begin_per_turn_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten at once are ten signatures: requests get their turns in between."""
    monkeypatch.setattr(tlsdoor, "SHAKING_MAX", 11)
    loop: Any = Tasks()
    door: Any = TlsDoor(loop, lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), {}, Told())
    steps = [Step() for _ in range(15)]
    for step in steps:
        door.came(step)
    steps[1].abort()
    for step in steps:
        door.said_hello(step)
    begun = []
    while loop._ready:
        loop._ready.pop(0).run()
        begun.append(loop.begun)
    assert begun == [BEGIN_PER_TURN - 1, 2 * BEGIN_PER_TURN - 1, 11]
    assert "queued=3 shaking=11" in repr(door)
