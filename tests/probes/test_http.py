from __future__ import annotations

import json
from typing import Any

import pytest

from queueproxy.probes.http import MAX_BODY, MAX_HEAD, Hop, HttpExchange, following
from queueproxy.probes.spec import HttpGet, decode


def get(**http: Any) -> HttpGet:
    headers = [{"name": name, "value": value} for name, value in http.pop("headers", ())]
    (spec,) = decode(json.dumps({"httpGet": {"port": 8080, "httpHeaders": headers, **http}}), multi=False)
    assert isinstance(spec.handler, HttpGet)
    return spec.handler


def told(*pieces: bytes) -> HttpExchange:
    exchange = HttpExchange(Hop(get(path="/healthz")))
    for piece in pieces:
        exchange.received(piece)
    return exchange


@pytest.mark.qp("QP-261")
def test_the_request_is_knatives_byte_for_byte() -> None:
    assert Hop(get(path="/healthz?x=1", headers=[("X-Custom", "v")])).request() == (
        b"GET /healthz?x=1 HTTP/1.1\r\n"
        b"Host: 127.0.0.1:8080\r\n"
        b"User-Agent: kube-probe//\r\n"
        b"X-Custom: v\r\n"
        b"Accept-Encoding: gzip\r\n"
        b"Connection: close\r\n"
        b"\r\n"
    )


@pytest.mark.qp("QP-261")
@pytest.mark.parametrize(
    "headers, present, absent",
    [
        ([("Host", "probe.example")], [b"Host: probe.example"], [b"Host: 127.0.0.1:8080"]),
        ([("hOST", "")], [b"Host: 127.0.0.1:8080"], [b"hOST: "]),
        ([("user-agent", "me/1")], [b"User-Agent: me/1"], [b"User-Agent: kube-probe//"]),
        ([("User-Agent", "")], [], [b"User-Agent: ", b"User-Agent: kube-probe//"]),
        ([("Accept-Encoding", "br")], [b"Accept-Encoding: br"], [b"Accept-Encoding: gzip"]),
        ([("Connection", "keep-alive")], [b"Connection: close"], [b"Connection: keep-alive"]),
        ([("Content-Length", "5")], [], [b"Content-Length: 5"]),
        ([("Transfer-Encoding", "chunked")], [], [b"Transfer-Encoding: chunked"]),
        ([("X-A", "1"), ("X-A", "2")], [b"X-A: 1", b"X-A: 2"], []),
        ([("X-A", "ü")], ["X-A: ü".encode()], []),
    ],
    ids=lambda x: x[0][0] if x and isinstance(x[0], tuple) else "",
)
def test_configured_headers_follow_the_kubelet(
    headers: list[tuple[str, str]], present: list[bytes], absent: list[bytes]
) -> None:
    lines = Hop(get(headers=headers)).request().split(b"\r\n")
    assert all(lines.count(line) == 1 for line in present)
    assert not set(absent) & set(lines)


def test_an_ipv6_host_is_bracketed() -> None:
    hop = Hop(get(host="::1", scheme="HTTPS"))
    assert hop.url == "https://[::1]:8080/"
    assert b"\r\nHost: [::1]:8080\r\n" in hop.request()


@pytest.mark.qp("QP-262")
@pytest.mark.parametrize("size", [1, 7, 1000], ids=["byte by byte", "in pieces", "whole"])
def test_the_final_head_decides_and_the_body_is_waited_for(size: int) -> None:
    answer = b"HTTP/1.1 103 Early Hints\r\nLocation: /no\r\n\r\nHTTP/1.1 204 No Content\r\nX: y\r\n\r\n"
    exchange = told(*(answer[i : i + size] for i in range(0, len(answer), size)))
    assert (exchange.decided, exchange.finished, exchange.failure) == (True, True, None)
    assert (exchange.status, exchange.location) == (204, None)


def test_a_head_decides_before_its_body_is_in() -> None:
    exchange = told(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    assert (exchange.decided, exchange.finished) == (True, False)
    exchange.received(b"k")
    assert exchange.finished


@pytest.mark.parametrize("code", [100, 102, 103])
def test_interim_heads_decide_nothing(code: int) -> None:
    exchange = told(b"HTTP/1.1 %d x\r\n\r\n" % code)
    assert not exchange.decided
    exchange.ended("")
    assert exchange.failure == 'Get "http://127.0.0.1:8080/healthz": EOF'


def test_switching_protocols_is_an_answer() -> None:
    exchange = told(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n\x00\x01")
    assert (exchange.decided, exchange.finished, exchange.status, exchange.failure) == (True, True, 101, None)


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + bytes(18),  # an HTTP/2 server's SETTINGS
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA B: c\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",  # a TLS alert
    ],
    ids=["http2", "ssh", "status", "header", "tls"],
)
def test_what_is_not_http_fails(answer: bytes) -> None:
    exchange = told(answer)
    assert exchange.decided and exchange.finished
    assert exchange.failure is not None and "malformed HTTP response" in exchange.failure


