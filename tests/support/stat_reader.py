"""Reads the autoscaler's `Stat` independently of the encoder: a protobuf reader for strings and doubles."""

import struct

__all__ = ["read_stat"]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def read_stat(data: bytes) -> dict[int, str | float]:
    """Field number -> value; an error for anything that is not a string or a double."""
    fields: dict[int, str | float] = {}
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        assert number not in fields, f"field {number} twice"
        if wire == 2:
            size, at = _varint(data, at)
            assert at + size <= len(data), "string runs over the end"
            fields[number], at = data[at : at + size].decode(), at + size
        else:
            assert wire == 1, f"wire type {wire} in field {number}"
            (fields[number],), at = struct.unpack_from("<d", data, at), at + 8
    return fields
