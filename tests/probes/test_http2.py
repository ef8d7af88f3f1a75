"""One HTTP/2 request on a connection of its own, frame by frame; what it means is tested with its two exchanges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.probes.http2 import MAX_FRAME, Http2Exchange, literal, string
from queueproxy.probes.trailers import http_status

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


class Told(Http2Exchange):
    """Remembers what it was told."""

    def __init__(self, headers: bytes = b"h", content: bytes = b"") -> None:
        super().__init__()
        self.headers, self.content = headers, content
        self.blocks: list[bytes] = []
        self.data = b""
        self.ends = 0

    def _headers(self) -> bytes:
        return self.headers

    def _content(self) -> bytes:
        return self.content

    def _block_came(self, block: bytes) -> None:
        self.blocks.append(block)

    def _data_came(self, data: bytes) -> None:
        self.data += data

    def _stream_ended(self) -> None:
        self.ends += 1
        self._decide(None)


def frame(kind: int, flags: int, payload: bytes, stream: int = 1) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def frames(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(kind, flags, stream, payload) of each."""
    found = []
    while data:
        length = int.from_bytes(data[:3], "big")
        found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
        data = data[9 + length :]
    return found


def test_a_request_without_content_ends_with_its_head() -> None:
    opening = Told(b"head").opening()
    assert opening.startswith(PREFACE)
    settings, head = frames(opening.removeprefix(PREFACE))
    assert settings[:3] == (4, 0, 0) and head == (1, 0x5, 1, b"head")


def test_a_request_with_content_ends_with_that() -> None:
    _, head, content = frames(Told(b"head", b"body").opening().removeprefix(PREFACE))
    assert (head, content) == ((1, 0x4, 1, b"head"), (0, 0x1, 1, b"body"))


def test_a_head_that_fills_more_than_a_frame_goes_on_in_others() -> None:
    block = bytes(n % 251 for n in range(2 * MAX_FRAME + 7))
    _, *head = frames(Told(block).opening().removeprefix(PREFACE))
    assert [(kind, flags) for kind, flags, _, _ in head] == [(1, 0x1), (9, 0), (9, 0x4)]
    assert b"".join(payload for *_, payload in head) == block


def test_an_answer_in_single_bytes_is_the_answer() -> None:
    told = Told()
    answer = SETTINGS + frame(1, 0, b"a") + frame(9, 0x4, b"b") + frame(0, 0x8, b"\x02datapp") + frame(1, 0x5, b"t")
    sent = b"".join(told.received(answer[at : at + 1]) for at in range(len(answer)))
    assert frames(sent) == [(4, 1, 0, b"")]  # their settings acknowledged
    assert (told.blocks, told.data, told.ends) == ([b"ab", b"t"], b"data", 1)
    assert told.decided and told.finished and told.failure is None


def test_a_ping_is_answered_and_other_streams_are_not_heard() -> None:
    told = Told()
    sent = told.received(SETTINGS + frame(6, 0, b"12345678", 0) + frame(0, 1, b"x", 3) + frame(8, 0, b"\0\0\0\1", 0))
    assert frames(sent)[1] == (6, 1, 0, b"12345678")
    assert not told.decided and not told.data


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "the server does not speak HTTP/2"),
        (SETTINGS + b"\xff\xff\xff\0\0\0\0\0\1", "frame too long"),
        (SETTINGS + frame(3, 0, b"\0\0\0\x0d"), "stream reset by the server: HTTP_1_1_REQUIRED"),
        (SETTINGS + frame(7, 0, b"\0\0\0\0\0\0\0\1", 0), "the server went away: PROTOCOL_ERROR"),
        (SETTINGS + frame(3, 0, b"\0\0\1\0"), "stream reset by the server: 256"),
    ],
)
def test_what_ends_an_exchange(answer: bytes, why: str) -> None:
    told = Told()
    told.received(answer)
    assert told.decided and told.finished and told.failure == why


def test_an_answer_without_end_is_cut_off() -> None:
    told = Told()
    told.received(SETTINGS)
    for _ in range(17):
        told.received(frame(0, 0, bytes(MAX_FRAME)))
    assert told.failure == "answer too long"


def test_an_end_before_the_answer_is_a_failure_and_after_it_is_none() -> None:
    told = Told()
    told.ended("")
    assert told.failure == "connection closed before the answer"
    told = Told()
    told.received(SETTINGS + frame(1, 0x5, b"t"))
    told.ended("connection reset")
    assert told.failure is None


def test_lengths_and_indexes_that_do_not_fit_their_prefix_go_on_in_further_bytes() -> None:
    assert string("a" * 126)[:1] == b"\x7e"
    assert string("a" * 127)[:2] == b"\x7f\x00"
    assert string("a" * 1337)[:3] == b"\x7f\xba\x09"  # 1337 = 127 + 58 + 9 * 128; RFC 7541 C.1.2 has it with 31
    assert literal(4, "/")[:1] == b"\x04" and literal(31, "x")[:2] == b"\x0f\x10"
    assert literal("te", "trailers") == b"\x00\x02te\x08trailers"


@given(st.text(max_size=300), st.text(max_size=40_000))
def test_any_field_can_be_stepped_over(name: str, value: str) -> None:
    field = literal(f"x{name}", value)
    assert http_status(field + b"\x88") == 200


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_whatever_comes_is_taken(pieces: list[bytes]) -> None:
    told = Told()
    for piece in pieces:
        told.received(piece)
    told.ended("")
    assert told.decided and told.finished
