"""Format strings. Expected values are Go's."""

import pytest

from queueproxy.requestlog.printf import sprintf
from queueproxy.requestlog.values import ExecutionError, Value


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(
    ("form", "args", "text"),
    [
        (b"%s-%d", (b"a", 1), b"a-1"), (b"100%%", (), b"100%"), (b"%d", (), b"%!d(MISSING)"),
        (b"x", (1, b"y"), b"x%!(EXTRA int=1, string=y)"),
        (b"%", (1,), b"%!(NOVERB)%!(EXTRA int=1)"), (b"%!", (1,), b"%!!(int=1)"), (b"%z", (1,), b"%!z(int=1)"),
        (b"%[2]d %[1]d", (1, 2), b"2 1"), (b"%[3]d", (1,), b"%!d(BADINDEX)"), (b"%[x]d", (1,), b"%!d(BADINDEX)"),
        (b"%[1", (1,), b"%!(NOVERB)"),
        (b"%*d|", (5, 42), b"   42|"), (b"%*d|", (-5, 42), b"42   |"), (b"%.*f", (1, 2.55), b"2.5"),
        (b"%*d", (b"x", 1), b"%!(BADWIDTH)1"),
        (b"%.*d", (b"x", 1), b"%!(BADPREC)1"), (b"%.2f %5.1f|%-6.2f|", (1.005, 2.25, 3.0), b"1.00   2.2|3.00  |"),
        (b"%#v %#v %+v", (b"a", 1.0, 2), b'"a" 1 2'), (b"%w", (1,), b"%!w(int=1)"),
        (b"%99999999d", (1,), b"%!(NOVERB)%!(EXTRA int=1)"),
        (b"%v", (None,), b"<nil>"), (b"%d", (None,), b"%!d(<nil>)"), ("%\u00e9".encode(),
        (1,), "%!\u00e9(int=1)".encode()),
        (b"\xff%s", (b"\xfe",), b"\xff\xfe"),
    ],
)  # fmt: skip
def test_a_format(form: bytes, args: tuple[Value, ...], text: bytes) -> None:
    assert sprintf(form, args) == text


def test_an_address_is_never_printed() -> None:
    with pytest.raises(ExecutionError):
        sprintf(b"%p", (b"x",))
