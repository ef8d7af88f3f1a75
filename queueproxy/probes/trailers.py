"""Decodes one field of an HTTP/2 answer's header blocks, `grpc-status` or `:status`, without a header decoder.

Theory of operation
-------------------
We announce a dynamic table of size zero (SETTINGS_HEADER_TABLE_SIZE), so every field of a block is a literal or an
entry of the static table, and none depends on a block before it (RFC 7541 4.2, 6). Walking over the fields then needs
the integers and string lengths only. `grpc-status` is not in the static table and its values are seventeen, `:status`
is there with seven of its values: all are recognised by their spellings, plain and Huffman-coded; nothing needs to be
decoded from Huffman.

A block that does not follow this (a server that ignores our setting) has no status as far as we can tell: None.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["CODES", "grpc_status", "http_status"]

# The canonical codes as grpc-go writes them, by number.
CODES = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)

# RFC 7541 appendix B, the characters we look for.
_HUFFMAN = {"0": "00000", "1": "00001", "2": "00010"} | {str(n): f"{n + 22:06b}" for n in range(3, 10)}
_HUFFMAN |= {"g": "100110", "r": "101100", "p": "101011", "c": "00100", "-": "010110", "s": "01000", "t": "01001"}
_HUFFMAN |= {"a": "00011", "u": "101101", ":": "1011100"}
_DIGIT_CODES = {code: char for char, code in _HUFFMAN.items() if char.isdigit()}


def _huffman(text: str) -> bytes:
    bits = "".join(_HUFFMAN[c] for c in text)
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


# (Huffman-coded?, bytes) of the name, and of each value.
_NAMES = frozenset(((False, b"grpc-status"), (True, _huffman("grpc-status"))))
_VALUES = {(False, str(n).encode()): n for n in range(len(CODES))} | {
    (True, _huffman(str(n))): n for n in range(len(CODES))
}


# Entries 8 to 14 of the static table (RFC 7541 appendix A).
_STATUSES = (200, 204, 206, 304, 400, 404, 500)
_STATUS_AT = 8
_STATUS_NAMES = frozenset(((False, b":status"), (True, _huffman(":status"))))


def grpc_status(block: bytes) -> int | None:
    """The status in a complete header block; None when it holds none, or none that can be read."""
    for _, name, value in _fields(block):
        if name in _NAMES:
            return _VALUES.get(value)
    return None


def http_status(block: bytes) -> int | None:
    """The same of an answer's first block."""
    for index, name, value in _fields(block):
        known = 0 <= index - _STATUS_AT < len(_STATUSES)
        if known and value == _ENTRY:
            return _STATUSES[index - _STATUS_AT]
        if known or name in _STATUS_NAMES:
            coded, text = value
            return _digits(text) if coded else _number(text)
    return None


_String = tuple[bool, bytes]  # Huffman-coded?, as it stands
_NO_NAME: _String = (False, b"")
_ENTRY: _String = (True, b"")  # no string on the wire: the value is the table's


def _fields(block: bytes) -> Iterator[tuple[int, _String, _String]]:
    """(index in a table or 0, name, value) of each field, as far as the block can be read."""
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:  # an entry of a table, name and value
                index, at = _integer(block, at, 7)
                yield index, _NO_NAME, _ENTRY
                continue
            if first & 0xE0 == 0x20:  # a change of the dynamic table's size
                _, at = _integer(block, at, 5)
                continue
            index, at = _integer(block, at, 6 if first & 0x40 else 4)
            name = _NO_NAME
            if index == 0:
                name, at = _string(block, at)
            value, at = _string(block, at)
            yield index, name, value
    except IndexError:
        return


def _number(text: bytes) -> int | None:
    return int(text) if len(text) == 3 and text.isdigit() else None


def _digits(coded: bytes) -> int | None:
    """Three Huffman-coded digits: five bits up to 2, six bits above; ones fill the last byte."""
    bits = "".join(f"{byte:08b}" for byte in coded)
    text, at = "", 0
    while len(text) < 3:
        length = 5 if bits[at : at + 5] in _DIGIT_CODES else 6
        digit = _DIGIT_CODES.get(bits[at : at + length])
        if digit is None:
            return None
        text, at = text + digit, at + length
    return int(text) if len(bits) - at < 8 and "0" not in bits[at:] else None


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """RFC 7541 5.1: the value and where it ends."""
    most = (1 << prefix) - 1
    value = block[at] & most
    at += 1
    if value == most:
        shift = 0
        while True:
            byte = block[at]
            at += 1
            value += (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
    return value, at


def _string(block: bytes, at: int) -> tuple[tuple[bool, bytes], int]:
    """RFC 7541 5.2: whether it is Huffman-coded, its bytes as they stand, and where it ends."""
    coded = bool(block[at] & 0x80)
    length, at = _integer(block, at, 7)
    end = at + length
    if end > len(block):
        raise IndexError(end)
    return (coded, block[at:end]), end
