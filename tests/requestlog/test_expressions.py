"""Pipelines: order, arguments, and what is evaluated at all. More of it is in test_compiler.py beside Go's answers."""

import pytest

from queueproxy.requestlog.expressions import Expressions, Scope, assign
from queueproxy.requestlog.functions import FUNCTIONS
from queueproxy.requestlog.parser import parse
from queueproxy.requestlog.tree import Action
from queueproxy.requestlog.values import ExecutionError, Value
from tests.support.request_log import input_of


def value(text: str) -> Value:
    """Of one pipeline."""
    (node,) = parse("{{" + text + "}}", FUNCTIONS)["requestLog"]
    assert isinstance(node, Action)
    input = input_of()
    scope = Scope(input, input)
    scope.variables.append(["$", input])
    return Expressions().pipe(node.pipe)(scope)


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 | print 2", b"2 1"), ("and 0 (index 1 1)", 0), ("or 1 (index 1 1)", 1), ("1 | and 2", 1), ("1 | or 0", 1),
        ('"user-agent" | .Request.Header.Get | len', 26), ("(.Response).Code", 200), ("$.Response.Size", 1234),
        (".Request.ProtoAtLeast 1.0 1", True), ('"a" | printf "%s%s" "b"', b"ba"), ("print", b""),
        ("(print 1) | len", 1),
    ],
)  # fmt: skip
def test_pipelines(text: str, expected: Value) -> None:
    assert value(text) == expected


@pytest.mark.qp("QP-305")
@pytest.mark.parametrize(
    "text",
    [
        "nil", "1 2", ".Response.Code 1", "1 | .Response.Code", ".Request.Header.Get", ".Request.Header.Get 1",
        "and", "not",
        '.Request.Header.Get "a" "b"', '"b" | .Request.Header.Get "a"', "printf 1", "18446744073709551615",
        ".Request.ProtoAtLeast 1.5 1",
        "(nil).X 1", "lt 1",
    ],
)  # fmt: skip
def test_pipelines_that_fail(text: str) -> None:
    with pytest.raises(ExecutionError):
        value(text)


def test_an_assignment_reaches_the_innermost_variable_of_that_name() -> None:
    scope = Scope(None, None)
    scope.variables += [["$x", 1], ["$y", 2], ["$x", 3]]
    assign(scope, "$x", 4)
    assert scope.variables == [["$x", 1], ["$y", 2], ["$x", 4]]
    with pytest.raises(ExecutionError):
        assign(scope, "$z", 1)
