"""Our bytes of spans beside the message that OpenTelemetry's SDK makes of the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from queueproxy.traces.encode import REMEMBERED, Encoder
from queueproxy.traces.spans import OTELHTTP, QUEUE, Span, SpanKind

OFFSET = 1_700_000_000_000_000_000
RESOURCE = {"service.name": "hello", "k8s.pod.name": "p" * 300, "empty": ""}
SPAN = Span("GET", SpanKind.SERVER, OTELHTTP, 7 << 100, 9, 0, False, 1.5, 2.25, {"a": "b", "n": 200}, None)


def sdks(spans: Sequence[Span], version: str = "0.1") -> Any:
    """What the SDK makes of them."""
    resource = Resource(RESOURCE)

    def context(of: Span, span: int, remote: bool) -> api.SpanContext:
        return api.SpanContext(of.trace, span, remote, api.TraceFlags(1))

    def readable(span: Span) -> ReadableSpan:
        return ReadableSpan(
            span.name,
            context=context(span, span.span, False),
            parent=context(span, span.parent, span.remote) if span.parent else None,
            resource=resource,
            attributes=span.attributes,
            kind=api.SpanKind(int(span.kind)),
            status=api.Status() if span.error is None else api.Status(api.StatusCode.ERROR, span.error or None),
            start_time=int(span.began_at * 1e9) + OFFSET,
            end_time=int(span.ended_at * 1e9) + OFFSET,
            instrumentation_scope=InstrumentationScope(span.scope, version),
        )

    return encode_spans([readable(span) for span in spans])


def ours(spans: Sequence[Span], encoder: Encoder | None = None) -> Any:
    data = (encoder or Encoder(RESOURCE, "0.1", OFFSET)).request(spans)
    message = ExportTraceServiceRequest.FromString(data)
    assert message.SerializeToString(deterministic=True)  # nothing in it that a receiver would pass over
    return message


attributes = st.dictionaries(
    st.sampled_from(["url.path", "http.response.status_code", "user_agent.original", "x" * 200]),
    st.text(max_size=400) | st.integers(-(1 << 63), (1 << 63) - 1),
)
ids = st.integers(1, (1 << 64) - 1)
spans = st.builds(
    Span,
    name=st.text(max_size=200), kind=st.sampled_from(SpanKind), scope=st.sampled_from([OTELHTTP, QUEUE]),
    trace=st.integers(1, (1 << 128) - 1), span=ids, parent=st.just(0) | ids, remote=st.booleans(),
    began_at=st.floats(0, 1e6), ended_at=st.floats(0, 1e6), attributes=attributes,
    error=st.none() | st.text(max_size=200),
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.qp("QP-239")
@given(st.lists(spans, max_size=5))
def test_a_receiver_reads_what_the_sdk_would_have_sent(made: list[Span]) -> None:
    expected = sdks([span if span.parent else span._replace(remote=False) for span in made])
    if not made:
        expected.resource_spans.add().resource.CopyFrom(ours([]).resource_spans[0].resource)  # ours is never empty
    assert ours([span if span.parent else span._replace(remote=False) for span in made]) == expected


@pytest.mark.parametrize("error", [None, "", "net.OpError"])
def test_each_kind_of_status_is_the_sdks(error: str | None) -> None:
    assert ours([SPAN._replace(error=error)]) == sdks([SPAN._replace(error=error)])


def test_what_is_remembered_is_bounded_and_changes_nothing() -> None:
    encoder = Encoder(RESOURCE, "0.1", OFFSET)
    many = [SPAN._replace(attributes={"url.path": f"/{n}", "n": n % 7}) for n in range(3 * REMEMBERED)]
    assert ours(many, encoder) == sdks(many)
    assert ours(many[-9:], encoder) == sdks(many[-9:])
    assert len(encoder._known) <= REMEMBERED


def test_a_number_is_not_a_text_of_it() -> None:
    encoder = Encoder({}, "", 0)
    both = [SPAN._replace(attributes={"n": 1}), SPAN._replace(attributes={"n": "1"})]
    kinds = [
        span.attributes[0].value.WhichOneof("value")
        for scope in ExportTraceServiceRequest.FromString(encoder.request(both)).resource_spans[0].scope_spans
        for span in scope.spans
    ]
    assert kinds == ["int_value", "string_value"]
