"""Decides the value of a pipeline: turns expressions into closures of the scope, with Go's order and Go's complaints.

Fields are looked up when the line is made, because only then there is a value whose fields can be known. compiler.py
takes short cuts past this where it knows the dot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from queueproxy.requestlog.functions import FUNCTIONS
from queueproxy.requestlog.inputs import header_getter
from queueproxy.requestlog.tree import (
    Bool,
    Chain,
    Command,
    Dot,
    Field,
    Function,
    Nil,
    Number,
    Operand,
    Pipe,
    String,
    Variable,
)  # fmt: skip
from queueproxy.requestlog.values import ExecutionError, Value, call, field, method, truth


class _Missing:
    """No value comes from the pipeline's previous command."""


_MISSING: Final = _Missing()


class Scope:
    """Where an expression is evaluated: the dot, the variables from the outermost in, the whole input."""

    __slots__ = ("dot", "input", "variables")

    def __init__(self, input: Value, dot: Value) -> None:
        self.input = input
        self.dot = dot
        self.variables: list[list[Value]] = []  # [name, value]


Get = Callable[[Scope], Value]
Do = Callable[[Scope, Value], Value]  # a command: the second argument comes from the pipeline


class Expressions:
    """root: the dot is known to be the whole input here, so that short cuts apply."""

    def __init__(self) -> None:
        self.root = True

    def pipe(self, pipe: Pipe) -> Get:
        commands = [self.command(command) for command in pipe.commands]
        first, rest = commands[0], commands[1:]
        names, assigns = pipe.variables, pipe.assigns
        if not rest and not names:
            return lambda scope: first(scope, _MISSING)

        def get(scope: Scope) -> Value:
            value = first(scope, _MISSING)
            for command in rest:
                value = command(scope, value)
            for name in names:
                if assigns:
                    assign(scope, name, value)
                else:
                    scope.variables.append([name, value])
            return value

        return get

    def command(self, command: Command) -> Do:
        word, args = command.args[0], command.args[1:]
        if isinstance(word, Function):
            return self.function(word.name, args)
        if isinstance(word, (Field, Chain)) or (isinstance(word, Variable) and len(word.names) > 1):
            return self.chain(word, args)
        if isinstance(word, Nil):
            return _failing("nil is not a command")
        get = self.operand(word)

        def plain(scope: Scope, final: Value) -> Value:
            if args or final is not _MISSING:
                raise ExecutionError("can't give argument to non-function")
            return get(scope)

        return plain

    def chain(self, word: Field | Chain | Variable, args: tuple[Operand, ...]) -> Do:
        """Fields one after another; the last may be a method that takes the arguments."""
        whole = self.root and isinstance(word, Field)
        short = self.header(word, args) if whole else None
        if short is not None:
            return short
        if isinstance(word, Field):
            base: Get = lambda scope: scope.dot  # noqa: E731
            names = word.names
        elif isinstance(word, Variable):
            base, names = _variable(word.names[0]), word.names[1:]
        else:
            base, names = self.operand(word.node), word.names
        before, last = names[:-1], names[-1]
        gets = [self.operand(arg) for arg in args]
        constant = [isinstance(arg, (Number, Bool, String, Nil)) for arg in args]

        def get(scope: Scope, final: Value) -> Value:
            value = base(scope)
            for name in before:
                value = field(value, name)
            if not gets and final is _MISSING:
                return field(value, last)
            if value is None:
                return None
            found = method(value, last)
            if found is None:
                field(value, last)  # its own complaint, if it has one
                raise ExecutionError(f"{last} has arguments but cannot be invoked as function")
            given = [one(scope) for one in gets]
            for at, (known, arg, param) in enumerate(zip(constant, args, found.params, strict=False)):
                if known and isinstance(arg, Number) and param is int:  # 1.0 will do where an integer is asked for
                    if arg.integer is None:
                        raise ExecutionError(f"expected integer; found {arg.text}")
                    given[at] = arg.integer
            if final is not _MISSING:
                given.append(final)
            return call(found, last, value, tuple(given))

        return get

    def header(self, word: Field | Chain | Variable, args: tuple[Operand, ...]) -> Do | None:
        """`.Request.Header.Get "name"`, the one method most templates call."""
        if word.names != ("Request", "Header", "Get") or len(args) != 1 or not isinstance(args[0], String):
            return None
        get = header_getter(args[0].value)
        if get is None:
            return None
        found = get

        def quick(scope: Scope, final: Value) -> Value:
            if final is not _MISSING:
                raise ExecutionError("wrong number of args for Get: want 1 got 2")
            return found(scope.input)

        return quick

    def function(self, name: str, args: tuple[Operand, ...]) -> Do:
        function = FUNCTIONS[name]
        gets = [self.operand(arg) for arg in args]
        do, least, most, texts = function.call, function.least, function.most, function.texts
        if name == "and" or name == "or":
            return _short_circuit(gets, name == "or")

        def several(scope: Scope, final: Value) -> Value:
            given = [get(scope) for get in gets]
            if final is not _MISSING:
                given.append(final)
            if not least <= len(given) <= most:
                raise ExecutionError(f"wrong number of args for {name}: got {len(given)}")
            if texts and given[0].__class__ is not bytes:
                raise ExecutionError("wrong type for value; expected string")
            return do(tuple(given))

        if len(gets) != 1 or least > 1 or texts:
            return several
        only = gets[0]

        def single(scope: Scope, final: Value) -> Value:
            return do((only(scope),)) if final is _MISSING else several(scope, final)

        return single

    def operand(self, operand: Operand) -> Get:
        if isinstance(operand, (String, Bool)):
            value: Value = operand.value
            return lambda scope: value
        if isinstance(operand, Number):
            number, text = operand.ideal, operand.text
            if number is None:
                return _failed(f"{text} overflows int")
            return lambda scope: number
        if isinstance(operand, Dot):
            return lambda scope: scope.dot
        if isinstance(operand, Nil):
            return lambda scope: None
        if isinstance(operand, Pipe):
            return self.pipe(operand)
        if isinstance(operand, Variable) and len(operand.names) == 1:
            return _variable(operand.names[0])
        called = self.function(operand.name, ()) if isinstance(operand, Function) else self.chain(operand, ())
        return lambda scope: called(scope, _MISSING)


def _short_circuit(gets: list[Get], wanted: bool) -> Do:
    """`and`, `or`: the first argument that settles it, else the last."""

    def get(scope: Scope, final: Value) -> Value:
        if not gets and final is _MISSING:
            raise ExecutionError("wrong number of args")
        value: Value = None
        for one in gets:
            value = one(scope)
            if truth(value) == wanted:
                return value
        return value if final is _MISSING else final

    return get


def _failing(text: str) -> Do:
    def fail(scope: Scope, final: Value) -> Value:
        raise ExecutionError(text)

    return fail


def _failed(text: str) -> Get:
    return lambda scope: _failing(text)(scope, None)


def _variable(name: str) -> Get:
    def get(scope: Scope) -> Value:
        for known, value in reversed(scope.variables):
            if known == name:
                return value
        raise ExecutionError(f"undefined variable: {name}")

    return get


def assign(scope: Scope, name: str, value: Value) -> None:
    for variable in reversed(scope.variables):
        if variable[0] == name:
            variable[1] = value
            return
    raise ExecutionError(f"undefined variable: {name}")
