"""Decodes Cookie headers as Go's net/http does: `.Request.Cookie "name"`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from queueproxy.requestlog.values import ExecutionError, Struct

_TOKEN: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+\-.^_`|~]+")
_VALUE: Final = re.compile(rb"[ !#-:<-\[\]-~]*")  # no quotes, no semicolon, no backslash
_LIMIT: Final = 3000  # Go reads none when there are more


class Cookie(Struct):
    """http.Cookie of a request: a name and a value."""

    go_type = "http.Cookie"
    __slots__ = ("name", "quoted", "value")

    def __init__(self, name: bytes, value: bytes, quoted: bool) -> None:
        self.name = name
        self.value = value
        self.quoted = quoted

    def string(self) -> bytes:
        odd = self.quoted or b" " in self.value or b"," in self.value
        return self.name + b"=" + (b'"%b"' % self.value if odd else self.value)


Cookie.stringer = Cookie.string
Cookie.fields = {
    "Name": lambda cookie: cookie.name,
    "Value": lambda cookie: cookie.value,
    "Quoted": lambda cookie: cookie.quoted,
}


def cookie(lines: Iterable[bytes], wanted: bytes) -> Cookie:
    """The first cookie of that name; without one, an error, as in Go."""
    parts = [part.strip(b" \t") for line in lines for part in line.strip(b" \t").split(b";")]
    if wanted and len(parts) <= _LIMIT:
        for part in parts:
            name, _, value = part.partition(b"=")
            name = name.strip(b" \t")
            if name != wanted or not _TOKEN.fullmatch(name):
                continue
            quoted = len(value) > 1 and value[:1] == b'"' == value[-1:]
            if quoted:
                value = value[1:-1]
            if _VALUE.fullmatch(value):
                return Cookie(name, value, quoted)
    raise ExecutionError("http: named cookie not present")
