"""A side port's connection: answers now or later, in order, and nobody holds it for ever."""

from __future__ import annotations

from typing import Any

import pytest

from queueproxy.admin.routes import Reply
from queueproxy.admin.server import BODY_LIMIT, AdminConnection, Respond
from queueproxy.codec.http1 import RequestHead
from tests.support.wires import GET, POST, Clock, Loop, Transport

OK = Reply(200, b"page", b"application/protobuf")


class Port:
    """One connection. later: answers wait for `answer`."""

    def __init__(self, *, later: bool = False) -> None:
        loop: Any = Loop(Clock())
        self.loop: Loop = loop
        self.later = later
        self.heads: list[RequestHead] = []
        self.waiting: list[Respond] = []
        self.connections: set[AdminConnection] = set()
        self.connection = AdminConnection(self._handle, loop, self.connections, 5.0)
        self.transport = Transport(loop, self.connection)
        self.connection.connection_made(self.transport)  # type: ignore[arg-type]

    def _handle(self, head: RequestHead, respond: Respond) -> None:
        self.heads.append(head)
        if self.later:
            self.waiting.append(respond)
        else:
            respond(OK)

    def says(self, data: bytes) -> bytes:
        self.transport.deliver(data)
        return self.got()

    def got(self) -> bytes:
        self.loop.settle()
        data = bytes(self.transport.out)
        self.transport.out.clear()
        return data


def without_date(answer: bytes) -> bytes:
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith(b"Date: "))


@pytest.mark.qp("QP-138")
def test_an_answer_as_the_autoscaler_reads_it() -> None:
    answer = without_date(Port().says(GET))
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Type: application/protobuf\r\nContent-Length: 4\r\n\r\npage"


@pytest.mark.parametrize(
    ("data", "end", "kept"),
    [
        pytest.param(GET, b"page", True, id="1.1"),
        pytest.param(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"page", False, id="close"),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", b"page", False, id="1.0"),
        pytest.param(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", b"page", True, id="1.0 keep-alive"),
        pytest.param(GET.replace(b"GET", b"HEAD"), b"\r\n\r\n", True, id="HEAD"),
    ],
)
def test_keeping_and_closing(data: bytes, end: bytes, kept: bool) -> None:
    port = Port()
    assert port.says(data).endswith(end)
    assert port.transport.lost is not kept
    if kept:
        assert port.says(GET).endswith(b"page"), "and it serves the next"


def test_pipelined_requests_are_answered_one_after_another() -> None:
    port = Port()
    answers = port.says(GET + POST + b"hello" + GET)
    assert answers.count(b"HTTP/1.1 200 OK") == 3 and len(port.heads) == 3
    assert port.transport.reading and port.says(GET).endswith(b"page")


@pytest.mark.qp("QP-288")
def test_the_next_request_waits_until_the_present_one_is_answered() -> None:
    port = Port(later=True)
    assert port.says(GET + GET) == b"" and len(port.heads) == 1 and not port.transport.reading
    port.waiting.pop()(OK)
    assert port.got().count(b"HTTP/1.1 200 OK") == 1 and len(port.heads) == 2 and port.transport.reading
    port.waiting.pop()(OK)
    assert port.got().endswith(b"page") and port.loop.timers == 0


def test_an_answer_before_the_body_has_come_keeps_the_connection_in_step() -> None:
    port = Port()
    assert port.says(POST).endswith(b"page")
    assert port.says(b"hello") == b""
    assert port.says(GET).endswith(b"page") and len(port.heads) == 2


@pytest.mark.qp("QP-288")
def test_an_answer_for_a_client_that_has_left_is_dropped() -> None:
    port = Port(later=True)
    port.says(GET)
    port.transport.lose()
    port.waiting.pop()(OK)
    assert port.got() == b"" and port.connections == set()


@pytest.mark.qp("QP-053")
@pytest.mark.parametrize("first", [b"", GET], ids=["alone", "pipelined"])
def test_what_is_not_http_is_answered_and_ended(first: bytes) -> None:
    port = Port()
    answer = port.says(first + b"GET / HTTP/1.1\r\n\r\n")
    assert answer.endswith(b"400 Bad Request: missing required Host header") and port.transport.lost
    assert len(port.heads) == bool(first)


@pytest.mark.qp("QP-353")
@pytest.mark.parametrize("before", [b"", GET], ids=["alone", "behind another"])
@pytest.mark.parametrize("part", [b"GET / HT", POST + b"he"], ids=["head", "body"])
def test_half_a_message_is_not_waited_for_for_ever(before: bytes, part: bytes) -> None:
    port = Port()
    port.says(before + part)
    port.loop.advance(4.999)
    assert not port.transport.lost
    port.loop.advance(0.001)
    assert port.transport.lost and port.transport.aborted


def test_an_idle_connection_has_no_timer() -> None:
    port = Port()
    port.says(b"GET / HT")
    assert port.loop.timers == 1
    port.says(b"TP/1.1\r\nHost: a\r\n\r\n")
    assert port.loop.timers == 0


@pytest.mark.qp("QP-353")
def test_nobody_sends_a_large_body_here() -> None:
    port = Port()
    port.says(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + b"x" * BODY_LIMIT)
    assert not port.transport.lost
    port.says(b"x")
    assert port.transport.aborted and port.loop.timers == 0


@pytest.mark.qp("QP-290")
def test_at_the_end_idle_connections_close_and_waiting_ones_get_their_answer() -> None:
    idle, waiting = Port(), Port(later=True)
    waiting.says(GET)
    for port in (idle, waiting):
        port.connection.close_if_idle()
    assert idle.transport.closing and not waiting.transport.closing
    waiting.waiting.pop()(OK)
    assert waiting.got().endswith(b"page")
