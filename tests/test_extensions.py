"""What an extension may do to a request, an answer, and its own answers: whatever is accepted stays one message."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from queueproxy.codec.encode import request_bytes
from queueproxy.codec.fields import Headers
from queueproxy.codec.http1 import PAUSED, RequestHead, RequestReader
from queueproxy.codec.response import ResponseReader, response_bytes
from queueproxy.extensions import Answer, Extension, Outcome, Request, Response, Setup, written_back

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "extensions.md"
POST = b"POST /a?b HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nCookie: c\r\nContent-Length: 3\r\n\r\n"
HEADS = {
    "no body": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "sized": POST,
    "chunked": b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n",
    "upgrade": b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n",
    "proxied": b"GET / HTTP/1.1\r\nHost: h\r\nK-Original-Host: o\r\nX-Forwarded-For: 1, 2\r\n"
    b"X-Forwarded-Proto: p\r\n\r\n",
    "HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "HEAD": b"HEAD / HTTP/1.1\r\nHost: h\r\nTe: trailers\r\n\r\n",
    "CONNECT": b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
}


class Sink:
    """Every head that came, and nothing else."""

    def __init__(self) -> None:
        self.heads: list[RequestHead] = []
        self.body = b""

    def head_received(self, head: RequestHead) -> None:
        self.heads.append(head)

    def body_received(self, data: bytes) -> None:
        self.body += data

    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def raw_received(self, data: bytes) -> None: ...


def sent(request: Request) -> bytes:
    return request_bytes(request._head, request.peer, b"127.0.0.1:8080")


# -- requests


def test_a_request_shows_what_the_app_will_see() -> None:
    request = Request.of(HEADS["proxied"], peer=b"10.1.1.1")
    assert (request.method, request.target, request.host, request.content_length) == (b"GET", b"/", b"o", 0)
    assert list(request.headers) == [
        (b"Host", b"o"), (b"X-Forwarded-For", b"1, 2"), (b"X-Forwarded-Proto", b"p"),
        (b"Forwarded", b"for=1;proto=p, for=2"),
    ]  # fmt: skip
    assert request.peer == b"10.1.1.1" and request.notes == {} and repr(request) == "<Request b'GET' b'/'>"


@pytest.mark.parametrize("name", HEADS)
def test_looking_changes_nothing(name: str) -> None:
    reader = RequestReader(Sink())
    reader.feed(HEADS[name])
    plain = request_bytes(reader.head, b"p", b"127.0.0.1:8080")
    request = Request.of(HEADS[name], peer=b"p")
    list(request.headers)
    assert sent(request) == plain
    for field in request.headers:
        assert b"\r\n%b: %b" % field in plain, "what is shown is what is sent"


@pytest.mark.parametrize(("name", "length"), [("no body", 0), ("sized", 3), ("chunked", None)])
def test_the_length_of_a_body(name: str, length: int | None) -> None:
    assert Request.of(HEADS[name]).content_length == length


@pytest.mark.qp("QP-196")
def test_forwarded_is_there_to_be_seen_removed_and_replaced() -> None:
    def request() -> Request:
        return Request.of(b"GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Host: x\r\n\r\n")

    assert request().headers.get(b"forwarded") == b"host=x"
    without, other = request(), request()
    without.headers.remove(b"Forwarded")
    assert b"Forwarded: " not in sent(without)
    other.headers.set(b"Forwarded", b"for=me")
    assert sent(other).count(b"Forwarded: ") == 1 and b"Forwarded: for=me\r\n" in sent(other)


def test_a_new_host_is_shown_and_sent_and_the_clients_stays_for_the_logs() -> None:
    request = Request.of(POST)
    request.host = b"other:81"
    assert request.headers.get(b"host") == b"other:81" and b"\r\nHost: other:81\r\n" in sent(request)
    assert request._head.special[12] == b"h"


@pytest.mark.parametrize("method", [b"", b"GE T", b"G\r\nX: 1", "PUT", None, b"HEAD", b"CONNECT", b"PRI"])
def test_a_method_that_is_none_or_ends_messages_differently(method: bytes) -> None:
    request = Request.of(POST)
    with pytest.raises(ValueError, match=r"method|may not become"):
        request.method = method
    assert sent(request).startswith(b"POST ")


@pytest.mark.parametrize("name", ["HEAD", "CONNECT"])
def test_head_and_connect_stay_what_they_are(name: str) -> None:
    request = Request.of(HEADS[name])
    request.method = name.encode()
    with pytest.raises(ValueError, match="may not become"):
        request.method = b"GET"
    if name == "CONNECT":
        with pytest.raises(ValueError, match="stays"):
            request.target = b"/"


@pytest.mark.parametrize(
    "target",
    [b"", b"a", b"*", b"http://h/", b"/ ", b"/\t", b"/a b", b"/\r\n", b"/\x7f", b"/\xe9", b"/#x", b"/%", b"/%g0", "/"],
)
def test_what_is_no_path(target: bytes) -> None:
    request = Request.of(POST)
    with pytest.raises(ValueError, match=r"path|escape"):
        request.target = target
    assert sent(request).startswith(b"POST /a?b ")


@pytest.mark.parametrize("host", [b"", b"a b", b"a\r\n", b"a/b", b"a@b", b"a,b", "a", None])
def test_what_is_no_host(host: bytes) -> None:
    request = Request.of(POST)
    with pytest.raises(ValueError, match="not a host"):
        request.host = host
    assert b"\r\nHost: h\r\n" in sent(request)


def test_what_has_left_cannot_be_changed() -> None:
    request = Request.of(POST)
    before = sent(request)
    request.seal()
    for attribute in ("method", "target", "host"):
        with pytest.raises(RuntimeError, match="has left"):
            setattr(request, attribute, b"/x")
    with pytest.raises(RuntimeError, match="has left"):
        request.headers.add(b"A", b"b")
    request.notes["x"] = 1
    assert sent(request) == before


NASTY = st.one_of(
    st.binary(max_size=12),
    st.sampled_from([
        b"X-A", b"Cookie", b"Host", b"Content-Length", b"transfer-encoding", b"Connection", b"Upgrade", b"Te", b"K-X",
        b"Forwarded", b"X-Forwarded-For", b"Expect", b"chunked", b"/x", b"/%41?%", b"PUT", b"HEAD", b"get", b"a:1",
        b"7", b"1\r\nContent-Length: 9", b"1\nA: b", b" v ", b"\t", b"\x00", b"\xff", b"HTTP/1.1",
    ]),
)  # fmt: skip
CHANGES: dict[str, Callable[[Request, bytes, bytes], None]] = {
    "set": lambda r, a, b: r.headers.set(a, b),
    "add": lambda r, a, b: r.headers.add(a, b),
    "remove": lambda r, a, b: r.headers.remove(a),
    "method": lambda r, a, b: setattr(r, "method", a),
    "target": lambda r, a, b: setattr(r, "target", a),
    "host": lambda r, a, b: setattr(r, "host", a),
}
STEPS = st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), NASTY, NASTY), max_size=8)


@settings(max_examples=100, deadline=None)
@given(head=st.sampled_from(sorted(HEADS)), steps=STEPS)
def test_whatever_is_accepted_goes_out_as_one_request_with_the_body_the_client_declared(
    head: str, steps: list[tuple[str, bytes, bytes]]
) -> None:
    request = Request.of(HEADS[head], peer=b"10.0.0.1")
    for change, a, b in steps:
        with suppress(ValueError, TypeError):
            CHANGES[change](request, a, b)
    before, sink = request._head, Sink()
    reader = RequestReader(sink)
    reader.feed(sent(request))
    (got,) = sink.heads
    assert not reader.held and (reader.state == PAUSED) == (before.body == 0)
    assert (got.method, got.target, got.body) == (request.method, request.target, before.body)
    assert (got.content_length, got.upgrade) == (before.content_length, before.upgrade)
    seen = Request(got, b"", b"")
    assert seen.host == request.host
    hop = (
        b"host",
        b"connection",
        b"upgrade",
        b"content-length",
        b"transfer-encoding",
        b"x-forwarded-for",
        b"forwarded",
    )

    def own(headers: Headers) -> list[tuple[bytes, bytes]]:
        # The codec moves these two to the end.
        fields = [f for f in headers if f[0].lower() not in hop]
        return sorted(fields, key=lambda f: f[0].lower() in (b"te", b"trailer"))

    assert own(seen.headers) == own(request.headers)


# -- answers of the app


class Answers:
    """A sink that hands the answer's head to an extension."""

    def __init__(self, change: Callable[[Response], None]) -> None:
        self.change = change
        self.head = b""
        self.body = b""

    def response_received(self, response: ResponseReader) -> None:
        shown = Response(response.status, Headers(response.lines))
        self.change(shown)
        written_back(response, shown)
        chunked = response.in_body and response.content_length is None
        self.head = response_bytes(response, chunked=chunked, connection=b"", date=b"now")

    def response_body(self, data: bytes) -> None:
        self.body += data

    def response_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...
    def informed(self, status: int, lines: list[bytes]) -> None: ...
    def switched(self, protocol: bytes, lines: list[bytes]) -> None: ...


