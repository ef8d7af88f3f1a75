"""Tokens of a template."""

import pytest

from queueproxy.requestlog.lexer import Type, tokens


def kinds(text: str) -> list[str]:
    return [token.type.name for token in tokens(text)]


@pytest.mark.qp("QP-302")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "TEXT EOF"),
        ("", "EOF"),
        ("a{{.X}}b", "TEXT LEFT FIELD RIGHT TEXT EOF"),
        ("{{$x := .A.B | js}}", "LEFT VARIABLE SPACE DECLARE SPACE FIELD FIELD SPACE PIPE SPACE IDENTIFIER RIGHT EOF"),
        ("{{/* c */}}", "EOF"),
        ("{{- 1 -}}", "LEFT NUMBER RIGHT EOF"),
        ("{{-1}}", "LEFT NUMBER RIGHT EOF"),
        ("{{1-}}", "LEFT ERROR"),
        ("{{\"a\\\"}}\"}}", "LEFT STRING RIGHT EOF"),
        ("{{`}}`}}", "LEFT RAW RIGHT EOF"),
        ("{{if . }}", "LEFT IF SPACE DOT SPACE RIGHT EOF"),
        ("{{1+2i}}", "LEFT COMPLEX RIGHT EOF"),
        ("{{.5}}", "LEFT NUMBER RIGHT EOF"),
        ("{{$}}", "LEFT VARIABLE RIGHT EOF"),
        ("{{true}}", "LEFT BOOL RIGHT EOF"),
    ],
)  # fmt: skip
def test_tokens_of(text: str, expected: str) -> None:
    assert " ".join(kinds(text)) == expected


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a  {{- 1}}", "a"), ("a \n\t{{- 1 -}} \n b", "ab"), ("a {{-1}}", "a "), ("a {{- /* c */ -}} b", "ab"),
        ("a {{/* c */ -}} b", "a b"),
    ],
)  # fmt: skip
def test_trim_markers_take_the_blanks_around(text: str, left: str) -> None:
    assert "".join(token.text for token in tokens(text) if token.type is Type.TEXT) == left


@pytest.mark.qp("QP-305")
@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{{", "unclosed action"), ("{{/* a", "unclosed comment"),
        ("{{/* a */ b}}", "comment ends before closing delimiter"),
        ('{{"a', "unterminated quoted string"), ("{{'a", "unterminated character constant"),
        ("{{`a", "unterminated raw quoted string"), ("{{(1}}", "unclosed left paren"),
        ("{{)}}", "unexpected right paren"),
        ("{{:}}", "expected :="), ("{{1x}}", 'bad number syntax: "1x"'), ("{{$x+2}}", "bad character U+002B '+'"),
        ("{{\x01}}", "unrecognized character in action: U+0001"),
    ],
)  # fmt: skip
def test_the_last_token_says_what_is_wrong(text: str, wrong: str) -> None:
    assert tokens(text)[-1][:2] == (Type.ERROR, wrong)


def test_a_mistake_knows_its_line() -> None:
    assert tokens("one\ntwo {{\n.X")[-1].line == 3
