"""One value under each verb. Expected values are Go's."""

import pytest

from queueproxy.requestlog.cookies import Cookie
from queueproxy.requestlog.gofmt import Format, printed, shortest, sprint, sprintln
from queueproxy.requestlog.inputs import Header, Input, Request
from queueproxy.requestlog.values import ExecutionError, Int64, NilPointer, NilStrings, Strings, Uint8, Value
from tests.support.request_log import REVISION, input_of


def formatted(
    value: Value, verb: str, flags: bytes = b"", width: int | None = None, precision: int | None = None
) -> bytes:
    one = Format(flags)
    one.width, one.precision = width, precision
    return one.value(value, verb, 0)


@pytest.mark.qp("QP-301")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.002674909, b"0.002674909"), (4.487e-06, b"4.487e-06"), (0.0001, b"0.0001"), (0.00001, b"1e-05"), (0.0, b"0"),
        (-0.0, b"-0"), (1.0, b"1"), (123456.0, b"123456"), (999999.5, b"999999.5"), (1e6, b"1e+06"),
        (1234567.0, b"1.234567e+06"),
        (123456789.125, b"1.23456789125e+08"), (1e21, b"1e+21"), (1e100, b"1e+100"), (-2.5e7, b"-2.5e+07"),
        (float("inf"), b"+Inf"),
        (float("-inf"), b"-Inf"), (float("nan"), b"NaN"),
    ],
)  # fmt: skip
def test_floats_are_as_short_as_gos(value: float, text: bytes) -> None:
    assert shortest(value) == printed(value) == text


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"x", b"x"), (5, b"5"), (Int64(-1), b"-1"), (True, b"true"), (None, b"<no value>"), (Strings([b"a",
        b"b"]), b"[a b]"),
        (NilStrings(), b"[]"), (Header({b"B": Strings([b"2"]), b"A": Strings([b"1"])}), b"map[A:[1] B:[2]]"),
        (NilPointer("tls.ConnectionState"), b"<nil>"), (REVISION, b"{rev ns svc conf pod-1 10.0.0.1}"),
        (Cookie(b"a", b"b c", False), b'a="b c"'), (NilPointer("url.Userinfo", text=b""), b""),
    ],
)  # fmt: skip
def test_what_a_template_prints(value: Value, text: bytes) -> None:
    assert printed(value) == text


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(
    ("value", "verb", "options", "text"),
    [
        (42, "d", {"width": 5}, b"   42"), (42, "d", {"width": 5, "flags": b"0"}, b"00042"),
        (42, "d", {"width": 5, "flags": b"-"}, b"42   "), (-42, "d", {"width": 6, "flags": b"0"}, b"-00042"),
        (42, "d", {"precision": 4}, b"0042"), (0, "d", {"precision": 0}, b""), (42, "d", {"flags": b"+"}, b"+42"),
        (255, "x", {"flags": b"#"}, b"0xff"), (8, "o", {"flags": b"#"}, b"010"), (8, "O", {}, b"0o10"),
        (5, "b", {}, b"101"),
        (65, "c", {}, b"A"), (39, "q", {}, b"'\\''"), (9731, "U", {"flags": b"#"}, b"U+2603 '\xe2\x98\x83'"),
        (-1, "c", {}, b"\xef\xbf\xbd"),
        (Uint8(200), "v", {"flags": b""}, b"200"), (1, "s", {}, b"%!s(int=1)"), (b"ab", "d", {}, b"%!d(string=ab)"),
        (b"abc", "s", {"precision": 2}, b"ab"), (b"\xc3\xa9", "s", {"width": 3}, b"  \xc3\xa9"), (b"hi",
        "x", {}, b"6869"),
        (b"hi", "x", {"flags": b" #"}, b"0x68 0x69"), (b"hi", "X", {"precision": 1}, b"68"), (b"a`",
        "q", {"flags": b"#"}, b'"a`"'),
        (b"a", "q", {"flags": b"#"}, b"`a`"), (True, "t", {"width": 6}, b"  true"), (True, "d", {}, b"%!d(bool=true)"),
        (1.5, "f", {}, b"1.500000"), (1.25, "f", {"precision": 1}, b"1.2"), (1.0, "g", {"flags": b"#"}, b"1.00000"),
        (-1.5, "f", {"width": 12, "flags": b"0"}, b"-0001.500000"),
        (1.0, "e", {"precision": 0, "flags": b"#"}, b"1.e+00"),
        (1e-7, "G", {}, b"1E-07"), (float("inf"), "f", {"flags": b"+"}, b"+Inf"), (1.5, "d", {}, b"%!d(float64=1.5)"),
        (None, "v", {}, b"<nil>"), (None, "d", {}, b"%!d(<nil>)"), (Int64(1), "T", {}, b"int64"),
        (Strings([b"a"]), "q", {}, b'["a"]'), (REVISION, "s", {}, b"&{rev ns svc conf pod-1 10.0.0.1}"),
        (NilPointer("x.Y"), "s", {}, b"%!s(*x.Y=<nil>)"),
    ],
)  # fmt: skip
def test_a_verb_with_its_flags(value: Value, verb: str, options: dict[str, object], text: bytes) -> None:
    assert formatted(value, verb, **options) == text  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [lambda input: input, Request], ids=["all", "request"])
def test_what_would_print_addresses_is_an_error(make: type) -> None:
    value: Input = make(input_of())
    with pytest.raises(ExecutionError):
        printed(value)


@pytest.mark.parametrize("verb", ["b", "x", "X"])
def test_what_is_not_done_is_an_error(verb: str) -> None:
    with pytest.raises(ExecutionError):
        formatted(1.5, verb)


@pytest.mark.qp("QP-302")
def test_print_puts_blanks_between_what_is_no_text() -> None:
    assert sprint((b"a", 1, 2, b"b", True, None)) == b"a1 2btrue <nil>"
    assert sprintln((b"a", 1)) == b"a 1\n"
