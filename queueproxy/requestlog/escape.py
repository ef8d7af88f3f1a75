"""Encodes text for other languages as Go's template functions do: js, html, urlquery, and Go's own quotes.

Bytes in, bytes out: Go strings are bytes, usually UTF-8; what is not passes through or becomes U+FFFD as Go has it. One
difference on purpose (D15): `js` writes an apostrophe as \\u0027. Go writes \\', which JSON does not know, so that a
URL with an apostrophe would make a line nobody can parse.
"""

from __future__ import annotations

import re
from typing import Final

_PLAIN: Final = bytes(b for b in range(32, 128) if b not in b"\\'\"<>&=")  # nothing js would touch, DEL included
_JS: Final = {c: f"\\u{c:04X}" for c in (*range(32), *b"<>&='")} | {ord("\\"): "\\\\", ord('"'): '\\"'}
_JS_ASCII: Final = {c: escape.encode() for c, escape in _JS.items()}
_ONE: Final = [bytes((c,)) for c in range(128)]
_HTML: Final = re.compile(rb"[\x00\"'&<>]")
_HTML_NAMES: Final = {
    b"\0": "\ufffd".encode(), b'"': b"&#34;", b"'": b"&#39;", b"&": b"&amp;", b"<": b"&lt;", b">": b"&gt;",
}  # fmt: skip
_UNRESERVED: Final = re.compile(rb"[^A-Za-z0-9_.~-]")
_QUOTED: Final = {
    7: "\\a", 8: "\\b", 12: "\\f", 10: "\\n", 13: "\\r", 9: "\\t", 11: "\\v", ord("\\"): "\\\\",
}  # fmt: skip


def js(text: bytes) -> bytes:
    """Inside a JavaScript or JSON string."""
    special = text.translate(None, _PLAIN)
    if not special:
        return text
    if special.isascii():
        if 92 in special:
            text = text.replace(b"\\", b"\\\\")  # first: the others bring new ones
        for c in {*special}:
            if c != 92:
                text = text.replace(_ONE[c], _JS_ASCII[c])
        return text
    out: list[str] = []
    for c in text.decode("utf-8", "surrogateescape"):
        code = ord(c)
        if code < 128:
            out.append(_JS.get(code, c))
        elif 0xDC80 <= code <= 0xDCFF or c.isprintable():  # no UTF-8: Go takes it for U+FFFD, which is printable
            out.append(c)
        else:
            out.append(f"\\u{code:04X}")
    return "".join(out).encode("utf-8", "surrogateescape")


def html(text: bytes) -> bytes:
    """Inside HTML text or an attribute."""
    return _HTML.sub(lambda found: _HTML_NAMES[found[0]], text)


def urlquery(text: bytes) -> bytes:
    """Inside a query."""
    return _UNRESERVED.sub(lambda found: b"+" if found[0] == b" " else b"%%%02X" % found[0][0], text)


def runes(text: bytes) -> str:
    """One character per rune, a stray byte being one."""
    return text.decode("utf-8", "surrogateescape")


def quoted(text: bytes, mark: str = '"', *, ascii_only: bool = False) -> bytes:
    """As strconv.Quote."""
    out = [mark]
    for c in runes(text):
        code = ord(c)
        if 0xDC80 <= code <= 0xDCFF:
            out.append(f"\\x{code - 0xDC00:02x}")
        elif c == mark:
            out.append("\\" + mark)
        elif code in _QUOTED:
            out.append(_QUOTED[code])
        elif c.isprintable() and (code < 128 or not ascii_only):
            out.append(c)
        elif code < 32 or code == 127:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    out.append(mark)
    return "".join(out).encode()


def backquotable(text: bytes) -> bool:
    """As strconv.CanBackquote: `text` can stand between back quotes."""
    return all(
        not (0xDC80 <= ord(c) <= 0xDCFF) and c not in "`\x7f\ufeff" and (c >= " " or c == "\t") for c in runes(text)
    )
