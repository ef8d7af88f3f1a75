"""Decodes a fuzz input: how the stream is cut into reads, then the stream itself.

The first byte modulo 8 is the number of cuts, each following byte one cut as a 256th of the stream. "0" to "7" are the
counts 0 to 7, so a seed can be typed: `2@PGET / HTTP/1.1…` is cut after a quarter and after five sixteenths.
"""

from __future__ import annotations

from itertools import pairwise


def cut(data: bytes) -> tuple[list[bytes], bytes]:
    """(pieces, stream): pieces are not empty and joined are the stream."""
    count = data[0] % 8 if data else 0
    stream = data[1 + count :]
    size = len(stream)
    edges = sorted({0, size, *(at * size // 256 for at in data[1 : 1 + count])})
    return [stream[a:b] for a, b in pairwise(edges)], stream


def byte_by_byte(stream: bytes) -> list[bytes]:
    """The most cuts there can be."""
    return [stream[i : i + 1] for i in range(len(stream))]
