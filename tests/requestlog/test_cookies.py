"""Cookies as Go's net/http reads them."""

import pytest

from queueproxy.requestlog.cookies import cookie
from queueproxy.requestlog.values import ExecutionError


@pytest.mark.parametrize(
    ("lines", "name", "value", "text"),
    [
        ([b"a=1; b=2"], b"b", b"2", b"b=2"), ([b"a=1", b"b=2"], b"b", b"2", b"b=2"), ([b'a="x y"'], b"a",
        b"x y", b'a="x y"'),
        ([b"a=1; a=2"], b"a", b"1", b"a=1"), ([b"a"], b"a", b"", b"a="), ([b"a=b=c"], b"a", b"b=c", b"a=b=c"),
    ],
)  # fmt: skip
def test_the_first_of_a_name(lines: list[bytes], name: bytes, value: bytes, text: bytes) -> None:
    found = cookie(lines, name)
    assert (found.name, found.value, found.string()) == (name, value, text)


@pytest.mark.parametrize(
    ("lines", "name"),
    [([], b"a"), ([b"a=1"], b"b"), ([b"a=1"], b""), ([b"a=\\"], b"a"), ([b";" * 5000 + b"a=1"], b"a")],
)
def test_one_that_is_not_there_is_an_error(lines: list[bytes], name: bytes) -> None:
    with pytest.raises(ExecutionError):
        cookie(lines, name)
