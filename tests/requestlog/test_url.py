"""Request targets as Go's net/url reads them; expected values are Go's."""

import pytest

from queueproxy.requestlog.url import URL, query


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(
    ("target", "text", "path", "raw_path", "raw_query"),
    [
        (b"/", b"/", b"/", b"", b""), (b"/a%20b?x=1", b"/a%20b?x=1", b"/a b", b"", b"x=1"), (b"/a%2Fb",
        b"/a%2Fb", b"/a/b", b"/a%2Fb", b""),
        (b"/a#b", b"/a%23b", b"/a#b", b"/a#b", b""), (b"/?", b"/?", b"/", b"", b""), (b"//x/../y", b"//x/../y",
        b"//x/../y", b"", b""),
        (b"/\xc3\xa9", b"/%C3%A9", b"/\xc3\xa9", b"/\xc3\xa9", b""), (b"/'q'", b"/'q'", b"/'q'", b"/'q'", b""),
        (b"*", b"*", b"*", b"", b""),
        (b"http://h:81/p?q", b"http://h:81/p?q", b"/p", b"", b"q"), (b"HTTP://h", b"http://h", b"", b"", b""),
        (b"/%41", b"/%41", b"/A", b"/%41", b""),
        (b"/%zz", b"/%25zz", b"/%zz", b"", b""),
    ],
)  # fmt: skip
def test_targets(target: bytes, text: bytes, path: bytes, raw_path: bytes, raw_query: bytes) -> None:
    url = URL(target)
    assert (url.string(), url.path, url.raw_path, url.raw_query) == (text, path, raw_path, raw_query)


def test_an_authority() -> None:
    url = URL(b"h.example:443", authority=True)
    assert (url.string(), url.host, url.path) == (b"//h.example:443", b"h.example:443", b"")


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [(b"http://[::1]:9/x", b"::1", b"9"), (b"http://h/", b"h", b""), (b"http://h:/", b"h", b""), (b"/x", b"", b"")],
)
def test_host_and_port(target: bytes, host: bytes, port: bytes) -> None:
    url = URL(target)
    assert (URL.methods["Hostname"].call(url), URL.methods["Port"].call(url)) == (host, port)


@pytest.mark.qp("QP-302")
def test_queries() -> None:
    values = query(b"a=1&b=x+y%21&a=2&&c&bad=%zz&semi;colon=1")
    assert values == {b"a": [b"1", b"2"], b"b": [b"x y!"], b"c": [b""]}
    assert values.one(b"a") == b"1" and values.one(b"z") == b""
    assert values.encoded() == b"a=1&a=2&b=x+y%21&c="
