"""Holds what a template may ask about one finished request: Go's http.Request and Knative's three structs beside it.

The headers of the default template are remembered by the codec (`remember_for_log`); others are searched for in the
head as it came. The map that `.Request.Header` is in Go is built only for templates that take it as a whole.

The chain has done to it what Knative's has (contract 8.1): `Forwarded` is there, `K-Original-Host` is gone, Host stands
apart, and hop-by-hop headers are still what the client sent.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final, Protocol

from queueproxy.codec.headers import (
    FORWARDED,
    HOST,
    REFERER,
    TRACEPARENT,
    USER_AGENT,
    X_B3_TRACEID,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    forwarded,
)  # fmt: skip
from queueproxy.codec.http1 import RequestHead
from queueproxy.requestlog.cookies import cookie
from queueproxy.requestlog.gofmt import shortest
from queueproxy.requestlog.tls import tls_state
from queueproxy.requestlog.url import URL, query
from queueproxy.requestlog.values import (
    Int64,
    Method,
    NilPointer,
    NilStrings,
    Strings,
    StringsMap,
    Struct,
    Value,
)  # fmt: skip

PROTOCOLS: Final = (b"HTTP/1.0", b"HTTP/1.1")
_HIDDEN: Final = frozenset((b"Host", b"Transfer-Encoding", b"Trailer", b"K-Original-Host"))
_CHANGED: Final = _HIDDEN | {b"Content-Length", b"Forwarded", b"Cache-Control"}
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


_NO_TLS: Final = NilPointer("tls.ConnectionState")


class Heads(Protocol):
    """raw: the present request's head as it came."""

    @property
    def raw(self) -> bytes: ...


class Client(Protocol):
    """What is known of the connection a request came on. remote: address and port. tls: None for cleartext."""

    @property
    def remote(self) -> bytes: ...
    @property
    def tls(self) -> Any: ...
    @property
    def heads(self) -> Heads: ...


class Input(Struct):
    """RequestLogTemplateInput: the dot of the template. One of these is all a line costs in objects.

    head: the request's. client: what is known of the connection, its head as it came included. took, thaw_wait:
    seconds; ThawWait is ours, not upstream's.
    """

    go_type = "http.RequestLogTemplateInput"
    printable = False
    __slots__ = ("client", "head", "revision", "size", "status", "thaw_wait", "took")

    def __init__(
        self,
        head: RequestHead,
        client: Client,
        status: int,
        size: int,
        took: float,
        thaw_wait: float,
        revision: Revision,
    ) -> None:
        self.head = head
        self.client = client
        self.status = status
        self.size = size
        self.took = took
        self.thaw_wait = thaw_wait
        self.revision = revision

    def target(self) -> bytes:
        """As it came: perhaps absolute, perhaps with a #."""
        head, raw = self.head, self.client.heads.raw
        return head.target if raw.startswith(head.target, len(head.method) + 1) else came_as(raw)

    def content_length(self) -> int:
        head = self.head
        return -1 if head.body == 2 else head.content_length

    def find(self, needle: bytes) -> bytes:
        """The first header of a name, b"" without one. needle: CRLF, the name in lower case, a colon."""
        raw = self.client.heads.raw
        at = raw.lower().find(needle)
        if at < 0:
            return b""
        start = at + len(needle)
        return raw[start : raw.find(b"\r\n", start)].strip(b" \t")

    def headers(self) -> Header:
        """All of them, canonical names, as Go's server and Knative's chain leave them."""
        found = Header()
        for line in self.client.heads.raw.split(b"\r\n")[1:]:
            name, colon, value = line.partition(b":")
            if colon:
                found.setdefault(canonical(name), Strings()).append(value.strip(b" \t"))
        for name in _HIDDEN:
            found.pop(name, None)
        if self.head.body == 2:
            found.pop(b"Content-Length", None)  # chunked wins
        special = self.head.special
        made = special.get(FORWARDED) or forwarded([], special.get(X_FORWARDED_HOST), special.get(X_FORWARDED_PROTO))
        if made:
            found.setdefault(b"Forwarded", Strings((made,)))
        if found.get(b"Pragma", [b""])[0] == b"no-cache":
            found.setdefault(b"Cache-Control", Strings((b"no-cache",)))  # as Go's server does
        return found

    def trace_id(self) -> bytes:
        """The second element of Traceparent, else X-B3-Traceid (contract 8.1, QP-306)."""
        return trace_id(self.head.special)


def came_as(raw: bytes) -> bytes:
    """The target of a request line that was changed: absolute, or with a #."""
    return raw[raw.find(b" ") + 1 : raw.find(b"\r\n") - 9]


def trace_id(special: dict[int, bytes]) -> bytes:
    """See Input.trace_id."""
    traceparent = special.get(TRACEPARENT)
    if traceparent:
        start = traceparent.find(b"-") + 1
        if start:
            end = traceparent.find(b"-", start)
            return traceparent[start:] if end < 0 else traceparent[start:end]
    return special.get(X_B3_TRACEID, b"")


class Request(Struct):
    """http.Request"""

    go_type = "http.Request"
    printable = False
    __slots__ = ("input",)

    def __init__(self, input: Input) -> None:
        self.input = input

    def url(self) -> URL:
        target = self.input.target()
        return URL(target, authority=self.input.head.method == b"CONNECT" and not target.startswith(b"/"))

    def closes(self) -> bool:
        tokens = [token.strip(b" \t").lower() for token in self.input.find(b"\r\nconnection:").split(b",")]
        return b"close" in tokens or (self.input.head.minor == 0 and b"keep-alive" not in tokens)

    def cookie(self, name: bytes) -> Value:
        return cookie(self.input.headers().get(b"Cookie", NilStrings()), name)


