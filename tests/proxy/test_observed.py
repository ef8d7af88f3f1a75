"""Who hears of a request's end, once and with the right figures; and that nobody pays when nobody listens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from unittest.mock import patch

import pytest

from queueproxy.codec.http1 import RequestHead
from queueproxy.proxy.deadline import Timeouts
from queueproxy.proxy.exchange import Exchange
from queueproxy.proxy.observed import Facts, observe
from queueproxy.proxy.server import acceptor
from tests.support.wires import GET, HELLO, POST, ClientWire, Wires

PROBE = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\n\r\n"


class Seen(NamedTuple):
    status: int
    size: int
    took: float
    thaw_wait: float
    raw: bytes


class Ears:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.heard: list[Seen] = []

    def finished(self, client: Facts, head: RequestHead, status: int, size: int, took: float, thaw_wait: float) -> None:
        self.heard.append(Seen(status, size, round(took, 6), round(thaw_wait, 6), client.heads.raw))

    def close(self) -> None: ...


class Observed(Wires):
    """Wires whose clients are observed."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._patches.enter_context(patch("queueproxy.proxy.observed.monotonic", self.clock))
        self.ears = Ears()
        self._accept = observe(self.plane, self.ears)

    def client(self) -> ClientWire:
        return ClientWire(self, self._accept())


@contextmanager
def observed(**options: object) -> Iterator[Observed]:
    with Observed(**options) as wires:
        assert isinstance(wires, Observed)
        yield wires


@pytest.mark.qp("QP-300")
def test_a_request_is_heard_of_once_and_after_its_answer() -> None:
    with observed() as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        wires.loop.advance(0.5)
        assert wires.ears.heard == []
        app.says(HELLO)
        body = len(HELLO.partition(b"\r\n\r\n")[2])
        assert wires.ears.heard == [Seen(200, body, 0.5, 0.0, GET)]
        client.says(GET)
        app.says(HELLO)
        assert [seen.took for seen in wires.ears.heard] == [0.5, 0.0]
        wires.at_rest()


def test_a_chunked_answer_counts_its_body_and_not_its_framing() -> None:
    with observed() as wires:
        wires.client().says(GET)
        app = wires.dialled()
        app.says(b"HTTP/1.1 201 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n")
        app.says(b"0\r\n\r\n")
        assert [(seen.status, seen.size) for seen in wires.ears.heard] == [(201, 5)]


def test_the_raw_head_is_that_of_the_present_request_though_the_next_is_here() -> None:
    with observed() as wires:
        first, second = GET.replace(b"/ ", b"/1 "), GET.replace(b"/ ", b"/2 ")
        wires.client().says(first + second)
        app = wires.dialled()
        app.says(HELLO)
        app.says(HELLO)
        assert [seen.raw for seen in wires.ears.heard] == [first, second]


def test_the_raw_head_keeps_a_method_the_parser_does_not_know() -> None:
    with observed() as wires:
        raw = GET.replace(b"GET", b"BREW")
        wires.client().says(raw)
        wires.dialled().says(HELLO)
        assert wires.ears.heard[0].raw == raw


def test_a_refusal_of_ours_has_its_own_size() -> None:
    with observed() as wires:
        wires.client().says(GET)
        wires.refused()
        (seen,) = wires.ears.heard
        assert seen.status == 502 and seen.size > 10


def test_a_timeout_is_a_504_with_its_text() -> None:
    with observed(timeouts=Timeouts(10)) as wires:
        wires.client().says(GET)
        wires.dialled()
        wires.loop.advance(10)
        assert [seen[:2] for seen in wires.ears.heard] == [(504, len("request timeout"))]


def test_a_timeout_after_the_head_keeps_the_status_the_client_saw() -> None:
    with observed(timeouts=Timeouts(10)) as wires:
        wires.client().says(GET)
        wires.dialled().says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        wires.loop.advance(10)
        assert [seen[:2] for seen in wires.ears.heard] == [(200, 3)]
        assert 504 in wires.recorder.invocations


def test_a_client_that_left_before_its_answer_is_a_499() -> None:
    with observed() as wires:
        client = wires.client()
        client.says(POST)
        wires.dialled()
        client.leaves()
        assert [seen[:2] for seen in wires.ears.heard] == [(499, 0)]


def test_a_tunnel_is_a_200_without_size_when_it_ends() -> None:
    with observed() as wires:
        client = wires.client()
        client.says(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n")
        app = wires.dialled()
        app.says(b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n")
        app.says(b"frames")
        wires.loop.advance(3)
        assert wires.ears.heard == []
        app.ends()
        client.ends()
        assert [(seen.status, seen.size, seen.took) for seen in wires.ears.heard] == [(200, 0, 3.0)]


@pytest.mark.qp("QP-304")
def test_an_answered_probe_is_told_as_well() -> None:
    with observed() as wires:
        wires.health.verdict = None
        client = wires.client()
        client.says(PROBE)
        wires.loop.advance(0.25)
        assert wires.ears.heard == []
        wires.health.decide(True)
        assert [seen[:3] for seen in wires.ears.heard] == [(200, 5, 0.25)]


@pytest.mark.parametrize(
    "message",
    [b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", b"nonsense\r\n\r\n"],
    ids=["star", "expectation", "no message"],
)
def test_what_goes_server_answers_itself_is_not_told(message: bytes) -> None:
    with observed() as wires:
        wires.client().says(message)
        assert wires.ears.heard == []


def test_the_wait_for_the_thaw_is_told_apart() -> None:
    with observed(freezing=True) as wires:
        wires.put_to_sleep()
        client = wires.client()
        client.says(GET)
        wires.loop.advance(0.002)
        wires.mechanism.answer()
        wires.loop.settle()
        wires.app().says(HELLO)
        assert [(seen.took, seen.thaw_wait) for seen in wires.ears.heard] == [(0.002, 0.002)]
        client.says(GET)
        wires.app().says(HELLO)
        assert wires.ears.heard[-1].thaw_wait == 0.0


def test_nobody_listens_nobody_pays() -> None:
    with Wires() as wires:
        assert wires.plane.exchange is Exchange and wires.plane.observer is None
        assert type(acceptor(wires.plane)()).__name__ == "ClientConnection"
