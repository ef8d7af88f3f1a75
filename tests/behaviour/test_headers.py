"""What the app sees of a request, and the client of an answer, byte for byte (contract 3.9 to 3.12)."""

from collections.abc import Iterator

import pytest

from tests.support.rawhttp import Message
from tests.support.sidecar import BOTH_LOOPS, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("headers"), BOTH_LOOPS]


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop) as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


def seen(pod: Pod, *lines: str, method: str = "GET", target: str = "/", host: str = "a.example") -> Message:
    """What reaches the app when a client sends this."""
    client = pod.client()
    client.ask(method, target, *lines, host=host)
    asked = pod.origin.request()
    asked.wire.answer()
    client.response(to=method)
    return asked.message


def answered(pod: Pod, raw: bytes, *, to: str = "GET") -> Message:
    """What the client gets when the app says this."""
    client = pod.client()
    client.ask(to)
    pod.origin.request().wire.send(raw)
    return client.response(to=to)


# -- requests


@pytest.mark.qp("QP-190", "QP-195")
def test_a_plain_request_gains_only_its_peer_address(pod: Pod) -> None:
    message = seen(pod, "X-Lower: v", target="/a?b=c")
    assert message.head == (
        b"GET /a?b=c HTTP/1.1\r\nHost: a.example\r\nX-Lower: v\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n"
    )


@pytest.mark.qp("QP-192")
def test_hop_by_hop_fields_end_here(pod: Pod) -> None:
    message = seen(
        pod,
        "Connection: keep-alive, X-Mine, x-other",
        "X-Mine: 1",
        "X-Other: 2",
        "X-Kept: 3",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eA==",
        "Proxy-Authenticate: Basic",
        "Upgrade: websocket",
        "Trailer: X-T",
    )
    assert [name for name, _ in message.fields] == [b"Host", b"X-Kept", b"X-Forwarded-For"]


@pytest.mark.qp("QP-193")
def test_routing_fields_are_removed_and_the_other_knative_fields_pass(pod: Pod) -> None:
    kept = [
        "K-Proxy-Request: activator",
        "K-Network-Hash: h",
        "K-Passthrough-Lb: true",
        "Knative-Serving-Tag: t",
        "Knative-Serving-Default-Route: true",
        "K-Network-Probe: queue",
    ]
    message = seen(pod, "Knative-Serving-Revision: r", "Knative-Serving-Namespace: n", *kept)
    assert [b": ".join(pair).decode() for pair in message.fields[1:-1]] == kept


@pytest.mark.qp("QP-194")
def test_the_original_host_is_restored(pod: Pod) -> None:
    message = seen(pod, "K-Original-Host: real.example", host="10.0.0.9:8012")
    assert message.get("host") == b"real.example"
    assert message.get("k-original-host") is None


@pytest.mark.qp("QP-157")
def test_a_marked_probe_keeps_its_host(pod: Pod) -> None:
    message = seen(pod, "K-Kubelet-Probe: x", "K-Original-Host: real.example", host="pod.example")
    assert message.get("host") == b"pod.example"
    assert message.get("k-original-host") == b"real.example"


@pytest.mark.qp("QP-195")
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param([], b"127.0.0.1", id="none"),
        pytest.param(["X-Forwarded-For: 1.2.3.4"], b"1.2.3.4, 127.0.0.1", id="one"),
        pytest.param(["X-Forwarded-For: a, b", "x-forwarded-for: c"], b"a, b, c, 127.0.0.1", id="two lines folded"),
    ],
)
def test_the_peer_is_appended_to_x_forwarded_for(pod: Pod, lines: list[str], expected: bytes) -> None:
    assert seen(pod, *lines).get("x-forwarded-for") == expected


@pytest.mark.qp("QP-196")
@pytest.mark.parametrize(
    ("xff", "host", "proto", "expected"),
    [
        ("127.0.0.1, ::1", "h", "p", b'for=127.0.0.1;host=h;proto=p, for="[::1]"'),
        ("127.0.0.1", "h", "p", b"for=127.0.0.1;host=h;proto=p"),
        ("127.0.0.1, ::1", None, None, b'for=127.0.0.1, for="[::1]"'),
        (",,,", None, None, b"for=, for=, for="),
        (None, "h", "p", b"host=h;proto=p"),
        (None, None, "p", b"proto=p"),
        (None, None, None, None),
    ],
    ids=["all", "one address", "addresses only", "empty elements", "no address", "proto only", "nothing"],
)
def test_forwarded_is_made_of_its_forerunners(
    pod: Pod, xff: str | None, host: str | None, proto: str | None, expected: bytes | None
) -> None:
    given = (("X-Forwarded-For", xff), ("X-Forwarded-Host", host), ("X-Forwarded-Proto", proto))
    message = seen(pod, *(f"{name}: {value}" for name, value in given if value is not None))
    assert message.get("forwarded") == expected
    assert message.get("x-forwarded-host") == (host.encode() if host else None)
    assert message.get("x-forwarded-proto") == (proto.encode() if proto else None)


@pytest.mark.qp("QP-196")
def test_a_forwarded_field_of_the_client_stands(pod: Pod) -> None:
    message = seen(pod, "Forwarded: for=me", "X-Forwarded-For: 1.1.1.1", "X-Forwarded-Proto: https")
    assert message.all("forwarded") == [b"for=me"]


@pytest.mark.qp("QP-197")
@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        ("//a/../b/./c", None),
        ("/a%2Fb%20c", None),
        ("/?q=%zz;x&&=", None),
        ("/a;b=c,d:e@f", None),
        ("/?", None),
        ("/x#frag", "/x%23frag"),
        ("/caf\u00e9", "/caf%E9"),
    ],
)
def test_path_and_query_bytes_survive(pod: Pod, sent: str, arrives: str | None) -> None:
    assert seen(pod, target=sent).target == (arrives or sent).encode()


