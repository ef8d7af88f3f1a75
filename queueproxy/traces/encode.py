"""Encodes spans as OTLP's protobuf, `ExportTraceServiceRequest` (opentelemetry-proto 1, trace.proto).

Written by hand because the SDK takes ten times as long for it: it makes objects of every attribute and copies each span
twice in protobuf's own memory. At one per cent of the requests that was a third of what tracing cost. What is sent is
the SDK's message for the same spans, field by field; the exporters that send it are the SDK's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Final

from queueproxy.codec.protobuf import varint
from queueproxy.traces.spans import Span, SpanKind

REMEMBERED: Final = 512  # attributes; methods, statuses, hosts, agents and common paths are the same in every trace
_FIXED64: Final = Struct("<Q").pack
_KINDS: Final = tuple(b"\x30%c" % (kind + 1) for kind in SpanKind)  # by number: the hash of an enum is slow
_UNSET: Final = b"\x7a\x00"  # the SDK writes an empty status, too
# fixed32 flags: "whether the parent is remote is known", and that it is.
_LOCAL: Final = b"\x85\x01\x00\x01\x00\x00"
_REMOTE: Final = b"\x85\x01\x00\x03\x00\x00"


def block(tag: bytes, data: bytes) -> bytes:
    """A field that has a length."""
    size = len(data)
    return b"%b%c%b" % (tag, size, data) if size < 128 else b"%b%b%b" % (tag, varint(size), data)


def attribute(key: str, value: str | int) -> bytes:
    """A KeyValue as field 9 of a span, whole."""
    return _key_value(b"\x4a", key, value)


def _key_value(tag: bytes, key: str, value: str | int) -> bytes:
    if isinstance(value, int):
        any_value = b"\x18" + varint(value & 0xFFFFFFFFFFFFFFFF)  # int64: ten bytes when below zero
    else:
        any_value = block(b"\x0a", value.encode("utf-8", "replace"))  # an environment may hold any bytes
    return block(tag, block(b"\x0a", key.encode()) + block(b"\x12", any_value))


class Encoder:
    """resource and version say who sends; offset_ns: wall clock less monotonic clock."""

    def __init__(self, resource: Mapping[str, str], version: str, offset_ns: int) -> None:
        attributes = b"".join(_key_value(b"\x0a", key, value) for key, value in resource.items())
        self._resource = block(b"\x0a", attributes)
        self._version = block(b"\x12", version.encode())
        self._offset_ns = offset_ns
        self._known: dict[tuple[str, str | int], bytes] = {}
        self._names: dict[str, bytes] = {}  # of spans: methods and our own words

    def __repr__(self) -> str:
        return f"<Encoder remembers {len(self._known)}>"

    def request(self, spans: Iterable[Span]) -> bytes:
        """All of one sender; grouped by scope, in order."""
        scopes: dict[str, list[bytes]] = {}
        for span in spans:
            scope = scopes.get(span.scope)
            if scope is None:
                named = block(b"\x0a", span.scope.encode()) + self._version
                scope = scopes[span.scope] = [block(b"\x0a", named)]
            scope.append(block(b"\x12", self.span(span)))
        groups = b"".join(block(b"\x12", b"".join(pieces)) for pieces in scopes.values())
        return block(b"\x0a", self._resource + groups)

    def span(self, span: Span) -> bytes:
        """One Span, without tag and length."""
        name, kind, _, trace, own, parent, remote, began_at, ended_at, attributes, error = span
        offset, known = self._offset_ns, self._known
        called = self._names.get(name)
        if called is None:
            called = self._names[name] = block(b"\x2a", name.encode())
        pieces = [
            b"\x0a\x10", trace.to_bytes(16), b"\x12\x08", own.to_bytes(8),
            b"\x22\x08" + parent.to_bytes(8) if parent else b"", called, _KINDS[kind],
            b"\x39", _FIXED64(int(began_at * 1e9) + offset), b"\x41", _FIXED64(int(ended_at * 1e9) + offset),
        ]  # fmt: skip
        for item in attributes.items():
            encoded = known.get(item)
            if encoded is None:
                encoded = attribute(*item)
                if len(known) >= REMEMBERED:
                    known.clear()
                known[item] = encoded
            pieces.append(encoded)
        if error is None:
            pieces.append(_UNSET)
        else:
            pieces.append(block(b"\x7a", (block(b"\x12", error.encode()) if error else b"") + b"\x18\x02"))
        pieces.append(_REMOTE if remote else _LOCAL)
        return b"".join(pieces)
