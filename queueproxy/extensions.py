"""Decides what an extension sees of a request and what it may change; the interface for `queueproxy.extensions`.

An extension is made once per process by a callable that gets a `Setup`; its hooks are called for every request that
goes to the app, never for health checks and network probes, nor for requests the limiter refuses (contract 10.1). What
it may change is checked here, when it changes it, by the rules of our own codec, so that the error names its line: no
name or value can end a line, and what frames a message or belongs to the platform (`RESERVED`) is read-only. What is
sent is still written by the codec, never by an extension. docs/extensions.md is for those who write one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from queueproxy.codec.chunked import TOKEN
from queueproxy.codec.fields import Headers, RequestHeaders
from queueproxy.codec.headers import (
    FORWARDED,
    K_ORIGINAL_HOST,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    forwarded,
)
from queueproxy.codec.request_line import BadMessage, checked_host, well_escaped

if TYPE_CHECKING:
    import asyncio

    from queueproxy.codec.head import RequestHead
    from queueproxy.codec.response import ResponseReader

__all__ = ["Answer", "Extension", "Headers", "Logger", "Outcome", "Request", "Response", "Setup"]

BODILESS: Final = (204, 304)
_CRLF: Final = b"\r\n"
_COLON: Final = b": "
_VISIBLE: Final = bytes(range(33, 127))
_FIXED_METHODS: Final = (b"HEAD", b"CONNECT", b"PRI")  # they decide where a message ends


class Logger(Protocol):
    """The process log. Fields become keys of the line; every line names the extension."""

    def debug(self, message: str, /, **fields: object) -> None: ...
    def info(self, message: str, /, **fields: object) -> None: ...
    def warning(self, message: str, /, **fields: object) -> None: ...
    def error(self, message: str, /, **fields: object) -> None: ...


class Setup(NamedTuple):
    """What an extension is made with.

    name: its own, as installed. root_ca: of config-deployment, "" for none. podinfo: the file of the pod's annotations.
    tokens: the directory of projected tokens. Neither need exist.
    """

    name: str
    log: Logger
    loop: asyncio.AbstractEventLoop
    namespace: str = ""
    service: str = ""
    configuration: str = ""
    revision: str = ""
    pod: str = ""
    pod_ip: str = ""
    root_ca: str = ""
    podinfo: str = ""
    tokens: str = ""


class Outcome(NamedTuple):
    """How a request ended.

    status: what the client was told, 499 when it left before, 101 for an upgraded connection. app_status: what the app
    said, 0 for nothing. received, sent: bytes of body from and to the client. took: seconds from its arrival.
    thaw_wait: seconds it waited for the app to be woken. app_took: seconds from asking the app to its answer's head,
    None when it was not asked or did not answer. error: one word when the proxy had to answer itself, else "".
    """

    status: int
    app_status: int
    received: int
    sent: int
    took: float
    thaw_wait: float
    app_took: float | None
    error: str


def checked_status(status: int) -> int:
    """status, or an error when it is no final one."""
    if not isinstance(status, int) or not 200 <= status <= 999:
        raise ValueError(f"not a final status: {status!r}")
    return int(status)


class Request:
    """A request on its way to the app; hooks may change it until it leaves.

    peer: the client's address.
    """

    __slots__ = ("_head", "_notes", "headers", "peer")

    def __init__(self, head: RequestHead, peer: bytes, default_host: bytes) -> None:
        special = head.special
        if X_FORWARDED_PROTO in special or X_FORWARDED_HOST in special:
            self._settle_forwarded(head)
        self._head = head
        self._notes: dict[str, object] | None = None
        self.headers = RequestHeaders(head, default_host)
        self.peer = peer

    @classmethod
    def of(cls, head: bytes, peer: bytes = b"192.0.2.1") -> Request:
        """The request a client's bytes become; for tests of extensions. Raises BadMessage."""
        from queueproxy.codec.http1 import RequestReader

        reader = RequestReader(_Nobody())
        reader.feed(head)
        return cls(reader.head, peer, b"127.0.0.1:8080")

    def __repr__(self) -> str:
        return f"<Request {self.method!r} {self.target!r}>"

    @staticmethod
    def _settle_forwarded(head: RequestHead) -> None:
        """Made before an extension looks, as upstream's shim is outside of it; the encoder finds it done."""
        special = head.special
        if FORWARDED in special or special.get(X_FORWARDED_FOR):
            return
        value = forwarded([], special.get(X_FORWARDED_HOST), special.get(X_FORWARDED_PROTO))
        if value:
            special[FORWARDED] = value
            head.lines += (b"Forwarded", _COLON, value, _CRLF)

    @property
    def notes(self) -> dict[str, object]:
        """The extension's own, for its later hooks; shared by all extensions."""
        if self._notes is None:
            self._notes = {}
        return self._notes

    @property
    def method(self) -> bytes:
        return self._head.method

    @method.setter
    def method(self, method: bytes) -> None:
        self._changeable()
        if not isinstance(method, bytes) or not method or method.translate(None, TOKEN):
            raise ValueError(f"not a method: {method!r}")
        if method != self.method and (method in _FIXED_METHODS or self.method in _FIXED_METHODS):
            raise ValueError(f"{self.method.decode()} may not become {method.decode()}: other rules end its answer")
        self._head.method = method

    @property
    def target(self) -> bytes:
        """Path and query, as the client wrote them."""
        return self._head.target

    @target.setter
    def target(self, target: bytes) -> None:
        self._changeable()
        if self.method == b"CONNECT":
            raise ValueError("the target of CONNECT stays")
        if not isinstance(target, bytes) or target[:1] != b"/" or target.translate(None, _VISIBLE) or b"#" in target:
            raise ValueError(f"not a path with an optional query: {target!r}")
        if not well_escaped(target):
            raise ValueError(f"a percent sign that begins no escape: {target!r}")
        self._head.target = target

    @property
    def host(self) -> bytes:
        """What the app will see as Host."""
        return self.headers.host

    @host.setter
    def host(self, host: bytes) -> None:
        self._changeable()
        if not isinstance(host, bytes) or not host:
            raise ValueError(f"not a host: {host!r}")
        try:
            # Where the encoder looks first; the client's own stays for the logs.
            self._head.special[K_ORIGINAL_HOST] = checked_host(host)
        except BadMessage:
            raise ValueError(f"not a host: {host!r}") from None

    @property
    def content_length(self) -> int | None:
        """Bytes of its body; None when they come in chunks."""
        return None if self._head.body == 2 else self._head.content_length

    def seal(self) -> None:
        """See Headers.seal."""
        self.headers.seal()

    def _changeable(self) -> None:
        if not self.headers._open:
            raise RuntimeError("the head has left: it can be read, not changed")


