"""Holds what a template may ask about one finished request: Go's http.Request and Knative's three structs beside it.

A header is looked up in the head as it came, so a line that asks for two headers costs two searches and no map. The map
that `.Request.Header` is in Go is built only for templates that take it as a whole.

The chain has done to it what Knative's has (contract 8.1): `Forwarded` is there, `K-Original-Host` is gone, Host stands
apart, and hop-by-hop headers are still what the client sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from queueproxy.requestlog.cookies import cookie
from queueproxy.requestlog.url import URL, query
from queueproxy.requestlog.values import (
    Int64,
    Method,
    NilPointer,
    NilStrings,
    Strings,
    StringsMap,
    Struct,
    Uint16,
    Value,
)  # fmt: skip

_HIDDEN: Final = frozenset((b"Host", b"Transfer-Encoding", b"Trailer", b"K-Original-Host"))
_TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def canonical(name: bytes) -> bytes:
    """As textproto.CanonicalMIMEHeaderKey."""
    if not _TOKEN.issuperset(name):
        return name
    return b"-".join(part.capitalize() for part in name.split(b"-"))


class Header(StringsMap):
    """http.Header"""

    go_type = "http.Header"

    def one(self, name: bytes) -> bytes:
        found = self.get(canonical(name))
        return found[0] if found else b""


Header.methods = {
    "Get": Method((bytes,), Header.one),
    "Values": Method((bytes,), lambda header, name: header.get(canonical(name), NilStrings())),
    "Clone": Method((), lambda header: header),
}


class _NoHeader(Header):
    """A nil http.Header: no trailers are kept."""

    nil = True


class _NoValues(StringsMap):
    """A nil url.Values: nobody has parsed a form."""

    go_type = "url.Values"
    nil = True


class Tls(Struct):
    """tls.ConnectionState, as far as it is known here; certificates of clients are never asked for (QP-327)."""

    go_type = "tls.ConnectionState"
    __slots__ = ("cipher", "protocol", "resumed", "server_name", "version")

    def __init__(self, version: int, cipher: int, protocol: bytes, server_name: bytes, resumed: bool = False) -> None:
        self.version = version
        self.cipher = cipher
        self.protocol = protocol
        self.server_name = server_name
        self.resumed = resumed


Tls.fields = {
    "Version": lambda tls: Uint16(tls.version),
    "HandshakeComplete": lambda tls: True,
    "DidResume": lambda tls: tls.resumed,
    "CipherSuite": lambda tls: Uint16(tls.cipher),
    "NegotiatedProtocol": lambda tls: tls.protocol,
    "NegotiatedProtocolIsMutual": lambda tls: True,
    "ServerName": lambda tls: tls.server_name,
}
_NO_TLS: Final = NilPointer("tls.ConnectionState")


class Request(Struct):
    """http.Request. raw: its head as it came. forwarded: the value we made, if we made one."""

    go_type = "http.Request"
    printable = False
    __slots__ = ("_lower", "content_length", "forwarded", "host", "method", "proto", "raw", "remote", "target", "tls")

    def __init__(
        self,
        *,
        raw: bytes,
        method: bytes,
        target: bytes,
        proto: bytes,
        host: bytes,
        content_length: int,
        remote: bytes,
        forwarded: bytes | None = None,
        tls: Tls | None = None,
    ) -> None:
        self.raw = raw
        self.method = method
        self.target = target
        self.proto = proto
        self.host = host
        self.content_length = content_length
        self.remote = remote
        self.forwarded = forwarded
        self.tls = tls
        self._lower: bytes | None = None

    def header(self, lower_name: bytes) -> bytes:
        """The first header of that name, b"" without one. The name in lower case, not one that the chain hides."""
        lower = self._lower
        if lower is None:
            lower = self._lower = self.raw.lower()
        at = lower.find(b"\r\n%b:" % lower_name)
        if at < 0:
            return b""
        start = at + len(lower_name) + 3
        return self.raw[start : lower.find(b"\r\n", start)].strip(b" \t")

    def headers(self) -> Header:
        """All of them, canonical names, as Go's server and Knative's chain leave them."""
        found = Header()
        for line in self.raw.split(b"\r\n")[1:]:
            name, colon, value = line.partition(b":")
            if colon:
                found.setdefault(canonical(name), Strings()).append(value.strip(b" \t"))
        for name in _HIDDEN:
            found.pop(name, None)
        if self.content_length < 0:
            found.pop(b"Content-Length", None)  # chunked wins
        if self.forwarded is not None:
            found.setdefault(b"Forwarded", Strings((self.forwarded,)))
        if found.get(b"Pragma", [b""])[0] == b"no-cache":
            found.setdefault(b"Cache-Control", Strings((b"no-cache",)))  # as Go's server does
        return found

    def url(self) -> URL:
        return URL(self.target, authority=self.method == b"CONNECT" and not self.target.startswith(b"/"))

    def at_least(self, major: int, minor: int) -> bool:
        return self.version() >= (major, minor)

    def version(self) -> tuple[int, int]:
        major, _, minor = self.proto.removeprefix(b"HTTP/").partition(b".")
        return int(major), int(minor)

    def closes(self) -> bool:
        tokens = [token.strip(b" \t").lower() for token in self.header(b"connection").split(b",")]
        return b"close" in tokens or (self.version() == (1, 0) and b"keep-alive" not in tokens)

    def cookie(self, name: bytes) -> Value:
        return cookie(self.headers().get(b"Cookie", NilStrings()), name)


Request.fields = {
    "Method": lambda request: request.method,
    "URL": Request.url,
    "Proto": lambda request: request.proto,
    "ProtoMajor": lambda request: request.version()[0],
    "ProtoMinor": lambda request: request.version()[1],
    "Header": Request.headers,
    "ContentLength": lambda request: Int64(request.content_length),
    "TransferEncoding": lambda request: Strings((b"chunked",)) if request.content_length < 0 else NilStrings(),
    "Close": Request.closes,
    "Host": lambda request: request.host,
    "Form": lambda request: _NoValues(),
    "PostForm": lambda request: _NoValues(),
    "Trailer": lambda request: _NoHeader(),
    "RemoteAddr": lambda request: request.remote,
    "RequestURI": lambda request: request.target,
    "TLS": lambda request: request.tls or _NO_TLS,
    "Pattern": lambda request: b"",
}
Request.methods = {
    "UserAgent": Method((), lambda request: request.header(b"user-agent")),
    "Referer": Method((), lambda request: request.header(b"referer")),
    "FormValue": Method((bytes,), lambda request, key: query(request.url().raw_query).one(key)),
    "PostFormValue": Method((bytes,), lambda request, key: b""),
    "PathValue": Method((bytes,), lambda request, key: b""),
    "ProtoAtLeast": Method((int, int), Request.at_least),
    "Cookie": Method((bytes,), Request.cookie),
}


class Response(NamedTuple):
    """What was answered: first status written, bytes of body, seconds."""

    code: int
    size: int
    latency: float


class ResponseInput(Struct):
    """RequestLogResponse"""

    go_type = "http.RequestLogResponse"
    __slots__ = ("response",)

    def __init__(self, response: Response) -> None:
        self.response = response


ResponseInput.fields = {
    "Code": lambda input: input.response.code,
    "Size": lambda input: input.response.size,
    "Latency": lambda input: input.response.latency,
}


class Revision(Struct):
    """RequestLogRevision"""

    go_type = "http.RequestLogRevision"
    __slots__ = ("configuration", "name", "namespace", "pod", "pod_ip", "service")

    def __init__(
        self, *, name: str, namespace: str, service: str, configuration: str, pod: str, pod_ip: str
    ) -> None:
        self.name, self.namespace, self.service, self.configuration, self.pod, self.pod_ip = (
            text.encode("utf-8", "surrogateescape") for text in (name, namespace, service, configuration, pod, pod_ip)
        )


Revision.fields = {
    "Name": lambda revision: revision.name,
    "Namespace": lambda revision: revision.namespace,
    "Service": lambda revision: revision.service,
    "Configuration": lambda revision: revision.configuration,
    "PodName": lambda revision: revision.pod,
    "PodIP": lambda revision: revision.pod_ip,
}


def trace_id(request: Request) -> bytes:
    """The second element of Traceparent, else X-B3-Traceid (contract 8.1, QP-306)."""
    traceparent = request.header(b"traceparent")
    if traceparent:
        parts = traceparent.split(b"-", 2)
        if len(parts) >= 2:
            return parts[1]
    return request.header(b"x-b3-traceid")


class Input(Struct):
    """RequestLogTemplateInput: the dot of the template. thaw_wait: seconds; ours, not upstream's."""

    go_type = "http.RequestLogTemplateInput"
    printable = False
    __slots__ = ("request", "response", "revision", "thaw_wait")

    def __init__(self, request: Request, response: Response, revision: Revision, thaw_wait: float = 0.0) -> None:
        self.request = request
        self.response = response
        self.revision = revision
        self.thaw_wait = thaw_wait


