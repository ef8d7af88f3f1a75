"""Decodes the answer to one gRPC health check, and says what the request is (contract 6.4). Bytes in, bytes out.

Just enough HTTP/2 (RFC 9113) for one unary call to `/grpc.health.v1.Health/Check` on a connection of its own: no
header decoder, no stream table, no library (a probe must not import one into the sidecar). The request's header block
uses the static table and literals without indexing. Of the answer only this matters: the first message on stream 1
says SERVING, and the stream ends in order. Response headers and trailers are skipped undecoded, since a call that
failed carries no message: an unknown service or a server without the health protocol answers with trailers alone.
"""

from __future__ import annotations

from queueproxy.probes.spec import Grpc

__all__ = ["HealthExchange"]

MAX_FRAME = 16_384  # we announce no other size, so no frame may be longer (RFC 9113 4.2)
MAX_ANSWER = 256 * 1024  # all bytes of the answer; a real one is about 150
MAX_MESSAGE = 1024  # the health response is two bytes

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
STREAM = 1

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_PUSH = b"\x00\x02\x00\x00\x00\x00"  # SETTINGS_ENABLE_PUSH = 0

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

    __slots__ = ("_body", "_buffer", "_grpc", "_left", "_settled", "_timeout_for", "decided", "failure")

    def __init__(self, grpc: Grpc, timeout_for: float) -> None:
        self._grpc = grpc
        self._timeout_for = timeout_for
        self._buffer = bytearray()
        self._body = bytearray()  # the DATA of stream 1
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
                _frame(SETTINGS, 0, 0, NO_PUSH),
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
                if flags & PADDED and payload:
                    payload = payload[1 : max(1, len(payload) - payload[0])]
                self._body += payload
                if len(self._body) > MAX_MESSAGE:
                    self._fail("health response too long")
            elif kind == RST_STREAM:
                self._fail(f"stream reset by the server: {_error(payload)}")
            if kind in (DATA, HEADERS) and flags & END_STREAM:
                self._conclude()
        return b""

    def _conclude(self) -> None:
        if self.decided:
            return
        body = self._body
        if not body:
            self._fail("no health response (unknown service, or the server does not implement grpc.health.v1.Health)")
            return
        status = _status(body)
        if status is None:
            self._fail("malformed health response")
        elif status != SERVING:
            name = STATUSES[status] if status < len(STATUSES) else str(status)
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


def _status(body: bytes | bytearray) -> int | None:
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
