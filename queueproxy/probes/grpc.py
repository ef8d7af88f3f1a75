"""Decodes the answer to one gRPC health check, and says what the request is (contract 6.4). Bytes in, bytes out.

One unary call to `/grpc.health.v1.Health/Check`, the HTTP/2 of which is `http2`'s. Of the answer this matters: stream 1
ends in order, its status (see `trailers`) is OK as far as it can be told, and its one message says SERVING. The status
is worth reading: real servers send an empty message and NOT_FOUND for a service they do not know, which the message
alone does not tell from an unhealthy one, and a handler may well set an error and return SERVING.
"""

from __future__ import annotations

from queueproxy.probes.http2 import Http2Exchange, literal
from queueproxy.probes.spec import Grpc
from queueproxy.probes.trailers import CODES, grpc_status

__all__ = ["HealthExchange"]

MAX_MESSAGE = 1024  # the health response is two bytes
SERVING = 1
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")


class HealthExchange(Http2Exchange):
    """One health check: decided when its stream has ended, or cannot any more."""

    __slots__ = ("_body", "_grpc", "_status", "_timeout_for")

    def __init__(self, grpc: Grpc, timeout_for: float) -> None:
        super().__init__()
        self._grpc = grpc
        self._timeout_for = timeout_for
        self._body = bytearray()
        self._status: int | None = None  # grpc-status

    def __repr__(self) -> str:
        state = (self.failure or "SERVING") if self.decided else "waiting"
        return f"<HealthExchange {self._grpc.port} {self._grpc.service!r} {state}>"

    def timed_out(self) -> str:
        """What to say when there was no answer in time; the server keeps the same deadline and may say so first."""
        span = self._timeout_for
        return f"health rpc did not complete within {f'{span:g}s' if span >= 1 else f'{span * 1000:g}ms'}"

    # --- of the exchange ---

    def _headers(self) -> bytes:
        block = bytearray(b"\x83\x86")  # static table: ":method: POST", ":scheme: http"
        block += literal(1, f"{self._grpc.host}:{self._grpc.port}")  # ":authority"
        block += literal(4, "/grpc.health.v1.Health/Check")  # ":path"
        block += literal(31, "application/grpc")  # "content-type"
        block += literal("te", "trailers")
        block += literal(58, "kube-probe//")  # "user-agent"
        if self._timeout_for > 0:
            milliseconds = min(round(self._timeout_for * 1000), 99_999_999)  # eight digits at most
            block += literal("grpc-timeout", f"{milliseconds}m")
        return bytes(block)

    def _content(self) -> bytes:
        return _message(self._grpc.service)

    def _data_came(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > MAX_MESSAGE:
            self._fail("health response too long")

    def _block_came(self, block: bytes) -> None:
        status = grpc_status(block)
        self._status = self._status if status is None else status

    def _stream_ended(self) -> None:
        if self._status:
            code = CODES[self._status]
            if code == "DeadlineExceeded":
                self._decide(self.timed_out())
            elif code == "Unimplemented":
                self._decide("this server does not implement the grpc health protocol (grpc.health.v1.Health)")
            else:
                self._fail(f"rpc error: code = {code}")
            return
        health = _health(self._body)
        if health is None:
            self._fail("malformed health response" if self._body else "no health response")
        elif health != SERVING:
            name = STATUSES[health] if health < len(STATUSES) else str(health)
            self._decide(f'service unhealthy (responded with "{name}")')
        else:
            self._decide(None)

    def _fail(self, why: str) -> None:
        self._decide(f"health rpc probe failed: {why}")


def _message(service: str) -> bytes:
    """The length-prefixed HealthCheckRequest: field 1, the service, absent when empty."""
    name = service.encode()
    proto = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\x00" + len(proto).to_bytes(4, "big") + proto


def _health(body: bytes | bytearray) -> int | None:
    """Field 1 of the HealthCheckResponse in a length-prefixed message; 0 when absent, None when it is none."""
    # We announce no encoding, so a compressed message (first byte 1) is an error of the server.
    if len(body) < 5 or body[0] != 0 or int.from_bytes(body[1:5], "big") != len(body) - 5:
        return None
    status, at = 0, 5
    try:
        while at < len(body):
            key, at = _take_varint(body, at)
            if key & 7 == 0:
                value, at = _take_varint(body, at)
                if key == 8:
                    status = value
            elif key & 7 == 2:
                length, at = _take_varint(body, at)
                at += length
            else:
                at += {1: 8, 5: 4}[key & 7]
    except (IndexError, KeyError):
        return None
    return status if at == len(body) else None


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _take_varint(data: bytes | bytearray, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at
