"""What a template may ask of a value."""

import pytest

from queueproxy.requestlog.inputs import Header, Request
from queueproxy.requestlog.values import (
    ExecutionError,
    Int64,
    Method,
    NilPointer,
    NilStrings,
    Strings,
    Value,
    call,
    field,
    method,
    truth,
    type_name,
)  # fmt: skip
from tests.support.request_log import REVISION, input_of


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", False), (b"0", True), (0, False), (-1, True), (0.0, False), (False, False), (None, False),
        (Strings(), False),
        (NilStrings(), False), (Header(), False), (Strings([b""]), True), (REVISION, True), (NilPointer("x.Y"), False),
    ],
)  # fmt: skip
def test_truth(value: Value, expected: bool) -> None:
    assert truth(value) is expected


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b"", "string"), (True, "bool"), (1, "int"), (1.0, "float64"), (Int64(1), "int64"), (NilStrings(), "[]string"),
        (Header(), "http.Header"), (REVISION, "*http.RequestLogRevision"), (NilPointer("x.Y"), "*x.Y"),
    ],
)  # fmt: skip
def test_type_names(value: Value, name: str) -> None:
    assert type_name(value) == name


@pytest.mark.qp("QP-302")
def test_fields_of_structs_keys_of_maps_and_methods() -> None:
    header = Header({b"Accept": Strings([b"x"])})
    assert field(REVISION, "Name") == b"rev"
    assert field(header, "Accept") == [b"x"] and field(header, "Nope") is None
    assert field(None, "Any") is None
    assert field(Request(input_of()), "UserAgent").startswith(b"Mozilla")
    assert method(header, "Get") is not None and method(header, "Set") is None


@pytest.mark.qp("QP-305")
@pytest.mark.parametrize("receiver", [REVISION, b"text", 1, NilPointer("x.Y"), Strings([b"a"])], ids=type_name)
def test_what_is_not_there_is_an_error(receiver: Value) -> None:
    with pytest.raises(ExecutionError):
        field(receiver, "Nope")


@pytest.mark.parametrize("args", [(), (1,), (None,), (b"a", b"b"), (True,)], ids=str)
def test_a_method_wants_its_arguments(args: tuple[Value, ...]) -> None:
    wants_text = Method((bytes,), lambda receiver, text: text)
    with pytest.raises(ExecutionError):
        call(wants_text, "M", REVISION, args)
    assert call(wants_text, "M", REVISION, (b"x",)) == b"x"
