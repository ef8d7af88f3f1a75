"""Encodes text for other languages as Go's template functions do: js, html, urlquery, and Go's own quotes.

Bytes in, bytes out: Go strings are bytes, usually UTF-8; what is not passes through or becomes U+FFFD as Go has it. One
difference on purpose (D15): `js` writes an apostrophe as \\u0027. Go writes \\', which JSON does not know, so that a
URL with an apostrophe would make a line nobody can parse.
"""

from __future__ import annotations

import re
from typing import Final

# translate() answers with the same object when it changes nothing, the quickest way to ask whether a byte occurs.
_PLAIN: Final = bytes(c if 32 <= c < 128 and c not in b"\\'\"<>&=" else c ^ 1 for c in range(256))
_QUERY: Final = bytes(c ^ 1 if c not in b"=&" and _PLAIN[c] != c else c for c in range(256))
_USUAL: Final = bytes(c if 32 <= c < 128 else c ^ 1 for c in range(256))
_JS: Final = {c: f"\\u{c:04X}" for c in (*range(32), *b"<>&='")} | {ord("\\"): "\\\\", ord('"'): '\\"'}
# The backslash first: the others bring new ones.
_USUAL_ESCAPES: Final = [(ord(c), c.encode(), _JS[ord(c)].encode()) for c in "\\=&'\"<>"]
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
    if text.translate(_PLAIN) is text:
        return text
    if text.translate(_QUERY) is text:  # a URL with a query, most likely
        return text.replace(b"&", b"\\u0026").replace(b"=", b"\\u003D")
    if text.translate(_USUAL) is text:
        for code, one, escape in _USUAL_ESCAPES:
            if code in text:  # by number: by bytes costs six times as much
                text = text.replace(one, escape)
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
