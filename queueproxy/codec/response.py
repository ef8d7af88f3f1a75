"""Decodes the app's HTTP/1.x answers and encodes ours. Bytes on one side, calls on a sink on the other.

llhttp parses; this module decides the framing (RFC 9112 6.3), keeps the hop-by-hop fields apart and makes sure that a
connection which said more or less than one clean message is never used again.
"""

from __future__ import annotations

from typing import Final, Protocol

import httptools

from queueproxy.codec.headers import (
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    DROP,
    FORBIDDEN_IN_TRAILERS,
    RESPONSE_KINDS,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    learn,
    tokens,
    without,
)  # fmt: skip

_CRLF: Final = b"\r\n"
_COLON: Final = b": "
NOSNIFF: Final = b"X-Content-Type-Options: nosniff\r\n"  # on every text/plain answer of ours but the 504 (QP-205)

# Bytes of heads or trailers without a piece of body between them, 1xx heads included. Go reads 10 MiB; a request head
# may have 1 MiB (QP-050), and nobody's app says more about its answer than its clients may say about their question.
MAX_HEAD: Final = 1024 * 1024

# Canonical reason phrases, as Go writes them whatever the app said (contract 1.3).
_REASONS: Final = {
    100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
    200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
    205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported", 226: "IM Used",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
    305: "Use Proxy", 307: "Temporary Redirect", 308: "Permanent Redirect",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 407: "Proxy Authentication Required", 408: "Request Timeout",
    409: "Conflict", 410: "Gone", 411: "Length Required", 412: "Precondition Failed",
    413: "Request Entity Too Large", 414: "Request URI Too Long", 415: "Unsupported Media Type",
    416: "Requested Range Not Satisfiable", 417: "Expectation Failed", 418: "I'm a teapot",
    421: "Misdirected Request", 422: "Unprocessable Entity", 423: "Locked", 424: "Failed Dependency",
    425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported", 506: "Variant Also Negotiates",
    507: "Insufficient Storage", 508: "Loop Detected", 510: "Not Extended", 511: "Network Authentication Required",
}  # fmt: skip


STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {reason}\r\n".encode() for status, reason in _REASONS.items()}


def status_line(status: int) -> bytes:
    """The status line, canonical reason phrase included; unknown statuses as Go names them."""
    line = STATUS_LINES.get(status)
    if line is None:  # llhttp delivers three digits, so there are at most 1,000
        line = STATUS_LINES[status] = f"HTTP/1.1 {status:03d} status code {status}\r\n".encode()
    return line


class ResponseSink(Protocol):
    """Who receives the app's answer."""

    def informed(self, status: int, lines: list[bytes]) -> None: ...
    def switched(self, protocol: bytes, lines: list[bytes]) -> None: ...
    def response_received(self, response: ResponseReader) -> None: ...
    def response_body(self, data: bytes) -> None: ...
    def response_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...


class BadResponse(Exception):
    """The app's answer breaks HTTP/1.1; the text is one line."""


