"""Every hostile answer against the real process: what the client gets, and that the next client gets only its own."""

import os
import re
import signal
from collections.abc import Iterator

import pytest

from tests.hostile.corpus import Case, corpus
from tests.support.rawhttp import Message, Wire
from tests.support.sidecar import ONE_LOOP, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("hostile responses"), ONE_LOOP]

ASK = {"GET": ("GET", ()), "HEAD": ("HEAD", ()), "upgrade": ("GET", ("Connection: Upgrade", "Upgrade: x"))}
POISON = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop, CONTAINER_CONCURRENCY="1") as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


def said(client: Wire) -> tuple[bytes, Message]:
    """(all heads, the Date we added left out; the final one)."""
    heads = b""
    while True:
        message = client.head()
        heads += message.head
        if message.status >= 200:
            return re.sub(rb"\r\nDate: [^\r]+ GMT\r\n", b"\r\nDate: D\r\n", heads), message


@pytest.mark.qp("QP-084", "QP-200")
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in corpus("responses")])
def test_it_gets_its_verdict_and_the_next_client_only_its_own(pod: Pod, case: Case) -> None:
    (wanted,) = case.outcomes
    method, lines = ASK[case.settings.get("ask", "GET")]
    client = pod.client()
    client.ask(method, "/", *lines)
    asked = pod.origin.began()
    try:
        asked.wire.send(case.data)
        if "end" in case.settings:
            asked.wire.half_close()
    except ConnectionError:
        assert wanted.kind != "forward"  # it was not read to its end
    heads, final = said(client)
    if wanted.kind == "bad":
        assert (final.status, final.get("content-type")) == (502, b"text/plain; charset=utf-8")
        assert re.fullmatch(rb"[\x20-\x7e]+\n", client.body_of(final).body)
        assert final.get("connection") is None, "the client did nothing wrong"
    elif wanted.kind == "forward":
        assert heads == wanted.out
        if method != "HEAD" and final.status not in (204, 304):
            client.body_of(final)
        assert (final.body, [b"%b: %b\r\n" % field for field in final.trailers]) == (wanted.body, wanted.trailers)
    else:
        assert heads == wanted.out
        rest = client.rest()
        if final.get("content-length"):
            assert len(rest) < int(final.get("content-length") or b"")
        else:
            assert not rest.endswith(b"0\r\n\r\n"), "the client was told that the body is whole"
        client = pod.client()
    client.ask("GET", "/same")  # the connection goes on, in step
    other = pod.origin.began()
    assert other.target == b"/same"
    assert (other.number == asked.number) == (wanted.text == "kept")
    other.wire.answer(body=b"own")
    assert client.response().body == b"own"
    pod.served()


@pytest.mark.qp("QP-200")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bytes_that_come_late_and_together_with_the_next_request_are_not_its_answer(pod: Pod, method: str) -> None:
    """The proxy is stopped while both arrive, so it finds them in one turn of its loop."""
    first, second = pod.client(), pod.client()
    first.ask("GET", "/first")
    asked = pod.origin.request()
    asked.wire.answer(body=b"own")
    assert first.response().body == b"own"
    second.ask("GET", "/warm")  # the connection of the second client is known to the loop
    pod.origin.request().wire.answer()
    second.response()
    process = pod.sidecar.process
    os.kill(process.pid, signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        second.ask(method, "/second", body=b"x" if method == "POST" else b"")
        asked.wire.send(POISON)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    again = pod.origin.began()
    assert again.target == b"/second"
    again.wire.answer(body=b"own")
    assert second.response().body == b"own"


@pytest.mark.qp("QP-200")
def test_an_app_that_talks_first_is_not_listened_to(pod: Pod) -> None:
    client = pod.client()
    client.ask("GET", "/")
    wire = pod.origin.accept()
    wire.send(b"220 mail.example ESMTP\r\n")
    answer = client.response()
    assert answer.status == 502
    pod.fresh()
    pod.served()
