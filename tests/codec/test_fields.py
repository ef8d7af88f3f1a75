"""Fields that may be read and changed, and those that may only be read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from queueproxy.codec.fields import (
    RESERVED,
    RESERVED_PREFIXES,
    FramedHeaders,
    Headers,
    checked_name,
    checked_value,
    regrouped,
)
from queueproxy.codec.headers import DATE, LAST_FORWARDED, REQUEST_KINDS, RESPONSE_KINDS


def lines(*fields: tuple[bytes, bytes]) -> list[bytes]:
    return [piece for name, value in fields for piece in (name, b": ", value, b"\r\n")]


def headers() -> tuple[Headers, list[bytes]]:
    own = lines((b"Accept", b"a"), (b"Cookie", b"1"), (b"X", b"x"), (b"cookie", b"2"), (b"COOKIE", b"3"))
    return FramedHeaders(own, ((b"Host", b"h"),)), own


def test_reading_shows_all_in_order_and_names_have_no_case() -> None:
    fields, _ = headers()
    assert [name for name, _ in fields] == [b"Host", b"Accept", b"Cookie", b"X", b"cookie", b"COOKIE"]
    assert (fields.get(b"host"), fields.get(b"CooKie"), fields.get(b"Y")) == (b"h", b"1", None)
    assert fields.all(b"cookie") == [b"1", b"2", b"3"] and fields.all(b"y") == []
    assert b"HOST" in fields and b"Y" not in fields and "Host" not in fields
    with pytest.raises(TypeError):
        fields.get("Host")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda f: f.set(b"Cookie", b"n"), [(b"Accept", b"a"), (b"Cookie", b"n"), (b"X", b"x")]),
        (lambda f: f.set(b"x", b" n\t"), None),
        (lambda f: f.remove(b"cookie"), [(b"Accept", b"a"), (b"X", b"x")]),
        (lambda f: f.remove(b"none"), None),
        (lambda f: f.add(b"Cookie", b"4"), None),
        (lambda f: f.set(b"New", b""), None),
    ],
    ids=["set many", "set one", "remove", "remove none", "add", "set new"],
)
def test_the_codecs_own_lines_change(change: Callable[[Headers], None], left: list[tuple[bytes, bytes]] | None) -> None:
    fields, own = headers()
    before = list(own)
    change(fields)
    assert fields.changed
    assert [(b"Host", b"h"), *zip(own[::4], own[2::4], strict=True)] == list(fields)
    assert set(own[1::4]) == {b": "} and set(own[3::4]) == {b"\r\n"}
    if left is not None:
        assert own == lines(*left)
    elif b"none" not in before:
        assert all(value == value.strip() for value in own[2::4])


def test_a_sealed_head_can_be_read_and_not_changed() -> None:
    fields, own = headers()
    before = list(own)
    fields.seal()
    for change in (lambda: fields.add(b"A", b"b"), lambda: fields.set(b"X", b"b"), lambda: fields.remove(b"X")):
        with pytest.raises(RuntimeError):
            change()
    assert own == before and fields.get(b"X") == b"x"


@pytest.mark.parametrize("name", [b"", b" ", b"a b", b"a:", b"a\r\nb", b"\xe9", b"a\0", b"(a)"])
def test_what_is_no_token_is_no_name(name: bytes) -> None:
    with pytest.raises(ValueError, match="not a header name"):
        checked_name(name)


@pytest.mark.parametrize("value", [bytes((c,)) for c in [*range(9), *range(10, 32), 127]])
def test_no_control_character_is_a_value(value: bytes) -> None:
    with pytest.raises(ValueError, match="control characters"):
        checked_value(b"a" + value + b"b")


@pytest.mark.parametrize("wrong", ["text", None, 1, bytearray(b"a"), memoryview(b"a")], ids=lambda v: type(v).__name__)
def test_names_and_values_are_bytes(wrong: object) -> None:
    for check in (checked_name, checked_value):
        with pytest.raises(TypeError):
            check(wrong)  # type: ignore[arg-type]


@pytest.mark.qp("QP-192", "QP-193")
def test_everything_the_codec_writes_or_drops_is_reserved() -> None:
    for kinds in (REQUEST_KINDS, RESPONSE_KINDS):
        for name, kind in kinds.items():
            if kind > LAST_FORWARDED and kind != DATE:
                assert name.lower() in RESERVED or name.lower().startswith(RESERVED_PREFIXES), name
    for name in (b"TRANSFER-ENCODING", b"k-proxy-request", b"K-Anything", b"Knative-Serving-Tag", b"Expect"):
        with pytest.raises(ValueError, match="not an extension's to change"):
            checked_name(name)


def test_pieces_of_any_size_become_groups_of_four() -> None:
    pieces = [*lines((b"A", b"1: 2"), (b"B", b"")), b"traceparent: 00-", b"t", b"-s", b"\r\n", *lines((b"C", b"3"))]
    assert regrouped(pieces) == lines((b"A", b"1: 2"), (b"B", b""), (b"traceparent", b"00-t-s"), (b"C", b"3"))
    assert regrouped([]) == []
