"""What is not HTTP is refused here: a status, the end of the connection, and nothing for the app (contract 1.3)."""

from collections.abc import Iterator

import pytest

from tests.support.sidecar import BOTH_LOOPS, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("malformed"), BOTH_LOOPS]


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop, CONTAINER_CONCURRENCY="1") as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


GET = b"GET / HTTP/1.1\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
BAD = b"400 Bad Request"
CASES = {
    "no host": (GET + b"\r\n", b"400 Bad Request: missing required Host header"),
    "bad host": (GET + b"Host: a b\r\n\r\n", b"400 Bad Request: malformed Host header"),
    "two hosts": (GET + b"Host: a\r\nHost: b\r\n\r\n", BAD),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", BAD),
    "negative length": (POST + b"Content-Length: -1\r\n\r\n", BAD),
    "length with plus": (POST + b"Content-Length: +1\r\n\r\na", BAD),
    "length list": (POST + b"Content-Length: 1, 1\r\n\r\na", BAD),
    "huge length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", BAD),
    "control character": (GET + b"Host: a\r\nX: a\x00b\r\n\r\n", BAD),
    "space before colon": (GET + b"Host : a\r\n\r\n", None),
    "empty name": (GET + b"Host: a\r\n: x\r\n\r\n", None),
    "no colon": (GET + b"Host: a\r\nnonsense\r\n\r\n", None),
    "folding": (GET + b"Host: a\r\nX: a\r\n b\r\n\r\n", BAD),
    "bare lf": (b"GET / HTTP/1.1\nHost: a\n\n", BAD),
    "bare cr in value": (GET + b"Host: a\r\nX: a\rb\r\n\r\n", BAD),
    "space in target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "no escape": (b"GET /a%zz?%zz HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "half an escape": (b"GET /a%2 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "no slash": (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "no token method": (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "no version": (b"GET /\r\nHost: a\r\n\r\n", BAD),
    "lower-case version": (b"GET / http/1.1\r\nHost: a\r\n\r\n", BAD),
    "other scheme": (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "unknown encoding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", b"501 Not Implemented"),
    "two encodings": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"501 Not Implemented"),
    "chunked twice": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"501 Not Implemented",
    ),
    "http/3": (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", b"505 HTTP Version Not Supported"),
    "tls": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD),
    "garbage": (bytes(range(128, 255)), BAD),
    "head of a megabyte and more": (
        GET + b"Host: a\r\nX: " + b"x" * (1024 * 1024 + 8192) + b"\r\n\r\n",
        b"431 Request Header Fields Too Large",
    ),
}


@pytest.mark.qp("QP-050", "QP-053", "QP-054")
@pytest.mark.parametrize(("raw", "line"), CASES.values(), ids=CASES.keys())
def test_it_is_refused_closed_and_never_reaches_the_app(pod: Pod, raw: bytes, line: bytes | None) -> None:
    client = pod.client()
    client.send(raw)
    answer = client.response()
    if line is None:
        assert answer.status == 400
    else:
        assert answer.start == b"HTTP/1.1 " + line
    if answer.status != 501:
        assert answer.body == answer.start.removeprefix(b"HTTP/1.1 ")
    else:
        assert answer.body == b"Unsupported transfer encoding"
    assert answer.get("content-type") == b"text/plain; charset=utf-8"
    assert answer.get("connection") == b"close"
    assert answer.get("date") is None
    assert client.gone()
    pod.served()


@pytest.mark.qp("QP-050")
def test_a_head_of_almost_a_megabyte_is_fine(pod: Pod) -> None:
    client = pod.client()
    client.ask("GET", "/", "X-Big: " + "x" * (1000 * 1000))
    asked = pod.origin.request()
    assert len(asked.message.get("x-big") or b"") == 1000 * 1000
    asked.wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-053")
def test_a_good_request_before_a_bad_one_gets_its_answer(pod: Pod) -> None:
    client = pod.client()
    client.send(b"GET /good HTTP/1.1\r\nHost: a\r\n\r\nBAD\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n")
    asked = pod.origin.request()
    assert asked.target == b"/good"
    asked.wire.answer()
    assert client.response().status == 200
    assert client.response().status == 400
    assert client.gone()
    pod.served()


@pytest.mark.qp("QP-053", "QP-132")
def test_none_of_them_is_counted(pod: Pod) -> None:
    pod.sidecar.next_stat()
    for raw, _ in list(CASES.values())[:8]:
        client = pod.client()
        client.send(raw)
        client.response()
    assert "request_count" not in pod.sidecar.next_stat()