@pytest.mark.qp("QP-191")
@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1", "HTTP/1.2"])
def test_every_http_1_arrives_as_http_1_1(pod: Pod, version: str) -> None:
    client = pod.client()
    client.send(f"GET /v {version}\r\nHost: a.example\r\n\r\n".encode())
    asked = pod.origin.request()
    assert asked.message.start == b"GET /v HTTP/1.1"
    asked.wire.answer()
    assert client.response().start == b"HTTP/1.1 200 OK"


@pytest.mark.qp("QP-206")
@pytest.mark.parametrize(
    ("target", "host", "path"),
    [
        ("http://b.example/p?q", b"b.example", b"/p?q"),
        ("http://b.example:99", b"b.example:99", b"/"),
        ("HTTP://b.example?q=1", b"b.example", b"/?q=1"),
    ],
)
def test_an_absolute_target_decides_the_host(pod: Pod, target: str, host: bytes, path: bytes) -> None:
    message = seen(pod, target=target, host="other.example")
    assert (message.get("host"), message.target) == (host, path)


@pytest.mark.qp("QP-198")
def test_nothing_is_added_for_agents_and_encodings(pod: Pod) -> None:
    bare = seen(pod)
    assert bare.get("accept-encoding") is None
    assert bare.get("user-agent") is None
    said = seen(pod, "Accept-Encoding: br;q=1, gzip", "User-Agent: me/1")
    assert (said.get("accept-encoding"), said.get("user-agent")) == (b"br;q=1, gzip", b"me/1")


@pytest.mark.qp("QP-199")
def test_repeated_request_fields_keep_their_order(pod: Pod) -> None:
    message = seen(pod, "X-A: 1", "Cookie: a=1", "X-A: 2", "Cookie: b=2", "X-A: 1")
    assert message.all("x-a") == [b"1", b"2", b"1"]
    assert message.all("cookie") == [b"a=1", b"b=2"]


@pytest.mark.qp("QP-077")
@pytest.mark.parametrize(
    ("te", "expected"), [("trailers", b"trailers"), ("gzip;q=0.5, trailers", b"trailers"), ("deflate", None)]
)
def test_only_trailers_is_left_of_te(pod: Pod, te: str, expected: bytes | None) -> None:
    assert seen(pod, f"TE: {te}", "Connection: TE").get("te") == expected


@pytest.mark.qp("QP-240")
def test_trace_context_passes_untouched(pod: Pod) -> None:
    lines = [
        "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Tracestate: a=b",
        "Baggage: k=v",
        "X-B3-TraceId: 1",
    ]
    message = seen(pod, *lines)
    assert [b": ".join(pair).decode() for pair in message.fields[1:-1]] == lines


def test_any_token_is_a_method_and_goes_through_verbatim(pod: Pod) -> None:
    for method in ("get", "PURGE", "X-odd!method", "CONNECT" * 9):
        assert seen(pod, method=method).start == f"{method} / HTTP/1.1".encode()


def test_http_1_2_is_read_as_1_1(pod: Pod) -> None:
    client = pod.client()
    client.send(b"GET / HTTP/1.2\r\nHost: a\r\n\r\n")
    asked = pod.origin.request()
    assert asked.message.start == b"GET / HTTP/1.1"
    asked.wire.answer()
    assert client.response().start == b"HTTP/1.1 200 OK"


# -- answers


@pytest.mark.qp("QP-207")
@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK"),
        (418, b"HTTP/1.1 418 I'm a teapot"),
        (499, b"HTTP/1.1 499 status code 499"),
        (599, b"HTTP/1.1 599 status code 599"),
        (999, b"HTTP/1.1 999 status code 999"),
    ],
)
def test_any_status_passes_with_the_canonical_phrase(pod: Pod, status: int, line: bytes) -> None:
    answer = answered(pod, b"HTTP/1.1 %d My Own Reason\r\nContent-Length: 2\r\n\r\nhi" % status)
    assert (answer.start, answer.body) == (line, b"hi")


@pytest.mark.qp("QP-199")
def test_repeated_answer_fields_keep_their_order_and_bytes(pod: Pod) -> None:
    answer = answered(
        pod,
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-A: 1\r\nSet-Cookie: b=2\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"Server: mine\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    )
    assert answer.all("set-cookie") == [b"a=1", b"b=2"]
    assert answer.get("date") == b"Thu, 01 Jan 1970 00:00:00 GMT"
    assert answer.get("server") == b"mine"
    assert answer.get("content-encoding") == b"gzip"
    assert answer.body == b"\x1f\x8b\x08"


@pytest.mark.qp("QP-192")
def test_hop_by_hop_fields_of_the_app_end_here(pod: Pod) -> None:
    answer = answered(
        pod,
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
    )
    assert [name for name, _ in answer.fields] == [b"X-Kept", b"Content-Length", b"Date"]


@pytest.mark.qp("QP-071")
def test_a_date_is_added_and_a_content_type_is_not(pod: Pod) -> None:
    answer = answered(pod, b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html></html>")
    date = answer.get("date")
    assert date is not None
    assert date.endswith(b" GMT")
    assert answer.get("content-type") is None


def test_the_app_closing_its_connection_is_not_the_clients_business(pod: Pod) -> None:
    client = pod.client()
    client.ask()
    pod.origin.request().wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    assert client.response().get("connection") is None
    client.ask("GET", "/again")
    again = pod.origin.request()
    assert (again.target, again.number) == (b"/again", 2)
    again.wire.answer()
    assert client.response().status == 200
