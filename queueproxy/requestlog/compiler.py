"""Decides what a parsed template writes: turns trees into closures, once, so that a line costs calls and no looking up.

Theory of operation. A pipeline becomes a function of the scope to a value. Actions and text that follow each other
become one format string and the functions that fill it. Control structures write to a list. Nothing of the template's
text is ever evaluated by Python. A line is whole or not at all: an error while it is made gives the fallback line
(QP-305), so nothing half-made is ever shown.

Bounds of ours: loops over numbers (Go's `range 10`) run at most 100,000 times, a template nests 200 deep.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from queueproxy.requestlog.direct import ESCAPES, Line, direct, of_input
from queueproxy.requestlog.expressions import Expressions, Get, Scope, assign
from queueproxy.requestlog.functions import FUNCTIONS
from queueproxy.requestlog.gofmt import printed
from queueproxy.requestlog.inputs import SHOWN, Input, Revision, header_getter
from queueproxy.requestlog.parser import Body, parse
from queueproxy.requestlog.tree import Action, Branch, Break, Field, Function, Invoke, Node, Pipe, Range, String, Text
from queueproxy.requestlog.values import ExecutionError, Int64, Strings, StringsMap, Value, truth

LOOPS: Final = 100_000
_DEEP: Final = 200
Write = Callable[[Scope, list[bytes]], None]
FromInput = Callable[[Input], Any]


class _Leave(Exception):
    """`break`"""


class _Skip(Exception):
    """`continue`"""


def compiled(text: str, revision: Revision | None = None) -> Callable[[Input], bytes]:
    """A function from a request to its line; raises parser.BadTemplate. The function raises ExecutionError.

    revision: that of all requests to come, when it is known.
    """
    line, program = made(text, revision)
    return program if line is None else of_input(line)


def made(text: str, revision: Revision | None = None) -> tuple[Line | None, Callable[[Input], bytes]]:
    """A function of the facts where the template only shows fields, and the one of an input, which any template has."""
    compiler = _Compiler(parse(text, FUNCTIONS), revision)
    return compiler.line, compiler.program


class _Compiler(Expressions):
    """depth: templates invoked inside each other."""

    def __init__(self, bodies: dict[str, Body], revision: Revision | None, name: str = "requestLog") -> None:
        super().__init__()
        self.templates: dict[str, Write] = {}
        main = bodies.pop(name)
        self.line = direct(main, revision)
        self.main = self.body(main)
        self.root = False
        for other, body in bodies.items():
            self.templates[other] = self.body(body)
        self.depth = 0

    def program(self, input: Input) -> bytes:
        scope = Scope(input, input)
        scope.variables.append(["$", input])
        out: list[bytes] = []
        self.depth = 0
        try:
            self.main(scope, out)
        except RecursionError:
            raise ExecutionError("exceeded maximum template depth") from None
        return out[0] if len(out) == 1 else b"".join(out)

    # -- nodes

    def body(self, nodes: Body) -> Write:
        writes: list[Write] = []
        run: list[Node] = []
        for node in (*nodes, None):
            if isinstance(node, Text) or (isinstance(node, Action) and not node.pipe.variables):
                run.append(node)
                continue
            if run:
                writes.append(self.run(run))
                run = []
            if node is not None:
                writes.append(self.control(node))
        if len(writes) == 1:
            return writes[0]

        def write(scope: Scope, out: list[bytes]) -> None:
            for one in writes:
                one(scope, out)

        return write

    def run(self, nodes: list[Node]) -> Write:
        """Text and actions: one bytes format, filled in order."""
        form = b""
        gets: list[Get] = []
        for node in nodes:
            if isinstance(node, Text):
                form += node.value.replace(b"%", b"%%")
            elif isinstance(node, Action):
                quick = _quick_pipe(node.pipe) if self.root else None
                piece, get = (b"%b", self.shown(node.pipe)) if quick is None else (quick[0], _of_input(quick[1]))
                form += piece
                gets.append(get)
        if not gets:
            text = form.replace(b"%%", b"%")
            return lambda scope, out: out.append(text)

        def write(scope: Scope, out: list[bytes]) -> None:
            out.append(form % tuple([get(scope) for get in gets]))

        return write

    def shown(self, pipe: Pipe) -> Callable[[Scope], bytes]:
        """What an action prints."""
        get = self.pipe(pipe)

        def show(scope: Scope) -> bytes:
            value = get(scope)
            if value.__class__ is bytes:
                return value
            if value.__class__ is int or value.__class__ is Int64:
                return b"%d" % value
            return printed(value)

        return show

    def control(self, node: Node) -> Write:
        if isinstance(node, Action):
            get = self.pipe(node.pipe)
            return lambda scope, out: (get(scope), None)[1]
        if isinstance(node, Branch):
            return self.branch(node)
        if isinstance(node, Range):
            return self.range(node)
        if isinstance(node, Invoke):
            return self.invoke(node)
        signal: type[Exception] = _Leave if isinstance(node, Break) else _Skip

        def leave(scope: Scope, out: list[bytes]) -> None:
            raise signal

        return leave

    def branch(self, node: Branch) -> Write:
        get = self.pipe(node.pipe)
        then = self.moved(node.then) if node.moves else self.body(node.then)
        other = self.body(node.other)
        moves = node.moves

        def write(scope: Scope, out: list[bytes]) -> None:
            mark, dot = len(scope.variables), scope.dot
            value = get(scope)
            if truth(value):
                if moves:
                    scope.dot = value
                then(scope, out)
                scope.dot = dot
            else:
                other(scope, out)
            del scope.variables[mark:]

        return write

    def moved(self, body: Body) -> Write:
        """A body whose dot is not the whole input."""
        kept, self.root = self.root, False
        write = self.body(body)
        self.root = kept
        return write

    def range(self, node: Range) -> Write:
        get, each, none = self.pipe(node.pipe), self.moved(node.each), self.body(node.none)
        names, assigns = node.pipe.variables, node.pipe.assigns

        def once(scope: Scope, out: list[bytes], index: Value, item: Value) -> None:
            if names:
                pairs = zip(names, (index, item) if len(names) > 1 else (item,), strict=True)
                for place, (name, value) in enumerate(pairs):
                    if assigns:
                        assign(scope, name, value)
                    else:
                        scope.variables[len(scope.variables) - len(names) + place][1] = value
            mark = len(scope.variables)
            scope.dot = item
            try:
                each(scope, out)
            except _Skip:
                pass
            finally:
                del scope.variables[mark:]

        def write(scope: Scope, out: list[bytes]) -> None:
            mark, dot = len(scope.variables), scope.dot
            value = get(scope)
            items = _items(value, len(names))
            try:
                for index, item in items:
                    once(scope, out, index, item)
            except _Leave:
                pass
            finally:
                scope.dot = dot
            if not items:
                none(scope, out)
            del scope.variables[mark:]

        return write

    def invoke(self, node: Invoke) -> Write:
        get = self.pipe(node.pipe) if node.pipe is not None else lambda scope: None
        templates, name = self.templates, node.name

        def write(scope: Scope, out: list[bytes]) -> None:
            found = templates.get(name)
            if found is None:
                raise ExecutionError(f'template "{name}" not defined')
            if self.depth >= _DEEP:
                raise ExecutionError("exceeded maximum template depth")
            dot = get(scope)
            inner = Scope(scope.input, dot)
            inner.variables.append(["$", dot])
            self.depth += 1
            found(inner, out)
            self.depth -= 1

        return write


# -- what needs no scope


def _quick_pipe(pipe: Pipe) -> tuple[bytes, FromInput] | None:
    """The format and the function for `{{.A.B}}`, `{{js .A.B}}`, `{{.A.B | js}}` and the same with Header.Get."""
    if pipe.variables:
        return None
    first, rest = pipe.commands[0], pipe.commands[1:]
    escapes: list[Callable[[bytes], bytes]] = []
    for command in reversed(rest):
        word = command.args[0]
        if len(command.args) > 1 or not isinstance(word, Function) or word.name not in ESCAPES:
            return None
        escapes.insert(0, ESCAPES[word.name])
    args = first.args
    if isinstance(args[0], Function) and args[0].name in ESCAPES and len(args) == 2:
        escapes.insert(0, ESCAPES[args[0].name])
        inner = args[1]
        if isinstance(inner, Pipe):
            found = _quick_pipe(inner)
            return None if found is None else _escaped(found, escapes)
        args = (inner,)
    word = args[0]
    if not isinstance(word, Field):
        return None
    if len(args) == 1 and word.names in SHOWN:
        return _escaped(SHOWN[word.names], escapes)
    if word.names == ("Request", "Header", "Get") and len(args) == 2 and isinstance(args[1], String):
        get = header_getter(args[1].value)
        return None if get is None else _escaped((b"%b", get), escapes)
    return None


def _escaped(found: tuple[bytes, FromInput], escapes: list[Callable[[bytes], bytes]]) -> tuple[bytes, FromInput] | None:
    form, get = found
    if escapes and form != b"%b":
        return None
    for escape in escapes:
        get = _then(get, escape)
    return form, get


def _then(get: FromInput, escape: Callable[[bytes], bytes]) -> FromInput:
    return lambda input: escape(get(input))


def _of_input(get: FromInput) -> Get:
    return lambda scope: get(scope.input)


def _items(value: Value, names: int) -> list[tuple[Value, Value]]:
    """What range walks through: (index, element)."""
    if value is None:
        return []
    if isinstance(value, Strings):
        return list(enumerate(value))
    if isinstance(value, StringsMap):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, int) and not isinstance(value, bool):
        if names > 1:
            raise ExecutionError("can't iterate over a number with more than one variable")
        if value > LOOPS:
            raise ExecutionError(f"more than {LOOPS} turns")
        return [(None, value.__class__(n)) for n in range(value)]
    raise ExecutionError("range can't iterate over that")
