"""Holds the fields of one head for those who may read and change them: extensions.

Works on the codec's own lines, in place. No name or value can end a line (RFC 9110 5.5), and what frames a message,
belongs to this hop or to the platform (`RESERVED`) can be read only: the codec writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from queueproxy.codec.chunked import TOKEN
from queueproxy.codec.headers import CONTENT_LENGTH, HOST, K_ORIGINAL_HOST, X_FORWARDED_FOR

if TYPE_CHECKING:
    from queueproxy.codec.head import RequestHead
    from queueproxy.codec.response import ResponseReader

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

    Reading also shows what the proxy itself will write (Host, Content-Length …), which cannot be changed here. changed:
    somebody has.
    """

    __slots__ = ("_lines", "_open", "changed")

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines  # flat groups of four, those of the codec, changed in place
        self._open = True
        self.changed = False

    @classmethod
    def of(cls, fields: Iterable[tuple[bytes, bytes]]) -> Headers:
        """Made of such fields; what is not an extension's to set is refused here too."""
        made = Headers([])
        for name, value in fields:
            made.add(name, value)
        return made

    def __repr__(self) -> str:
        return f"<Headers {list(self)}>"

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """(name, value) of every field."""
        yield from self.written()
        lines = self._lines
        for at in range(0, len(lines), 4):
            yield lines[at], lines[at + 2]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, bytes) and bool(self.all(name))

    def get(self, name: bytes) -> bytes | None:
        """The first value of that name; None without."""
        found = self.all(name)
        return found[0] if found else None

    def all(self, name: bytes) -> list[bytes]:
        """Every value of that name."""
        if not isinstance(name, bytes):
            raise TypeError(f"a header's name is bytes, not {type(name).__name__}: {name!r}")
        lower = name.lower()
        lines = self._lines
        found = [lines[at + 2] for at in range(0, len(lines), 4) if lines[at].lower() == lower]
        if lower in RESERVED:
            found += [value for each, value in self.written() if each.lower() == lower]
        return found

    def written(self) -> Iterable[tuple[bytes, bytes]]:
        """Those of the fields that the codec writes itself; made when somebody asks."""
        return ()

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
        self.changed = True
        return checked_name(name)

    def _places(self, name: bytes) -> list[int]:
        lower, lines = name.lower(), self._lines
        return [at for at in range(0, len(lines), 4) if lines[at].lower() == lower]

    def _delete(self, places: list[int]) -> None:
        for at in reversed(places):
            del self._lines[at : at + 4]


class RequestHeaders(Headers):
    """Beside them what the encoder writes, X-Forwarded-For as it came."""

    __slots__ = ("_default_host", "_head")

    def __init__(self, head: RequestHead, default_host: bytes) -> None:
        self._lines = head.lines
        self._open = True
        self.changed = False
        self._head = head
        self._default_host = default_host

    @property
    def host(self) -> bytes:
        """See encode.request_bytes."""
        special = self._head.special
        return special.get(K_ORIGINAL_HOST) or special.get(HOST) or self._default_host

    def written(self) -> list[tuple[bytes, bytes]]:
        head = self._head
        special = head.special
        found = [(b"Host", self.host)]
        if head.body == 2:
            found.append((b"Transfer-Encoding", b"chunked"))
        elif CONTENT_LENGTH in special:
            found.append((b"Content-Length", special[CONTENT_LENGTH]))
        if head.upgrade is not None:
            found += ((b"Connection", b"Upgrade"), (b"Upgrade", head.upgrade))
        if special.get(X_FORWARDED_FOR):
            found.append((b"X-Forwarded-For", special[X_FORWARDED_FOR]))
        return found


class AnswerHeaders(Headers):
    """Of the app's answer; beside them what frames its body."""

    __slots__ = ("_response",)

    def __init__(self, response: ResponseReader) -> None:
        self._lines = response.lines
        self._open = True
        self.changed = False
        self._response = response

    def written(self) -> list[tuple[bytes, bytes]]:
        response = self._response
        if response.content_length is not None:
            return [(b"Content-Length", response.content_length)]
        return [(b"Transfer-Encoding", b"chunked")] if response.chunked else []


class FramedHeaders(Headers):
    """Beside them a few that are known."""

    __slots__ = ("_frame",)

    def __init__(self, lines: list[bytes], frame: Sequence[tuple[bytes, bytes]]) -> None:
        super().__init__(lines)
        self._frame = frame

    def written(self) -> Sequence[tuple[bytes, bytes]]:
        return self._frame


def regrouped(lines: list[bytes]) -> list[bytes]:
    """The same lines in groups of four, in whatever pieces they were: proxy.traced leaves some in others."""
    made: list[bytes] = []
    for line in b"".join(lines).split(_CRLF)[:-1]:
        name, colon, value = line.partition(_COLON)
        made += (name, colon, value, _CRLF)
    return made
