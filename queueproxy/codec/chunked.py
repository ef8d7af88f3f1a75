"""Decodes a chunked message body strictly (RFC 9112 7.1): bytes in, data pieces and trailers out.

Everything a lenient peer might read differently is an error: anything but hexadecimal digits before the size's CRLF
or ";", sizes over 16 digits, bare LF, a chunk not closed by CRLF, oversized extensions. Extensions are dropped (a
recipient must ignore those it does not know), trailers are returned for the caller to judge.
"""

from __future__ import annotations

from typing import Final

MAX_LINE: Final = 4096  # size line with extensions; far above any real one
MAX_TRAILERS: Final = 64 * 1024  # like a generous header block; the head itself may have 1 MiB (QP-050)
_HEX: Final = b"0123456789abcdefABCDEF"
TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_CONTROL: Final = bytes(c for c in range(32) if c != 9) + b"\x7f"


class ChunkError(ValueError):
    """The body is not chunked as RFC 9112 says; the text is one line for the client."""


class ChunkedDecoder:
    """One body. `feed(data)` returns the data pieces found; `done` says the last chunk and trailers are in.

    After `done`, `rest` holds the bytes that belong to whatever follows. Memory is bounded by MAX_TRAILERS plus the
    piece being fed.
    """

    __slots__ = ("_held", "_left", "_stage", "_trailers_size", "done", "rest", "trailers")

    _SIZE, _DATA, _DATA_END, _TRAILERS = range(4)

    def __init__(self) -> None:
        self._stage = self._SIZE
        self._left = 0
        self._held = b""
        self._trailers_size = 0
        self.done = False
        self.rest = b""
        self.trailers: list[tuple[bytes, bytes]] = []

    def __repr__(self) -> str:
        return f"<ChunkedDecoder stage={self._stage} left={self._left} done={self.done}>"

    def feed(self, data: bytes) -> list[bytes]:
        """Raises ChunkError on the first byte that breaks the framing."""
        if self._held:
            data = self._held + data
            self._held = b""
        pieces: list[bytes] = []
        at = 0
        end = len(data)
        while not self.done:
            if self._stage == self._DATA:
                take = min(self._left, end - at)
                if take:
                    pieces.append(data if take == end else data[at : at + take])
                    at += take
                    self._left -= take
                if self._left:
                    return pieces
                self._stage = self._DATA_END
            if self._stage == self._DATA_END:
                if data[at : at + 2] != b"\r\n"[: end - at]:
                    raise ChunkError("malformed chunked encoding")
                if end - at < 2:
                    self._held = data[at:]
                    return pieces
                at += 2
                self._stage = self._SIZE
            line_end = data.find(b"\n", at)
            if line_end < 0:
                self._hold(data[at:])
                return pieces
            if line_end == at or data[line_end - 1] != 13:
                raise ChunkError("chunked line ends with bare LF")
            line = data[at : line_end - 1]
            at = line_end + 1
            if self._stage == self._SIZE:
                self._size(line)
            elif line:
                self._trailer(line)
            else:
                self.done = True
                self.rest = data[at:]
        return pieces

    def _hold(self, partial: bytes) -> None:
        if self._stage == self._SIZE:
            if len(partial) > MAX_LINE:
                raise ChunkError("header line too long")
        elif self._trailers_size + len(partial) > MAX_TRAILERS:
            raise ChunkError("trailers too long")
        self._held = partial

    def _size(self, line: bytes) -> None:
        if len(line) > MAX_LINE:
            raise ChunkError("header line too long")
        digits, semicolon, extension = line.partition(b";")
        if semicolon:
            digits = digits.rstrip(b" \t")  # BWS before an extension, RFC 9112 7.1.1
            if extension.translate(None, _CONTROL) != extension:
                raise ChunkError("invalid byte in chunk extension")
        if not digits or len(digits) > 16 or digits.translate(None, _HEX):
            raise ChunkError("invalid byte in chunk length")
        self._left = int(digits, 16)
        self._stage = self._DATA if self._left else self._TRAILERS

    def _trailer(self, line: bytes) -> None:
        self._trailers_size += len(line) + 2
        if self._trailers_size > MAX_TRAILERS:
            raise ChunkError("trailers too long")
        name, colon, value = line.partition(b":")
        if not colon or not name or name.translate(None, TOKEN) or value.translate(None, _CONTROL) != value:
            raise ChunkError("malformed trailer")
        self.trailers.append((name, value.strip(b" \t")))
