"""Traces on strict wires: what the app is told, and what is left of a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from queueproxy.codec import headers
from queueproxy.codec.http1 import RequestHead
from queueproxy.proxy.measured import measure
from queueproxy.proxy.traced import TracedExchange, Tracer
from queueproxy.traces.context import Parent, Sampler, parse
from queueproxy.traces.spans import LONGEST, Trace
from tests.support.wires import GET, HELLO, ClientWire, Wires

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"


@pytest.fixture(autouse=True)
def remembered() -> Iterator[None]:
    """The codec keeps trace headers at hand, here only."""
    with patch.dict(headers._REQUEST), patch.dict(headers.REQUEST_KINDS):
        headers.remember_for_log()
        yield


class Traced(Wires):
    """Wires whose requests are part of traces."""

    def __init__(self, ratio: float, *, parent_based: bool, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        for module in ("observed", "measured", "traced"):
            self._patches.enter_context(patch(f"queueproxy.proxy.{module}.monotonic", self.clock))
        self.left: list[Trace] = []
        self.plane.tracer = Tracer(Sampler(ratio, parent_based=parent_based), self.left.append)
        self._accept = measure(self.plane, TracedExchange)

    def client(self) -> ClientWire:
        return ClientWire(self, self._accept())


@contextmanager
def traced(ratio: float = 1.0, *, parent_based: bool = True, **options: object) -> Iterator[Traced]:
    with Traced(ratio, parent_based=parent_based, **options) as wires:
        assert isinstance(wires, Traced)
        yield wires


def request(*lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def told(head: bytes) -> Parent:
    (line,) = [line for line in head.split(b"\r\n") if line.lower().startswith(b"traceparent:")]
    found = parse(line.partition(b": ")[2])
    assert found is not None
    return found


def number(digits: bytes) -> int:
    return int(digits, 16)


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_request_without_a_trace_begins_one(ratio: float) -> None:
    with traced(ratio) as wires:
        wires.client().says(GET)
        app = wires.dialled()
        seen = told(app.got())
        app.says(HELLO)
        assert seen.sampled is (ratio == 1.0)
        assert [(t.trace, t.span, t.parent) for t in wires.left] == (
            [(number(seen.trace), number(seen.span), 0)] if ratio else []
        )


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize("sampled", [b"0", b"1"])
def test_a_caller_is_followed_and_the_app_sees_our_span(sampled: bytes) -> None:
    with traced(1.0 if sampled == b"0" else 0.0) as wires:
        wires.client().says(request(b"TraceParent: " + PARENT + sampled, b"tracestate: a=b"))
        app = wires.dialled()
        head = app.got()
        caller, seen = parse(PARENT + sampled), told(head)
        assert caller is not None
        assert (seen.trace, seen.sampled) == (caller.trace, caller.sampled) and seen.span != caller.span
        assert b"tracestate: a=b\r\n" in head
        app.says(HELLO)
        assert [t.parent for t in wires.left] == ([number(caller.span)] if sampled == b"1" else [])


@pytest.mark.qp("QP-239")
def test_a_caller_without_sense_begins_a_trace() -> None:
    with traced() as wires:
        wires.client().says(request(b"traceparent: 00-0-0-01"))
        app = wires.dialled()
        head = app.got()
        assert told(head).trace and b"00-0-0-01" not in head
        app.says(HELLO)
        assert wires.left[0].parent == 0


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize(
    ("line", "proxied"), [(b"K-Network-Probe: other", True), (b"K-Kubelet-Probe: x", False)], ids=["network", "kubelet"]
)
def test_a_probe_by_its_headers_begins_a_trace_without_a_server_span(line: bytes, proxied: bool) -> None:
    with traced() as wires:
        wires.client().says(request(line, b"traceparent: " + PARENT + b"0"))
        app = wires.dialled()
        seen = told(app.got())
        app.says(HELLO)
        assert seen.trace not in PARENT
        assert [(t.server, t.proxied, t.parent) for t in wires.left] == [(False, proxied, 0)]


@pytest.mark.qp("QP-239")
def test_the_instants_of_a_request_that_waited_for_its_slot() -> None:
    with traced(concurrency=1) as wires:
        first, second = wires.client(), wires.client()
        first.says(GET)
        app = wires.dialled()
        second.says(GET)
        began_at = wires.clock.now
        wires.loop.advance(2.0)
        app.says(HELLO)
        wires.loop.advance(1.0)
        app.says(HELLO)
        one, two = wires.left
        assert one.limited and two.limited
        assert [at - began_at for at in (two.began_at, two.admitted_at, two.sent_at, two.ended_at)] == [0, 2, 2, 3]


@pytest.mark.qp("QP-239")
def test_a_refusal_leaves_a_trace_that_never_reached_the_app() -> None:
    with traced(concurrency=1) as wires:
        wires.client().says(GET)
        wires.dialled()
        for _ in range(11):
            wires.client().says(GET)
        (refused,) = wires.left
        assert (refused.status, refused.sent_at, refused.admitted_at, refused.app_status) == (503, 0, 0, 0)


@pytest.mark.qp("QP-245")
def test_a_trace_is_small_whatever_the_client_sent() -> None:
    with traced() as wires:
        long = b"x" * 100_000
        head = b"GET /%b HTTP/1.1\r\nHost: %b\r\nUser-Agent: %b\r\nX-Forwarded-For: %b\r\n\r\n"
        wires.client().says(head % (long, long[:200], long, long))
        wires.dialled().says(HELLO)
        assert max(len(value) for value in wires.left[0] if isinstance(value, bytes)) == LONGEST


@pytest.mark.qp("QP-202", "QP-239")
def test_a_repeated_request_keeps_its_span() -> None:
    with traced() as wires:
        client = wires.client()
        client.says(GET)
        stale = wires.dialled()
        stale.says(HELLO)
        stale.got()
        client.says(GET)
        first = told(stale.got())
        stale.ends()
        again = wires.dialled()
        assert told(again.got()) == first
        again.says(HELLO)
        assert len(wires.left) == 2 and wires.left[1].span == number(first.span)


@pytest.mark.fz("FZ-106")
def test_what_a_request_waited_for_the_thaw_is_part_of_its_trace() -> None:
    with traced(freezing=True) as wires:
        wires.put_to_sleep()
        wires.mechanism.silent = True
        wires.client().says(GET)
        wires.loop.advance(0.5)
        wires.mechanism.answer()
        wires.loop.settle()
        wires.dialled().says(HELLO)
        (trace,) = wires.left
        assert (trace.thaw_wait, trace.sent_at - trace.began_at) == (pytest.approx(0.5), pytest.approx(0.5))


@pytest.mark.qp("QP-239")
def test_no_two_requests_share_an_id() -> None:
    tracer = Tracer(Sampler(0, parent_based=True), lambda trace: None)
    found = []
    for _ in range(5):
        found += tracer.stock
        tracer.restock()
    made = [told(line) for line in found]
    assert {(len(one.trace), len(one.span), one.sampled) for one in made} == {(32, 16, False)}
    assert len({one.trace for one in made}) == len({one.span for one in made}) == len(made) == 5 * 256


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_a_request_is_kept_exactly_when_the_sampler_says_so_of_its_id(ratio: float) -> None:
    with traced(ratio) as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        heads = [app.got()]
        app.says(HELLO)
        for _ in range(255):
            client.says(GET)
            heads.append(app.got())
            app.says(HELLO)
        sampler = Sampler(ratio, parent_based=True)
        made = [told(head) for head in heads]
        assert [one.sampled for one in made] == [sampler.samples(one.trace, None) for one in made]
        assert [trace.trace for trace in wires.left] == [number(one.trace) for one in made if one.sampled]
        assert [trace.span for trace in wires.left] == [number(one.span) for one in made if one.sampled]


@pytest.mark.qp("QP-306")
@pytest.mark.parametrize(
    ("lines", "logged"),
    [([], True), ([b"X-B3-TraceId: 5"], False), ([b"traceparent: 00-x"], False)],
    ids=["none", "b3", "malformed"],
)
def test_the_request_log_is_given_our_trace_where_the_caller_brought_none(lines: list[bytes], logged: bool) -> None:
    class Ears:
        heard: bytes | None = None

        def finished(self, client: object, head: RequestHead, *rest: object) -> None:
            Ears.heard = head.special.get(headers.TRACEPARENT)

        def close(self) -> None: ...

    with traced() as wires:
        wires.plane.observer = Ears()
        wires.client().says(request(*lines))
        app = wires.dialled()
        seen = told(app.got())
        app.says(HELLO)
        assert (Ears.heard is not None and seen.trace in Ears.heard) is logged


@pytest.mark.qp("QP-239")
def test_the_stock_of_ids_has_no_end() -> None:
    with traced(0.0) as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        seen = {told(app.got()).trace}
        app.says(HELLO)
        for _ in range(600):
            client.says(GET)
            seen.add(told(app.got()).trace)
            app.says(HELLO)
        assert len(seen) == 601
