"""Every row of the error table, as a client sees it (contract 3.13)."""

from collections.abc import Iterator

import pytest

from tests.support.rawhttp import Message
from tests.support.sidecar import BOTH_LOOPS, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("errors"), BOTH_LOOPS]


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop) as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


def is_plain_502(answer: Message) -> bool:
    return (
        answer.status == 502
        and answer.get("content-type") == b"text/plain; charset=utf-8"
        and answer.get("x-content-type-options") == b"nosniff"
        and answer.body.count(b"\n") == 1
        and answer.body.endswith(b"\n")
    )


@pytest.mark.qp("QP-200", "QP-201", "QP-205", "QP-311")
def test_an_app_that_does_not_listen_is_a_502_at_once_and_the_connection_stays(pod: Pod) -> None:
    pod.origin.refuse()
    client = pod.client()
    client.ask()
    answer = client.response()
    assert is_plain_502(answer)
    assert answer.body == b"dial tcp 127.0.0.1:8080: connect: connection refused\n"
    logged = pod.sidecar.heard("error reverse proxying request")
    assert logged["severity"] == "ERROR"
    assert logged["error"] == "dial tcp 127.0.0.1:8080: connect: connection refused"
    pod.origin.listen()
    client.ask("GET", "/again")
    pod.origin.request().wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-200", "QP-205")
def test_an_app_that_hangs_up_without_a_word_is_a_502(pod: Pod) -> None:
    client = pod.client()
    client.ask()
    pod.origin.request().wire.close()
    answer = client.response()
    assert is_plain_502(answer)
    assert answer.body == b"EOF\n"


@pytest.mark.qp("QP-200")
def test_an_app_that_resets_is_a_502(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", body=b"x")
    pod.origin.request().wire.reset()
    assert is_plain_502(client.response())


@pytest.mark.qp("QP-200")
def test_half_a_head_and_then_nothing_is_a_502(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", body=b"x")
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    wire.close()
    assert is_plain_502(client.response())


MALFORMED = {
    "no http": b"hello world\r\n\r\n",
    "http 0.9": b"<html>hi</html>",
    "status is a word": b"HTTP/1.1 world OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
    "bad field name": b"HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length is a word": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "unknown encoding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
    "encoding twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "folded field": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "http/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "tls": b"\x15\x03\x01\x00\x02\x02\x46",
    "101 nobody asked for": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
}


@pytest.mark.qp("QP-200")
@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
def test_an_answer_that_is_not_http_1_is_a_502_and_the_client_connection_stays(pod: Pod, raw: bytes) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    wire.send(raw)
    assert is_plain_502(client.response())
    assert wire.gone()
    client.ask("GET", "/again")
    pod.origin.request().wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-084")
def test_a_sized_answer_that_ends_early_is_cut_short(pod: Pod) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    wire.close()
    assert client.head().status == 200
    assert client.rest() == b"half"


@pytest.mark.qp("QP-084")
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_chunked_answer_that_dies_is_never_completed(pod: Pod, how: str) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    client.head()
    assert client.chunk() == b"half"
    getattr(wire, how)()
    assert client.rest() == b""


@pytest.mark.qp("QP-084")
@pytest.mark.parametrize("raw", [b"zz\r\n", b"4\r\ntoolong\r\n", b"0\r\nbad trailer\r\n\r\n"])
def test_a_chunked_answer_with_broken_framing_is_never_completed(pod: Pod, raw: bytes) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", raw)
    client.head()
    assert client.chunk() == b"half"
    assert b"0\r\n\r\n" not in client.rest()


@pytest.mark.qp("QP-084")
def test_an_http_1_0_client_sees_a_reset_where_only_that_can_tell(pod: Pod) -> None:
    """Its answer ends with the connection, so an orderly end would look complete."""
    client = pod.client()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    client.until(b"half")
    wire.close()
    assert client.drained() == "reset"


@pytest.mark.qp("QP-084")
def test_an_unsized_answer_that_is_reset_is_never_completed(pod: Pod) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
    client.head()
    assert client.chunk() == b"half"
    wire.reset()
    assert client.rest() == b""


@pytest.mark.qp("QP-053")
@pytest.mark.parametrize("bad", [b"zz\r\n", b"5\r\nhello!!\r\n", b"-1\r\n", b"5\nhello\r\n"])
def test_a_bad_chunk_of_the_client_is_a_502_and_the_end_of_its_connection(pod: Pod, bad: bytes) -> None:
    client = pod.client()
    client.ask("POST", "/", "Transfer-Encoding: chunked")
    client.send(b"2\r\nok\r\n")
    wire = pod.origin.began().wire
    assert wire.chunk() == b"ok"
    client.send(bad)
    answer = client.response()
    assert is_plain_502(answer)
    assert answer.get("connection") == b"close"
    assert client.gone()
    assert wire.gone()


@pytest.mark.qp("QP-132")
def test_after_all_of_this_nothing_is_counted_as_running(pod: Pod) -> None:
    assert pod.sidecar.all_zero()
