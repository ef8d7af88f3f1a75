"""Proves queueproxy.bench.websocket: the example of RFC 6455, frames of every length form, however they are cut."""

import os

import pytest

from queueproxy.bench.websocket import FrameError, Frames, accepted, masked_frame, plain_frame

MASK = b"\x37\xfa\x21\x3d"
SIZES = [0, 1, 4, 5, 125, 126, 1024, 65535, 65536, 70001]


def test_the_answer_to_the_handshake_is_that_of_the_rfc() -> None:
    assert accepted(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # RFC 6455 1.3


def test_a_masked_frame_is_that_of_the_rfc() -> None:
    frame = masked_frame(b"Hello", MASK)  # RFC 6455 5.7, which sends it as text
    assert frame == bytes.fromhex("828537fa213d7f9f4d5158")


@pytest.mark.parametrize("size", SIZES)
def test_a_payload_of_any_size_comes_out_as_it_went_in(size: int) -> None:
    payload = os.urandom(size)
    assert Frames().feed(masked_frame(payload, MASK)) == [payload]
    plain = plain_frame(payload)
    assert plain.endswith(payload)
    assert len(plain) - size == (2 if size < 126 else 4 if size < 65536 else 10)


@pytest.mark.parametrize("size", [3, 126, 70_000], ids=["short", "two bytes of length", "eight bytes of length"])
def test_a_frame_is_whole_with_its_last_byte_and_not_before(size: int) -> None:
    frame = masked_frame(b"x" * size, MASK)
    frames = Frames()
    for at in range(20 if size > 20 else len(frame) - 1):
        assert frames.feed(frame[at : at + 1]) == []
    rest = frame[20 if size > 20 else len(frame) - 1 :]
    assert frames.feed(rest[:-1]) == []
    assert frames.feed(rest[-1:]) == [b"x" * size]


def test_two_frames_and_a_half_in_one_read_are_two() -> None:
    frame = masked_frame(b"one", MASK)
    frames = Frames()
    assert frames.feed(frame + masked_frame(b"two", MASK) + frame[:4]) == [b"one", b"two"]
    assert frames.feed(frame[4:]) == [b"one"]


@pytest.mark.parametrize(
    "data",
    [plain_frame(b"x"), b"\x81\x81....x", b"\x02\x81....x", b"\x88\x80....", b"\x82\xff" + b"\xff" * 8 + b"...."],
    ids=["no mask", "text", "fragment", "close", "too large"],
)
def test_what_an_echo_under_load_never_says_is_refused(data: bytes) -> None:
    with pytest.raises(FrameError):
        Frames().feed(data)
