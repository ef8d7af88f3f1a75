"""Built-in functions, by Go's rules of types."""

import pytest

from queueproxy.requestlog.functions import FUNCTIONS, cut, equal, index, joined, length, less
from queueproxy.requestlog.inputs import Header
from queueproxy.requestlog.values import ExecutionError, NilPointer, NilStrings, Strings, Uint8, Value
from tests.support.request_log import REVISION

HEADER = Header({b"A": Strings([b"1", b"2"])})
NIL = NilPointer("tls.ConnectionState")


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((1, 1), True), ((1, 2), False), ((1, 2, 1), True), ((b"a", b"a"), True), ((Uint8(97), 97), True),
        ((1.5, 1.5), True),
        ((True, True), True), ((NIL, None), True), ((None, None), True), ((NilStrings(), None), True),
        ((HEADER, None), False),
        ((REVISION, REVISION), True), ((REVISION, NIL), False), ((None, 1), False),
    ],
)  # fmt: skip
def test_equality(args: tuple[Value, ...], expected: bool) -> None:
    assert equal(args) is expected
    if len(args) == 2:
        assert FUNCTIONS["ne"].call(args) is not expected


@pytest.mark.parametrize(
    "args", [(1,), (1, 1.0), (1, b"1"), (True, 1), (HEADER, HEADER), (Strings(), Strings()), (HEADER, Strings()),
    (1, HEADER)]
)  # fmt: skip
def test_what_does_not_compare(args: tuple[Value, ...]) -> None:
    with pytest.raises(ExecutionError):
        equal(args)


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(("first", "other"), [(1, 2), (b"a", b"b"), (1.5, 2.5), (Uint8(1), 2), (-1, Uint8(0))])
def test_order(first: Value, other: Value) -> None:
    answers = {name: FUNCTIONS[name].call((first, other)) for name in ("lt", "le", "gt", "ge")}
    assert answers == {"lt": True, "le": True, "gt": False, "ge": False}
    answers = {name: FUNCTIONS[name].call((first, first)) for name in ("lt", "le", "gt", "ge")}
    assert answers == {"lt": False, "le": True, "gt": False, "ge": True}


@pytest.mark.parametrize("args", [(True, False), (1, 1.0), (None, 1), (HEADER, HEADER), (b"a", 1)])
def test_what_has_no_order(args: tuple[Value, ...]) -> None:
    with pytest.raises(ExecutionError):
        less(args)


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(
    ("args", "value"),
    [((HEADER, b"A", 1), b"2"), ((HEADER, b"B"), []), ((b"abc", 1), 98), ((Strings([b"x"]), 0, 0), 120),
    ((HEADER,), HEADER)],
)  # fmt: skip
def test_index(args: tuple[Value, ...], value: Value) -> None:
    assert index(args) == value


@pytest.mark.parametrize(
    "args",
    [(None, 0), (b"abc", 3), (b"abc", -1), (b"abc", b"0"), (b"abc", True), (HEADER, 1), (1, 0), (HEADER, b"A", 2),
    (b"a", None)],
)  # fmt: skip
def test_index_of_what_is_not_there(args: tuple[Value, ...]) -> None:
    with pytest.raises(ExecutionError):
        index(args)


@pytest.mark.qp("QP-302")
def test_slices() -> None:
    assert (cut((b"abcd",)), cut((b"abcd", 1)), cut((b"abcd", 1, 3))) == (b"abcd", b"bcd", b"bc")
    assert cut((Strings([b"a", b"b", b"c"]), 1, 2, 3)) == [b"b"]
    for wrong in [(b"a", 2), (b"abc", 2, 1), (1,), (None,), (b"abc", 0, 1, 2), (Strings([b"a"]), 1, 0), (b"a", b"0")]:
        with pytest.raises(ExecutionError):
            cut(wrong)


def test_length_is_in_bytes() -> None:
    assert (length(("\u00e9".encode(),)), length((HEADER,)), length((NilStrings(),))) == (2, 1, 0)
    for wrong in (1, None, NIL, REVISION):
        with pytest.raises(ExecutionError):
            length((wrong,))


def test_what_escapes_work_on() -> None:
    assert (joined((b"a",)), joined((1, 2)), joined((None,)), joined(())) == (b"a", b"1 2", b"<no value>", b"")
    assert joined((REVISION, 1)) == b"{rev ns svc conf pod-1 10.0.0.1} 1"


def test_nothing_can_be_called() -> None:
    with pytest.raises(ExecutionError):
        FUNCTIONS["call"].call((b"x",))
