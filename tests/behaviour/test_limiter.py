"""The concurrency limit: N run, ten times N wait in order, the next is refused, no place is lost (contract 4)."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.rawhttp import Wire
from tests.support.sidecar import Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("limiter")]


@pytest.fixture(
    scope="module",
    params=[(1, "uvloop"), (10, "uvloop"), (1, "asyncio")],
    ids=["one on uvloop", "ten on uvloop", "one on asyncio"],
)
def limited(request: pytest.FixtureRequest) -> Iterator[tuple[Pod, int]]:
    concurrency, loop = request.param
    with one_pod(loop=loop, CONTAINER_CONCURRENCY=str(concurrency)) as pod:
        yield pod, concurrency


@pytest.fixture(autouse=True)
def clean(limited: tuple[Pod, int]) -> Iterator[None]:
    yield
    limited[0].fresh()
    assert limited[0].served()


def ask(pod: Pod, name: str, *lines: str) -> Wire:
    """A request of that name; it has been counted when this returns."""
    client = pod.client()
    client.ask("GET", f"/{name}", *lines)
    pod.noticed()
    return client


@contextmanager
def full_house(pod: Pod, concurrency: int) -> Iterator[tuple[list[Wire], list[Wire]]]:
    """(running, waiting): every place is taken."""
    running = [ask(pod, f"run{i}") for i in range(concurrency)]
    waiting = []
    for i in range(10 * concurrency):
        client = pod.client()
        client.ask("GET", f"/wait{i}")
        pod.noticed()
        waiting.append(client)
    yield running, waiting


@pytest.mark.qp("QP-150", "QP-151", "QP-156", "QP-205")
def test_eleven_times_n_are_taken_in_order_and_the_next_is_refused(limited: tuple[Pod, int]) -> None:
    pod, n = limited
    with full_house(pod, n) as (running, waiting):
        at_app = pod.origin.requests(n)
        assert pod.origin.idle  # never more than N at the app (QP-150)
        for _ in range(3):
            refused = pod.client()
            refused.ask("GET", "/over")
            answer = refused.response()
            assert (answer.status, answer.body) == (503, b"pending request queue full\n")
            assert answer.get("content-type") == b"text/plain; charset=utf-8"
            assert answer.get("x-content-type-options") == b"nosniff"
            assert answer.get("retry-after") is None
            assert answer.get("connection") is None
        assert {asked.target for asked in at_app} == {b"/run%d" % i for i in range(n)}
        for i in range(10 * n):
            at_app.pop(0).wire.answer()
            asked = pod.origin.request()
            assert asked.target == b"/wait%d" % i
            assert pod.origin.idle
            at_app.append(asked)
        for asked in at_app:
            asked.wire.answer()
        for client in (*running, *waiting):
            assert client.response().status == 200


@pytest.mark.qp("QP-153")
def test_a_place_left_by_a_waiting_client_is_free_at_once_and_it_never_reaches_the_app(
    limited: tuple[Pod, int],
) -> None:
    pod, n = limited
    with full_house(pod, n) as (_, waiting):
        at_app = pod.origin.requests(n)
        for i in (0, 3, 10 * n - 1):
            waiting[i].reset()
        pod.noticed()
        newcomers = [ask(pod, f"new{i}") for i in range(3)]
        over = pod.client()
        over.ask()
        assert over.response().status == 503
        expected = [f"/wait{i}" for i in range(10 * n) if i not in (0, 3, 10 * n - 1)] + ["/new0", "/new1", "/new2"]
        for name in expected:
            at_app.pop(0).wire.answer()
            asked = pod.origin.request()
            assert asked.target == name.encode()
            at_app.append(asked)
        for asked in at_app:
            asked.wire.answer()
        for client in newcomers:
            assert client.response().status == 200


@pytest.mark.qp("QP-154")
def test_a_slot_is_held_until_the_end_of_the_body(limited: tuple[Pod, int]) -> None:
    pod, n = limited
    clients = [ask(pod, f"run{i}") for i in range(n)]
    at_app = pod.origin.requests(n)
    next_one = ask(pod, "next")
    at_app[0].wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    client = next(c for i, c in enumerate(clients) if at_app[0].target == b"/run%d" % i)
    client.head()
    assert client.chunk() == b"hi"
    assert pod.origin.idle
    at_app[0].wire.send(b"0\r\n\r\n")
    asked = pod.origin.request()
    assert asked.target == b"/next"
    for one in (*at_app[1:], asked):
        one.wire.answer()
    assert next_one.response().status == 200


@pytest.mark.qp("QP-132", "QP-153")
@pytest.mark.parametrize("fate", ["client leaves", "app dies", "app babbles", "cut in the body", "early answer"])
def test_every_end_gives_the_slot_back(limited: tuple[Pod, int], fate: str) -> None:
    pod, n = limited
    for _ in range(2 * n + 1):
        client = pod.client()
        client.ask("POST", "/", "Content-Length: 10")
        wire = pod.origin.began().wire
        if fate == "client leaves":
            client.reset()
            assert wire.gone()
        elif fate == "app dies":
            wire.close()
            assert client.response().status == 502
        elif fate == "app babbles":
            wire.send(b"what?\r\n\r\n")
            assert client.response().status == 502
        elif fate == "cut in the body":
            wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
            client.head()
            wire.close()
            assert client.rest() == b"half"
        else:
            wire.answer(403)
            assert client.response().status == 403
    assert pod.sidecar.all_zero()


@pytest.mark.qp("QP-157")
def test_marked_requests_pass_the_limit(limited: tuple[Pod, int]) -> None:
    pod, n = limited
    clients = [ask(pod, f"run{i}") for i in range(n)]
    at_app = pod.origin.requests(n)
    marked = pod.client()
    marked.ask("GET", "/marked", "K-Kubelet-Probe: x")
    asked = pod.origin.request()
    assert asked.target == b"/marked"
    asked.wire.answer()
    assert marked.response().status == 200
    for one in at_app:
        one.wire.answer()
    for client in clients:
        assert client.response().status == 200


@pytest.mark.qp("QP-112")
def test_health_checks_are_answered_while_every_place_is_taken(limited: tuple[Pod, int]) -> None:
    pod, n = limited
    with full_house(pod, n) as (running, waiting):
        assert pod.sidecar.health().status == 200
        # Those that wait first, and seen to: a place that is freed goes to whoever is not yet known to have left.
        for client in waiting:
            client.reset()
        pod.noticed()
        for client in running:
            client.reset()


@pytest.mark.qp("QP-151")
def test_a_waiting_upload_arrives_whole_and_a_large_one_is_not_read_meanwhile(limited: tuple[Pod, int]) -> None:
    pod, n = limited
    clients = [ask(pod, f"run{i}") for i in range(n)]
    at_app = pod.origin.requests(n)
    small, large = pod.client(), pod.client()
    small.ask("POST", "/small", body=b"s" * 5000)
    pod.noticed()
    before = pod.sidecar.rss
    size = 64 * 1024 * 1024
    large.ask("POST", "/large", f"Content-Length: {size}")
    large.sock.settimeout(0.5)
    sent = 0
    with pytest.raises(TimeoutError):
        while sent < size:
            sent += large.sock.send(b"l" * min(65536, size - sent))
    assert pod.sidecar.rss - before < 8 * 1024 * 1024
    at_app.pop(0).wire.answer()
    asked = pod.origin.request()
    assert (asked.target, asked.message.body) == (b"/small", b"s" * 5000)
    asked.wire.answer()
    assert small.response().status == 200
    asked = pod.origin.began()
    assert asked.target == b"/large"
    assert asked.wire.exactly(sent) == b"l" * sent
    large.reset()
    assert asked.wire.gone()
    for one in at_app:
        one.wire.answer()
    del clients
