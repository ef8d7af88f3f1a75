"""Opens the way out of spans: OTLP through OpenTelemetry's SDK, or JSON lines on stdout (contract 5.5).

Runs in a courier's thread. Spans are made there from the `Trace`s that requests left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module

from queueproxy.metrics.otel import Target, exporter, sdk_version
from queueproxy.traces.encode import Encoder
from queueproxy.traces.spans import Span, SpanKind, Trace, spans


class SpanExporter:
    """offset_ns: wall clock less monotonic clock, when this process started.

    The SDK's exporter sends, repeats, compresses and knows the collector's certificate; the message is ours (`encode`).
    """

    def __init__(
        self, target: Target, resource: Mapping[str, str], user_port: int, offset_ns: int, version: str
    ) -> None:
        self._exporter = exporter(target, "trace_exporter", "OTLPSpanExporter")
        self._send = self._grpc() if target.protocol == "grpc" else self._http
        named = {"telemetry.sdk.name": "opentelemetry", "telemetry.sdk.version": sdk_version()}
        self._encoder = Encoder({**resource, **named}, version, offset_ns)
        self._user_port = user_port

    def __repr__(self) -> str:
        return f"<SpanExporter {self._exporter!r}>"

    def deliver(self, batch: list[Trace]) -> str:
        message = self._encoder.request(span for trace in batch for span in spans(trace, self._user_port))
        return "" if self._send(message) else "the collector did not take them"

    def stop(self) -> None:
        self._exporter.shutdown()

    # -- where the SDK's exporters take a message, not spans

    def _http(self, message: bytes) -> bool:
        return bool(self._exporter._client.export(message).success)

    def _grpc(self) -> Callable[[bytes], bool]:
        service = import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
        success = import_module("opentelemetry.sdk.trace.export").SpanExportResult.SUCCESS
        decode = service.ExportTraceServiceRequest.FromString
        self._exporter._translate_data = decode
        self._exporter._count_data = lambda message: 1  # for the exporter's metrics of itself, which nobody reads
        return lambda message: self._exporter.export(message) is success


class StdoutExporter:
    """Spans as JSON, a line each, with the keys of Go's stdouttrace. write: takes whole lines, never waits long."""

    def __init__(
        self, write: Callable[[bytes, int], bool], resource: Mapping[str, str], user_port: int, offset_ns: int
    ) -> None:
        self._write = write
        self._resource = resource
        self._user_port = user_port
        self._offset_ns = offset_ns

    def __repr__(self) -> str:
        return "<StdoutExporter>"

    def deliver(self, batch: list[Trace]) -> str:
        lost = 0
        for trace in batch:
            for span in spans(trace, self._user_port):
                lost += not self._write(self._line(span), 1)
        return f"{lost} lines were not read" if lost else ""

    def stop(self) -> None:
        """Nothing is kept here."""

    def _line(self, span: Span) -> bytes:
        def context(of: int, remote: bool) -> dict[str, object]:
            return {
                "TraceID": f"{span.trace if of else 0:032x}", "SpanID": f"{of:016x}",
                "TraceFlags": "01" if of else "00", "TraceState": "", "Remote": remote,
            }  # fmt: skip

        line = {
            "Name": span.name,
            "SpanContext": context(span.span, False),
            "Parent": context(span.parent, span.remote),
            "SpanKind": {SpanKind.INTERNAL: 1, SpanKind.SERVER: 2, SpanKind.CLIENT: 3}[span.kind],
            "StartTimeUnixNano": nanoseconds(span.began_at, self._offset_ns),
            "EndTimeUnixNano": nanoseconds(span.ended_at, self._offset_ns),
            "Attributes": _attributes(span.attributes),
            "Status": {"Code": "Unset" if span.error is None else "Error", "Description": span.error or ""},
            "Resource": _attributes(self._resource),
            "InstrumentationScope": {"Name": span.scope},
        }
        return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def nanoseconds(at: float, offset_ns: int) -> int:
    """An instant of the monotonic clock in wall clock."""
    return int(at * 1e9) + offset_ns


def _attributes(values: Mapping[str, str | int]) -> list[dict[str, object]]:
    return [
        {"Key": key, "Value": {"Type": "INT64" if isinstance(value, int) else "STRING", "Value": value}}
        for key, value in values.items()
    ]
