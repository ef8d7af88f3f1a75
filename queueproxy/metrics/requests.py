"""Counts requests as OpenTelemetry's HTTP instrumentation does: http.server.* and http.client.* (contract 5.4).

Theory of operation. What a request is counted under comes from the client for the most part (method, Host, route tag),
so every word is looked up twice: as received, in a memo that makes the common case one dictionary look-up, and, on a
miss, in a bounded vocabulary. The 65th host or tag counts as `_OTHER`, and past 2,000 series everything new shares one
that says so (D06, QP-242): no client can make the page longer or the process bigger. A request is noted, and counted
with others later: before anybody reads, or when 128 are waiting.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from queueproxy.metrics.histogram import DURATIONS, RECENT_MAX, Histogram

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


# method, status, host, minor version, Knative-Serving-Tag and -Default-Route, over TLS: as received
_ServedKey = tuple[bytes, int, bytes | None, int, bytes | None, bytes | None, bool]
_AskedKey = tuple[bytes, int, str, bytes | None, bytes | None, bool]  # as received
OVERFLOW_SERVED: Final = Served(OTHER, 0, "", "", 0, "", "")
OVERFLOW_ASKED: Final = Asked(OTHER, 0, "", "")


class Series:
    """took: seconds; received and sent: bytes of body, as the side that is counted sees them.

    recent, of a series of served requests: (took, received, sent, asked_for) not counted yet; asks: what the app was
    then asked under, and asked: the series of that.
    """

    __slots__ = ("asked", "asks", "received", "recent", "sent", "took")

    def __init__(self, bounds: tuple[float, ...], asks: _AskedKey | None = None) -> None:
        self.took = Histogram(bounds)
        self.received = Histogram(SIZES)
        self.sent = Histogram(SIZES)
        self.recent: list[tuple[float, int, int, float]] = []
        self.asks = asks
        self.asked: Series | None = None

    def __repr__(self) -> str:
        return f"<Series {self.took!r} recent={len(self.recent)}>"


class HttpCounts:
    """known: the series of each spelling so far. bounds: upper bounds of durations in seconds."""

    __slots__ = ("_addresses", "_asked", "_bounds", "_series_asked", "_series_served", "_tags", "known")

    def __init__(self, bounds: tuple[float, ...] = DURATIONS) -> None:
        self._bounds = bounds
        self._series_served: dict[Served, Series] = {}
        self._series_asked: dict[Asked, Series] = {}
        self.known: dict[_ServedKey, Series] = {}
        self._asked: dict[_AskedKey, Series] = {}
        self._addresses: set[tuple[str, int]] = set()
        self._tags: set[str] = set()

    def __repr__(self) -> str:
        return f"<HttpCounts served={len(self._series_served)} asked={len(self._series_asked)}>"

    @property
    def served(self) -> dict[Served, Series]:
        """All series so far."""
        self._fold_all()
        return self._series_served

    @property
    def asked(self) -> dict[Asked, Series]:
        """All series so far."""
        self._fold_all()
        return self._series_asked

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
        It is only noted here, and counted with 127 others. What runs for every request does the same by itself
        (`proxy.measured`).
        """
        key = (method, status, host, minor, tag, default, secure)
        series = self.known.get(key) or self.met(key)
        series.recent.append((took, received, sent, asked_for))
        if len(series.recent) >= RECENT_MAX:
            self.fold(series)

    def _fold_all(self) -> None:
        for series in self._series_served.values():
            if series.recent:
                self.fold(series)

    def fold(self, series: Series) -> None:
        """Counts what is recent. A column is sorted and searched once for each bound, see `buckets`."""
        took, received, sent, asked_for = zip(*series.recent, strict=True)
        series.took.add(took)
        series.received.add(received)
        series.sent.add(sent)
        if min(asked_for) < 0.0:  # the app did not answer all of them with this status
            answered = [(for_, size) for for_, size in zip(asked_for, received, strict=True) if for_ >= 0.0]
            asked_for, received = zip(*answered, strict=True) if answered else ((), ())
        if asked_for:
            if series.asked is None:
                assert series.asks is not None
                series.asked = self._asked_series(series.asks)
            series.asked.took.add(asked_for)
            series.asked.sent.add(received)
        series.recent.clear()

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

    def met(self, key: _ServedKey) -> Series:
        """The series of a key that is not known."""
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
        if labels not in self._series_served and len(self._series_served) >= SERIES_MAX:
            labels = OVERFLOW_SERVED
        series = self._series_served.get(labels)
        if series is None:
            asks = (method, status, "", tag, default, True)
            series = self._series_served[labels] = Series(self._bounds, asks)
        if len(self.known) < MEMO_MAX:
            self.known[key] = series
        return series

    def _asked_series(self, key: _AskedKey) -> Series:
        method, status, error, tag, default, instrumented = key
        labels = Asked(METHODS.get(method, OTHER), status, error, self._tag(tag, default) if instrumented else "")
        if labels not in self._series_asked and len(self._series_asked) >= SERIES_MAX:
            labels = OVERFLOW_ASKED
        series = self._series_asked.get(labels)
        if series is None:
            series = self._series_asked[labels] = Series(self._bounds)
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
