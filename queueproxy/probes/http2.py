"""Decodes the answer to one HTTP/2 request, and frames the request (RFC 9113). Bytes in, bytes out.

Just enough HTTP/2 for one request on a connection of its own, stream 1: no header decoder, no stream table, no library
(a probe must not import one into the sidecar). A request's header block uses the static table and literals without
indexing; of an answer's block two fields can be read (see `trailers`). What an answer means is for the exchange: `grpc`
has health checks, `detection` has the question whether an app speaks HTTP/2 at all.
"""

from __future__ import annotations

__all__ = ["MAX_ANSWER", "Http2Exchange", "literal", "string"]

MAX_FRAME = 16_384  # neither side announces another size, so no frame may be longer (RFC 9113 4.2)
MAX_ANSWER = 256 * 1024  # all bytes of the answer; a health check's is about 150

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, CONTINUATION = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x9
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20
STREAM = 1

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_PUSH = b"\x00\x02\x00\x00\x00\x00"  # SETTINGS_ENABLE_PUSH = 0
NO_TABLE = b"\x00\x01\x00\x00\x00\x00"  # SETTINGS_HEADER_TABLE_SIZE = 0: see `trailers`

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


class Http2Exchange:
    """One request. `decided` when the outcome is known, `finished` when the connection may go; `failure` is why not.

    Subclasses say what is sent (`_headers`, `_content`) and hear what comes (`_block_came`, `_data_came`,
    `_stream_ended`).
    """

    __slots__ = ("_block", "_buffer", "_ends", "_left", "_settled", "decided", "failure", "finished")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._block = bytearray()  # a header block that is still coming in
        self._ends = False  # the stream ends with that block
        self._left = MAX_ANSWER
        self._settled = False  # the server's first frame, its SETTINGS, was seen
        self.decided = False
        self.finished = False
        self.failure: str | None = None

    def opening(self) -> bytes:
        """Everything we have to say; the default windows hold it, so there is no need to hear the server first."""
        content = self._content()
        block = self._headers()
        pieces = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
        frames = []
        for number, piece in enumerate(pieces, 1):
            flags = (END_HEADERS if number == len(pieces) else 0) | (END_STREAM if number == 1 and not content else 0)
            frames.append(_frame(HEADERS if number == 1 else CONTINUATION, flags, STREAM, piece))
        if content:
            frames.append(_frame(DATA, END_STREAM, STREAM, content))
        return b"".join((PREFACE, _frame(SETTINGS, 0, 0, NO_TABLE + NO_PUSH), *frames))

    def received(self, data: bytes) -> bytes:
        """Takes bytes of the answer; returns what is to be sent back."""
        self._left -= len(data)
        if self._left < 0:
            self._fail("answer too long")
        self._buffer += data
        reply = bytearray()
        while not self.finished and len(self._buffer) >= 9:
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

    # --- of the exchange ---

    def _headers(self) -> bytes:
        """The request's header block."""
        raise NotImplementedError

    def _content(self) -> bytes:
        """What follows it; at most one frame."""
        return b""

    def _block_came(self, block: bytes) -> None:
        """A whole header block of the answer: informational, the head, or trailers."""

    def _data_came(self, data: bytes) -> None:
        """A piece of the answer's content."""

    def _stream_ended(self) -> None:
        """The answer is whole."""

    def _fail(self, why: str) -> None:
        self._decide(why)

    def _decide(self, failure: str | None) -> None:
        if not self.decided:
            self.decided = True
            self.failure = failure
        self.finished = True

    # --- inside ---

    def _frame_came(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        if kind == SETTINGS and not flags & ACK:
            return _frame(SETTINGS, ACK, 0, b"")
        if kind == PING and not flags & ACK:
            return _frame(PING, ACK, 0, payload)
        if kind == GOAWAY and int.from_bytes(payload[:4], "big") & 0x7FFFFFFF < STREAM:
            self._fail(f"the server went away: {_error(payload[4:8])}")
        elif stream == STREAM:
            if kind == DATA:
                self._data_came(_unpadded(flags, payload))
                if flags & END_STREAM and not self.finished:
                    self._stream_ended()
            elif kind == HEADERS:
                payload = _unpadded(flags, payload)
                self._block = bytearray(payload[5:] if flags & PRIORITY else payload)
                self._ends = bool(flags & END_STREAM)
                self._block_continued(flags)
            elif kind == CONTINUATION:
                self._block += payload
                self._block_continued(flags)
            elif kind == RST_STREAM:
                self._fail(f"stream reset by the server: {_error(payload)}")
        return b""

    def _block_continued(self, flags: int) -> None:
        if flags & END_HEADERS:
            self._block_came(bytes(self._block))
            if self._ends and not self.finished:
                self._stream_ended()


def literal(name: str | int, value: str) -> bytes:
    """A field without indexing; `name` may be an entry of the static table (RFC 7541 6.2.2)."""
    head = _integer(name, 4) if isinstance(name, int) else b"\x00" + string(name)
    return head + string(value)


def string(text: str) -> bytes:
    """An HPACK string, not Huffman-coded (RFC 7541 5.2)."""
    data = text.encode()
    return _integer(len(data), 7) + data


def _integer(value: int, prefix: int) -> bytes:
    """RFC 7541 5.1, the bits before the prefix all zero."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes((value,))
    out = bytearray((most,))
    value -= most
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return b"".join((len(payload).to_bytes(3, "big"), bytes((kind, flags)), stream.to_bytes(4, "big"), payload))


def _unpadded(flags: int, payload: bytes) -> bytes:
    return payload[1 : max(1, len(payload) - payload[0])] if flags & PADDED and payload else payload


def _error(code: bytes) -> str:
    number = int.from_bytes(code, "big")
    return ERRORS[number] if number < len(ERRORS) else str(number)
