"""Decodes SERVING_READINESS_PROBE, the JSON of Kubernetes probes, into what the prober needs and nothing else.

Theory of operation
-------------------
The text is one probe object, or an array of them under ENABLE_MULTI_CONTAINER_PROBES (contract 6.1). Decoding follows
Go's `encoding/json`: unknown fields are ignored, absent and null fields are zero, a wrong type is an error. A null
probe is absent (D07: Go crashes). Empty text and an empty array mean "always ready" and decode to no probes at all.

What cannot be probed (exec, or no handler at all) still decodes: contract 6.4 makes it a failure of every check, not
of the start. What can never be right (a port that is no port, a header that would break the request apart) is a
`ProbeSpecError` at start, because a probe that fails for ever without a reason is worse.

`initialDelaySeconds` and `failureThreshold` are the kubelet's business: it applies them to our own readiness probe.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

__all__ = ["Exec", "Grpc", "Handler", "HttpGet", "NoHandler", "ProbeSpec", "ProbeSpecError", "TcpSocket", "decode"]

DEFAULT_HOST = "127.0.0.1"  # what the controller writes into http and tcp probes; the only place the app can be
# The gRPC request is sent as one DATA frame of the default size, 16384 (RFC 9113 4.2), whatever the server's settings.
MAX_SERVICE = 16_000

# RFC 9110 5.6.2, the characters of a header name.
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
# What may stand in a request target as it is (RFC 3986); the brackets because Go leaves them alone.
_TARGET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:/?[]@!$&'()*+,;=")
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ProbeSpecError(ValueError):
    """SERVING_READINESS_PROBE does not decode; the text says what is wrong with it."""


class TcpSocket(NamedTuple):
    host: str
    port: int


class HttpGet(NamedTuple):
    host: str
    port: int
    tls: bool
    target: str  # path and query, encoded, always starting with a slash
    headers: tuple[tuple[str, str], ...]
    detect: bool = False  # over HTTP/2 first (ENABLE_HTTP2_AUTO_DETECTION)


class Grpc(NamedTuple):
    port: int
    service: str
    host: str = DEFAULT_HOST  # contract 6.4: never anything else


class Exec(NamedTuple):
    """The controller translates exec probes to TCP; one that gets here fails every check."""


class NoHandler(NamedTuple):
    """A probe without a handler fails every check."""


Handler = TcpSocket | HttpGet | Grpc | Exec | NoHandler


class ProbeSpec(NamedTuple):
    handler: Handler
    period_for: float = 0.0
    timeout_for: float = 0.0  # of one attempt in normal mode; 0: none
    success_threshold: int = 1

    @property
    def aggressive(self) -> bool:
        """`periodSeconds: 0`, Knative's default: try every 50 ms until it succeeds (contract 6.3)."""
        return self.period_for == 0


def decode(text: str, *, multi: bool, detect: bool = False) -> tuple[ProbeSpec, ...]:
    """The probes of SERVING_READINESS_PROBE; none at all means "always ready".

    multi: an array is expected. detect: HTTP probes find out whether the app speaks HTTP/2 without TLS.
    """
    return tuple(_detecting(spec) for spec in _decoded(text, multi)) if detect else _decoded(text, multi)


def _detecting(spec: ProbeSpec) -> ProbeSpec:
    handler = spec.handler
    if isinstance(handler, HttpGet) and not handler.tls:
        return spec._replace(handler=handler._replace(detect=True))
    return spec


def _decoded(text: str, multi: bool) -> tuple[ProbeSpec, ...]:
    if not text.strip():
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProbeSpecError(f"not JSON: {error}") from None
    if found is None:
        return ()
    if multi:
        if not isinstance(found, list):
            raise ProbeSpecError(f"must be an array of probes, is {_kind(found)}")
        return tuple(_probe(each, f"[{i}]") for i, each in enumerate(found) if each is not None)
    if not isinstance(found, dict):
        raise ProbeSpecError(f"must be a probe object, is {_kind(found)}")
    return (_probe(found, ""),)


def _probe(found: object, at: str) -> ProbeSpec:
    if not isinstance(found, dict):
        raise ProbeSpecError(f"{at} must be a probe object, is {_kind(found)}")
    fields = _Fields(found, at)
    return ProbeSpec(
        handler=_handler(fields),
        period_for=float(fields.count("periodSeconds")),
        timeout_for=float(fields.count("timeoutSeconds")),
        success_threshold=max(1, fields.count("successThreshold")),
    )


