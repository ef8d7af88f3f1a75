from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.probes.trailers import CODES, grpc_status

NAME = b"\x0bgrpc-status"
# As the `hpack` package Huffman-codes grpc-status and the numbers, with their lengths before them.
CODED_NAME = b"\x88\x9a\xca\xc8\xb2\x12\x34\xda\x8f"
CODED = {0: b"\x81\x07", 1: b"\x81\x0f", 5: b"\x81\x6f", 12: b"\x82\x08\xbf", 16: b"\x82\x0b\x9f"}


@pytest.mark.parametrize("first", [b"\x00", b"\x10", b"\x40"], ids=["without indexing", "never indexed", "indexed"])
@pytest.mark.parametrize("code", range(len(CODES)))
def test_a_plain_status_is_found(first: bytes, code: int) -> None:
    value = str(code).encode()
    assert grpc_status(first + NAME + bytes((len(value),)) + value) == code


@pytest.mark.parametrize("name", [NAME, CODED_NAME], ids=["plain name", "coded name"])
@pytest.mark.parametrize("code, value", CODED.items(), ids=[CODES[code] for code in CODED])
def test_a_huffman_coded_status_is_found(name: bytes, code: int, value: bytes) -> None:
    assert grpc_status(b"\x00" + name + value) == code


@pytest.mark.parametrize(
    "before",
    [
        b"\x88",  # :status: 200
        b"\x20",  # dynamic table size 0
        b"\x3f\xe1\x1f",  # and 4096
        b"\x5f\x10application/grpc",  # content-type, from the static table
        b"\x0f\x10\x8b\x1d\x75\xd0\x62\x0d\x26\x3d\x4c\x4d\x65\x64",  # the same, coded
        b"\x00\x01a\x7f\x00" + b"x" * 127,  # a long value
        b"\xff\x80\x01",  # a table entry with a long index
    ],
    ids=["indexed", "size 0", "size 4096", "static name", "coded", "long", "long index"],
)
def test_fields_before_it_are_stepped_over(before: bytes) -> None:
    assert grpc_status(before + b"\x00" + NAME + b"\x015") == 5


@pytest.mark.parametrize(
    "block",
    [b"", b"\x88", b"\x00\x01a\x015", b"\x00" + NAME + b"\x0217", b"\x00" + NAME + b"\x01x", b"\x00" + NAME + b"\x00"]
    + [(b"\x88\x00" + NAME + b"\x0212")[:cut] for cut in range(1, 15)]
    + [b"\x7f\xff\xff", b"\xff"],
)
def test_what_holds_no_status_has_none(block: bytes) -> None:
    assert grpc_status(block) is None


@given(st.binary())
def test_any_block_is_read_to_an_end(block: bytes) -> None:
    assert grpc_status(block) in {None, *range(len(CODES))}
