"""Decodes and encodes HTTP/1.x messages: bytes on one side, calls on a sink on the other. No sockets.

Theory of operation. A `RequestReader` is in one of five states: HEAD (collecting or waiting for a head), LENGTH and
CHUNKED (inside a body), PAUSED (a message is complete, the next may not be looked at yet: pipelining), RAW (an upgraded
connection: bytes pass through). llhttp parses exactly one head at a time, cut out by us at its empty line, so we always
know where a message begins, and a body never reaches the head parser. On top of llhttp's strict mode stand our own
rules: what is ambiguous is refused, and what is forwarded is written anew from parsed fields, never spliced from the
client's bytes (RFC 9112 11.2).

Errors are `BadMessage` with the status and reason of knative-contract 1.3; the sink answers and closes.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import httptools

from queueproxy.codec.chunked import ChunkedDecoder, ChunkError
from queueproxy.codec.head import RequestHead as RequestHead
from queueproxy.codec.headers import (
    CONNECTION,
    CONTENT_LENGTH,
    FORBIDDEN_IN_TRAILERS,
    FORWARDED,
    HOST,
    K_ORIGINAL_HOST,
    LAST_FORWARDED,
    REQUEST_KINDS,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    forwarded,
    learn,
    tokens,
    without,
)  # fmt: skip
from queueproxy.codec.request_line import BadMessage as BadMessage
from queueproxy.codec.request_line import checked_host, plain, well_escaped, wrong_version

MAX_HEAD: Final = 1024 * 1024 + 4096  # Go: 1 MiB plus 4 KiB of slack, then 431 (QP-050)

VIEWED: Final = 16 * 1024  # bytes of body in one read with their head that are not copied out of it

HEAD, LENGTH, CHUNKED, PAUSED, RAW = range(5)
_CRLF: Final = b"\r\n"
_COLON: Final = b": "
_RESERVED: Final = frozenset((b"PRI", b"CONNECT"))
_MINORS: Final = {b" HTTP/1.0": 0, b" HTTP/1.1": 1}  # the end of a request line


class RequestSink(Protocol):
    """Who receives a client's messages. Pieces of body are bytes, or a view of them when many came with the head."""

    def head_received(self, head: RequestHead) -> None: ...
    def body_received(self, data: Any) -> None: ...
    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def raw_received(self, data: bytes) -> None: ...


class _Nobody:
    """The sink of a connection that is gone."""

    def head_received(self, head: RequestHead) -> None: ...
    def body_received(self, data: bytes) -> None: ...
    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def raw_received(self, data: bytes) -> None: ...


_NOBODY: Final = _Nobody()


def _ignore(name: bytes, value: bytes) -> None:
    """A header of nobody's."""