@pytest.mark.parametrize("size", [4096, 1 << 20], ids=["in pieces", "in one piece"])
def test_a_head_is_at_most_sixty_four_kibibytes(size: int) -> None:
    def answer(total: int) -> bytes:
        start, end = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ", b"\r\n\r\n"
        return start + b"x" * (total - len(start) - len(end)) + end

    for total, wanted in ((MAX_HEAD, None), (MAX_HEAD + 1, "response head exceeds 65536 bytes")):
        data = answer(total)
        exchange = told(*(data[i : i + size] for i in range(0, total, size)))
        assert exchange.decided
        assert exchange.failure == (wanted and f'Get "http://127.0.0.1:8080/healthz": {wanted}')


def test_an_endless_run_of_interim_heads_ends() -> None:
    exchange = told(*[b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100] * 30)
    assert exchange.failure is not None and "response head exceeds" in exchange.failure


def test_a_long_body_is_cut() -> None:
    exchange = told(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * MAX_BODY)
    assert exchange.finished and exchange.failure is None


def test_a_broken_body_changes_nothing() -> None:
    exchange = told(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n")
    assert (exchange.status, exchange.finished, exchange.failure) == (200, True, None)


HERE = Hop(get(path="/a/b?c=d", headers=[("Host", "probe.example")]))


@pytest.mark.qp("QP-263")
@pytest.mark.parametrize(
    "location, url, host",
    [
        ("/x", "http://127.0.0.1:8080/x", "probe.example"),
        ("x?y=z#f", "http://127.0.0.1:8080/a/x?y=z", "probe.example"),
        ("?q", "http://127.0.0.1:8080/a/b?q", "probe.example"),
        ("../x y/\xfc", "http://127.0.0.1:8080/x%20y/%FC", "probe.example"),
        ("http://127.0.0.1:9090", "http://127.0.0.1:9090/", "127.0.0.1:9090"),
        ("//127.0.0.1/x", "http://127.0.0.1:80/x", "127.0.0.1:80"),
        ("https://127.0.0.1/x", "https://127.0.0.1:443/x", "127.0.0.1:443"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_the_same_host_name_is_followed(status: int, location: str, url: str, host: str) -> None:
    onward = following(HERE, status, location)
    assert onward is not None and onward.url == url
    lines = onward.request().decode().split("\r\n")
    assert f"Host: {host}" in lines
    assert "Referer: http://127.0.0.1:8080/a/b?c=d" in lines


@pytest.mark.qp("QP-263")
@pytest.mark.parametrize(
    "status, location",
    [
        (302, "http://localhost:8080/"),
        (302, "https://login.example/"),
        (302, "//127.0.0.2/"),
        (302, "ftp://elsewhere/"),
        (302, ""),
        (302, None),
        (304, "/x"),
        (300, "/x"),
        (200, "/x"),
    ],
)
def test_any_other_answer_stands(status: int, location: str | None) -> None:
    assert following(HERE, status, location) is None


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/x", "http://127.0.0.1:99999/", "http://127.0.0.1:x/"])
def test_a_redirect_to_nowhere_is_an_error(location: str) -> None:
    with pytest.raises(ValueError):
        following(HERE, 302, location)


def test_no_referer_leaks_from_https_to_http_and_a_configured_one_stays() -> None:
    secure = Hop(get(scheme="HTTPS", path="/secret"))
    onward = following(secure, 302, "http://127.0.0.1:8081/")
    assert onward is not None and b"Referer" not in onward.request()
    configured = following(Hop(get(headers=[("Referer", "mine")])), 302, "/x")
    assert configured is not None and configured.request().count(b"Referer: mine\r\n") == 1


def test_a_host_given_up_by_an_absolute_redirect_stays_given_up() -> None:
    away = following(HERE, 302, "http://127.0.0.1:8080/x")
    assert away is not None
    back = following(away, 302, "/y")
    assert back is not None and b"\r\nHost: 127.0.0.1:8080\r\n" in back.request()