Input.fields = {
    "Request": lambda input: input.request,
    "Response": lambda input: ResponseInput(input.response),
    "Revision": lambda input: input.revision,
    "TraceID": lambda input: trace_id(input.request),
    "ThawWait": lambda input: input.thaw_wait,
}

# The paths of the default template and their neighbours, resolved once: each must mean what the tables above mean.
SHORT_CUTS: Final[dict[tuple[str, ...], Callable[[Any], Value]]] = {
    ("Request", "Method"): lambda input: input.request.method,
    ("Request", "RequestURI"): lambda input: input.request.target,
    ("Request", "ContentLength"): lambda input: Int64(input.request.content_length),
    ("Request", "RemoteAddr"): lambda input: input.request.remote,
    ("Request", "Host"): lambda input: input.request.host,
    ("Request", "Proto"): lambda input: input.request.proto,
    ("Request", "UserAgent"): lambda input: input.request.header(b"user-agent"),
    ("Request", "Referer"): lambda input: input.request.header(b"referer"),
    ("Response", "Code"): lambda input: input.response.code,
    ("Response", "Size"): lambda input: input.response.size,
    ("Response", "Latency"): lambda input: input.response.latency,
    ("Revision", "Name"): lambda input: input.revision.name,
    ("Revision", "Namespace"): lambda input: input.revision.namespace,
    ("Revision", "PodIP"): lambda input: input.revision.pod_ip,
    ("Revision", "PodName"): lambda input: input.revision.pod,
    ("TraceID",): lambda input: trace_id(input.request),
}
