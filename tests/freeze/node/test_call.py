"""One call of a sidecar, from its head and body to what it asks for."""

import pytest

from queueproxy.codec.http1 import RequestHead, RequestReader
from queueproxy.freeze.node.call import MAX_HEAD, Call, Kind
from queueproxy.freeze.wire import Problem
from tests.support.freezer_calls import get, old, put


class Sink:
    """Makes a call of what a reader reads."""

    def __init__(self, data: bytes) -> None:
        self.call: Call | None = None
        RequestReader(self).feed(data)

    def head_received(self, head: RequestHead) -> None:
        self.call = Call(head)

    def body_received(self, data: bytes) -> None:
        assert self.call is not None
        self.call.body_received(data)

    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...

    def raw_received(self, data: bytes) -> None: ...


def call(data: bytes) -> Call:
    made = Sink(data).call
    assert made is not None
    return made


def test_a_wish_has_its_token_its_secret_and_its_body() -> None:
    wish = call(put("t0ken", {"state": "active"}, secret="s3cret"))
    assert (wish.kind, wish.token, wish.secret, wish.problem) == (Kind.STATE, "t0ken", "s3cret", None)
    assert wish.body == b'{"state": "active"}' and wish.keep


@pytest.mark.fz("FZ-069")
def test_a_call_of_the_old_protocol_has_its_token_in_a_header_of_its_own() -> None:
    pause = call(old("t0ken", "pause"))
    assert (pause.kind, pause.old_token, pause.token, pause.body) == (Kind.OLD, "t0ken", "", b'{"action":"pause"}')


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("GET /v1/pods/self", Kind.VIEW),
        ("PUT /v1/pods/self/state", Kind.STATE),
        ("GET /v1/pods/self/state", Kind.UNKNOWN),
        ("PUT /v1/pods/self", Kind.UNKNOWN),
        ("PUT /v1/pods/self/state?x", Kind.UNKNOWN),
        ("PUT /v1/pods/other/state", Kind.UNKNOWN),
        ("PUT http://node/v1/pods/self/state", Kind.STATE),
        ("POST /", Kind.OLD),
        ("POST /freeze", Kind.OLD),
        ("POST /v1/pods/self/state", Kind.UNKNOWN),
        ("POST /v2/pods/self/state", Kind.UNKNOWN),
        ("DELETE /", Kind.UNKNOWN),
    ],
)
def test_method_and_path_say_what_it_is(line: str, kind: Kind) -> None:
    assert call(f"{line} HTTP/1.1\r\nHost: n\r\n\r\n".encode()).kind is kind


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER "])
def test_the_scheme_is_read_as_http_reads_it(scheme: str) -> None:
    assert call(get("x").replace(b"Bearer", scheme.encode())).token == "x"


@pytest.mark.fz("FZ-134")
def test_sizes_are_bounded_head_and_body() -> None:
    assert call(get("x" * (MAX_HEAD - 100))).problem is None
    assert call(get("x" * MAX_HEAD)).problem is Problem.TOO_LARGE
    assert call(put("t", b" " * 4096)).problem is None
    assert call(put("t", b" " * 4097)).problem is Problem.TOO_LARGE


@pytest.mark.parametrize("header", [b"Authorization: Bearer y", b"Queueproxy-Session: b", b"Token: y"])
def test_a_header_that_counts_may_come_once(header: bytes) -> None:
    once = header + b"\r\n"
    assert call(b"POST / HTTP/1.1\r\nHost: n\r\n" + once + b"\r\n").problem is None
    assert call(b"POST / HTTP/1.1\r\nHost: n\r\n" + once + once.title() + b"\r\n").problem is Problem.MALFORMED


@pytest.mark.fz("FZ-102")
def test_no_repr_tells_a_secret() -> None:
    assert "t0ken" not in repr(call(put("t0ken", {}, secret="s3cret"))) and "s3cret" not in repr(call(put("t", {})))