def answered(data: bytes, change: Callable[[Response], None], *, head_only: bool = False) -> Answers:
    sink, reader = Answers(change), ResponseReader()
    reader.expect(sink, head_only=head_only)
    reader.feed(data)
    return sink


@pytest.mark.parametrize(
    ("app", "change", "dates"),
    [
        (b"", lambda r: None, [b"now"]),
        (b"Date: then\r\n", lambda r: None, [b"then"]),
        (b"Date: then\r\n", lambda r: r.headers.remove(b"date"), [b"now"]),
        (b"", lambda r: r.headers.set(b"Date", b"later"), [b"later"]),
        (b"Date: then\r\n", lambda r: r.headers.set(b"Date", b"later"), [b"later"]),
    ],
    ids=["none", "the app's", "removed", "made", "replaced"],
)
def test_an_answer_has_one_date(app: bytes, change: Callable[[Response], None], dates: list[bytes]) -> None:
    head = answered(b"HTTP/1.1 200 x\r\n" + app + b"Content-Length: 0\r\n\r\n", change).head
    assert [line[6:] for line in head.split(b"\r\n") if line.startswith(b"Date: ")] == dates


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        (200, 404, True), (404, 200, True), (200, 999, True), (200, HTTPStatus.NOT_FOUND, True), (204, 204, True),
        (200, 204, False), (200, 304, False), (304, 200, False), (204, 304, False), (204, 200, False),
        (101, 200, False), (101, 101, False), (200, 101, False), (200, 100, False), (200, 1000, False),
        (200, -1, False), (200, "200", False), (200, 404.0, False), (200, None, False), (200, True, False),
    ],
    ids=str,
)  # fmt: skip
def test_a_status_may_change_where_no_body_comes_or_goes_with_it(old: int, new: int, allowed: bool) -> None:
    response = Response(old, Headers([]))
    if allowed:
        response.status = new
        assert response.status == int(new) and type(response.status) is int
    else:
        with pytest.raises(ValueError):
            response.status = new
        assert response.status == old


