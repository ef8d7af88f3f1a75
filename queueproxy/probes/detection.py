"""Decodes what an app answers over HTTP/2 without TLS, if it speaks that at all (contract 6.4, QP-265).

With ENABLE_HTTP2_AUTO_DETECTION an HTTP probe is asked over HTTP/2 with prior knowledge first; an answer between 200
and 399 passes, anything else is asked again over HTTP/1.1. Upstream asks twice over HTTP/2, first without the
configured headers, and over HTTP/1.1 without them; here every request is the configured one (D09), so the first says it
all. A redirect passes without being followed: to read where it leads takes a header decoder. Nothing is remembered for
the next attempt, as upstream.
"""

from __future__ import annotations

from queueproxy.probes.http import MAX_BODY, Hop
from queueproxy.probes.http2 import Http2Exchange, literal
from queueproxy.probes.trailers import http_status

__all__ = ["SPEAKS_HTTP2", "Http2Get"]

SPEAKS_HTTP2 = (
    "The user container answered its readiness probe over HTTP/2. Requests go to it over HTTP/1.1; "
    "if it does not speak that, they are answered with 502."
)

# A connection's own affairs have no place in HTTP/2 (RFC 9113 8.2.2).
_DROPPED = frozenset(("host", "keep-alive", "proxy-connection", "upgrade", "http2-settings", "te"))


class Http2Get(Http2Exchange):
    """The probe's request. `decided` when the head is in, `finished` when all is, as with HTTP/1.1."""

    __slots__ = ("_body_left", "_hop", "status")

    def __init__(self, hop: Hop) -> None:
        super().__init__()
        self._hop = hop
        self._body_left = MAX_BODY
        self.status = 0

    def __repr__(self) -> str:
        return f"<Http2Get {self._hop.url} {self.status or self.failure or 'waiting'}>"

    @property
    def passed(self) -> bool:
        return 200 <= self.status < 400

    def _headers(self) -> bytes:
        fields = self._hop.fields()
        block = bytearray(b"\x82\x86")  # static table: ":method: GET", ":scheme: http"
        block += literal(1, fields[0][1])  # ":authority"
        block += literal(4, self._hop.get.target)  # ":path"
        for name, value in fields:
            lower = name.lower()
            if lower not in _DROPPED:
                block += literal(lower, value)
        return bytes(block)

    def _block_came(self, block: bytes) -> None:
        if self.decided:
            return  # trailers
        status = http_status(block)
        if status is None:
            self._fail("malformed HTTP/2 response")
        elif status >= 200:  # 100 and 103 come before the answer
            self.status = status
            self.decided = True

    def _data_came(self, data: bytes) -> None:
        self._body_left -= len(data)
        if self._body_left <= 0:
            self.finished = True

    def _stream_ended(self) -> None:
        if not self.decided:
            self._fail("the answer has no head")
        self.finished = True