class Response:
    """An answer on its way to the client: the app's, or an `Answer` of an extension further inside."""

    __slots__ = ("_status", "headers")

    def __init__(self, status: int, headers: Headers) -> None:
        self._status = status
        self.headers = headers

    def __repr__(self) -> str:
        return f"<Response {self._status}>"

    @property
    def status(self) -> int:
        return self._status

    @status.setter
    def status(self, status: int) -> None:
        if not self.headers._open:
            raise RuntimeError("the head has left: it can be read, not changed")
        if self._status == 101:
            raise ValueError("an upgrade's status stays")
        new = checked_status(status)
        if new != self._status and (new in BODILESS or self._status in BODILESS):
            raise ValueError(f"{self._status} may not become {new}: one of them has no body")
        self._status = new


class Answer:
    """An answer that an extension gives in the app's place. Text without a Content-Type is text/plain.

    It does not change and may be given to any number of requests.
    """

    __slots__ = ("body", "lines", "status")

    def __init__(self, status: int, body: bytes = b"", headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.status = checked_status(status)
        if not isinstance(body, bytes):
            raise TypeError(f"a body is bytes, not {type(body).__name__}")
        if body and self.status in BODILESS:
            raise ValueError(f"{self.status} has no body")
        self.body = body
        made = Headers.of(headers)
        if body and b"content-type" not in made:
            made.add(b"Content-Type", b"text/plain; charset=utf-8")
            made.set(b"X-Content-Type-Options", b"nosniff")
        self.lines = tuple(made._lines)

    def __repr__(self) -> str:
        return f"<Answer {self.status} {len(self.body)} bytes>"


class Extension(Protocol):
    """What an extension may have; a hook that it does not define costs nothing.

    `request` runs when the request has its slot and the app is awake: None lets it pass, an `Answer` is given instead
    of the app's. It may be `async`; the others may not. Nothing here may block: all requests share one thread. An
    exception from `request` or `response` ends the request with 500; one from `finished` is only counted and logged.
    """

    def request(self, request: Request) -> Answer | Awaitable[Answer | None] | None:
        """Before it goes to the app."""
        return None

    def response(self, request: Request, response: Response) -> None:
        """Before the answer's head goes to the client; its body follows untouched."""

    def finished(self, request: Request, outcome: Outcome) -> None:
        """The request is over; called once for each that `request` was, or would have been, called for."""

    def close(self) -> None:
        """The process ends; all requests are over."""


class _Nobody:
    """A sink for `Request.of`."""

    def head_received(self, head: RequestHead) -> None: ...
    def body_received(self, data: object) -> None: ...
    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def raw_received(self, data: bytes) -> None: ...


def written_back(response: ResponseReader, view: Response) -> None:
    """What became of the view is what the codec sends."""
    response.status = view.status
    if view.headers.changed:
        response.has_date = b"date" in view.headers
