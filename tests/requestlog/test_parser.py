"""Trees of templates. What is refused, and in which words, is in test_compiler.py beside Go's own answers."""

import pytest

from queueproxy.requestlog.parser import DEPTH, BadTemplate, parse
from queueproxy.requestlog.tree import (
    Action,
    Branch,
    Chain,
    Command,
    Field,
    Function,
    Invoke,
    Number,
    Pipe,
    Range,
    String,
    Text,
    Variable,
)

FUNCTIONS = {"js", "len"}


def only(text: str) -> object:
    (node,) = parse(text, FUNCTIONS)["requestLog"]
    return node


def pipe(*commands: Command, variables: tuple[str, ...] = (), assigns: bool = False) -> Pipe:
    return Pipe(commands, variables, assigns, 1)


@pytest.mark.qp("QP-302")
def test_a_pipeline_keeps_its_commands_in_order() -> None:
    assert only("{{js .A.B | len}}") == Action(
        pipe(Command((Function("js"), Field(("A", "B")))), Command((Function("len"),)))
    )


@pytest.mark.qp("QP-302")
def test_fields_of_parentheses_and_of_variables() -> None:
    assert only("{{(js 1).A}}") == Action(
        pipe(Command((Chain(pipe(Command((Function("js"), Number("1", 1, 1)))), ("A",)),)))
    )
    assert only("{{$.A.B}}") == Action(pipe(Command((Variable(("$", "A", "B")),))))


@pytest.mark.qp("QP-302")
def test_else_if_is_an_if_in_the_else() -> None:
    node = only("{{if .A}}a{{else if .B}}b{{else}}c{{end}}")
    assert isinstance(node, Branch) and node.then == (Text(b"a"),)
    (inner,) = node.other
    assert isinstance(inner, Branch) and (inner.then, inner.other) == ((Text(b"b"),), (Text(b"c"),))


@pytest.mark.qp("QP-302")
def test_range_declares_two_variables() -> None:
    node = only("{{range $k, $v := .H}}{{$k}}{{end}}")
    assert isinstance(node, Range) and node.pipe.variables == ("$k", "$v")


def test_a_variable_ends_with_its_block() -> None:
    with pytest.raises(BadTemplate, match=r'undefined variable "\$x"'):
        parse("{{if $x := 1}}{{end}}{{$x}}", FUNCTIONS)
    assert parse("{{$x := 1}}{{if 1}}{{$x}}{{end}}", FUNCTIONS)


def test_a_definition_sees_no_variable_and_no_loop_around_it() -> None:
    with pytest.raises(BadTemplate, match="undefined variable"):
        parse('{{$x := 1}}{{define "d"}}{{$x}}{{end}}', FUNCTIONS)
    with pytest.raises(BadTemplate, match="outside"):
        parse('{{range .}}{{block "b" .}}{{break}}{{end}}{{end}}', FUNCTIONS)


def test_definitions_stand_beside_the_template() -> None:
    trees = parse('{{define "d"}}x{{end}}{{template "d" "a"}}', FUNCTIONS)
    assert trees["d"] == (Text(b"x"),)
    assert trees["requestLog"] == (Invoke("d", pipe(Command((String(b"a"),)))),)


@pytest.mark.parametrize("nest", ["{{if 1}}", "{{range 1}}", "{{if 0}}{{else if 1}}"])
def test_nesting_is_bounded(nest: str) -> None:
    assert parse(nest * (DEPTH // 4) + "{{end}}" * (DEPTH // 4), FUNCTIONS)
    with pytest.raises(BadTemplate, match="depth exceeded"):
        parse(nest * (DEPTH + 1), FUNCTIONS)
