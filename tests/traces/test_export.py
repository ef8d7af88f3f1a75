"""Spans on their way out, decoded by a real receiver or read from stdout."""

from __future__ import annotations

import json

import pytest

from queueproxy.otlp import Target
from queueproxy.traces.export import SpanExporter, StdoutExporter, nanoseconds
from queueproxy.traces.spans import OTELHTTP, Trace
from tests.support.collector import attributes, grpc_collector, http_collector

OFFSET = 1_700_000_000_000_000_000
TRACE = Trace(
    trace=0xABC << 64, span=2, others=11 | 22 << 64 | 33 << 128 | 44 << 192, parent=9, server=True, proxied=True,
    limited=True, method=b"GET", target=b"/a", host=b"h", agent=b"", forwarded_for=b"", tag=None, default=None,
    peer=b"10.0.0.9", peer_port=1, minor=1, secure=False, status=502, app_status=0, error="net.OpError", received=0,
    size=5, began_at=1.0, admitted_at=1.5, thaw_wait=0.25, sent_at=1.75, ended_at=2.0,
)  # fmt: skip


@pytest.mark.qp("QP-237", "QP-239")
@pytest.mark.fz("FZ-106")
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_receiver_understands_every_span(protocol: str) -> None:
    with (http_collector if protocol != "grpc" else grpc_collector)() as received:
        target = Target(protocol, f"http://127.0.0.1:{received.port}/v1/traces", False)
        exporter = SpanExporter(target, {"service.name": "hello"}, 8080, OFFSET, "0.1")
        try:
            assert exporter.deliver([TRACE]) == ""
        finally:
            exporter.stop()
        spans = {span.name: span for span in received.spans}
        assert {name: (s.kind, int.from_bytes(s.span_id, "big")) for name, s in spans.items()} == {
            "GET": (2, 11), "kn.queueproxy.proxy": (1, 22), "kn.queueproxy.wait": (1, 33), "thaw": (1, 44),
            "HTTP GET": (3, 2),
        }  # fmt: skip
        assert {s.trace_id for s in spans.values()} == {(0xABC << 64).to_bytes(16, "big")}
        server, client = spans["GET"], spans["HTTP GET"]
        assert int.from_bytes(server.parent_span_id, "big") == 9
        assert client.parent_span_id == spans["thaw"].span_id
        assert (server.start_time_unix_nano, server.end_time_unix_nano) == (OFFSET + 10**9, OFFSET + 2 * 10**9)
        assert (server.status.code, client.status.code, client.status.message) == (2, 2, "net.OpError")
        assert attributes(server)["http.response.status_code"] == 502
        assert attributes(client)["error.type"] == "net.OpError"
        (resource,) = received.traces[0].resource_spans
        assert attributes(resource.resource)["service.name"] == "hello"
        assert {scope.scope.name for scope in resource.scope_spans} >= {OTELHTTP}


@pytest.mark.qp("QP-245")
def test_a_refusal_is_said() -> None:
    with http_collector() as received:
        received.answer = lambda: (403, b"")
        exporter = SpanExporter(
            Target("http/protobuf", f"http://127.0.0.1:{received.port}/v1/traces", False), {}, 1, 0, ""
        )
        assert exporter.deliver([TRACE]) == "the collector did not take them"
        exporter.stop()


@pytest.mark.qp("QP-239")
def test_stdout_lines_have_the_keys_of_gos_exporter() -> None:
    written: list[bytes] = []

    def write(data: bytes, lines: int) -> bool:
        written.append(data)
        return len(written) != 2

    assert StdoutExporter(write, {"service.name": "hello"}, 8080, OFFSET).deliver([TRACE]) == "1 lines were not read"
    lines = [json.loads(line) for line in written]
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in written)
    by_name = {line["Name"]: line for line in lines}
    assert by_name["GET"]["SpanContext"]["TraceID"] == f"{0xABC << 64:032x}"
    assert by_name["GET"]["Parent"]["SpanID"] == f"{9:016x}" and by_name["GET"]["Parent"]["Remote"] is True
    assert (by_name["GET"]["SpanKind"], by_name["HTTP GET"]["SpanKind"], by_name["thaw"]["SpanKind"]) == (2, 3, 1)
    assert by_name["GET"]["Status"] == {"Code": "Error", "Description": ""}
    assert {"Key": "http.response.status_code", "Value": {"Type": "INT64", "Value": 502}} in by_name["GET"][
        "Attributes"
    ]


def test_instants_become_wall_clock() -> None:
    assert nanoseconds(2.5, OFFSET) == OFFSET + 2_500_000_000
