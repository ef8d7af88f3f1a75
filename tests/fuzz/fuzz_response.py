"""Invariant: an app connection that may be used again has said one whole answer per request, and not a byte more.

Whatever an app says, only BadResponse may be raised, cuts do not matter, and what the client gets is HTTP/1.1 with the
status, fields and body that the grammar sees in the app's bytes.
"""

from __future__ import annotations

from itertools import pairwise

from queueproxy.codec.encode import chunk, last_chunk
from queueproxy.codec.response import BadResponse, ResponseReader, interim_bytes, response_bytes
from tests.fuzz import oracle
from tests.fuzz.cuts import byte_by_byte, cut

PROBE = b"HTTP/1.1 200 OK\r\nX-Probe: 1\r\nContent-Length: 5\r\n\r\nprobe"
ENDS = b"\xff\n"  # in the input: here the next request is sent; what follows is its answer
OURS = frozenset(
    b"content-length transfer-encoding connection trailer upgrade te proxy-connection keep-alive proxy-authenticate "
    b"proxy-authorization".split()
)
STAY = (b"close", b"keep-alive", b"upgrade")


class Sink:
    """Builds what a client on HTTP/1.1 would get."""

    def __init__(self) -> None:
        self.wire: list[bytes] = []
        self.final = self.ended = False
        self.chunked = False
        self.switched_to: bytes | None = None
        self.raw = b""

    def informed(self, status: int, lines: list[bytes]) -> None:
        assert not self.final and not self.ended and 100 <= status < 200 and status != 101
        self.wire.append(interim_bytes(status, lines))

    def switched(self, protocol: bytes, lines: list[bytes]) -> None:
        assert not self.final and not self.ended and self.switched_to is None
        self.switched_to = protocol

    def response_received(self, response: ResponseReader) -> None:
        assert not self.final and not self.ended and self.switched_to is None, "two answers"
        self.final = True
        self.chunked = response.in_body and response.content_length is None
        self.wire.append(response_bytes(response, chunked=self.chunked, connection=b"", date=b"now"))

    def response_body(self, data: bytes) -> None:
        assert data and self.final and not self.ended, "a body out of place"
        self.wire.append(chunk(data) if self.chunked else data)

    def response_ended(self, trailers: oracle.Fields) -> None:
        assert self.final and not self.ended, "ended out of place"
        self.ended = True
        if self.chunked:
            self.wire.append(last_chunk(trailers))

    def heard(self) -> tuple[object, ...]:
        """The message, chunk sizes apart."""
        wire = b"".join(self.wire)
        messages: list[object] = []
        at = 0
        while at < len(wire) and not (self.final and not self.ended):
            message, at = oracle.response(wire, at, to_head=True)
            messages.append(message)
            if message.status >= 200:
                break
        return self.final, self.ended, self.switched_to, self.raw, messages


class Connection:
    """Feeds a reader as UpstreamConnection does."""

    def __init__(self) -> None:
        self.reader = ResponseReader()
        self.sinks: list[Sink] = []
        self.over = ""

    def expect(self, *, head_only: bool) -> None:
        self.sinks.append(Sink())
        self.reader.expect(self.sinks[-1], head_only=head_only)

    def feed(self, data: bytes) -> None:
        reader, sink = self.reader, self.sinks[-1]
        if self.over:
            return
        if sink.switched_to is not None:
            sink.raw += data
            return
        if reader.complete:
            self.over = "surplus" if data.strip(b"\r\n") else "blank"  # idle in the pool: the pool drops it
            return
        try:
            rest = reader.feed(data)
        except BadResponse as error:
            assert str(error)
            self.over = "broken"
            return
        if sink.switched_to is not None:
            sink.raw += rest
        assert reader.complete == (sink.ended or sink.switched_to is not None)
        if reader.complete and not reader.clean and sink.switched_to is None:
            self.over = "unclean"

    @property
    def reusable(self) -> bool:
        """As Exchange._settle decides."""
        return not self.over and self.reader.complete and self.reader.clean and self.reader.keep_alive


def talk(parts: list[bytes], heads: int, pieces_of: list[list[bytes]]) -> Connection:
    """One request per part; the next only on a connection that may be used again."""
    connection = Connection()
    for number, _ in enumerate(parts):
        connection.expect(head_only=bool(heads >> number & 1))
        for piece in pieces_of[number]:
            connection.feed(piece)
        if not connection.reusable:
            break
    return connection


def agree(part: bytes, sink: Sink, *, head_only: bool, until_eof: bool) -> None:
    """The client gets what the app said."""
    at = there = 0
    wire = b"".join(sink.wire)
    while True:
        said, at = oracle.response(part, at, to_head=head_only)
        got, there = oracle.response(wire, there, to_head=head_only)
        assert got.status == said.status
        nominated = [t for t in oracle.listed(said.fields, b"connection") if t not in STAY]
        came = [f for f in said.fields if f[0].lower() not in OURS and f[0].lower() not in nominated]
        goes = [f for f in got.fields if f[0].lower() not in OURS and f != (b"Date", b"now")]
        assert goes == came, (goes, came)
        assert got.body == said.body
        if said.status >= 200:
            break
    assert there == len(wire), "more than one final answer"
    assert until_eof or not part[at:].strip(b"\r\n"), "reusable with bytes left"


def one_input(data: bytes) -> None:
    if not data:
        return
    heads, data = data[0], data[1:]
    pieces, stream = cut(data)
    if not stream:
        return
    parts = [part for part in stream.split(ENDS) if part]
    if not parts:
        return
    whole = talk(parts, heads, [[part] for part in parts])
    heard = [sink.heard() for sink in whole.sinks]
    seams = {len(b"".join(pieces[:i])) * 256 // len(stream) for i in range(1, len(pieces))}
    again = [[part[a:b] for a, b in _spans(part, seams)] for part in parts]
    for others in (again, [byte_by_byte(part) for part in parts] if len(stream) < 200 else again):
        other = talk(parts, heads, others)
        if other.over == "blank":
            continue  # in the same read as the answer llhttp passes over empty lines
        assert other.reusable == whole.reusable, (other.over, whole.over, other.reader, whole.reader)
        if whole.over != "broken":
            assert [sink.heard() for sink in other.sinks] == heard, "cuts matter"
    for number, sink in enumerate(whole.sinks[: len(whole.sinks) - (not whole.reusable)]):
        agree(parts[number], sink, head_only=bool(heads >> number & 1), until_eof=False)
    if whole.reusable:
        whole.expect(head_only=False)
        whole.feed(PROBE)
        assert whole.sinks[-1].ended and b"".join(whole.sinks[-1].wire).endswith(b"\r\n\r\nprobe"), "not usable again"
        return
    last, sink = len(whole.sinks) - 1, whole.sinks[-1]
    until_eof = whole.reader.until_eof
    if not whole.over and whole.reader.ended_by_eof():
        assert sink.ended
        agree(parts[last], sink, head_only=bool(heads >> last & 1), until_eof=until_eof)


def _spans(part: bytes, seams: set[int]) -> list[tuple[int, int]]:
    edges = sorted({0, len(part), *(seam * len(part) // 256 for seam in seams)})
    return list(pairwise(edges))
