"""A freezer's answers, however they are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.answer import MAX_HEAD, Answer, AnswerReader, BadAnswer
from queueproxy.freeze.wire import MAX_ANSWER

WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
TWO = WHOLE + b"HTTP/1.1 409 Conflict\r\nConnection: close\r\ncontent-length:  3 \r\n\r\nabc"


def read(*pieces: bytes) -> list[Answer]:
    reader, answers = AnswerReader(), []
    for piece in pieces:
        reader.feed(piece)
        while (answer := reader.next()) is not None:
            answers.append(answer)
    return answers


@given(st.lists(st.integers(0, len(TWO)), max_size=6))
def test_answers_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TWO)]
    pieces = [TWO[start:end] for start, end in pairwise(edges)]
    assert read(*pieces) == [Answer(200, b"{}", True), Answer(409, b"abc", False)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", Answer(204, b"", True)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", Answer(200, b"", False)),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", Answer(200, b"", True)),
        (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Answer(200, b"", True)),
        (b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", Answer(200, b"", True)),
    ],
)
def test_short_forms_are_answers(answer: bytes, expected: Answer) -> None:
    assert read(answer) == [expected]


@pytest.mark.fz("FZ-063", "FZ-131")
@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Continue\r\nContent-Length: 0", b"HTTP/2 200\r\nContent-Length: 0",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0", b"HTTP/1.1 abc OK\r\nContent-Length: 0", b"hello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"HTTP/1.1 200 OK\r\nContent-Length: -1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1", b"HTTP/1.1 200 OK\r\nContent-Length: 1,1",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + str(MAX_ANSWER + 1).encode(), b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0", b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\nContent-Length: 0",
        b"HTTP/1.1 200 OK\r\n: empty\r\nContent-Length: 0", "HTTP/1.1 200 OK\r\nContent-Length: ١".encode(),
    ],
    ids=lambda head: head[:60].decode(errors="replace"),
)  # fmt: skip
def test_what_cannot_be_delimited_is_refused(head: bytes) -> None:
    with pytest.raises(BadAnswer):
        read(head + b"\r\n\r\n")


def test_a_head_has_an_end_within_bounds() -> None:
    with pytest.raises(BadAnswer, match="no end of head"):
        read(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * MAX_HEAD)


@given(st.binary(max_size=200))
def test_nothing_but_a_bad_answer_ever_comes_out(data: bytes) -> None:
    try:
        read(data, b"\r\n\r\n", data)
    except BadAnswer as error:
        assert str(error)


def test_the_repr_tells_what_is_held() -> None:
    reader = AnswerReader()
    reader.feed(WHOLE[:-1])
    assert reader.next() is None and repr(reader) == f"<AnswerReader {len(WHOLE) - 1} bytes head read>"
