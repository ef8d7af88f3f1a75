"""Decodes HTTP/1.x a second time, from the grammar: regular expressions on whole messages, no state, no leniency.

Slow and simple on purpose. What the product accepts must be a message here too, with the same parts; what it refuses
is its own affair (it may be stricter).
"""

from __future__ import annotations

import re
from typing import NamedTuple

Fields = list[tuple[bytes, bytes]]

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~\x80-\xff]+) HTTP/1\.([0-9])")
_STATUS_LINE = re.compile(rb"HTTP/[0-9]\.([0-9]) ([0-9]{3})(?: [^\r\n]*)?")  # neither version nor phrase are forwarded
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*((?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)[ \t]*")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t -~\x80-\xff]*)?\r\n")
_LENGTH = re.compile(rb"[0-9]{1,18}")


class NotHttp(Exception):
    """Not one whole message."""


class Request(NamedTuple):
    """framing: "none", "sized" or "chunked"."""

    method: bytes
    target: bytes
    minor: int
    fields: Fields
    framing: str
    body: bytes
    trailers: Fields


class Response(NamedTuple):
    status: int
    minor: int
    fields: Fields
    body: bytes
    trailers: Fields


def fields_of(block: bytes) -> Fields:
    """Header or trailer lines, each with its CRLF."""
    fields: Fields = []
    for line in block.split(b"\r\n")[:-1]:
        match = _FIELD.fullmatch(line)
        if match is None:
            raise NotHttp(line)
        fields.append((match[1], match[2]))
    return fields


def values(fields: Fields, name: bytes) -> list[bytes]:
    """Values of all lines of that name (lower case)."""
    return [value for known, value in fields if known.lower() == name]


def listed(fields: Fields, name: bytes) -> list[bytes]:
    """Members of a comma-separated list, lower case."""
    members = (part.strip(b" \t").lower() for value in values(fields, name) for part in value.split(b","))
    return [member for member in members if member]


def chunked(stream: bytes, at: int) -> tuple[bytes, Fields, int]:
    """(body, trailers, end) of a chunked body that begins at `at`."""
    body = b""
    while True:
        line = _CHUNK_LINE.match(stream, at)
        if line is None:
            raise NotHttp(stream[at : at + 20])
        size, at = int(line[1], 16), line.end()
        if not size:
            break
        if stream[at + size : at + size + 2] != b"\r\n":
            raise NotHttp(stream[at : at + 20])
        body += stream[at : at + size]
        at += size + 2
    if stream[at : at + 2] == b"\r\n":
        return body, [], at + 2
    end = stream.find(b"\r\n\r\n", at)
    if end < 0:
        raise NotHttp("no end of trailers")
    return body, fields_of(stream[at : end + 2]), end + 4


def head_at(stream: bytes, at: int) -> tuple[bytes, Fields, int]:
    """(first line, fields, end) of the head that begins at `at`."""
    end = stream.find(b"\r\n\r\n", at)
    if end < 0:
        raise NotHttp("no end of head")
    first, _, rest = stream[at : end + 2].partition(b"\r\n")
    return first, fields_of(rest), end + 4


def request(stream: bytes, at: int = 0) -> tuple[Request, int]:
    """(request, end) of the request that begins at `at`. Raises NotHttp."""
    line, fields, at = head_at(stream, _after_blank(stream, at))
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise NotHttp(line)
    method, target, minor = match[1], match[2], min(int(match[3]), 1)
    lengths, codings = values(fields, b"content-length"), values(fields, b"transfer-encoding")
    if codings:
        if [coding.lower() for coding in codings] != [b"chunked"]:
            raise NotHttp(codings)
        body, trailers, at = chunked(stream, at)
        return Request(method, target, minor, fields, "chunked", body, trailers), at
    if not lengths:
        return Request(method, target, minor, fields, "none", b"", []), at
    size = _sized(lengths)
    if at + size > len(stream):
        raise NotHttp("short body")
    return Request(method, target, minor, fields, "sized", stream[at : at + size], []), at + size


def response(stream: bytes, at: int = 0, *, to_head: bool = False) -> tuple[Response, int]:
    """(response, end) of the response that begins at `at`; 1xx are responses of their own. Raises NotHttp.

    Empty lines before and after are passed over, as llhttp does: they cannot be taken for anything else.
    """
    at = _after_blank(stream, at)
    line, fields, at = head_at(stream, at)
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise NotHttp(line)
    minor, status = int(match[1]), int(match[2])
    lengths, codings = values(fields, b"content-length"), values(fields, b"transfer-encoding")
    if status < 200 or status in (204, 304) or to_head:
        return Response(status, minor, fields, b"", []), at
    if codings:
        if lengths or [coding.lower() for coding in codings] != [b"chunked"]:
            raise NotHttp(codings)
        body, trailers, at = chunked(stream, at)
        return Response(status, minor, fields, body, trailers), at
    if not lengths:
        return Response(status, minor, fields, stream[at:], []), len(stream)
    size = _sized(lengths)
    if at + size > len(stream):
        raise NotHttp("short body")
    return Response(status, minor, fields, stream[at : at + size], []), at + size


def _after_blank(stream: bytes, at: int) -> int:
    while stream[at : at + 1] in (b"\r", b"\n"):
        at += 1
    return at


def _sized(lengths: list[bytes]) -> int:
    if len(lengths) != 1 or not _LENGTH.fullmatch(lengths[0]):
        raise NotHttp(lengths)
    return int(lengths[0])