def test_an_answer_that_has_left_cannot_be_changed() -> None:
    response = Response(200, Headers([]))
    response.headers.seal()
    with pytest.raises(RuntimeError, match="has left"):
        response.status = 404


ANSWER_CHANGES: dict[str, Callable[[Response, bytes, bytes], None]] = {
    "set": lambda r, a, b: r.headers.set(a, b),
    "add": lambda r, a, b: r.headers.add(a, b),
    "remove": lambda r, a, b: r.headers.remove(a),
    "status": lambda r, a, b: setattr(r, "status", len(a) * 100 + len(b)),
}
FRAMES = {
    "sized": b"HTTP/1.1 200 x\r\nA: b\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"HTTP/1.1 404 x\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "empty": b"HTTP/1.1 204 x\r\n\r\n",
    "not modified": b"HTTP/1.1 304 x\r\nEtag: x\r\nContent-Length: 5\r\n\r\n",
}


@settings(max_examples=100, deadline=None)
@given(
    name=st.sampled_from(sorted(FRAMES)),
    steps=st.lists(st.tuples(st.sampled_from(sorted(ANSWER_CHANGES)), NASTY, NASTY), max_size=8),
)
def test_whatever_is_accepted_goes_out_as_one_answer_with_the_apps_body(
    name: str, steps: list[tuple[str, bytes, bytes]]
) -> None:
    def change(response: Response) -> None:
        for step, a, b in steps:
            with suppress(ValueError, TypeError):
                ANSWER_CHANGES[step](response, a, b)

    first = answered(FRAMES[name], change)
    chunked = b"\r\nTransfer-Encoding: chunked\r\n" in first.head
    assert chunked == (name == "chunked")
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(first.body), first.body) if chunked else first.body
    sink, reader = Answers(lambda response: None), ResponseReader()
    reader.expect(sink, head_only=False)
    reader.feed(first.head + body)
    assert reader.complete and reader.clean and reader.keep_alive and sink.body == first.body
    assert sorted(sink.head.split(b"\r\n")) == sorted(first.head.split(b"\r\n"))


