"""Extensions where requests are traced: what they see of the trace, and that the spans are still right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from queueproxy.codec import headers
from queueproxy.extensions import Answer, Extension, Outcome, Request
from queueproxy.proxy.chain import Link
from queueproxy.proxy.extended import extend
from queueproxy.proxy.measured import MeasuredConnection, measure
from queueproxy.proxy.traced import RecordedExchange, TracedExchange, Tracer
from queueproxy.traces.context import Sampler
from queueproxy.traces.spans import Trace
from tests.support.wires import GET, HELLO, ClientWire, Wires

TRACEPARENT = re.compile(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0([01])")
PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def remembered() -> Iterator[None]:
    """As where tracing is on: the codec keeps the caller's traceparent at hand."""
    with patch.dict(headers.REQUEST_KINDS), patch.dict(headers._REQUEST):
        headers.remember_for_log()
        yield


class Reads(Extension):
    """What an extension makes of the trace; changes the line behind it."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.answer = answer
        self.seen: list[list[bytes]] = []
        self.outcomes: list[Outcome] = []

    def request(self, request: Request) -> Answer | None:
        self.seen.append(request.headers.all(b"traceparent"))
        request.headers.set(b"X-A", b"changed")
        return self.answer

    def finished(self, request: Request, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


class Traced(Wires):
    """Wires whose requests are traced and go past one extension."""

    def __init__(self, extension: Reads, ratio: float, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        for module in ("observed", "measured", "extended", "traced"):
            self._patches.enter_context(patch(f"queueproxy.proxy.{module}.monotonic", self.clock))
        self.traces: list[Trace] = []
        self.plane.tracer = Tracer(Sampler(ratio, parent_based=True), self.traces.append)
        measure(self.plane, TracedExchange)
        extend(self.plane, [Link("reads", extension)])

    def client(self) -> ClientWire:
        return ClientWire(self, MeasuredConnection(self.plane))


@contextmanager
def traced(extension: Reads, ratio: float, **options: object) -> Iterator[Traced]:
    with Traced(extension, ratio, **options) as wires:
        yield wires


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize("ratio", [0.0, 1.0], ids=["not sampled", "sampled"])
@pytest.mark.parametrize("parent", [b"", PARENT], ids=["first", "continued"])
def test_an_extension_sees_the_traceparent_that_the_app_gets(ratio: float, parent: bytes) -> None:
    reads = Reads()
    request = GET.replace(b"Host", b"X-A: 1\r\nHost")
    if parent:
        request = request.replace(b"Host", b"Traceparent: " + parent + b"\r\nHost")
    with traced(reads, ratio) as wires:
        client = wires.client()
        for _ in range(2):
            client.says(request)
            app = wires.app()
            head = app.got()
            ((seen,),) = reads.seen
            reads.seen.clear()
            assert TRACEPARENT.fullmatch(seen) and head.lower().count(b"\r\ntraceparent: " + seen + b"\r\n") == 1
            assert head.count(b"\r\nX-A: changed\r\n") == 1 and b"X-A: 1" not in head
            app.says(HELLO)
            assert client.got().endswith(b"hello")
        sampled = bool(parent) or ratio == 1.0
        assert len(wires.traces) == 2 * sampled
        assert [outcome.status for outcome in reads.outcomes] == [200, 200]
        wires.at_rest()


@pytest.mark.qp("QP-239")
def test_what_an_extension_answers_is_a_span_of_the_server_and_none_of_the_client() -> None:
    with traced(Reads(Answer(401)), 1.0, concurrency=1) as wires:
        client = wires.client()
        client.says(GET)
        (trace,) = wires.traces
        assert (trace.status, trace.app_status, trace.sent_at) == (401, 0, 0.0) and trace.admitted_at
        wires.at_rest()


def test_a_marked_request_keeps_its_lines_in_order() -> None:
    with traced(reads := Reads(), 1.0) as wires:
        wires.client().says(GET.replace(b"Host", b"K-Kubelet-Probe: x\r\nK-Original-Host: o\r\nHost"))
        head = wires.dialled().got()
        assert b"\r\nK-Original-Host: o\r\n" in head and len(reads.seen[0]) == 1


def test_recorded_requests_are_extended_too() -> None:
    with traced(Reads(), 1.0) as wires:
        wires.client().says(GET)
        exchange = wires.dialled().protocol.exchange
        assert isinstance(exchange, RecordedExchange)
