"""What the chain has left of a request when its line is made."""

import pytest

from queueproxy.requestlog.inputs import SHOWN, Input, Request, Revision, canonical, header_getter, whole_nanoseconds
from tests.support.request_log import input_of, with_headers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"user-agent", b"User-Agent"),
        (b"X-B3-TRACEID", b"X-B3-Traceid"),
        (b"a b", b"a b"),
        (b"x_y", b"X_y"),
        (b"", b""),
    ],
)
def test_canonical_names(name: bytes, expected: bytes) -> None:
    assert canonical(name) == expected


@pytest.mark.qp("QP-302")
def test_headers_are_those_go_would_show() -> None:
    raw = with_headers(
        "x-a: 1 ", "X-A:2", "K-Original-Host: o", "Transfer-Encoding: chunked", "Trailer: T",
        "Connection: close, x-hop",
        "X-Hop: kept", "Te: trailers", "Knative-Serving-Revision: r", "X-Forwarded-For: 1.2.3.4",
        "Pragma: no-cache", method="POST",
    )  # fmt: skip
    assert dict(input_of(raw).headers()) == {
        b"X-A": [b"1", b"2"], b"Connection": [b"close, x-hop"], b"X-Hop": [b"kept"], b"Te": [b"trailers"],
        b"Knative-Serving-Revision": [b"r"], b"X-Forwarded-For": [b"1.2.3.4"], b"Forwarded": [b"for=1.2.3.4"],
        b"Pragma": [b"no-cache"], b"Cache-Control": [b"no-cache"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "made"),
    [
        (("X-Forwarded-Proto: https",), [b"proto=https"]), (("Forwarded: for=x", "X-Forwarded-For: 1"), [b"for=x"]),
        (("X-Forwarded-Host: h", "X-Forwarded-For: 1, 2"), [b"for=1;host=h, for=2"]), ((), None),
    ],
)  # fmt: skip
def test_forwarded_is_there_when_the_app_sees_it(lines: tuple[str, ...], made: list[bytes] | None) -> None:
    assert input_of(with_headers(*lines)).headers().get(b"Forwarded") == made


@pytest.mark.qp("QP-306")
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), b""), (("Traceparent: 00-abc-def-01",), b"abc"), (("TRACEPARENT: 00-abc",), b"abc"),
        (("traceparent: junk",), b""),
        (("Traceparent: junk", "x-b3-traceid: b3"), b"b3"), (("X-B3-TraceId: b3", "traceparent: 00-w3c-1-0"), b"w3c"),
        (("traceparent:", "X-B3-Traceid: b3"), b"b3"), (("X-B3-TRACEID: 80f198ee56343ba8",), b"80f198ee56343ba8"),
    ],
)  # fmt: skip
def test_trace_ids(lines: tuple[str, ...], expected: bytes) -> None:
    assert input_of(with_headers(*lines)).trace_id() == expected


@pytest.mark.parametrize("target", ["/a?b=c", "http://other.example/x", "/a#b", "/", "//x", "http://h"])
def test_the_target_is_as_it_came(target: str) -> None:
    assert input_of(with_headers(target=target)).target() == target.encode()


def test_the_host_is_the_one_that_was_asked_for() -> None:
    host = SHOWN["Request", "Host"][1]
    assert host(input_of(with_headers("K-Original-Host: o"))) == b"h"
    assert host(input_of(with_headers(target="http://abs.example:1/"))) == b"abs.example:1"
    assert host(input_of(b"GET / HTTP/1.0\r\n\r\n")) == b""


@pytest.mark.parametrize(
    "name", [b"Host", b"forwarded", b"Content-Length", b"cache-control", b"", b"a b", b"transfer-encoding"]
)
def test_a_header_the_chain_changes_is_not_searched_for(name: bytes) -> None:
    assert header_getter(name) is None


@pytest.mark.parametrize("name", [b"x-a", b"X-A", b"x-b", b"x", b"accept"])
def test_a_search_finds_what_the_map_holds(name: bytes) -> None:
    get = header_getter(name)
    assert get is not None
    for raw in (with_headers("X-A:  1\t", "x-a: 2"), with_headers("xx-a: no", "Accept: x-a: fake"), with_headers()):
        assert get(input_of(raw)) == input_of(raw).headers().one(name)


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (with_headers(), 0),
        (with_headers("Content-Length: 7", method="PUT"), 7),
        (with_headers("Transfer-Encoding: chunked"), -1),
    ],
)
def test_the_length_of_a_body_nobody_declared_is_unknown(head: bytes, length: int) -> None:
    assert input_of(head).content_length() == length


def test_seconds_have_nanoseconds_and_nothing_beyond() -> None:
    assert [whole_nanoseconds(s) for s in (0.1 + 0.2, 1.0000000004, 12.5)] == [0.3, 1.0, 12.5]


def test_closing_is_what_go_takes_for_it() -> None:
    assert Request(input_of(with_headers("Connection: Keep-Alive, CLOSE"))).closes()
    assert Request(input_of(b"GET / HTTP/1.0\r\n\r\n")).closes()
    assert not Request(input_of(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")).closes()


def test_every_field_has_a_name_and_a_value() -> None:
    input: Input = input_of()
    for struct in (input, Request(input)):
        for name, get in struct.fields.items():
            assert get(struct) is not None, name
    assert set(Revision.fields) == {"Name", "Namespace", "Service", "Configuration", "PodName", "PodIP"}
