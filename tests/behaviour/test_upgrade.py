"""Upgraded connections: bytes both ways, half-closes both ways, held as one request until the end (contract 1.3)."""

import threading
from collections.abc import Iterator

import pytest

from tests.support.rawhttp import Wire
from tests.support.sidecar import BOTH_LOOPS, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("upgrade"), BOTH_LOOPS]

BULK = 64 * 1024 * 1024
MEMORY = 12 * 1024 * 1024


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop, CONTAINER_CONCURRENCY="1") as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


def upgraded(pod: Pod, token: str = "websocket", *, early: bytes = b"", first: bytes = b"") -> tuple[Wire, Wire]:
    """(client, app) of an upgraded connection; early: sent by the client with its request, first: with the 101."""
    client = pod.client()
    client.send(f"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\r\n".encode(), early)
    asked = pod.origin.request()
    assert asked.message.get("upgrade") == token.encode()
    assert asked.message.get("connection") == b"Upgrade"
    asked.wire.send(
        f"HTTP/1.1 101 Whatever\r\nUpgrade: {token}\r\nConnection: upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n".encode(),
        first,
    )
    head = client.head()
    assert head.start == b"HTTP/1.1 101 Switching Protocols"
    assert head.get("upgrade") == token.encode()
    assert head.get("connection") == b"Upgrade"
    assert head.get("sec-websocket-accept") == b"x"
    return client, asked.wire


@pytest.mark.qp("QP-080")
@pytest.mark.parametrize("token", ["websocket", "WebSocket", "spdy/3.1", "anything/7"])
def test_bytes_go_both_ways_after_a_101(pod: Pod, token: str) -> None:
    client, app = upgraded(pod, token)
    for word in (b"\x81\x05hello", b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 300):
        client.send(word)
        assert app.exactly(len(word)) == word
        app.send(word[::-1])
        assert client.exactly(len(word)) == word[::-1]


@pytest.mark.qp("QP-080")
def test_bytes_that_came_with_the_heads_are_not_lost(pod: Pod) -> None:
    client, app = upgraded(pod, early=b"early", first=b"first")
    assert client.exactly(5) == b"first"
    assert app.exactly(5) == b"early"


@pytest.mark.qp("QP-080")
def test_a_half_close_of_the_client_lets_the_app_finish(pod: Pod) -> None:
    client, app = upgraded(pod)
    client.send(b"question")
    client.half_close()
    assert app.rest() == b"question"
    app.send(b"long ", b"answer")
    app.close()
    assert client.rest() == b"long answer"


@pytest.mark.qp("QP-080")
def test_a_half_close_of_the_app_lets_the_client_finish(pod: Pod) -> None:
    client, app = upgraded(pod)
    app.send(b"bye")
    app.half_close()
    assert client.rest() == b"bye"
    client.send(b"more", b" and more")
    client.half_close()
    assert app.rest() == b"more and more"


@pytest.mark.qp("QP-080")
def test_what_was_said_last_arrives_however_slow_the_listener(pod: Pod) -> None:
    """Both sides are done, but one of them has not read everything yet."""
    last = bytes(range(256)) * 4096 * 2  # 2 MiB
    for talker_is_client in (True, False):
        client, app = upgraded(pod)
        talker, listener = (client, app) if talker_is_client else (app, client)
        listener.half_close()
        assert talker.rest() == b""
        talking = threading.Thread(target=lambda talker=talker: (talker.send(last), talker.half_close()))
        talking.start()
        heard = listener.exactly(1)
        heard += listener.rest()
        talking.join()
        assert heard == last
        client.close()
        app.close()


@pytest.mark.qp("QP-080")
@pytest.mark.parametrize("leaver", ["client", "app"])
@pytest.mark.parametrize("how", ["close", "reset"])
def test_when_one_side_is_gone_the_other_is_let_go(pod: Pod, leaver: str, how: str) -> None:
    client, app = upgraded(pod)
    leaving, staying = (client, app) if leaver == "client" else (app, client)
    getattr(leaving, how)()
    if how == "close":  # an end is only half of it: the kernel tells about the rest when something is sent
        assert staying.drained() in ("end", "reset")
        staying.close()
    else:
        assert staying.gone()
    pod.served()  # with one slot: it was given back


@pytest.mark.qp("QP-080", "QP-357")
@pytest.mark.parametrize("talker_is_client", [True, False], ids=["client talks", "app talks"])
def test_a_side_that_does_not_read_stops_the_other_outside_our_memory(pod: Pod, talker_is_client: bool) -> None:
    client, app = upgraded(pod)
    talker, listener = (client, app) if talker_is_client else (app, client)
    before = pod.sidecar.rss
    talker.sock.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < BULK:
            sent += talker.sock.send(b"x" * (1 << 18))
    assert pod.sidecar.rss - before < MEMORY
    assert len(listener.exactly(sent)) == sent


@pytest.mark.qp("QP-081")
def test_a_switch_to_something_else_is_a_502(pod: Pod) -> None:
    client = pod.client()
    client.ask("GET", "/", "Connection: Upgrade", "Upgrade: websocket")
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: spdy\r\nConnection: upgrade\r\n\r\n")
    answer = client.response()
    assert answer.status == 502
    assert answer.body == b'backend tried to switch protocol "spdy" when "websocket" was requested\n'
    assert wire.gone()
    pod.served()


@pytest.mark.qp("QP-082")
@pytest.mark.parametrize("status", [200, 400, 426])
def test_an_app_that_does_not_switch_is_an_ordinary_answer(pod: Pod, status: int) -> None:
    client = pod.client()
    client.ask("GET", "/", "Connection: Upgrade", "Upgrade: websocket")
    pod.origin.request().wire.answer(status, body=b"no")
    answer = client.response()
    assert (answer.status, answer.body) == (status, b"no")
    client.ask("GET", "/next")
    pod.origin.request().wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-144", "QP-154")
def test_an_upgraded_connection_holds_its_slot_and_counts_until_it_ends(pod: Pod) -> None:
    client, app = upgraded(pod)
    second = pod.client()
    second.ask("GET", "/second")
    stat = pod.sidecar.whole_stat()
    assert stat["average_concurrent_requests"] == pytest.approx(2.0, rel=0.01)
    assert "request_count" not in stat
    assert pod.origin.idle
    client.close()
    app.close()
    asked = pod.origin.request()
    assert asked.target == b"/second"
    asked.wire.answer()
    assert second.response().status == 200
    assert pod.sidecar.all_zero()
