"""Opens the way out of spans: OTLP through OpenTelemetry's SDK, or JSON lines on stdout (contract 5.5).

Runs in a courier's thread. Spans are made there from the `Trace`s that requests left.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from queueproxy.metrics.otel import Target, exporter, sdk_version
from queueproxy.traces.spans import Span, SpanKind, Trace, spans


class SpanExporter:
    """offset_ns: wall clock less monotonic clock, when this process started."""

    def __init__(
        self, target: Target, resource: Mapping[str, str], user_port: int, offset_ns: int, version: str
    ) -> None:
        self._exporter = exporter(target, "trace_exporter", "OTLPSpanExporter")
        self._sdk = import_module("opentelemetry.sdk.trace")
        self._api = import_module("opentelemetry.trace")
        self._success = import_module("opentelemetry.sdk.trace.export").SpanExportResult.SUCCESS
        named = {"telemetry.sdk.name": "opentelemetry", "telemetry.sdk.version": sdk_version()}
        self._resource = import_module("opentelemetry.sdk.resources").Resource({**resource, **named})
        self._scope = import_module("opentelemetry.sdk.util.instrumentation").InstrumentationScope
        self._user_port = user_port
        self._offset_ns = offset_ns
        self._version = version

    def __repr__(self) -> str:
        return f"<SpanExporter {self._exporter!r}>"

    def deliver(self, batch: list[Trace]) -> str:
        result = self._exporter.export([self._span(s) for trace in batch for s in spans(trace, self._user_port)])
        return "" if result is self._success else "the collector did not take them"

    def stop(self) -> None:
        self._exporter.shutdown()

    def _span(self, span: Span) -> Any:
        api = self._api
        parent = self._context(span.trace, span.parent, span.remote) if span.parent else None
        status = api.Status() if span.error is None else api.Status(api.StatusCode.ERROR, span.error or None)
        return self._sdk.ReadableSpan(
            span.name,
            context=self._context(span.trace, span.span, False),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=api.SpanKind(int(span.kind)),
            status=status,
            start_time=nanoseconds(span.began_at, self._offset_ns),
            end_time=nanoseconds(span.ended_at, self._offset_ns),
            instrumentation_scope=self._scope(span.scope, self._version),
        )

    def _context(self, trace: int, span: int, remote: bool) -> Any:
        return self._api.SpanContext(trace, span, remote, self._api.TraceFlags(1))


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