class ResponseReader:
    """One upstream connection's response side. `expect(sink)` before each request, then `feed()`.

    lines: headers to forward, flat groups of four. status, content_length (as received) or None, chunked, keep_alive,
    has_date describe the head. until_eof: the body ends with the connection. clean: nothing but one whole message came.
    unheard: bytes read since the last piece of body, bounded by MAX_HEAD.
    """

    __slots__ = (
        "_head_only", "_lists", "_parser", "_trailers", "awaiting", "chunked", "clean", "complete",
        "content_length", "has_date", "in_body", "keep_alive", "lines", "on_body", "on_header", "on_headers_complete",
        "on_message_begin", "on_message_complete", "sink", "status", "unheard", "until_eof",
    )  # fmt: skip

    sink: ResponseSink
    lines: list[bytes]
    content_length: bytes | None

    def __init__(self) -> None:
        self.on_message_begin = self._began
        self.on_header = self._header
        self.on_headers_complete = self._headers_complete
        self.on_body = self._body
        self.on_message_complete = self._message_complete
        self._parser = self._new_parser()
        self._trailers: list[tuple[bytes, bytes]] = []
        self._lists: dict[int, list[bytes]] = {}
        self.awaiting = False
        self.clean = True
        self.complete = False
        self.in_body = False
        self.until_eof = False
        self._head_only = False
        self.status = 0
        self.keep_alive = False
        self.unheard = 0
        self._reset_head()

    def __repr__(self) -> str:
        return f"<ResponseReader status={self.status} in_body={self.in_body} complete={self.complete}>"

    def _new_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        parser.set_dangerous_leniencies(lenient_chunked_length=True)  # TE wins over CL, RFC 9112 6.3; see _settle
        return parser

    def expect(self, sink: ResponseSink, *, head_only: bool) -> None:
        """A request is about to be sent; head_only for HEAD, whose answer has no body whatever it declares."""
        self.sink = sink
        self.awaiting = True
        self.complete = False
        self.until_eof = False
        self.unheard = 0
        self._head_only = head_only
        self.lines = []  # and what else `_reset_head` does: for every request
        self.content_length = None
        self.chunked = False
        self.has_date = False
        if self._lists:
            self._lists = {}
        if self._trailers:
            self._trailers = []

    def _reset_head(self) -> None:
        self.lines = []
        self.content_length = None
        self.chunked = False
        self.has_date = False
        if self._lists:
            self._lists = {}
        if self._trailers:
            self._trailers = []

    def feed(self, data: bytes) -> bytes:
        """Returns the bytes after a 101 (they belong to the new protocol). Raises BadResponse."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            self.clean = False
            if isinstance(error, httptools.HttpParserCallbackError) and not isinstance(error.__context__, BadResponse):
                raise  # our own fault, not the app's: let the loop report it and end the connection
            if not self.complete:
                raise BadResponse(str(error.__context__ or error)) from None
        if not self.complete:
            self.unheard += len(data)
            if self.unheard > MAX_HEAD:
                self.clean = False
                raise BadResponse("response headers too long")
        return b""

    def close(self) -> None:
        """The connection is gone. Undoes what refers to itself, so that nothing is left to the collector."""
        del self._parser, self.on_message_begin, self.on_header, self.on_headers_complete, self.on_body
        del self.on_message_complete
        self._lists = {}
        self.lines = []

    def ended_by_eof(self) -> bool:
        """The connection ended. True when that completes the message (a body without declared length)."""
        if self.in_body and self.until_eof:
            self._message_complete()
            return True
        return False

    # -- called by llhttp

    def _began(self) -> None:
        if not self.awaiting:
            self.clean = False  # an answer nobody asked for: the connection must not be used again

    def _header(self, name: bytes, value: bytes) -> None:
        kind = RESPONSE_KINDS.get(name)
        if kind is None:
            kind = learn(RESPONSE_KINDS, name)
        if self.in_body:
            lower = name.lower()
            if lower not in FORBIDDEN_IN_TRAILERS and lower not in tokens(self._lists.get(CONNECTION, [])):
                self._trailers.append((name, value))
        elif kind == 0:
            self.lines += (name, _COLON, value, _CRLF)
        elif kind == CONTENT_LENGTH:
            value = value.rstrip()  # llhttp leaves the blanks at the end
            self.content_length = b"%d" % int(value) if value[0] == 48 else value  # zeros in front: octal to somebody
        elif kind == DATE:
            self.has_date = True
            self.lines += (name, _COLON, value, _CRLF)
        elif kind != DROP:
            self._lists.setdefault(kind, []).append(value.rstrip())

    def _headers_complete(self) -> None:
        if not self.awaiting:
            return
        parser = self._parser
        status = self.status = parser.get_status_code()
        lists = self._lists
        if status < 200:
            self._interim(status)
            return
        self.awaiting = False
        self.keep_alive = parser.should_keep_alive()
        if lists or not self.keep_alive:  # everything else is HTTP/1.1
            self._settle(lists)
        bodiless = self._head_only or status == 204 or status == 304
        if bodiless:
            if self._head_only:
                # llhttp would wait for the declared body; connection reuse is decided by version and Connection.
                self.keep_alive = parser.get_http_version() == "1.1" and not self._closing(lists)
                # An app that sends the declared body all the same would answer the next request with it.
                self.clean = self.clean and self.content_length in (None, b"0") and not self.chunked
                self._parser = self._new_parser()
            self.sink.response_received(self)
            self._finish()
            return
        self.until_eof = not self.chunked and self.content_length is None
        self.in_body = True
        self.sink.response_received(self)

    def _interim(self, status: int) -> None:
        if status < 100:
            raise BadResponse(f"malformed HTTP status code {status:03d}")
        self._check_version()
        lists = self._lists
        if status == 101:
            if UPGRADE not in lists or b"upgrade" not in tokens(lists.get(CONNECTION, [])):
                raise BadResponse("101 without Upgrade")
            self.awaiting = False
            self.complete = True
            self.clean = False
            self.sink.switched(b", ".join(lists[UPGRADE]), self.lines)
            return
        self._drop_nominated(lists)
        lines = self.lines
        self._reset_head()
        self.sink.informed(status, lines)

    def _closing(self, lists: dict[int, list[bytes]]) -> bool:
        return CONNECTION in lists and b"close" in tokens(lists[CONNECTION])

    def _check_version(self) -> None:
        version = self._parser.get_http_version()
        if version != "1.1" and version != "1.0":  # llhttp also takes 0.9 and 2.0
            raise BadResponse(f"malformed HTTP version {version}")

    def _drop_nominated(self, lists: dict[int, list[bytes]]) -> None:
        if CONNECTION in lists:
            nominated = [t for t in tokens(lists[CONNECTION]) if t not in (b"close", b"keep-alive", b"upgrade")]
            if nominated:
                self.lines = without(self.lines, nominated)

    def _settle(self, lists: dict[int, list[bytes]]) -> None:
        self._check_version()
        if TRANSFER_ENCODING in lists:
            if [v.lower() for v in lists[TRANSFER_ENCODING]] != [b"chunked"]:
                raise BadResponse("unsupported transfer encoding")
            self.chunked = True
            if self.content_length is not None or self._parser.get_http_version() == "1.0":
                self.content_length = None
                self.keep_alive = False  # RFC 9112 6.1: its framing is not to be trusted twice
        self._drop_nominated(lists)
        if TRAILER in lists:
            self.lines += (b"Trailer", _COLON, b", ".join(lists[TRAILER]), _CRLF)

    def _body(self, data: bytes) -> None:
        if self.in_body:
            self.unheard = 0
            self.sink.response_body(data)
        else:
            self.clean = False

    def _message_complete(self) -> None:
        if self.in_body:
            self._finish()

    def _finish(self) -> None:
        self.in_body = False
        self.complete = True
        self.sink.response_ended(self._trailers)


def response_bytes(response: ResponseReader, *, chunked: bool, connection: bytes, date: bytes) -> bytes:
    """The final head as the client gets it.

    chunked: we frame the body in chunks. connection: b"" or a whole Connection line. date: the Date value, used when
    the app sent none (contract 1.3). A 304 loses its Content-Length, a 204 has none (QP-087).
    """
    status = response.status
    parts = [STATUS_LINES.get(status) or status_line(status), *response.lines]
    if response.content_length is not None and status != 304 and status != 204:
        parts += (b"Content-Length: ", response.content_length, _CRLF)
    elif chunked:
        parts.append(b"Transfer-Encoding: chunked\r\n")
    if not response.has_date:
        parts += (b"Date: ", date, _CRLF)
    parts += (connection, _CRLF)
    return b"".join(parts)


def connection_line(*, keep: bool, minor: int) -> bytes:
    """The Connection line of an answer to an HTTP/1.`minor` client: said only where it is not the default."""
    if not keep:
        return b"Connection: close\r\n"
    return b"" if minor else b"Connection: keep-alive\r\n"


def interim_bytes(status: int, lines: list[bytes]) -> bytes:
    """A 1xx head (QP-078)."""
    return b"".join((status_line(status), *lines, _CRLF))


def switching_bytes(protocol: bytes, lines: list[bytes]) -> bytes:
    """The 101 that hands the connection over (QP-080)."""
    return b"".join((STATUS_LINES[101], *lines, b"Connection: Upgrade\r\nUpgrade: ", protocol, b"\r\n\r\n"))


def answer_bytes(
    status: int,
    body: bytes,
    *,
    date: bytes,
    content_type: bytes = b"text/plain; charset=utf-8",
    extra: bytes = b"",
    connection: bytes = b"",
    head_only: bool = False,
) -> bytes:
    """An answer of our own, whole. extra: further header lines, each with its CRLF. Date left out when empty."""
    return b"".join(
        (
            status_line(status),
            b"Content-Type: " + content_type + _CRLF if body else b"",
            extra,
            b"Date: " + date + _CRLF if date else b"",
            b"Content-Length: %d\r\n" % len(body),
            connection,
            _CRLF,
            b"" if head_only else body,
        )
    )


def refusal_bytes(status: int, reason: str) -> bytes:
    """What a message that is not HTTP is told: Go's answer, byte for byte (contract 1.3)."""
    phrase = status_line(status)[len(b"HTTP/1.1 ") : -2]
    if status == 501:
        line, body = phrase, reason.encode()
    else:
        line = body = phrase if reason.encode() in phrase else phrase[:3] + b" " + reason.encode()
    return b"HTTP/1.1 " + line + b"\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" + body
