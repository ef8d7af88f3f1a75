"""`Stat` on the wire, read back by an independent reader."""

import struct

import pytest

from queueproxy.codec.protobuf import encode_stat, varint
from tests.support.stat_reader import read_stat


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, b"\x00"), (1, b"\x01"), (127, b"\x7f"), (128, b"\x80\x01"), (253, b"\xfd\x01"), (300, b"\xac\x02")],
)
def test_varint(value: int, encoded: bytes) -> None:
    assert varint(value) == encoded


@pytest.mark.qp("QP-137")
def test_the_observed_body_of_33_bytes() -> None:
    body = encode_stat("pod1", 0.00216, 0.0, 2.0, 0.0, 2.0009)
    assert body == b"".join((
        b"\x0a\x04pod1", b"\x11", struct.pack("<d", 0.00216), b"\x21", struct.pack("<d", 2.0),
        b"\x31", struct.pack("<d", 2.0009),
    ))  # fmt: skip
    assert len(body) == 33


@pytest.mark.qp("QP-137")
def test_every_field_has_its_number() -> None:
    body = encode_stat("p", 1.5, 0.5, 20.0, 3.0, 61.25)
    assert read_stat(body) == {1: "p", 2: 1.5, 3: 0.5, 4: 20.0, 5: 3.0, 6: 61.25}


@pytest.mark.qp("QP-136", "QP-137", "QP-145")
def test_zeros_are_left_out() -> None:
    assert read_stat(encode_stat("pod")) == {1: "pod"}
    assert encode_stat("pod") == b"\x0a\x03pod"


@pytest.mark.qp("QP-139")
def test_the_longest_pod_name_fits_in_336_bytes() -> None:
    body = encode_stat("p" * 253, 0.1, 0.2, 0.3, 0.4, 1e9)
    assert len(body) == 301 and len(body) <= 336
    assert read_stat(body)[1] == "p" * 253