# -- answers of an extension


def test_an_answers_text_is_said_to_be_text() -> None:
    assert Answer(403, b"no").lines == (
        b"Content-Type", b": ", b"text/plain; charset=utf-8", b"\r\n",
        b"X-Content-Type-Options", b": ", b"nosniff", b"\r\n",
    )  # fmt: skip
    assert Answer(403).lines == () and repr(Answer(403, b"no")) == "<Answer 403 2 bytes>"
    assert Answer(HTTPStatus.OK, b"{}", [(b"content-TYPE", b"application/json")]).lines[2] == b"application/json"


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (100, b"", ()), (101, b"", ()), (1000, b"", ()), ("200", b"", ()), (200, "text", ()), (200, None, ()),
        (204, b"x", ()), (304, b"x", ()), (200, b"", [(b"Content-Length", b"9")]), (200, b"", [(b"A", b"\r\n\r\n")]),
        (200, b"", [(b"A\r\nB", b"c")]), (200, b"", [("A", "b")]), (200, b"", [(b"Connection", b"close")]),
        (200, b"", [(b"K-Network-Hash", b"h")]), (200, b"", [b"A: b"]), (200, b"", 7),
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_that_cannot_be_given_cannot_be_made(status: int, body: bytes, headers: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Answer(status, body, headers)  # type: ignore[arg-type]


def test_the_hooks_of_the_interface_do_nothing() -> None:
    class Empty(Extension):
        """Defines none."""

    empty, request = Empty(), Request.of(POST)
    assert empty.request(request) is None
    empty.response(request, Response(200, Headers([])))
    empty.finished(request, Outcome(200, 200, 0, 0, 0.0, 0.0, None, ""))
    empty.close()
    assert Setup._fields[:3] == ("name", "log", "loop")


def test_the_documents_code_does_what_it_says() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)
    nothing: Any = None
    told: dict[str, Any] = {"setup": Setup("door", log=nothing, loop=nothing)}
    exec("\n".join(blocks), told)
    door = told["Door"](told["setup"])
    door.response(told["request"], told["response"])
    assert b"Server" not in told["response"].headers and told["request"].headers.get(b"x-checked") == b"yes"
    refused = door.request(Request.of(POST))
    assert isinstance(refused, Answer) and (refused.status, refused.body) == (400, b"which tenant?\n")
