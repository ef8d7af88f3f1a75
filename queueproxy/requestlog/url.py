"""Decodes request targets as Go's net/url does: what `.Request.URL` offers, and queries."""

from __future__ import annotations

import re
from typing import Final

from queueproxy.requestlog.escape import urlquery
from queueproxy.requestlog.values import Method, NilPointer, Strings, StringsMap, Struct

_UNSAFE_IN_PATH: Final = re.compile(rb"[^A-Za-z0-9\-_.~$&+,/:;=@]")
_UNSAFE_IN_HOST: Final = re.compile(rb"[^A-Za-z0-9\-_.~!$&'()*+,;=:\[\]<>\"]")
_BEYOND_ENCODED: Final = re.compile(rb"[^A-Za-z0-9\-_.~!$&'()*+,;=:@\[\]%/]")  # what no encoded path has
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_STRAY: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ABSOLUTE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_NO_USER: Final = NilPointer("url.Userinfo", {name: Method((), lambda _: b"") for name in ("Username", "String")}, b"")


def _escaped(unsafe: re.Pattern[bytes], text: bytes) -> bytes:
    return unsafe.sub(lambda found: b"%%%02X" % found[0][0], text)


def _unescaped(text: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes((int(found[1], 16),)), text)


class Values(StringsMap):
    """url.Values"""

    go_type = "url.Values"

    def one(self, key: bytes) -> bytes:
        found = self.get(key)
        return found[0] if found else b""

    def encoded(self) -> bytes:
        return b"&".join(b"%b=%b" % (urlquery(key), urlquery(one)) for key in sorted(self) for one in self[key])


Values.methods = {
    "Get": Method((bytes,), Values.one),
    "Has": Method((bytes,), lambda values, key: key in values),
    "Encode": Method((), Values.encoded),
}


def query(raw: bytes) -> Values:
    """A query string by keys; pairs that are malformed are left out."""
    values = Values()
    for pair in raw.split(b"&"):
        if not pair or b";" in pair or _STRAY.search(pair):
            continue
        key, _, value = pair.replace(b"+", b" ").partition(b"=")
        values.setdefault(_unescaped(key), Strings()).append(_unescaped(value))
    return values


class URL(Struct):
    """url.URL. A path that is no valid encoding is taken as it stands: Go refuses such requests, we forward them."""

    go_type = "url.URL"
    __slots__ = ("force_query", "host", "omit_host", "opaque", "path", "raw_path", "raw_query", "scheme")

    def __init__(self, target: bytes, *, authority: bool = False) -> None:
        self.scheme = self.host = self.opaque = self.raw_query = b""
        self.force_query = self.omit_host = False
        self.path = self.raw_path = b""
        if target == b"*":
            self.path = target
            return
        if authority:  # CONNECT
            self.host = target
            return
        found = None if target.startswith(b"/") else _ABSOLUTE.fullmatch(target)
        rest = target
        if found is not None:
            self.scheme, rest = found[1].lower(), found[2]
        if rest.endswith(b"?") and rest.count(b"?") == 1:
            self.force_query, rest = True, rest[:-1]
        else:
            rest, _, self.raw_query = rest.partition(b"?")
        if self.scheme and not rest.startswith(b"/"):
            self.opaque = rest
            return
        if self.scheme:
            if rest.startswith(b"//"):
                self.host, slash, rest = rest[2:].partition(b"/")
                rest = slash + rest
            else:
                self.omit_host = True
        self._set_path(rest)

    def _set_path(self, path: bytes) -> None:
        if _STRAY.search(path):
            self.path = path
            return
        self.path = _unescaped(path)
        if _escaped(_UNSAFE_IN_PATH, self.path) != path:
            self.raw_path = path

    def escaped_path(self) -> bytes:
        if self.raw_path and not _BEYOND_ENCODED.search(self.raw_path):
            return self.raw_path
        return b"*" if self.path == b"*" else _escaped(_UNSAFE_IN_PATH, self.path)

    def string(self) -> bytes:
        out = self.scheme + b":" if self.scheme else b""
        if self.opaque:
            out += self.opaque
        else:
            if (self.scheme or self.host) and not (self.omit_host and not self.host):
                if self.host or self.path:
                    out += b"//"
                out += _escaped(_UNSAFE_IN_HOST, self.host)
            path = self.escaped_path()
            if path and path[0] != 47 and self.host:
                out += b"/"
            if not out and b":" in path.partition(b"/")[0]:
                out += b"./"
            out += path
        return out + self._query()

    def request_uri(self) -> bytes:
        out = self.opaque
        if not out:
            out = self.escaped_path() or b"/"
        elif out.startswith(b"//"):
            out = self.scheme + b":" + out
        return out + self._query()

    def _query(self) -> bytes:
        return b"?" + self.raw_query if self.force_query or self.raw_query else b""

    def _host_and_port(self) -> tuple[bytes, bytes]:
        host, colon, port = self.host.rpartition(b":")
        if not colon or (port and not port.isdigit()):
            host, port = self.host, b""
        if host.startswith(b"[") and host.endswith(b"]"):
            host = host[1:-1]
        return host, port


URL.stringer = URL.string
URL.fields = {
    "Scheme": lambda url: url.scheme,
    "Opaque": lambda url: url.opaque,
    "User": lambda url: _NO_USER,  # we refuse requests with one
    "Host": lambda url: url.host,
    "Path": lambda url: url.path,
    "Fragment": lambda url: b"",
    "RawQuery": lambda url: url.raw_query,
    "RawPath": lambda url: url.raw_path,
    "RawFragment": lambda url: b"",
    "ForceQuery": lambda url: url.force_query,
    "OmitHost": lambda url: url.omit_host,
}
URL.methods = {
    "String": Method((), URL.string),
    "Redacted": Method((), URL.string),
    "RequestURI": Method((), URL.request_uri),
    "EscapedPath": Method((), URL.escaped_path),
    "EscapedFragment": Method((), lambda url: b""),
    "Query": Method((), lambda url: query(url.raw_query)),
    "IsAbs": Method((), lambda url: bool(url.scheme)),
    "Hostname": Method((), lambda url: url._host_and_port()[0]),
    "Port": Method((), lambda url: url._host_and_port()[1]),
}