Request.fields = {
    "Method": lambda request: request.input.head.method,
    "URL": Request.url,
    "Proto": lambda request: PROTOCOLS[request.input.head.minor],
    "ProtoMajor": lambda request: 1,
    "ProtoMinor": lambda request: request.input.head.minor,
    "Header": lambda request: request.input.headers(),
    "ContentLength": lambda request: Int64(request.input.content_length()),
    "TransferEncoding": lambda request: Strings((b"chunked",)) if request.input.head.body == 2 else NilStrings(),
    "Close": Request.closes,
    "Host": lambda request: request.input.head.special.get(HOST, b""),
    "Form": lambda request: _NoValues(),
    "PostForm": lambda request: _NoValues(),
    "Trailer": lambda request: _NoHeader(),
    "RemoteAddr": lambda request: request.input.client.remote,
    "RequestURI": lambda request: request.input.target(),
    "TLS": lambda request: tls_state(request.input.client.tls) or _NO_TLS,
    "Pattern": lambda request: b"",
}
Request.methods = {
    "UserAgent": Method((), lambda request: request.input.head.special.get(USER_AGENT, b"")),
    "Referer": Method((), lambda request: request.input.head.special.get(REFERER, b"")),
    "FormValue": Method((bytes,), lambda request, key: query(request.url().raw_query).one(key)),
    "PostFormValue": Method((bytes,), lambda request, key: b""),
    "PathValue": Method((bytes,), lambda request, key: b""),
    "ProtoAtLeast": Method((int, int), lambda request, major, minor: (1, request.input.head.minor) >= (major, minor)),
    "Cookie": Method((bytes,), Request.cookie),
}


class Response(Struct):
    """RequestLogResponse"""

    go_type = "http.RequestLogResponse"
    __slots__ = ("input",)

    def __init__(self, input: Input) -> None:
        self.input = input


Response.fields = {
    "Code": lambda response: response.input.status,
    "Size": lambda response: response.input.size,
    "Latency": lambda response: whole_nanoseconds(response.input.took),
}


class Revision(Struct):
    """RequestLogRevision"""

    go_type = "http.RequestLogRevision"
    __slots__ = ("configuration", "name", "namespace", "pod", "pod_ip", "service")

    def __init__(self, *, name: str, namespace: str, service: str, configuration: str, pod: str, pod_ip: str) -> None:
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
Input.fields = {
    "Request": Request,
    "Response": Response,
    "Revision": lambda input: input.revision,
    "TraceID": Input.trace_id,
    "ThawWait": lambda input: whole_nanoseconds(input.thaw_wait),
}


def whole_nanoseconds(seconds: float) -> float:
    """As Go's Duration.Seconds(): no digits beyond nanoseconds."""
    whole, rest = divmod(round(seconds * 1e9), 1_000_000_000)
    return whole + rest / 1e9


# -- short cuts: what most templates ask, resolved at compile time; each must mean what the tables above mean


def latency(took: float) -> bytes:
    """Seconds as `{{.Response.Latency}}` writes them."""
    if 1e-4 <= took < 0.999:
        # In whole numbers: a third of what it takes to format a float.
        return b"0." + (b"%09d" % round(took * 1e9)).rstrip(b"0")
    return shortest(whole_nanoseconds(took))


# Path to format and function: what `{{.A.B}}` writes.
SHOWN: Final[dict[tuple[str, ...], tuple[bytes, Callable[[Input], Any]]]] = {
    ("Request", "Method"): (b"%b", attrgetter("head.method")),
    ("Request", "RequestURI"): (b"%b", Input.target),
    ("Request", "ContentLength"): (b"%d", Input.content_length),
    ("Request", "RemoteAddr"): (b"%b", attrgetter("client.remote")),
    ("Request", "Host"): (b"%b", lambda input: input.head.special.get(HOST, b"")),
    ("Request", "Proto"): (b"%b", lambda input: PROTOCOLS[input.head.minor]),
    ("Request", "UserAgent"): (b"%b", lambda input: input.head.special.get(USER_AGENT, b"")),
    ("Request", "Referer"): (b"%b", lambda input: input.head.special.get(REFERER, b"")),
    ("Response", "Code"): (b"%d", attrgetter("status")),
    ("Response", "Size"): (b"%d", attrgetter("size")),
    ("Response", "Latency"): (b"%b", lambda input: latency(input.took)),
    ("Revision", "Name"): (b"%b", attrgetter("revision.name")),
    ("Revision", "Namespace"): (b"%b", attrgetter("revision.namespace")),
    ("Revision", "PodName"): (b"%b", attrgetter("revision.pod")),
    ("Revision", "PodIP"): (b"%b", attrgetter("revision.pod_ip")),
    ("TraceID",): (b"%b", Input.trace_id),
}


def header_getter(name: bytes) -> Callable[[Input], bytes] | None:
    """`.Request.Header.Get "name"` without a map; None for names that need one."""
    if not name or not _TOKEN.issuperset(name) or canonical(name) in _CHANGED:
        return None
    needle = b"\r\n" + name.lower() + b":"
    return lambda input: input.find(needle)
