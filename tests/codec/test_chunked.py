"""The strict chunked decoder against a reference written the straightforward way, on every kind of split."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueproxy.codec.chunked import MAX_LINE, MAX_TRAILERS, ChunkedDecoder, ChunkError
from queueproxy.codec.encode import chunk, last_chunk

Decoded = tuple[bytes, list[tuple[bytes, bytes]], bytes]


def reference(message: bytes) -> Decoded | None:
    """RFC 9112 7.1 read aloud, on the whole message; None when it is not one."""
    body, at = b"", 0
    while True:
        end = message.find(b"\r\n", at)
        if end < 0:
            return None
        size_text = message[at:end].split(b";")[0]
        if b";" in message[at:end]:
            size_text = size_text.rstrip(b" \t")
        at = end + 2
        if not size_text or not all(chr(c) in "0123456789abcdefABCDEF" for c in size_text):
            return None
        size = int(size_text, 16)
        if size == 0:
            break
        body += message[at : at + size]
        at += size
        if message[at : at + 2] != b"\r\n":
            return None
        at += 2
    trailers: list[tuple[bytes, bytes]] = []
    while True:
        end = message.find(b"\r\n", at)
        if end < 0:
            return None
        line, at = message[at:end], end + 2
        if not line:
            return body, trailers, message[at:]
        name, colon, value = line.partition(b":")
        if not colon:
            return None
        trailers.append((name, value.strip(b" \t")))


def decoded(pieces: list[bytes]) -> Decoded | None:
    """What our decoder makes of the message in these pieces; None when it is refused or not complete."""
    decoder, body = ChunkedDecoder(), b""
    for index, piece in enumerate(pieces):
        if not piece:
            continue
        try:
            body += b"".join(decoder.feed(piece))
        except ChunkError:
            return None
        if decoder.done:
            return body, decoder.trailers, decoder.rest + b"".join(pieces[index + 1 :])
    return None


def cut(message: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(message), *(place % (len(message) + 1) for place in places)})
    return [message[a:b] for a, b in itertools.pairwise(edges)]


NAMES = st.text("abcXYZ-09", min_size=1, max_size=6).map(str.encode)
VALUES = st.text("abc ,;=\t\xe9", max_size=10).map(lambda text: text.strip().encode("latin-1"))
SPLITS = st.lists(st.integers(0, 10_000), max_size=12)


@pytest.mark.qp("QP-074")
@settings(max_examples=300, deadline=None)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6),
    extension=st.sampled_from([b"", b";a", b";a=b", b' ;q="x;y"', b"\t;"]),
    trailers=st.lists(st.tuples(NAMES, VALUES), max_size=3),
    surplus=st.binary(max_size=20),
    splits=SPLITS,
)
def test_a_good_body_is_read_like_the_reference_however_it_is_split(
    chunks: list[bytes], extension: bytes, trailers: list[tuple[bytes, bytes]], surplus: bytes, splits: list[int]
) -> None:
    message = b"".join(b"%X%b\r\n%b\r\n" % (len(data), extension, data) for data in chunks)
    message += last_chunk(trailers) + surplus
    assert decoded(cut(message, splits)) == (b"".join(chunks), trailers, surplus)
    assert reference(message) == (b"".join(chunks), trailers, surplus)


@pytest.mark.slow
@pytest.mark.qp("QP-054")
@settings(max_examples=500, deadline=None)
@given(
    message=st.lists(
        st.sampled_from([b"0", b"1", b"a", b"5", b"\r\n", b"\r", b"\n", b";", b" ", b"x", b":", b"hello", b"\x00"]),
        max_size=14,
    ).map(b"".join),
    splits=SPLITS,
)
def test_what_it_accepts_the_reference_reads_the_same_and_splits_do_not_matter(
    message: bytes, splits: list[int]
) -> None:
    whole = decoded([message])
    assert decoded(cut(message, splits)) == whole
    if whole is not None:
        assert reference(message) == whole


@pytest.mark.qp("QP-054")
@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\r\n", id="no size"),
        pytest.param(b"+5\r\nhello\r\n0\r\n\r\n", id="sign"),
        pytest.param(b"0x5\r\nhello\r\n0\r\n\r\n", id="prefix"),
        pytest.param(b"5 \r\nhello\r\n0\r\n\r\n", id="blank after the size"),
        pytest.param(b" 5\r\nhello\r\n0\r\n\r\n", id="blank before the size"),
        pytest.param(b"5_0\r\n", id="underscore"),
        pytest.param(b"\xd9\xa5\r\n", id="a digit of another script"),
        pytest.param(b"12345678901234567\r\n", id="17 digits"),
        pytest.param(b"5\nhello\r\n0\r\n\r\n", id="bare LF after the size"),
        pytest.param(b"5\r\nhello\n0\r\n\r\n", id="bare LF after the data"),
        pytest.param(b"5\r\nhelloX0\r\n\r\n", id="data longer than said"),
        pytest.param(b"5\r\nhell\r\n0\r\n\r\n", id="data shorter than said"),
        pytest.param(b"5;a\x00\r\nhello\r\n0\r\n\r\n", id="control in an extension"),
        pytest.param(b"5;a\rb\r\nhello\r\n0\r\n\r\n", id="CR in an extension"),
        pytest.param(b"0\r\nno colon\r\n\r\n", id="trailer without colon"),
        pytest.param(b"0\r\n: v\r\n\r\n", id="trailer without name"),
        pytest.param(b"0\r\na b: v\r\n\r\n", id="trailer name is no token"),
        pytest.param(b"0\r\na: v\x01\r\n\r\n", id="control in a trailer"),
        pytest.param(b"0\r\na: 1\r\n b\r\n\r\n", id="folded trailer"),
        pytest.param(b"0\r\na: 1\n\r\n", id="bare LF in the trailers"),
        pytest.param(b"5;" + b"x" * MAX_LINE + b"\r\n", id="endless extension"),
        pytest.param(b"5;" + b"x" * 2 * MAX_LINE, id="extension that never ends"),
        pytest.param(b"0\r\n" + b"a: b\r\n" * (MAX_TRAILERS // 6 + 1) + b"\r\n", id="too many trailers"),
        pytest.param(b"0\r\na: " + b"x" * (MAX_TRAILERS + 1), id="a trailer that never ends"),
    ],
)
@pytest.mark.parametrize("split", [False, True], ids=["in one piece", "byte by byte"])
def test_ambiguous_framing_is_refused(message: bytes, split: bool) -> None:
    decoder = ChunkedDecoder()
    with pytest.raises(ChunkError):
        for piece in [message[i : i + 1] for i in range(len(message))] if split else [message]:
            decoder.feed(piece)
    assert not decoder.done


@pytest.mark.qp("QP-074")
def test_data_is_handed_on_as_it_comes_not_when_the_chunk_is_whole() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"ffffffff\r\nab") == [b"ab"]
    assert decoder.feed(b"cd") == [b"cd"]
    assert not decoder.done


def test_a_whole_piece_inside_a_chunk_is_not_copied() -> None:
    decoder = ChunkedDecoder()
    decoder.feed(b"ff\r\n")
    piece = b"x" * 100
    assert decoder.feed(piece)[0] is piece


@pytest.mark.qp("QP-353")
def test_memory_is_bounded_by_what_is_being_fed() -> None:
    decoder = ChunkedDecoder()
    for _ in range(1000):
        assert decoder.feed(chunk(b"x" * 1000)) == [b"x" * 1000]
    assert decoder._held == b""
