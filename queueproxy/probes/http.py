"""Decodes the answer to one HTTP probe request, and says what the request is (contract 6.4). Bytes in, bytes out.

The request is the one Knative's prober sends, in its order, with the kubelet's rules where the two differ (D09):

* configured `Host` and `User-Agent` headers are honoured; an empty configured User-Agent sends none; without them the
  Host is the address and the User-Agent is `kube-probe//`, which is what the drainers and routers of apps look for;
* a redirect is followed only to the same host name, over a new connection, ten requests in all; a redirect elsewhere
  is an answer of the app like any other 3xx: ready. So is a 3xx without Location;
* headers that would change the framing of the request (Content-Length, Transfer-Encoding, Trailer) or its one-shot
  connection are dropped, as Go's client drops them.

The head of the answer decides. What follows is read for politeness only, so that an app need not log a broken pipe.
"""

from __future__ import annotations

from typing import NamedTuple

import httptools

from queueproxy.probes.spec import HttpGet

__all__ = ["MAX_BODY", "MAX_HEAD", "MAX_REQUESTS", "Hop", "HttpExchange", "following", "netloc"]

MAX_HEAD = 64 * 1024  # response head, 1xx included
MAX_BODY = 64 * 1024  # read and dropped; the kubelet reads 10 KiB of a probe's body
MAX_REQUESTS = 10  # Go's default redirect policy, which the kubelet keeps: "stopped after 10 redirects"
USER_AGENT = "kube-probe//"  # Go's version fields are empty in the shipped binary (contract 6.4)

_DROPPED = frozenset(("host", "user-agent", "connection", "content-length", "transfer-encoding", "trailer"))
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


class Hop(NamedTuple):
    """One request of a probe: the configured one, or where a redirect leads."""

    get: HttpGet
    keep_host: bool = True  # Go keeps a configured Host only as long as redirects are relative
    referer: str = ""

    @property
    def url(self) -> str:
        get = self.get
        return f"{'https' if get.tls else 'http'}://{netloc(get.host, get.port)}{get.target}"

    def fields(self) -> list[tuple[str, str]]:
        """The request's header in order, Host first."""
        get = self.get
        given = {name.lower(): value for name, value in reversed(get.headers)}  # the first one of a name counts
        fields = [("Host", (self.keep_host and given.get("host")) or netloc(get.host, get.port))]
        agent = given.get("user-agent", USER_AGENT)
        if agent:
            fields.append(("User-Agent", agent))
        fields += [(name, value) for name, value in get.headers if name.lower() not in _DROPPED]
        if self.referer and "referer" not in given:
            fields.append(("Referer", self.referer))
        if "accept-encoding" not in given:
            fields.append(("Accept-Encoding", "gzip"))
        return fields

    def request(self) -> bytes:
        lines = [f"GET {self.get.target} HTTP/1.1", *(f"{name}: {value}" for name, value in self.fields())]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


class HttpExchange:
    """One request and the part of its answer that counts. `decided` when the head is in, `finished` when all is."""

    __slots__ = ("_body_left", "_head_left", "_hop", "_parser", "decided", "failure", "finished", "location", "status")

    def __init__(self, hop: Hop) -> None:
        self._hop = hop
        self._parser = httptools.HttpResponseParser(self)
        self._head_left = MAX_HEAD
        self._body_left = MAX_BODY
        self.decided = False
        self.finished = False
        self.failure: str | None = None
        self.status = 0
        self.location: str | None = None

    def __repr__(self) -> str:
        return f"<HttpExchange {self._hop.url} {self.status or self.failure or 'waiting'}>"

    def opening(self) -> bytes:
        return self._hop.request()

    def received(self, data: bytes) -> bytes:
        try:
            if not self.decided:
                # Fed in two parts, so that a head counts as too long even when it comes in one piece.
                head, data = data[: self._head_left], data[self._head_left :]
                self._head_left -= len(head)
                self._parser.feed_data(head)
                if not self.decided and self._head_left == 0:
                    self._fail(f"response head exceeds {MAX_HEAD} bytes")
            if data and self.decided and not self.finished:
                self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # After the head (a 101, a broken body) there is nothing left to learn.
            self._fail(f"malformed HTTP response: {error}")
        return b""

    def ended(self, reason: str) -> None:
        """The connection is over: `reason` is the error, or empty at its orderly end."""
        self._fail(reason or "EOF")

    # --- called by the parser ---

    def on_message_begin(self) -> None:
        self.location = None

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.location is None and name.lower() == b"location":
            self.location = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        # 100 and 103 come before the answer; 101 is one.
        self.decided = self.status >= 200 or self.status == 101

    def on_body(self, body: bytes) -> None:
        self._body_left -= len(body)
        if self._body_left <= 0:
            self.finished = True

    def on_message_complete(self) -> None:
        self.finished = self.finished or self.decided

    # --- inside ---

    def _fail(self, why: str) -> None:
        if not self.decided:
            self.failure = f'Get "{self._hop.url}": {why}'
        self.decided = self.finished = True


def following(hop: Hop, status: int, location: str | None) -> Hop | None:
    """Where this answer sends the prober, or None when the answer stands. ValueError: nowhere one could go."""
    if status not in _REDIRECTS or not location:
        return None
    from urllib.parse import urljoin, urlsplit  # apps hardly ever redirect probes: not imported at start

    target = urlsplit(urljoin(hop.url, location))
    if (target.hostname or "").lower() != hop.get.host.lower():
        return None
    if target.scheme not in ("http", "https"):
        raise ValueError(f"unsupported protocol scheme {target.scheme!r}")
    tls = target.scheme == "https"
    path = (target.path or "/") + (f"?{target.query}" if target.query else "")
    path = "".join(c if "!" <= c <= "~" else f"%{ord(c):02X}" for c in path)
    get = hop.get._replace(port=target.port or (443 if tls else 80), tls=tls, target=path)
    return Hop(
        get,
        keep_host=hop.keep_host and not urlsplit(location).netloc,
        referer="" if hop.get.tls and not tls else hop.url,
    )


def netloc(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