class RequestReader:
    """One client connection's request side."""

    __slots__ = ("_good_host", "_left", "_lists", "_parser", "_sink", "decoder", "head", "held", "on_header", "state")

    def __init__(self, sink: RequestSink) -> None:
        self._sink = sink
        self._parser: httptools.HttpRequestParser | None = None
        self.held: bytes | bytearray = b""
        self._left = 0
        self._lists: dict[int, list[bytes]] = {}
        self.decoder: ChunkedDecoder | None = None
        self.state = HEAD
        self._good_host = b""
        self.head = RequestHead()
        self.on_header = self._header  # bound once: llhttp calls it for every field

    def __repr__(self) -> str:
        return f"<RequestReader state={self.state} held={len(self.held)} left={self._left}>"

    @property
    def mid_message(self) -> bool:
        """Bytes of an unfinished message are here: half-read requests count as busy (FZ-021)."""
        return self.state in (LENGTH, CHUNKED) or (self.state == HEAD and bool(self.held))

    @property
    def backlog(self) -> bool:
        """Bytes of a pipelined request wait behind the present one."""
        return self.state == PAUSED and bool(self.held)

    def feed(self, data: bytes) -> None:
        """Takes bytes as they came. Raises BadMessage; the connection is then finished."""
        state = self.state
        if state == HEAD:
            self._feed_head(data)
        elif state == LENGTH:
            self._feed_length(data)
        elif state == CHUNKED:
            self._feed_chunked(data)
        elif state == RAW:
            self._sink.raw_received(data)
        else:
            self.held += data

    def resume(self) -> None:
        """The present message has been dealt with: look at the next, which may be here already (pipelining)."""
        self.state = HEAD
        if self.held:
            data, self.held = bytes(self.held), b""
            self._feed_head(data)

    def close(self) -> None:
        """The connection is gone. Undoes what refers to itself: left to the collector, a thousand cost megabytes."""
        self._sink = _NOBODY
        self._parser = None
        self.held = b""
        self.on_header = _ignore

    def go_raw(self) -> bytes:
        """The connection was upgraded: from now on bytes pass through. Returns those that came early."""
        self.state = RAW
        early, self.held = bytes(self.held), b""
        return early

    # -- heads

    def _feed_head(self, data: bytes) -> None:
        if self.held:
            fresh = max(0, len(self.held) - 3)
            self.held += data  # in place: a head that comes byte by byte is not copied for each
            end = self.held.find(b"\r\n\r\n", fresh)
            if end < 0:
                self._check_partial(self.held, fresh)
                return
            data, self.held = bytes(self.held), b""
        else:
            if data[0] in b"\r\n":
                data = data.lstrip(_CRLF)  # empty lines before a request line, RFC 9112 2.2
                if not data:
                    return
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._check_partial(data, 0)
                self.held = bytearray(data)
                return
        end += 4
        if end > MAX_HEAD:
            raise BadMessage(431, "Request Header Fields Too Large")
        self._parse(data if end == len(data) else data[:end])
        head = self.head
        if head.body == 0:
            self.held = data[end:]
            self.state = PAUSED
            self._sink.head_received(head)
            return
        self._parser = None  # llhttp waits for a body it will not be shown; a new parser costs 0.4 us
        rest = len(data) - end
        if head.body == 1:
            self.state = LENGTH
            self._left = head.content_length
            head.early = rest > 0
            self._sink.head_received(head)
            if VIEWED < rest <= self._left:
                self._feed_length(memoryview(data)[end:])
            elif rest:
                self._feed_length(data[end:])
        else:
            self.state = CHUNKED
            self.decoder = ChunkedDecoder()
            self._sink.head_received(head)
            if rest:
                self._feed_chunked(data[end:])

    def _check_partial(self, data: bytes | bytearray, fresh: int) -> None:
        """Part of a head: refuse early what can never become one, so that garbage does not wait for the timeout."""
        if len(data) > MAX_HEAD:
            raise BadMessage(431, "Request Header Fields Too Large")
        if data[0] < 33 or data[0] > 126:
            raise BadMessage(400, "Bad Request")
        if data.count(b"\n", fresh) != data.count(_CRLF, max(0, fresh - 1)):
            raise BadMessage(400, "Bad Request")

    def _parse(self, data: bytes, method: bytes = b"") -> None:
        head = self.head = RequestHead()
        if self._lists:
            self._lists = {}
        parser = self._parser
        if parser is None:
            parser = self._parser = httptools.HttpRequestParser(self)
            # CL together with TE is accepted as chunked (QP-054): we drop the length, so nobody can disagree.
            parser.set_dangerous_leniencies(lenient_chunked_length=True)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._parser = None
        except httptools.HttpParserError as error:
            self._parser = None
            if method or isinstance(error, httptools.HttpParserCallbackError) or not (made := plain(data)):
                raise self._refusal(data, error) from None
            self._parse(made[1], made[0])
            return
        line_end = data.find(b"\n") - 1  # not CRLF: llhttp lets some lines end early, with a bare LF
        minor = _MINORS.get(data[line_end - 9 : line_end])
        if minor is None:  # llhttp also takes HTTP/0.9 without a version, HTTP/2.0, RTSP and ICE
            raise wrong_version(data[:line_end])
        head.minor = minor
        method_end = data.find(b" ")
        head.method = method or data[:method_end]
        head.target = data[method_end + 1 : line_end - 9]
        if head.method in _RESERVED:
            self._settle_method(head)
        special = head.special
        if self._lists:
            self._settle_lists(head)
        else:
            head.keep_alive = minor == 1
            if CONTENT_LENGTH in special:
                self._sized(head)
        if HOST not in special:
            if minor:
                raise BadMessage(400, "Bad Request: missing required Host header")
        elif special[HOST] != self._good_host:  # a client asks for the same host again and again
            self._good_host = checked_host(special[HOST])
        target = head.target
        if not target or target[0] != 47:  # "/": origin form, the common case
            self._settle_target(head)
        # llhttp skips further blanks before the version and does not look at escapes.
        if target[-1] == 32 or (b"%" in target and head.method != b"CONNECT" and not well_escaped(head.target)):
            raise BadMessage(400, "Bad Request")
        if b"#" in target:
            head.target = head.target.replace(b"#", b"%23")  # as Go forwards it (contract 3.12)

    def _refusal(self, data: bytes, error: httptools.HttpParserError) -> BadMessage:
        if isinstance(error, httptools.HttpParserCallbackError):
            raise error  # our own fault, not the client's: let the loop report it and end the connection
        if "Transfer-Encoding" in str(error):
            return BadMessage(501, "Unsupported transfer encoding")
        return wrong_version(data[: data.find(_CRLF)])

    def _header(self, name: bytes, value: bytes) -> None:
        kind = REQUEST_KINDS.get(name)
        if kind is None:
            kind = learn(REQUEST_KINDS, name)
        if kind == 0:
            self.head.lines += (name, _COLON, value, _CRLF)
            return
        value = value.rstrip()  # llhttp leaves the blanks at the end, which are not part of it (RFC 9112 5.1)
        if kind <= LAST_FORWARDED:
            head = self.head
            if kind == HOST:
                if HOST in head.special:
                    self._lists[HOST] = [value]  # refused in _settle_lists: nothing is raised through llhttp
                head.special[HOST] = value  # written by request_bytes, which may restore another one
            else:
                head.special.setdefault(kind, value)
                head.lines += (name, _COLON, value, _CRLF)
        elif kind == CONTENT_LENGTH:
            self.head.special.setdefault(kind, value)
        elif kind <= K_ORIGINAL_HOST:
            self._lists.setdefault(kind, []).append(value)

    def _sized(self, head: RequestHead) -> None:
        length = head.special[CONTENT_LENGTH]
        if not length.isdigit() or len(length) > 18:
            raise BadMessage(400, "Bad Request")
        head.content_length = int(length)
        if length[0] == 48:
            head.special[CONTENT_LENGTH] = b"%d" % head.content_length  # no zeros in front: octal to somebody
        head.body = 1 if head.content_length else 0

    def _settle_lists(self, head: RequestHead) -> None:
        """The headers that repeat or are written anew; off the path of the plainest requests only."""
        lists = self._lists
        if HOST in lists:
            raise BadMessage(400, "Bad Request")
        connection = tokens(lists[CONNECTION]) if CONNECTION in lists else []
        head.keep_alive = b"close" not in connection and (head.minor == 1 or b"keep-alive" in connection)
        if TRANSFER_ENCODING in lists:
            if head.minor == 0:
                raise BadMessage(400, "Bad Request")  # RFC 9112 6.1: its framing cannot be trusted
            if [v.lower() for v in lists[TRANSFER_ENCODING]] != [b"chunked"]:
                raise BadMessage(501, "Unsupported transfer encoding")
            if CONTENT_LENGTH in head.special:
                del head.special[CONTENT_LENGTH]
                head.keep_alive = False  # RFC 9112 6.1: close after a message that carried both
            head.body = 2
        elif CONTENT_LENGTH in head.special:
            self._sized(head)
        nominated = [t for t in connection if t not in (b"close", b"keep-alive", b"upgrade", b"te")]
        if nominated:
            head.lines = without(head.lines, nominated)
        if TE in lists and b"trailers" in tokens(lists[TE]):
            head.lines += (b"Te", _COLON, b"trailers", _CRLF)
        if TRAILER in lists and head.body == 2:
            head.lines += (b"Trailer", _COLON, b", ".join(lists[TRAILER]), _CRLF)
        if K_ORIGINAL_HOST in lists:
            head.special[K_ORIGINAL_HOST] = checked_host(lists[K_ORIGINAL_HOST][0])  # it will be the Host
        if UPGRADE in lists and b"upgrade" in connection and head.minor == 1:
            head.upgrade = b", ".join(lists[UPGRADE])
        if X_FORWARDED_FOR in lists:
            head.special[X_FORWARDED_FOR] = b", ".join(lists[X_FORWARDED_FOR])
            if FORWARDED not in head.special:
                self._forwarded(head, lists[X_FORWARDED_FOR])
            if b"x-forwarded-for" in nominated:
                del head.special[X_FORWARDED_FOR]

    def _forwarded(self, head: RequestHead, xff: list[bytes]) -> None:
        special = head.special
        value = forwarded(xff, special.get(X_FORWARDED_HOST), special.get(X_FORWARDED_PROTO))
        if value:
            head.lines += (b"Forwarded", _COLON, value, _CRLF)
            special[FORWARDED] = value

    def _settle_method(self, head: RequestHead) -> None:
        """What must not be mistaken for an ordinary request: an HTTP/2 preface and CONNECT."""
        if head.method == b"PRI":
            raise BadMessage(505, "HTTP Version Not Supported")
        if CONTENT_LENGTH in head.special or TRANSFER_ENCODING in self._lists:
            raise BadMessage(400, "Bad Request")  # content to us, tunnelled bytes to others (RFC 9110 9.3.6)
        if not checked_host(head.target):
            raise BadMessage(400, "Bad Request")  # RFC 9112 3.2.3: an authority and nothing else
        self._lists.setdefault(CONNECTION, []).append(b"close")  # after a 2xx both sides may see a tunnel, not HTTP

    def _settle_target(self, head: RequestHead) -> None:
        """Absolute form: its authority replaces Host and the app sees origin form (QP-206)."""
        target = head.target
        lower = target[:8].lower()
        if not target or target[0] == 32:
            raise BadMessage(400, "Bad Request")  # llhttp skips further blanks after the method
        if head.method == b"CONNECT" or target == b"*":
            if target == b"*" and head.method != b"OPTIONS":
                raise BadMessage(400, "Bad Request")
            return
        if not lower.startswith((b"http://", b"https://")):
            raise BadMessage(400, "Bad Request")
        start = target.index(b"//") + 2
        ends = [i for i in (target.find(c, start) for c in (b"/", b"?")) if i >= 0]
        path_at = min(ends, default=len(target))
        authority = target[start:path_at]
        if not authority or b"@" in authority:
            raise BadMessage(400, "Bad Request")
        head.special[HOST] = checked_host(authority)
        path = target[path_at:]
        head.target = path if path.startswith(b"/") else b"/" + path

    # -- bodies

    def _feed_length(self, data: Any) -> None:
        size = len(data)
        if size < self._left:
            self._left -= size
            self._sink.body_received(data)
            return
        if size > self._left:
            self.held = data[self._left :]
            data = data[: self._left]
        self._left = 0
        self.state = PAUSED
        self._sink.body_received(data)
        self._sink.body_ended([])

    def _feed_chunked(self, data: bytes) -> None:
        decoder = self.decoder
        assert decoder is not None
        try:
            pieces = decoder.feed(data)
        except ChunkError as error:
            raise BadMessage(400, str(error)) from None
        for piece in pieces:
            self._sink.body_received(piece)
        if decoder.done:
            self.held = decoder.rest
            self.decoder = None
            self.state = PAUSED
            trailers = decoder.trailers
            if trailers:
                nominated = tokens(self._lists.get(CONNECTION, []))  # for this hop only, in whichever section
                unwanted = FORBIDDEN_IN_TRAILERS.union(nominated)
                trailers = [t for t in trailers if t[0].lower() not in unwanted]
            self._sink.body_ended(trailers)
