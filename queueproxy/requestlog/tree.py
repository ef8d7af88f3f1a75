"""Holds what a parsed template is made of. Values only; compiler.py gives them meaning."""

from __future__ import annotations

from typing import NamedTuple, Union


class Dot(NamedTuple):
    """`.`"""


class Nil(NamedTuple):
    """`nil`"""


class Bool(NamedTuple):
    """`true`, `false`"""

    value: bool


class String(NamedTuple):
    """A quoted string; Go strings are bytes."""

    value: bytes


class Number(NamedTuple):
    """A constant. ideal: its value where no type is asked for, None when that overflows. integer: where one is."""

    text: str
    ideal: int | float | None
    integer: int | None


class Function(NamedTuple):
    """A name that must be called."""

    name: str


class Field(NamedTuple):
    """`.A.B`"""

    names: tuple[str, ...]


class Variable(NamedTuple):
    """`$x.A.B`; the first name is the variable, dollar included."""

    names: tuple[str, ...]


class Command(NamedTuple):
    """A word and its arguments."""

    args: tuple[Operand, ...]


class Pipe(NamedTuple):
    """Commands, each result the last argument of the next; perhaps for variables."""

    commands: tuple[Command, ...]
    variables: tuple[str, ...]
    assigns: bool
    line: int


class Chain(NamedTuple):
    """`(pipe).A.B`"""

    node: Operand
    names: tuple[str, ...]


Operand = Union[Dot, Nil, Bool, String, Number, Function, Field, Variable, Pipe, Chain]  # noqa: UP007 - recursive


class Text(NamedTuple):
    """Passes through."""

    value: bytes


class Action(NamedTuple):
    """`{{pipe}}`"""

    pipe: Pipe


class Branch(NamedTuple):
    """`if` or `with`, whose dot moves."""

    moves: bool
    pipe: Pipe
    then: tuple[Node, ...]
    other: tuple[Node, ...]


class Range(NamedTuple):
    """`range`"""

    pipe: Pipe
    each: tuple[Node, ...]
    none: tuple[Node, ...]


class Invoke(NamedTuple):
    """`{{template "name" pipe}}`"""

    name: str
    pipe: Pipe | None


class Break(NamedTuple):
    """`break`"""


class Continue(NamedTuple):
    """`continue`"""


Node = Union[Text, Action, Branch, Range, Invoke, Break, Continue]  # noqa: UP007 - recursive
