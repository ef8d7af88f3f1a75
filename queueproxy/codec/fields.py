"""Holds the fields of one head for those who may read and change them: extensions.

Works on the codec's own lines, in place. No name or value can end a line (RFC 9110 5.5), and what frames a message,
belongs to this hop or to the platform (`RESERVED`) can be read only: the codec writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from queueproxy.codec.chunked import TOKEN

# Framing, this hop's fields, and those the proxy writes itself; beside them everything of Knative's.
RESERVED: Final = frozenset((
    b"connection", b"content-length", b"expect", b"host", b"http2-settings", b"keep-alive", b"proxy-authenticate",
    b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    b"x-forwarded-for",
))  # fmt: skip
RESERVED_PREFIXES: Final = (b"k-", b"knative-serving-")
_CRLF: Final = b"\r\n"
_COLON: Final = b": "
_CONTROL: Final = bytes(c for c in range(32) if c != 9) + b"\x7f"


def checked_name(name: bytes) -> bytes:
    """name, or an error when it is none or not the extension's to set."""
    if not isinstance(name, bytes):
        raise TypeError(f"a header's name is bytes, not {type(name).__name__}: {name!r}")
    if not name or name.translate(None, TOKEN):
        raise ValueError(f"not a header name: {name!r}")
    lower = name.lower()
    if lower in RESERVED or lower.startswith(RESERVED_PREFIXES):
        raise ValueError(f"{name.decode()} is not an extension's to change")
    return name


def checked_value(value: bytes) -> bytes:
    """value without the blanks around it, or an error when it has what ends a line or a string."""
    if not isinstance(value, bytes):
        raise TypeError(f"a header's value is bytes, not {type(value).__name__}: {value!r}")
    if value.translate(None, _CONTROL) != value:
        raise ValueError(f"control characters in a header value: {value!r}")
    return value.strip(b" \t")


class Headers:
    """Fields of a head, in order; names without regard to case, everything in bytes.

    Reading also shows what the proxy itself will write (Host, Content-Length …), which cannot be changed here.
    """

    __slots__ = ("_fixed", "_lines", "_open")

    def __init__(self, lines: list[bytes], fixed: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self._lines = lines  # flat groups of four, those of the codec, changed in place
        self._fixed = fixed
        self._open = True

    @classmethod
    def of(cls, fields: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Made of such fields; what is not an extension's to set is refused here too."""
        made = cls([])
        for name, value in fields:
            made.add(name, value)
        return made

    def __repr__(self) -> str:
        return f"<Headers {list(self)}>"

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """(name, value) of every field."""
        yield from self._fixed
        lines = self._lines
        for at in range(0, len(lines), 4):
            yield lines[at], lines[at + 2]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, bytes) and bool(self.all(name))

    def get(self, name: bytes) -> bytes | None:
        """The first value of that name; None without."""
        return next(iter(self.all(name)), None)

    def all(self, name: bytes) -> list[bytes]:
        """Every value of that name."""
        if not isinstance(name, bytes):
            raise TypeError(f"a header's name is bytes, not {type(name).__name__}: {name!r}")
        lower = name.lower()
        return [value for each, value in self if each.lower() == lower]

    def add(self, name: bytes, value: bytes) -> None:
        """One more field."""
        name, value = self._changeable(name), checked_value(value)
        self._lines += (name, _COLON, value, _CRLF)

    def set(self, name: bytes, value: bytes) -> None:
        """One field of that name, in the place of those there were."""
        name, value = self._changeable(name), checked_value(value)
        lines, found = self._lines, self._places(name)
        if not found:
            lines += (name, _COLON, value, _CRLF)
            return
        first = found.pop(0)
        lines[first : first + 4] = (name, _COLON, value, _CRLF)
        self._delete(found)

    def remove(self, name: bytes) -> None:
        """No field of that name."""
        self._delete(self._places(self._changeable(name)))

    def seal(self) -> None:
        """The head is on its way: what changes it now comes too late."""
        self._open = False

    def _changeable(self, name: bytes) -> bytes:
        if not self._open:
            raise RuntimeError("the head has left: it can be read, not changed")
        return checked_name(name)

    def _places(self, name: bytes) -> list[int]:
        lower, lines = name.lower(), self._lines
        return [at for at in range(0, len(lines), 4) if lines[at].lower() == lower]

    def _delete(self, places: list[int]) -> None:
        for at in reversed(places):
            del self._lines[at : at + 4]


def regrouped(lines: list[bytes]) -> list[bytes]:
    """The same lines in groups of four, in whatever pieces they were: proxy.traced leaves some in others."""
    made: list[bytes] = []
    for line in b"".join(lines).split(_CRLF)[:-1]:
        name, colon, value = line.partition(_COLON)
        made += (name, colon, value, _CRLF)
    return made
