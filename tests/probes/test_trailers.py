from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.probes.trailers import CODES, grpc_status, http_status

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


@pytest.mark.qp("QP-265")
@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"\x88", 200), (b"\x8e", 500), (b"\x8b", 304),  # entries of the static table
        (b"\x48\x82\x64\x02", 302), (b"\x48\x83\x64\x0e\xff", 307),  # RFC 7541 C.6
        (b"\x08\x03204", 204), (b"\x1e\x03503", 503), (b"\x20\x00\x07:status\x03418", 418),
        (b"\x00\x85\xb8\x84\x8d\x36\xa3\x03418", 418),  # its name coded as well
        (b"\x00\x01a\x01b\x89", 204),
    ],
)  # fmt: skip
def test_an_http_status_is_found(block: bytes, status: int) -> None:
    assert http_status(block) == status


@pytest.mark.parametrize(
    "block",
    [
        b"", b"\x82", b"\x00\x01a\x03200", b"\x08\x0220", b"\x08\x04" + b"2000", b"\x08\x03abc", b"\x08\x82\x64",
        b"\x48\x82\xff\xff", b"\x48\x82\x64\x03", b"\x48\x84\x64\x0e\xff\xff",
    ],
)  # fmt: skip
def test_what_holds_no_http_status_has_none(block: bytes) -> None:
    assert http_status(block) is None


@given(st.binary())
def test_any_block_is_read_to_an_end_for_its_http_status_too(block: bytes) -> None:
    found = http_status(block)
    assert found is None or 0 <= found < 1000
