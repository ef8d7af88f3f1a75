"""Counts requests as OpenTelemetry's HTTP instrumentation does: http.server.* and http.client.* (contract 5.4).

Theory of operation. What a request is counted under comes from the client for the most part (method, Host, route tag),
so every word is looked up twice: as received, in a memo that makes the common case one dictionary look-up, and, on a
miss, in a bounded vocabulary. The 65th host or tag counts as `_OTHER`, and past 2,000 series everything new shares one
that says so (D06, QP-242): no client can make the page longer or the process bigger. All numbers are plain integers.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

from queueproxy.metrics.histogram import DURATIONS, Histogram

# Bytes; the SDK's default buckets (contract 5.4, table B).
SIZES: Final = (0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000)
METHODS: Final = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE")
}
OTHER: Final = "_OTHER"  # OpenTelemetry's word for "not on the list"
WORDS_MAX: Final = 64  # hosts, and tags, told apart
SERIES_MAX: Final = 2000  # the SDK's default cardinality limit
MEMO_MAX: Final = 4096  # spellings remembered
_OURS: Final = frozenset(("kn:default", "kn:disabled", "kn:undefined"))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Served(NamedTuple):
    """What http.server.* is counted under. address "": no Host. port 0: absent, or the scheme's own."""

    method: str
    status: int
    scheme: str
    address: str
    port: int
    version: str
    tag: str


class Asked(NamedTuple):
    """What http.client.* is counted under. status 0: error says why there was none. tag "": not instrumented."""

    method: str
    status: int
    error: str
    tag: str


OVERFLOW_SERVED: Final = Served(OTHER, 0, "", "", 0, "", "")
OVERFLOW_ASKED: Final = Asked(OTHER, 0, "", "")


class Series:
    """took: seconds; received and sent: bytes of body, as the side that is counted sees them.

    asked: for a series of served requests, the one of the app that answered them with the same status.
    """

    __slots__ = ("asked", "received", "sent", "took")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.took = Histogram(bounds)
        self.received = Histogram(SIZES)
        self.sent = Histogram(SIZES)
        self.asked: Series | None = None

    def __repr__(self) -> str:
        return f"<Series {self.took!r}>"


class HttpCounts:
    """served and asked: all series so far. bounds: upper bounds of durations in seconds."""

    __slots__ = ("_addresses", "_asked", "_bounds", "_served", "_tags", "asked", "served")

    def __init__(self, bounds: tuple[float, ...] = DURATIONS) -> None:
        self._bounds = bounds
        self.served: dict[Served, Series] = {}
        self.asked: dict[Asked, Series] = {}
        self._served: dict[tuple[bytes, int, bytes | None, int, bytes | None, bytes | None, bool], Series] = {}
        self._asked: dict[tuple[bytes, int, str, bytes | None, bytes | None, bool], Series] = {}
        self._addresses: set[tuple[str, int]] = set()
        self._tags: set[str] = set()

    def __repr__(self) -> str:
        return f"<HttpCounts served={len(self.served)} asked={len(self.asked)}>"

    def serve(
        self,
        method: bytes,
        status: int,
        host: bytes | None,
        minor: int,
        tag: bytes | None,
        default: bytes | None,
        secure: bool,
        took: float,
        received: int,
        sent: int,
        asked_for: float = -1.0,
    ) -> None:
        """A request of a client was answered. tag, default: Knative-Serving-Tag and -Default-Route as received.

        asked_for: seconds until the app answered with that status, which saves a call of `ask`; negative: it did not.
        Written out: this runs for every request.
        """
        key = (method, status, host, minor, tag, default, secure)
        series = self._served.get(key)
        if series is None:
            series = self._served_series(key)
        histogram = series.took
        histogram.counts[bisect_left(histogram.bounds, took)] += 1
        histogram.sum += took
        histogram = series.sent
        histogram.counts[bisect_left(SIZES, sent)] += 1
        histogram.sum += sent
        asked = None
        if asked_for >= 0.0:
            asked = series.asked
            if asked is None:
                asked = series.asked = self._asked_series((method, status, "", tag, default, True))
            histogram = asked.took
            histogram.counts[bisect_left(histogram.bounds, asked_for)] += 1
            histogram.sum += asked_for
        if received:
            series.received.observe(received)
            if asked is not None:
                asked.sent.observe(received)
        else:
            series.received.counts[0] += 1
            if asked is not None:
                asked.sent.counts[0] += 1

    def ask(
        self,
        method: bytes,
        status: int,
        error: str,
        tag: bytes | None,
        default: bytes | None,
        instrumented: bool,
        took: float,
        sent: int,
    ) -> None:
        """The app was asked. took: seconds until its answer began. error: one of a few words, for status 0."""
        key = (method, status, error, tag, default, instrumented)
        series = self._asked.get(key)
        if series is None:
            series = self._asked_series(key)
        series.took.observe(took)
        series.sent.observe(sent)

    def _served_series(self, key: tuple[bytes, int, bytes | None, int, bytes | None, bytes | None, bool]) -> Series:
        method, status, host, minor, tag, default, secure = key
        scheme = "https" if secure else "http"
        address, port = split_host(host or b"", scheme)
        if (address, port) not in self._addresses:
            if len(self._addresses) < WORDS_MAX:
                self._addresses.add((address, port))
            else:
                address, port = OTHER, 0
        word = self._tag(tag, default)
        labels = Served(METHODS.get(method, OTHER), status, scheme, address, port, f"1.{minor}", word)
        if labels not in self.served and len(self.served) >= SERIES_MAX:
            labels = OVERFLOW_SERVED
        series = self.served.get(labels)
        if series is None:
            series = self.served[labels] = Series(self._bounds)
        if len(self._served) < MEMO_MAX:
            self._served[key] = series
        return series

    def _asked_series(self, key: tuple[bytes, int, str, bytes | None, bytes | None, bool]) -> Series:
        method, status, error, tag, default, instrumented = key
        labels = Asked(METHODS.get(method, OTHER), status, error, self._tag(tag, default) if instrumented else "")
        if labels not in self.asked and len(self.asked) >= SERIES_MAX:
            labels = OVERFLOW_ASKED
        series = self.asked.get(labels)
        if series is None:
            series = self.asked[labels] = Series(self._bounds)
        if len(self._asked) < MEMO_MAX:
            self._asked[key] = series
        return series

    def _tag(self, tag: bytes | None, default: bytes | None) -> str:
        word = route_tag(tag, default)
        if word in self._tags or word in _OURS:
            return word
        if len(self._tags) >= WORDS_MAX:
            return OTHER
        self._tags.add(word)
        return word


def route_tag(tag: bytes | None, default: bytes | None) -> str:
    """kn.route.tag (contract 3.7, QP-235). A client cannot pretend to one of our three words: it is that word."""
    if not tag:
        return "kn:default" if default else "kn:disabled"
    return "kn:undefined" if default == b"true" else tag.decode("utf-8", "replace")


def split_host(host: bytes, scheme: str) -> tuple[str, int]:
    """server.address and server.port of a Host field; port 0 when it has none or the scheme's own."""
    text = host.decode("utf-8", "replace")
    name, colon, digits = text.rpartition(":")
    if not colon or "]" in digits:
        name, digits = text, ""
    port = int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 5 else 0
    return name.strip("[]"), 0 if port == _DEFAULT_PORTS[scheme] or port > 65535 else port
