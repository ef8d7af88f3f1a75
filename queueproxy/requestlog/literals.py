"""Decodes Go's literals: quoted strings, characters and numbers. Go strings are bytes."""

from __future__ import annotations

import re
from typing import Final

from queueproxy.requestlog.tree import Number

_SIMPLE: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "'": "'", '"': '"',
}  # fmt: skip
_HEX_DIGITS: Final = {"x": 2, "u": 4, "U": 8}
_INTEGER: Final = re.compile(
    r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO]?(?:_?[0-7])+|0|[1-9](?:_?[0-9])*)"
)
_D: Final = "[0-9](?:_?[0-9])*"
_X: Final = "[0-9a-fA-F](?:_?[0-9a-fA-F])*"
_FLOAT: Final = re.compile(rf"[+-]?(?:{_D}\.?(?:{_D})?|\.{_D})(?:[eE][+-]?{_D})?")
_HEX_FLOAT: Final = re.compile(rf"[+-]?0[xX]_?(?:{_X}\.?(?:{_X})?|\.{_X})[pP][+-]?{_D}")
_INT64: Final = range(-(1 << 63), 1 << 63)
_UINT64: Final = range(1 << 64)


class BadLiteral(Exception):
    """The text is what went wrong, in Go's words."""


def to_bytes(text: str) -> bytes:
    """What was not UTF-8 when it came in goes out as it came."""
    return text.encode("utf-8", "surrogateescape")


def unquoted(literal: str) -> bytes:
    """A string literal, quotes included."""
    if literal[0] == "`":
        return to_bytes(literal[1:-1].replace("\r", ""))
    out, at, end = [], 1, len(literal) - 1
    while at < end:
        data, at = _character(literal, at, end, '"')
        out.append(data)
    return b"".join(out)


def character(literal: str) -> Number:
    """A character literal, quotes included: its code point."""
    end = len(literal) - 1
    if end < 2:
        raise BadLiteral("invalid syntax")
    data, at = _character(literal, 1, end, "'", code=True)
    if at != end:
        raise BadLiteral(f"malformed character constant: {literal}")
    value = int(data)
    return Number(literal, value, value)


def _character(text: str, at: int, end: int, mark: str, *, code: bool = False) -> tuple[bytes, int]:
    """The bytes of one character of a literal (or its code point in digits) and where the next one begins."""
    c = text[at]
    if c != "\\":
        return (b"%d" % _rune(c) if code else to_bytes(c)), at + 1
    if at + 1 >= end:
        raise BadLiteral("invalid syntax")
    c = text[at + 1]
    at += 2
    if c in _SIMPLE and (c not in "'\"" or c == mark):
        c = _SIMPLE[c]
        return (b"%d" % ord(c) if code else to_bytes(c)), at
    if c in _HEX_DIGITS:
        size, base = _HEX_DIGITS[c], 16
    elif c in "01234567":
        size, base = 3, 8
        at -= 1
    else:
        raise BadLiteral("invalid syntax")
    digits = text[at : min(at + size, end)]
    allowed = "0123456789abcdefABCDEF" if base == 16 else "01234567"
    if len(digits) < size or any(d not in allowed for d in digits):
        raise BadLiteral("invalid syntax")
    value = int(digits, base)
    if c in "uU":
        if value > 0x10FFFF or 0xD800 <= value < 0xE000:
            raise BadLiteral("invalid syntax")
        data = chr(value).encode()
    else:
        if value > 255:
            raise BadLiteral("invalid syntax")
        data = bytes((value,))
    return (b"%d" % value if code else data), at + size


def _rune(c: str) -> int:
    value = ord(c)
    return 0xFFFD if 0xD800 <= value < 0xE000 else value  # a byte that was no UTF-8


def number(text: str) -> Number:
    """A number literal; complex ones are not supported."""
    if text[-1] == "i":
        raise BadLiteral(f"complex numbers are not supported: {text}")
    if _INTEGER.fullmatch(text):
        plain = text.replace("_", "")
        unsigned = plain.lstrip("+-")
        value = int(plain, 8 if unsigned.isdecimal() and unsigned[0] == "0" else 0)
        if value in _INT64:
            # Go takes a signed hexadecimal integer with an e in it for a float.
            odd = text[0] in "+-" and "e" in text.lower()
            return Number(text, float(value) if odd else value, value)
        if value in _UINT64 and text[0] != "+":
            return Number(text, None, None)  # a uint64, which nothing here asks for
        if not _FLOAT.fullmatch(text):
            raise BadLiteral(f'illegal number syntax: "{text}"')
        raise BadLiteral(f'integer overflow: "{text}"')
    if _FLOAT.fullmatch(text):
        value_f = float(text.replace("_", ""))
    elif _HEX_FLOAT.fullmatch(text):
        try:
            value_f = float.fromhex(text.replace("_", ""))
        except OverflowError:
            value_f = float("inf")
    else:
        raise BadLiteral(f'illegal number syntax: "{text}"')
    if value_f in (float("inf"), float("-inf")):
        raise BadLiteral(f'illegal number syntax: "{text}"')
    if not any(c in text for c in ".eEpP"):
        raise BadLiteral(f'integer overflow: "{text}"')
    whole = int(value_f) if value_f.is_integer() and int(value_f) in _INT64 else None
    return Number(text, value_f, whole)
