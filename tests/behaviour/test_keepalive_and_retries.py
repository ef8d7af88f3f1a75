"""Connections are kept, on both sides, and one that died meanwhile hurts nobody (contract 1.3, 3.12)."""

from collections.abc import Iterator

import pytest

from tests.support.sidecar import BOTH_LOOPS, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("keepalive"), BOTH_LOOPS]


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop) as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


@pytest.mark.qp("QP-048", "QP-203")
def test_one_connection_to_the_app_serves_request_after_request(pod: Pod) -> None:
    client = pod.client()
    for i in range(20):
        client.ask("GET", f"/{i}")
        asked = pod.origin.request()
        assert (asked.target, asked.number) == (b"/%d" % i, 1)
        asked.wire.answer()
        assert client.response().status == 200
    assert pod.origin.accepted == 1


@pytest.mark.qp("QP-203")
def test_connections_to_the_app_are_shared_between_clients(pod: Pod) -> None:
    for _ in range(5):
        client = pod.client()
        client.ask()
        asked = pod.origin.request()
        asked.wire.answer()
        client.response()
        client.close()
        assert asked.number == 1


@pytest.mark.qp("QP-204")
def test_any_number_of_requests_run_at_once_on_connections_of_their_own(pod: Pod) -> None:
    clients = [pod.client() for _ in range(150)]
    for i, client in enumerate(clients):
        client.ask("GET", f"/{i}")
    asked = pod.origin.requests(150)
    assert {one.number for one in asked} == set(range(1, 151))
    for one in asked:
        one.wire.answer(body=one.target)
    for i, client in enumerate(clients):
        assert client.response().body == b"/%d" % i


@pytest.mark.qp("QP-202")
def test_a_repeatable_request_survives_an_app_that_hangs_up_on_it(pod: Pod) -> None:
    """The app's keep-alive timer and our request cross on the wire."""
    client = pod.client()
    for method in ("GET", "HEAD", "OPTIONS", "TRACE"):
        client.ask("GET", "/warm")
        warm = pod.origin.request()
        warm.wire.answer()
        client.response()
        client.ask(method, "/again")
        first = pod.origin.request()
        assert first.wire is warm.wire
        first.wire.close()
        second = pod.origin.request()
        assert (second.target, second.message.start) == (b"/again", first.message.start)
        assert second.wire is not first.wire
        second.wire.answer()
        assert client.response(to=method).status == 200


@pytest.mark.qp("QP-202")
@pytest.mark.parametrize("field", ["Idempotency-Key: 1", "X-Idempotency-Key: 1"])
def test_a_client_may_declare_its_bodiless_post_repeatable(pod: Pod, field: str) -> None:
    client = pod.client()
    client.ask()
    pod.origin.request().wire.answer()
    client.response()
    client.ask("POST", "/key", field)
    pod.origin.request().wire.close()
    pod.origin.request().wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-202")
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "GET with body"])
def test_other_requests_are_never_sent_twice(pod: Pod, method: str) -> None:
    verb, _, body = method.partition(" with ")
    client = pod.client()
    client.ask()
    pod.origin.request().wire.answer()
    client.response()
    client.ask(verb, "/once", body=body.encode())
    pod.origin.request().wire.close()
    assert client.response().status == 502
    pod.served()


@pytest.mark.qp("QP-202")
def test_a_retry_happens_once(pod: Pod) -> None:
    client = pod.client()
    client.ask()
    pod.origin.request().wire.answer()
    client.response()
    client.ask("GET", "/twice")
    pod.origin.request().wire.close()
    pod.origin.request().wire.close()
    assert client.response().status == 502
    pod.served()


@pytest.mark.qp("QP-202")
def test_a_fresh_connection_that_dies_is_not_retried(pod: Pod) -> None:
    client = pod.client()
    client.ask("GET", "/once")
    pod.origin.request().wire.close()
    assert client.response().status == 502
    pod.served()


