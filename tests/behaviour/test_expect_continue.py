"""`Expect: 100-continue` and the other 1xx: somebody says 100 in time, and the final status always arrives (D01)."""

import time
from collections.abc import Iterator

import pytest

from tests.support.sidecar import BOTH_LOOPS, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("expect"), BOTH_LOOPS]


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop) as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


@pytest.mark.qp("QP-079", "QP-078")
@pytest.mark.parametrize("status", [200, 404])
def test_the_apps_100_is_relayed_once_and_then_its_real_status(pod: Pod, status: int) -> None:
    client = pod.client()
    client.ask("POST", "/", "Expect: 100-continue", "Content-Length: 4")
    asked = pod.origin.began()
    assert asked.message.get("expect") == b"100-continue"
    asked.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.head().start == b"HTTP/1.1 100 Continue"
    client.send(b"body")
    assert asked.wire.exactly(4) == b"body"
    asked.wire.answer(status)
    assert client.response().status == status
    client.ask("GET", "/next")
    pod.origin.request().wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-079")
def test_a_silent_app_is_spoken_for_after_a_second(pod: Pod) -> None:
    client = pod.client()
    began_at = time.monotonic()
    client.ask("POST", "/", "Expect: 100-continue", "Content-Length: 4")
    asked = pod.origin.began()
    assert client.head().status == 100
    assert 0.9 < time.monotonic() - began_at < 3
    asked.wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")  # too late: the client has heard it
    client.send(b"body")
    assert asked.wire.exactly(4) == b"body"
    asked.wire.answer(201)
    assert client.response().status == 201


@pytest.mark.qp("QP-079")
def test_an_early_refusal_reaches_the_client_and_ends_the_connection(pod: Pod) -> None:
    """Whether the body follows is unknown, so the next request could not be found."""
    client = pod.client()
    client.ask("POST", "/", "Expect: 100-continue", "Content-Length: 4")
    pod.origin.began().wire.answer(401, body=b"who?")
    answer = client.response()
    assert (answer.status, answer.get("connection")) == (401, b"close")
    assert client.rest() == b""
    pod.served()


@pytest.mark.qp("QP-079")
def test_a_body_that_does_not_wait_needs_no_100(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", "/", "Expect: 100-continue", body=b"body")
    asked = pod.origin.request()
    assert asked.message.body == b"body"
    asked.wire.answer()
    assert client.response().status == 200
    client.ask("GET", "/next")
    pod.origin.request().wire.answer()
    assert client.response().status == 200


def test_other_expectations_fail_here(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", "/", "Expect: a-miracle", body=b"body")
    answer = client.response()
    assert (answer.status, answer.get("connection"), answer.body) == (417, b"close", b"")
    assert client.gone()
    pod.served()


@pytest.mark.qp("QP-078")
@pytest.mark.parametrize("final", [200, 204, 404, 500])
def test_every_1xx_is_relayed_with_its_fields_and_the_final_status_follows(pod: Pod, final: int) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
    hints = client.head()
    assert (hints.status, hints.get("link")) == (103, b"</a.css>")
    wire.send(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n")
    assert client.head().status == 102
    assert client.head().get("link") == b"</b.css>"
    wire.send(b"HTTP/1.1 %d X\r\n" % final, b"" if final == 204 else b"Content-Length: 2\r\n", b"\r\n")
    if final != 204:
        wire.send(b"ok")
    answer = client.response()
    assert answer.status == final
    assert answer.get("link") is None
    client.ask("GET", "/next")
    pod.origin.request().wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-078")
def test_an_http_1_0_client_hears_no_1xx(pod: Pod) -> None:
    client = pod.client()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    answer = client.response()
    assert (answer.status, answer.body) == (200, b"ok")


@pytest.mark.qp("QP-078")
def test_a_1xx_and_then_death_is_a_502(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", body=b"x")
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    assert client.head().status == 103
    wire.close()
    assert client.response().status == 502
