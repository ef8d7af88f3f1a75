"""Request lines that llhttp does not know, and how wrong ones are refused."""

import pytest

from queueproxy.codec.request_line import BadMessage, checked_host, plain, well_escaped, wrong_version


@pytest.mark.qp("QP-053")
@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/2.0", 505), (b"GET / HTTP/0.9", 505), (b"GET / HTTP/9.9", 505), (b"PRI * HTTP/2.0", 505),
        (b"GET / HTTP/1.1", 400), (b"GET / HTTP/x.1", 400), (b"GET / HTTP/2", 400), (b"GET /", 400), (b"", 400),
        (b"GET / RTSP/1.0", 400), (b"GET / HTTP/10.1", 400), (b"GET /HTTP/2.0", 400),
    ],
)  # fmt: skip
def test_only_another_http_version_is_505(line: bytes, status: int) -> None:
    assert wrong_version(line).status == status


@pytest.mark.parametrize("host", [b"", b"a", b"a.b-c_d:80", b"[::1]:80", b"xn--bcher-kva", b"a;b=c", b"\xc3\xa9"])
def test_hosts_that_pass(host: bytes) -> None:
    assert checked_host(host) is host


@pytest.mark.qp("QP-053")
@pytest.mark.parametrize("host", [b"a b", b"a/b", b"a@b", b"a?b", b"a#b", b"a,b", b"a\x7fb", b'a"b', b"a\tb", b"<a>"])
def test_hosts_that_do_not(host: bytes) -> None:
    with pytest.raises(BadMessage, match="malformed Host header"):
        checked_host(host)


@pytest.mark.parametrize(
    ("line", "made"),
    [
        (b"brew /pot HTTP/1.1", (b"brew", b"POST /pot HTTP/1.1\r\nX: y\r\n\r\n")),
        (b"GET / HTTP/1.7", (b"GET", b"POST / HTTP/1.1\r\nX: y\r\n\r\n")),
        (b"BREW / HTTP/1.0", (b"BREW", b"POST / HTTP/1.0\r\nX: y\r\n\r\n")),
        (b"GET /\xff\x80 HTTP/1.1", (b"GET", b"POST /%FF%80 HTTP/1.1\r\nX: y\r\n\r\n")),
        (b"GET / HTTP/2.0", None), (b"GET /a b HTTP/1.1", None), (b"GET /", None), (b"PRI * HTTP/1.1", None),
        (b"G(T / HTTP/1.1", None), (b" / HTTP/1.1", None), (b"GET /\x7f HTTP/1.1", None), (b"GET / HTTP/1.x", None),
    ],
)  # fmt: skip
def test_legal_lines_are_made_plain_and_others_are_not(line: bytes, made: tuple[bytes, bytes] | None) -> None:
    assert plain(line + b"\r\nX: y\r\n\r\n") == made


@pytest.mark.qp("QP-053", "QP-197")
@pytest.mark.parametrize("target", [b"/", b"/%00%fF/%25", b"/?%", b"/a?%zz%2", b"/%41?b?%"])
def test_escapes_of_the_path_are_whole_and_those_of_the_query_free(target: bytes) -> None:
    assert well_escaped(target)


@pytest.mark.qp("QP-053")
@pytest.mark.parametrize("target", [b"/%", b"/%2", b"/%zz", b"/%2g", b"/%g2", b"/%2?0", b"/%%20", b"/a%#b", b"/%41%"])
def test_a_percent_sign_that_begins_no_escape_is_found(target: bytes) -> None:
    assert not well_escaped(target)