@pytest.mark.qp("QP-202")
def test_a_post_does_not_meet_a_connection_that_ended_while_idle(pod: Pod) -> None:
    """Many times, because the end and the request race each other to the event loop."""
    client = pod.client()
    for i in range(50):
        client.ask("GET", "/warm")
        warm = pod.origin.request()
        warm.wire.answer()
        client.response()
        warm.wire.close()
        client.ask("POST", f"/{i}", body=b"precious")
        asked = pod.origin.request()
        assert (asked.target, asked.message.body) == (b"/%d" % i, b"precious")
        asked.wire.answer()
        assert client.response().status == 200
        asked.wire.close()


@pytest.mark.qp("QP-202")
def test_bytes_nobody_asked_for_never_become_an_answer(pod: Pod) -> None:
    client = pod.client()
    for method in ("GET", "POST"):
        client.ask("GET", "/first")
        wire = pod.origin.request().wire
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        assert client.response().body == b"ok"
        client.ask(method, "/second")
        asked = pod.origin.request()
        assert asked.wire is not wire
        asked.wire.answer(body=b"good")
        assert client.response().body == b"good"


def test_an_app_that_says_close_is_dialled_anew(pod: Pod) -> None:
    client = pod.client()
    client.ask()
    pod.origin.request().wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    client.response()
    client.ask()
    asked = pod.origin.request()
    assert asked.number == 2
    asked.wire.send(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
    client.response()
    client.ask()
    third = pod.origin.request()
    assert third.number == 3
    third.wire.answer()
    client.response()


def test_pipelined_requests_are_answered_in_order_one_at_a_time(pod: Pod) -> None:
    client = pod.client()
    client.send(
        b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none",
        b"POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\n\r\n",
        b"GET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /probe HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\n\r\n",
        b"GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    )
    for number, body in enumerate((b"one", b"two", b"")):
        asked = pod.origin.request()
        assert (asked.target, asked.message.body) == (b"/%d" % (number + 1), body)
        assert pod.origin.idle
        asked.wire.answer(body=asked.target)
        assert client.response().body == asked.target
    assert client.response().body == b"queue"
    last = pod.origin.request()
    last.wire.answer(body=last.target)
    assert client.response().body == b"/4"
    assert client.rest() == b""


def test_a_thousand_pipelined_requests_in_one_write(pod: Pod) -> None:
    client = pod.client()
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(1000)))
    for i in range(1000):
        asked = pod.origin.request()
        assert asked.target == b"/%d" % i
        asked.wire.answer(body=asked.target)
    for i in range(1000):
        assert client.response().body == b"/%d" % i


@pytest.mark.parametrize("step", [1, 7, 33])
def test_a_request_may_come_in_any_pieces(pod: Pod, step: int) -> None:
    raw = (
        b"\r\nPOST /p?q HTTP/1.1\r\nHost: a.example\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: v\r\n\r\n"
    )
    client = pod.client()
    for at in range(0, len(raw), step):
        client.send(raw[at : at + step])
    asked = pod.origin.request()
    assert (asked.target, asked.message.body, asked.message.trailers) == (b"/p?q", b"abcde", [(b"T", b"v")])
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;e\r\nok\r\n0\r\nU: w\r\n\r\n"
    for at in range(0, len(answer), step):
        asked.wire.send(answer[at : at + step])
    got = client.response()
    assert (got.body, got.trailers) == (b"ok", [(b"U", b"w")])


@pytest.mark.qp("QP-041")
@pytest.mark.parametrize(
    ("lines", "says", "stays"),
    [(b"", b"close", False), (b"Connection: keep-alive\r\n", b"keep-alive", True)],
    ids=["plain", "keep-alive"],
)
def test_an_http_1_0_connection_is_kept_only_when_asked(pod: Pod, lines: bytes, says: bytes, stays: bool) -> None:
    client = pod.client()
    client.send(b"GET / HTTP/1.0\r\nHost: a\r\n", lines, b"\r\n")
    pod.origin.request().wire.answer()
    answer = client.response()
    assert answer.get("connection") == says
    if stays:
        client.ask("GET", "/next")
        pod.origin.request().wire.answer()
        assert client.response().status == 200
    else:
        assert client.rest() == b""


def test_a_client_that_says_close_is_closed(pod: Pod) -> None:
    client = pod.client()
    client.ask("GET", "/", "Connection: close")
    asked = pod.origin.request()
    assert asked.message.get("connection") is None
    asked.wire.answer()
    assert client.response().get("connection") == b"close"
    assert client.rest() == b""
