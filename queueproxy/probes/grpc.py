"""Decodes the answer to one gRPC health check, and says what the request is (contract 6.4). Bytes in, bytes out.

Just enough HTTP/2 (RFC 9113) for one unary call to `/grpc.health.v1.Health/Check` on a connection of its own: no
header decoder, no stream table, no library (a probe must not import one into the sidecar). The request's header block
uses the static table and literals without indexing. Of the answer this matters: stream 1 ends in order, its status
(see `trailers`) is OK as far as it can be told, and its one message says SERVING. The status is worth reading: real
servers send an empty message and NOT_FOUND for a service they do not know, which the message alone does not tell from
an unhealthy one, and a handler may well set an error and return SERVING.
"""

from __future__ import annotations

from queueproxy.probes.spec import Grpc
from queueproxy.probes.trailers import CODES, grpc_status

__all__ = ["HealthExchange"]

MAX_FRAME = 16_384  # we announce no other size, so no frame may be longer (RFC 9113 4.2)
MAX_ANSWER = 256 * 1024  # all bytes of the answer; a real one is about 150
MAX_MESSAGE = 1024  # the health response is two bytes

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x9
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20
STREAM = 1

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_PUSH = b"\x00\x02\x00\x00\x00\x00"  # SETTINGS_ENABLE_PUSH = 0
NO_TABLE = b"\x00\x01\x00\x00\x00\x00"  # SETTINGS_HEADER_TABLE_SIZE = 0: see `trailers`

SERVING = 1
STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
# RFC 9113 7; grpc-go names them too.
ERRORS = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)


class HealthExchange:
    """One health check. `decided` (and `finished`, the same here) when the outcome is known; `failure` is why not."""

    __slots__ = (
        "_block",
        "_body",
        "_buffer",
        "_ends",
        "_grpc",
        "_left",
        "_settled",
        "_status",
        "_timeout_for",
        "decided",
        "failure",
    )

    def __init__(self, grpc: Grpc, timeout_for: float) -> None:
        self._grpc = grpc
        self._timeout_for = timeout_for
        self._buffer = bytearray()
        self._body = bytearray()  # the DATA of stream 1
        self._block = bytearray()  # a header block that is still coming in
        self._ends = False  # the stream ends with that block
        self._status: int | None = None  # grpc-status
        self._left = MAX_ANSWER
        self._settled = False  # the server's first frame, its SETTINGS, was seen
        self.decided = False
        self.failure: str | None = None

    def __repr__(self) -> str:
        state = (self.failure or "SERVING") if self.decided else "waiting"
        return f"<HealthExchange {self._grpc.port} {self._grpc.service!r} {state}>"

    @property
    def finished(self) -> bool:
        return self.decided

    def opening(self) -> bytes:
        """Everything we have to say; the default windows hold it, so there is no need to hear the server first."""
        return b"".join(
            (
                PREFACE,
                _frame(SETTINGS, 0, 0, NO_TABLE + NO_PUSH),
                _frame(HEADERS, END_HEADERS, STREAM, self._headers()),
                _frame(DATA, END_STREAM, STREAM, _message(self._grpc.service)),
            )
        )

    def received(self, data: bytes) -> bytes:
        """Takes bytes of the answer; returns what is to be sent back."""
        self._left -= len(data)
        if self._left < 0:
            self._fail("answer too long")
        self._buffer += data
        reply = bytearray()
        while not self.decided and len(self._buffer) >= 9:
            length = int.from_bytes(self._buffer[:3], "big")
            kind, flags = self._buffer[3], self._buffer[4]
            stream = int.from_bytes(self._buffer[5:9], "big") & 0x7FFFFFFF
            if not self._settled and kind != SETTINGS:
                self._fail("the server does not speak HTTP/2")
            elif length > MAX_FRAME:
                self._fail("frame too long")
            elif len(self._buffer) < 9 + length:
                break
            else:
                self._settled = True
                payload = bytes(self._buffer[9 : 9 + length])
                del self._buffer[: 9 + length]
                reply += self._frame_came(kind, flags, stream, payload)
        return bytes(reply)

    def ended(self, reason: str) -> None:
        """The connection is over: `reason` is the error, or empty at its orderly end."""
        self._fail(reason or "connection closed before the answer")

    def timed_out(self) -> str:
        """What to say when there was no answer in time; the server keeps the same deadline and may say so first."""
        span = self._timeout_for
        return f"health rpc did not complete within {f'{span:g}s' if span >= 1 else f'{span * 1000:g}ms'}"

    # --- inside ---

    def _headers(self) -> bytes:
        block = bytearray(b"\x83\x86")  # static table: ":method: POST", ":scheme: http"
        block += b"\x01" + _string(f"{self._grpc.host}:{self._grpc.port}")  # 1: ":authority"
        block += b"\x04" + _string("/grpc.health.v1.Health/Check")  # 4: ":path"
        block += b"\x0f\x10" + _string("application/grpc")  # 31: "content-type"
        block += b"\x00" + _string("te") + _string("trailers")
        block += b"\x0f\x2b" + _string("kube-probe//")  # 58: "user-agent"
        if self._timeout_for > 0:
            milliseconds = min(round(self._timeout_for * 1000), 99_999_999)  # eight digits at most
            block += b"\x00" + _string("grpc-timeout") + _string(f"{milliseconds}m")
        return bytes(block)

    def _frame_came(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind == SETTINGS and not flags & ACK:
            return _frame(SETTINGS, ACK, 0, b"")
        if kind == PING and not flags & ACK:
            return _frame(PING, ACK, 0, payload)
        if kind == GOAWAY and int.from_bytes(payload[:4], "big") & 0x7FFFFFFF < STREAM:
            self._fail(f"the server went away: {_error(payload[4:8])}")
        elif stream == STREAM:
            if kind == DATA:
                self._body += _unpadded(flags, payload)
                if len(self._body) > MAX_MESSAGE:
                    self._fail("health response too long")
                elif flags & END_STREAM:
                    self._conclude()
            elif kind == HEADERS:
                payload = _unpadded(flags, payload)
                self._block = bytearray(payload[5:] if flags & PRIORITY else payload)
                self._ends = bool(flags & END_STREAM)
                self._block_came(flags)
            elif kind == CONTINUATION:
                self._block += payload
                self._block_came(flags)
            elif kind == RST_STREAM:
                self._fail(f"stream reset by the server: {_error(payload)}")
        return b""

    def _block_came(self, flags: int) -> None:
        if flags & END_HEADERS:
            status = grpc_status(bytes(self._block))
            self._status = self._status if status is None else status
            if self._ends:
                self._conclude()

    def _conclude(self) -> None:
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

    def _decide(self, failure: str | None) -> None:
        if not self.decided:
            self.decided = True
            self.failure = failure


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return b"".join((len(payload).to_bytes(3, "big"), bytes((kind, flags)), stream.to_bytes(4, "big"), payload))


def _string(text: str) -> bytes:
    """An HPACK string literal, not Huffman-coded. Ours are all shorter than 127 bytes."""
    assert len(text) < 127
    return bytes((len(text),)) + text.encode("ascii")


def _message(service: str) -> bytes:
    """The length-prefixed HealthCheckRequest: field 1, the service, absent when empty."""
    name = service.encode()
    proto = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\x00" + len(proto).to_bytes(4, "big") + proto


def _unpadded(flags: int, payload: bytes) -> bytes:
    return payload[1 : max(1, len(payload) - payload[0])] if flags & PADDED and payload else payload


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


def _error(code: bytes) -> str:
    number = int.from_bytes(code, "big")
    return ERRORS[number] if number < len(ERRORS) else str(number)
