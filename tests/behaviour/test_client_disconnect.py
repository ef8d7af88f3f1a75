"""A client that leaves takes its request with it, at whatever stage (QP-086)."""

from collections.abc import Iterator

import pytest

from tests.support.sidecar import BOTH_LOOPS, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("disconnect"), BOTH_LOOPS]

HOWS = pytest.mark.parametrize("how", ["close", "reset", "half_close"])


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop, CONTAINER_CONCURRENCY="1") as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    """Whatever happened, the one slot is free afterwards and nothing stray reaches the app."""
    yield
    pod.fresh()
    assert pod.served()
    pod.fresh()


@HOWS
@pytest.mark.qp("QP-086")
def test_before_the_answer(pod: Pod, how: str) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    getattr(client, how)()
    assert wire.gone()


@HOWS
@pytest.mark.qp("QP-086")
def test_in_the_middle_of_the_upload(pod: Pod, how: str) -> None:
    client = pod.client()
    client.ask("POST", "/", "Content-Length: 1000")
    client.send(b"some")
    wire = pod.origin.began().wire
    assert wire.exactly(4) == b"some"
    getattr(client, how)()
    assert wire.gone()


@HOWS
@pytest.mark.qp("QP-086")
def test_in_the_middle_of_a_chunked_upload(pod: Pod, how: str) -> None:
    """The app must not take what came for the whole."""
    client = pod.client()
    client.ask("POST", "/", "Transfer-Encoding: chunked")
    client.send(b"4\r\nsome\r\n")
    wire = pod.origin.began().wire
    assert wire.chunk() == b"some"
    getattr(client, how)()
    try:
        assert wire.rest() == b""
    except ConnectionResetError:
        pass


@HOWS
@pytest.mark.qp("QP-086")
def test_in_the_middle_of_the_answer(pod: Pod, how: str) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    client.until(b"hi\r\n")
    getattr(client, how)()
    assert wire.gone()


@pytest.mark.qp("QP-086")
def test_in_the_middle_of_an_answer_it_does_not_read(pod: Pod) -> None:
    client = pod.client(receive=4096)
    client.ask()
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    wire.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        while True:
            wire.sock.send(b"x" * 65536)
    wire.sock.settimeout(15)
    client.reset()
    assert wire.gone()


@HOWS
@pytest.mark.qp("QP-086", "QP-153")
def test_while_waiting_for_a_slot(pod: Pod, how: str) -> None:
    first = pod.client()
    first.ask("GET", "/first")
    at_app = pod.origin.request()
    second = pod.client()
    second.ask("GET", "/second")
    getattr(second, how)()
    third = pod.client()
    third.ask("GET", "/third")
    pod.noticed()
    if how == "half_close":
        assert second.rest() == b""
    at_app.wire.answer()
    assert first.response().status == 200
    asked = pod.origin.request()
    assert asked.target == b"/third"
    asked.wire.answer()
    assert third.response().status == 200


@pytest.mark.qp("QP-086")
def test_in_the_middle_of_the_head(pod: Pod) -> None:
    client = pod.client()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-")
    client.reset()


@pytest.mark.qp("QP-086", "QP-132")
def test_hundreds_of_them_leave_nothing_counted(pod: Pod) -> None:
    clients = [pod.client() for _ in range(11)]
    for _ in range(30):
        for client in clients:
            client.ask("GET", "/flood")
        for client in clients:
            client.reset()
        clients = [pod.client() for _ in range(11)]
    pod.fresh()
    assert pod.sidecar.all_zero()
