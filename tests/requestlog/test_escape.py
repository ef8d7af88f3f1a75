"""js, html, urlquery and Go's quotes. Expected values are Go's, the apostrophe of js excepted (D15)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.requestlog.escape import backquotable, html, js, quoted, runes, urlquery


@pytest.mark.qp("QP-302", "QP-312")
@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        (b"/plain?x", b"/plain?x"), (b"a=b&c", b"a\\u003Db\\u0026c"), (b"<s>", b"\\u003Cs\\u003E"), (b'"', b'\\"'),
        (b"\\", b"\\\\"), (b"it's", b"it\\u0027s"), (b"\\'", b"\\\\\\u0027"), (b"\x00\x1f\n", b"\\u0000\\u001F\\u000A"),
        (b"\x7f", b"\x7f"), ("\u00e9\U0001f600".encode(), "\u00e9\U0001f600".encode()),
        ("a\u200b\u2028".encode(), b"a\\u200B\\u2028"), ("\u00e9=".encode(), "\u00e9\\u003D".encode()),
        (b"\xff=", b"\xff\\u003D"),
    ],
)  # fmt: skip
def test_js(text: bytes, escaped: bytes) -> None:
    assert js(text) == escaped


@pytest.mark.qp("QP-301")
@given(st.text(st.characters(exclude_characters="\x7f", exclude_categories=("Cs",)), max_size=30))
def test_js_of_any_text_stands_in_json(text: str) -> None:
    assert json.loads(b'"' + js(text.encode()) + b'"') == text or any(ord(c) > 0xFFFF for c in text)


@given(st.binary(max_size=30))
def test_js_of_any_bytes_has_nothing_that_ends_a_string(data: bytes) -> None:
    left = js(data).replace(b"\\\\", b"").replace(b'\\"', b"")
    assert not {*b"\"'<>&=\n\r\x00"} & {*left}


@pytest.mark.qp("QP-302")
def test_html_and_urlquery() -> None:
    assert html(b'<a href="x">\'&\0') == b"&lt;a href=&#34;x&#34;&gt;&#39;&amp;" + "\ufffd".encode()
    assert urlquery("a b/\u00e9~&".encode()) == b"a+b%2F%C3%A9~%26"


@pytest.mark.parametrize(
    ("text", "plain", "ascii_only"),
    [
        (b"a\n\"'\\", b'"a\\n\\"\'\\\\"', b'"a\\n\\"\'\\\\"'), (b"\x01\x7f", b'"\\x01\\x7f"', b'"\\x01\\x7f"'),
        ("\u00e9\u200b".encode(), '"\u00e9\\u200b"'.encode(), b'"\\u00e9\\u200b"'),
        ("\U0001f600".encode(), '"\U0001f600"'.encode(), b'"\\U0001f600"'), (b"\xff", b'"\\xff"', b'"\\xff"'),
    ],
)  # fmt: skip
def test_gos_quotes(text: bytes, plain: bytes, ascii_only: bytes) -> None:
    assert (quoted(text), quoted(text, ascii_only=True)) == (plain, ascii_only)


def test_what_can_stand_between_back_quotes() -> None:
    assert backquotable(b"a\t\"'") and backquotable("\u00e9".encode())
    assert not any(backquotable(text) for text in (b"`", b"\n", b"\x7f", b"\xff", "\ufeff".encode()))


def test_a_stray_byte_is_one_rune() -> None:
    assert len(runes(b"\xe2\x82a")) == 3
