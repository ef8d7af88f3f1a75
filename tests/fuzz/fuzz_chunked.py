"""Invariant: the chunked decoder accepts exactly what the grammar accepts, with the same parts, however it is cut.

Only ChunkError may be raised, nothing is delivered after it, and what is kept of an unfinished body is bounded.
"""

from __future__ import annotations

from queueproxy.codec.chunked import MAX_LINE, MAX_TRAILERS, ChunkedDecoder, ChunkError
from queueproxy.codec.encode import chunk, last_chunk
from tests.fuzz import oracle
from tests.fuzz.cuts import byte_by_byte, cut

Outcome = tuple[str, bytes, oracle.Fields, bytes]


def decoded(pieces: list[bytes]) -> Outcome:
    """(how it ended, body, trailers, rest)."""
    decoder, body = ChunkedDecoder(), b""
    for number, piece in enumerate(pieces):
        try:
            found = decoder.feed(piece)
        except ChunkError:
            return "refused", b"", [], b""
        assert all(found), "an empty piece"
        body += b"".join(found)
        assert len(decoder._held) <= MAX_TRAILERS + 1 if decoder._stage == decoder._TRAILERS else MAX_LINE + 1
        if decoder.done:
            return "whole", body, decoder.trailers, decoder.rest + b"".join(pieces[number + 1 :])
    return "unfinished", body, [], b""


def one_input(data: bytes) -> None:
    pieces, stream = cut(data)
    if not stream:
        return
    whole = decoded([stream])
    assert decoded(pieces) == whole, "cuts matter"
    if len(stream) < 200:
        assert decoded(byte_by_byte(stream)) == whole, "single bytes matter"
    try:
        body, trailers, end = oracle.chunked(stream, 0)
    except oracle.NotHttp:
        assert whole[0] != "whole", "accepted, but not in the grammar"
        return
    if sum(len(name) + len(value) + 4 for name, value in trailers) < MAX_TRAILERS and len(stream) < MAX_LINE:
        assert whole == ("whole", body, trailers, stream[end:]), "in the grammar, but not accepted"
    if whole[0] == "whole":
        again = (chunk(body) if body else b"") + last_chunk(trailers)
        assert oracle.chunked(again, 0) == (body, trailers, len(again)), "not the same when written anew"
