"""Encodes the one protobuf message the autoscaler reads: `Stat` (knative-contract 5.2, QP-137).

Zero-valued fields are left out, as proto3 does. Hand-written because the message has six fields and a protobuf
runtime would be the largest import of the sidecar.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

_DOUBLE: Final = Struct("<d").pack


def varint(value: int) -> bytes:
    """Unsigned LEB128, as protobuf lengths and integers are written."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_stat(
    pod_name: str,
    average_concurrent: float = 0.0,
    average_proxied_concurrent: float = 0.0,
    request_count: float = 0.0,
    proxied_request_count: float = 0.0,
    process_uptime: float = 0.0,
) -> bytes:
    """`Stat` on the wire. Counts are per second, uptime in seconds; at most 336 bytes for any pod name (QP-139)."""
    name = pod_name.encode()
    parts = [b"\x0a", varint(len(name)), name]
    for tag, value in (
        (b"\x11", average_concurrent),
        (b"\x19", average_proxied_concurrent),
        (b"\x21", request_count),
        (b"\x29", proxied_request_count),
        (b"\x31", process_uptime),
    ):
        if value:
            parts += (tag, _DOUBLE(value))
    return b"".join(parts)
