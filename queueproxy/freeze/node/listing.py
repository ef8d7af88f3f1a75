"""Decodes a long JSON list piece by piece, so that the loop can turn between two pods.

Theory of operation. A list of 250 pods is 3 MB, and decoding it at once takes 40 ms in which nobody is thawed. A list
is an object whose member `items` is an array: its elements are decoded one by one, everything else as a whole. The
pieces are what `json` makes of them; only the commas are ours.
"""

import json
import re
from collections.abc import Generator, Iterator
from typing import Final

__all__ = ["members"]

_decode: Final = json.JSONDecoder().raw_decode
_blank: Final = re.compile(r"[ \t\n\r]*").match


def members(text: str) -> Iterator[tuple[str, object]]:
    """The object's members in their order; `items` comes once for each element. ValueError when it is no object."""
    at = _past(text, 0, "{")
    while text[at : at + 1] != "}":
        key, at = _decode(text, at)
        if not isinstance(key, str):
            raise ValueError("a member without a name")
        at = _past(text, at, ":")
        if key == "items" and text[at : at + 1] == "[":
            at = yield from _elements(text, _past(text, at, "["))
        else:
            value, at = _decode(text, at)
            yield key, value
        at = _next(text, at, "}")
    if _skip(text, at + 1) != len(text):
        raise ValueError("more than one object")


def _elements(text: str, at: int) -> Generator[tuple[str, object], None, int]:
    """The elements of `items`; returns where they end."""
    while text[at : at + 1] != "]":
        value, at = _decode(text, at)
        yield "items", value
        at = _next(text, at, "]")
    return at + 1


def _next(text: str, at: int, closing: str) -> int:
    """Where the closing bracket is, or the thing after the comma, which is not the bracket."""
    at = _skip(text, at)
    if text[at : at + 1] == closing:
        return at
    at = _past(text, at, ",")
    if text[at : at + 1] == closing:
        raise ValueError(f"a comma too many at character {at}")
    return at


def _past(text: str, at: int, sign: str) -> int:
    """Where the next thing begins after this sign."""
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"no {sign} at character {at}")
    return _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _blank(text, at)
    return found.end() if found else at
