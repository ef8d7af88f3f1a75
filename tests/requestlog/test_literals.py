"""Go's literals."""

import pytest

from queueproxy.requestlog.literals import BadLiteral, character, number, to_bytes, unquoted


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ('"a"', b"a"), ('"a\\n\\t\\\\\\""', b'a\n\t\\"'),
        ('"\\x41\\101\\u00e9\\U0001F600"', "AA\u00e9\U0001f600".encode()),
        ('"\\xff"', b"\xff"), ("`a\\n\r`", b"a\\n"), ('""', b""), ('"\u00e9"', "\u00e9".encode()),
    ],
)  # fmt: skip
def test_strings(literal: str, value: bytes) -> None:
    assert unquoted(literal) == value


@pytest.mark.parametrize(
    "literal", ['"\\q"', '"\\x4"', '"\\400"', '"\\u12"', '"\\ud800"', '"\\U00110000"', '"\\\'"', '"\\09"']
)
def test_strings_that_are_none(literal: str) -> None:
    with pytest.raises(BadLiteral):
        unquoted(literal)


@pytest.mark.parametrize(
    ("literal", "value"), [("'a'", 97), ("'\\n'", 10), ("'\u00e9'", 233), ("'\\x41'", 65), ("'\\''", 39)]
)
def test_characters_are_their_code_points(literal: str, value: int) -> None:
    assert character(literal)[1:] == (value, value)


@pytest.mark.parametrize("literal", ["''", "'ab'", "'\\q'"])
def test_characters_that_are_none(literal: str) -> None:
    with pytest.raises(BadLiteral):
        character(literal)


@pytest.mark.parametrize(
    ("literal", "ideal", "integer"),
    [
        ("0", 0, 0), ("42", 42, 42), ("-7", -7, -7), ("+7", 7, 7), ("0x1F", 31, 31), ("0b101", 5, 5), ("0o17", 15, 15),
        ("017", 15, 15), ("1_000", 1000, 1000), ("1.5", 1.5, None), ("2.0", 2.0, 2), ("1e3", 1000.0, 1000),
        (".5", 0.5, None),
        ("0x1p4", 16.0, 16), ("-0xe", -14.0, -14), ("9223372036854775807", 2**63 - 1, 2**63 - 1),
        ("18446744073709551615", None, None),
    ],
)  # fmt: skip
def test_numbers(literal: str, ideal: float, integer: int | None) -> None:
    found = number(literal)
    assert (found.ideal, found.integer) == (ideal, integer)
    assert type(found.ideal) is type(ideal)


@pytest.mark.parametrize("literal", ["08", "1__0", "0x", "99999999999999999999", "1e999", "2i", "0b2", "1_"])
def test_numbers_that_are_none(literal: str) -> None:
    with pytest.raises(BadLiteral):
        number(literal)


def test_bytes_that_are_no_utf_8_survive() -> None:
    assert to_bytes("a\udcff") == b"a\xff"