def _handler(fields: _Fields) -> Handler:
    # In Go's order, should more than one be given; the API server forbids it.
    if http := fields.group("httpGet"):
        scheme = http.text("scheme").upper()
        if scheme not in ("", "HTTP", "HTTPS"):
            raise ProbeSpecError(f"{http.at}.scheme must be HTTP or HTTPS, is {scheme!r}")
        return HttpGet(http.host(), http.port(), scheme == "HTTPS", _target(http.text("path")), _headers(http))
    if tcp := fields.group("tcpSocket"):
        return TcpSocket(tcp.host(), tcp.port())
    if grpc := fields.group("grpc"):
        service = grpc.text("service")
        if len(service.encode()) > MAX_SERVICE:
            raise ProbeSpecError(f"{grpc.at}.service is longer than {MAX_SERVICE} bytes")
        return Grpc(grpc.port(), service)
    return Exec() if fields.group("exec") else NoHandler()


def _headers(http: _Fields) -> tuple[tuple[str, str], ...]:
    out = []
    for each in http.groups("httpHeaders"):
        name, value = each.text("name"), each.text("value").strip(" \t")
        if not name or not _TOKEN.issuperset(name):
            raise ProbeSpecError(f"{each.at}.name is no header name: {name!r}")
        if any((c < " " and c != "\t") or c == "\x7f" for c in value):
            raise ProbeSpecError(f"{each.at}.value holds a control character")
        out.append((name, value))
    return tuple(out)


def _target(path: str) -> str:
    """`/` + the path without one leading slash (contract 6.4), the fragment dropped, the rest safe in a request line.

    A percent sign that starts no escape is taken literally, as the kubelet does.
    """
    raw = path.partition("#")[0].removeprefix("/").encode()
    out = ["/"]
    for i, byte in enumerate(raw):
        escape = byte == 0x25 and len(raw) > i + 2 and raw[i + 1] in _HEX and raw[i + 2] in _HEX
        out.append(chr(byte) if escape or byte in _TARGET else f"%{byte:02X}")
    return "".join(out)


class _Fields:
    """One JSON object and where it stands, read with Go's leniency and none more."""

    __slots__ = ("_found", "at")

    def __init__(self, found: dict[str, Any], at: str) -> None:
        self._found = found
        self.at = at

    def text(self, name: str) -> str:
        found = str(self._of(name, str, "a string", ""))
        # JSON can spell half a surrogate pair, which nothing can send; Go decodes it to U+FFFD as well.
        return found if found.isascii() else found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def count(self, name: str) -> int:
        value = int(self._of(name, int, "a whole number", 0))
        if not 0 <= value < 2**31:
            raise ProbeSpecError(f"{self.at}.{name} is out of range: {value}".lstrip("."))
        return value

    def group(self, name: str) -> _Fields | None:
        found = self._of(name, dict, "an object", None)
        return None if found is None else _Fields(found, f"{self.at}.{name}".lstrip("."))

    def groups(self, name: str) -> list[_Fields]:
        found = self._of(name, list, "an array", [])
        out = []
        for i, each in enumerate(found):
            at = f"{self.at}.{name}[{i}]".lstrip(".")
            if not isinstance(each, dict):
                raise ProbeSpecError(f"{at} must be an object, is {_kind(each)}")
            out.append(_Fields(each, at))
        return out

    def host(self) -> str:
        host = self.text("host").strip("[]") or DEFAULT_HOST
        if not all("!" <= c <= "~" for c in host) or any(c in "/@?#" for c in host):
            raise ProbeSpecError(f"{self.at}.host is no host name: {host!r}")
        return host

    def port(self) -> int:
        """A number or a numeric string (`IntOrString`); names of container ports never reach us."""
        found = self._found.get("port")
        if isinstance(found, str) and found.isascii() and found.isdigit() and len(found) <= 5:
            found = int(found)
        if isinstance(found, bool) or not isinstance(found, int) or not 0 < found < 65536:
            raise ProbeSpecError(f"{self.at}.port must be a port number, is {json.dumps(found)}")
        return found

    def _of(self, name: str, kind: type, wanted: str, zero: Any) -> Any:
        found = self._found.get(name)
        if found is None:
            return zero
        if not isinstance(found, kind) or isinstance(found, bool):
            raise ProbeSpecError(f"{self.at}.{name} must be {wanted}, is {_kind(found)}".lstrip("."))
        return found


def _kind(found: object) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(found), "a number")
