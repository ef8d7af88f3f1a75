"""Decodes tokens into trees, one per defined template; refuses what Go's parser refuses, in its words.

Function names and variables are checked here, fields are not: what a value offers is known only when there is one, so a
wrong field is an error of each execution, as upstream.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from queueproxy.requestlog.escape import quoted
from queueproxy.requestlog.lexer import Token, Type, tokens
from queueproxy.requestlog.literals import BadLiteral, character, number, to_bytes, unquoted
from queueproxy.requestlog.tree import (
    Action,
    Bool,
    Branch,
    Break,
    Chain,
    Command,
    Continue,
    Dot,
    Field,
    Function,
    Invoke,
    Nil,
    Node,
    Number,
    Operand,
    Pipe,
    Range,
    String,
    Text,
    Variable,
)  # fmt: skip

DEPTH: Final = 200  # parentheses and blocks inside each other; Go allows 10,000, which our stack does not
_END, _ELSE = Type.END, Type.ELSE
_OPERANDS: Final = frozenset(
    (
        Type.BOOL, Type.CHARACTER, Type.COMPLEX, Type.DOT, Type.FIELD, Type.IDENTIFIER, Type.NUMBER, Type.NIL,
        Type.RAW, Type.STRING, Type.VARIABLE, Type.OPEN,
    )
)  # fmt: skip
_LITERALS: Final = (Bool, String, Number, Nil, Dot)
Body = tuple[Node, ...]


class BadTemplate(Exception):
    """What is wrong and where, worded like Go's error."""


def parse(text: str, functions: Collection[str], name: str = "requestLog") -> dict[str, Body]:
    """The template called `name` and those it defines."""
    parser = _Parser(text, functions, name)
    parser.top()
    return parser.defined


class _Parser:
    def __init__(self, text: str, functions: Collection[str], name: str) -> None:
        self.tokens = tokens(text)
        self.at = 0
        self.functions = functions
        self.name = name
        self.defined: dict[str, Body] = {}
        self.variables = ["$"]
        self.ranges = 0
        self.depth = 0
        self.began_on = 0  # the line of the present action

    # -- tokens

    def wrong(self, text: str, line: int = 0) -> BadTemplate:
        return BadTemplate(f"template: {self.name}:{line or self.tokens[self.at].line}: {text}")

    def peek(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        token = self.tokens[self.at]
        if token.type > Type.EOF:
            self.at += 1
        return token

    def skip(self) -> Token:
        """The next token that is no space, not taken."""
        while self.tokens[self.at].type is Type.SPACE:
            self.at += 1
        return self.tokens[self.at]

    def next_word(self) -> Token:
        self.skip()
        return self.next()

    def unexpected(self, token: Token, where: str) -> BadTemplate:
        if token.type is Type.ERROR:
            text = token.text
            if self.began_on and self.began_on != token.line:
                text = text.removesuffix(" action")
                text += f"{' action' if text != token.text else ' in action'} started at {self.name}:{self.began_on}"
            return self.wrong(text, token.line)
        shown = token.text if token.type is Type.EOF else f"<{token.text}>" if token.type > Type.KEYWORD else (
            f'"{token.text}"' if len(token.text) <= 10 else f'"{token.text[:10]}"...'
        )  # fmt: skip
        return self.wrong(f"unexpected {shown} in {where}", token.line)

    def expect(self, type: Type, where: str) -> Token:
        token = self.next_word()
        if token.type is not type:
            raise self.unexpected(token, where)
        return token

    # -- lists

    def top(self) -> None:
        nodes: list[Node] = []
        while self.peek().type is not Type.EOF:
            start = self.at
            if self.peek().type is Type.LEFT:
                self.next()
                if self.skip().type is Type.DEFINE:
                    self.next()
                    self.define()
                    continue
                self.at = start
            node = self.node()
            if isinstance(node, Type):
                raise self.wrong(f"unexpected {{{{{node.name.lower()}}}}}")
            nodes.append(node)
        self.add(self.name, tuple(nodes))

    def add(self, name: str, body: Body) -> None:
        if name not in self.defined or _empty(self.defined[name]):
            self.defined[name] = body
        elif not _empty(body):
            raise self.wrong(f'template: multiple definition of template "{name}"')

    def inner(self, name: str, where: str) -> None:
        """The body of a template inside this one: no variable and no loop of ours reaches into it."""
        kept = self.variables, self.ranges
        self.variables, self.ranges = ["$"], 0
        body, end = self.body()
        if end is not _END:
            raise self.wrong(f"unexpected {{{{else}}}} in {where}")
        self.add(name, body)
        self.variables, self.ranges = kept

    def define(self) -> None:
        name = self.template_name("define clause")
        self.expect(Type.RIGHT, "define clause")
        self.inner(name, "define clause")

    def template_name(self, where: str) -> str:
        token = self.next_word()
        if token.type is not Type.STRING and token.type is not Type.RAW:
            raise self.unexpected(token, where)
        try:
            return unquoted(token.text).decode("utf-8", "surrogateescape")
        except BadLiteral as error:
            raise self.wrong(str(error)) from None

    def body(self) -> tuple[Body, Type]:
        """Nodes up to the end or the else that closes them."""
        self.depth += 1
        if self.depth > DEPTH:
            raise self.wrong("max expression depth exceeded")
        nodes: list[Node] = []
        while self.skip().type is not Type.EOF:
            node = self.node()
            if isinstance(node, Type):
                self.depth -= 1
                return tuple(nodes), node
            nodes.append(node)
        raise self.wrong("unexpected EOF")

    def node(self) -> Node | Type:
        token = self.next_word()
        if token.type is Type.TEXT:
            return Text(to_bytes(token.text))
        if token.type is not Type.LEFT:
            raise self.unexpected(token, "input")
        self.began_on = token.line
        node = self.action()
        self.began_on = 0
        return node

    def action(self) -> Node | Type:
        """Left delimiter taken. END and ELSE come back as what they are."""
        start = self.at
        type = self.next_word().type
        if type is Type.IF:
            return self.branch("if")
        if type is Type.WITH:
            return self.branch("with")
        if type is Type.RANGE:
            return self.range()
        if type is Type.END:
            self.expect(Type.RIGHT, "end")
            return _END
        if type is Type.ELSE:
            if self.skip().type not in (Type.IF, Type.WITH):
                self.expect(Type.RIGHT, "else")
            return _ELSE
        if type is Type.TEMPLATE or type is Type.BLOCK:
            return self.invoke(type)
        if type is Type.BREAK or type is Type.CONTINUE:
            word = f"{{{{{type.name.lower()}}}}}"
            token = self.next_word()
            if token.type is not Type.RIGHT:
                raise self.unexpected(token, word)
            if not self.ranges:
                raise self.wrong(f"{word} outside {{{{range}}}}")
            return Break() if type is Type.BREAK else Continue()
        self.at = start
        return Action(self.pipe("command", Type.RIGHT))

    def invoke(self, type: Type) -> Node:
        where = "template clause" if type is Type.TEMPLATE else "block clause"
        name = self.template_name(where)
        pipe = None
        if type is Type.BLOCK:
            pipe = self.pipe(where, Type.RIGHT)
            self.inner(name, where)
        elif self.skip().type is Type.RIGHT:
            self.next()
        else:
            pipe = self.pipe(where, Type.RIGHT)
        return Invoke(name, pipe)

    def branch(self, word: str) -> Node:
        before = len(self.variables)
        pipe = self.pipe(word, Type.RIGHT)
        then, end = self.body()
        other: Body = ()
        if end is _ELSE:
            again = Type.IF if word == "if" else Type.WITH
            if self.peek().type is again:  # `else if`, `else with`: one end closes both
                self.next()
                self.depth += 1
                if self.depth > DEPTH:
                    raise self.wrong("max expression depth exceeded")
                other = (self.branch(word),)
                self.depth -= 1
            else:
                other = self.last()
        del self.variables[before:]
        return Branch(word == "with", pipe, then, other)

    def range(self) -> Node:
        before = len(self.variables)
        pipe = self.pipe("range", Type.RIGHT)
        self.ranges += 1
        each, end = self.body()
        self.ranges -= 1
        none = self.last() if end is _ELSE else ()
        del self.variables[before:]
        return Range(pipe, each, none)

    def last(self) -> Body:
        body, end = self.body()
        if end is not _END:
            raise self.wrong("expected end; found {{else}}")
        return body

    # -- pipelines

    def pipe(self, where: str, end: Type) -> Pipe:
        line = self.skip().line
        variables, assigns = self.declared(where)
        commands: list[Command] = []
        while True:
            token = self.skip()
            if token.type is end:
                self.next()
                break
            if token.type not in _OPERANDS:
                raise self.unexpected(token, where)
            commands.append(self.command())
        if not commands:
            raise self.wrong(f"missing value for {where}")
        for stage, command in enumerate(commands[1:], 2):
            if isinstance(command.args[0], _LITERALS):
                raise self.wrong(f"non executable command in pipeline stage {stage}")
        return Pipe(tuple(commands), variables, assigns, line)

    def declared(self, where: str) -> tuple[tuple[str, ...], bool]:
        """`$x :=`, `$x =` and, for range, `$i, $x :=`."""
        found: list[str] = []
        while self.skip().type is Type.VARIABLE:
            start = self.at
            name = self.next().text
            token = self.skip()
            if token.type is Type.ASSIGN or token.type is Type.DECLARE:
                self.next()
                self.variables.append(name)
                return (*found, name), token.type is Type.ASSIGN
            if token.type is not Type.CHAR or token.text != ",":
                self.at = start
                break
            self.next()
            found.append(name)
            self.variables.append(name)
            if where != "range" or len(found) > 1:
                raise self.wrong(f"too many declarations in {where}")
            if self.skip().type not in (Type.VARIABLE, Type.RIGHT, Type.CLOSE):
                raise self.wrong("range can only initialize variables")
        return tuple(found), False

    def command(self) -> Command:
        args: list[Operand] = []
        while True:
            self.skip()
            operand = self.operand()
            if operand is not None:
                args.append(operand)
            token = self.peek()
            if token.type is Type.SPACE:
                self.next()
                continue
            if token.type is Type.PIPE:
                self.next()
            elif token.type is not Type.RIGHT and token.type is not Type.CLOSE:
                raise self.unexpected(token, "operand")
            break
        if not args:
            raise self.wrong("empty command")
        return Command(tuple(args))

    def operand(self) -> Operand | None:
        """A term and the fields asked of it."""
        first = self.skip()
        term = self.term()
        if term is None or self.peek().type is not Type.FIELD:
            return term
        names: list[str] = []
        while self.peek().type is Type.FIELD:
            names.append(self.next().text[1:])
        if isinstance(term, Field):
            return Field((*term.names, *names))
        if isinstance(term, Variable):
            return Variable((*term.names, *names))
        if isinstance(term, _LITERALS):
            raise self.wrong(f"unexpected . after term {quoted(to_bytes(first.text)).decode()}")
        return Chain(term, tuple(names))

    def term(self) -> Operand | None:
        token = self.skip()
        type = token.type
        if type not in _OPERANDS:
            return None
        self.next()
        if type is Type.FIELD:
            return Field((token.text[1:],))
        if type is Type.IDENTIFIER:
            if token.text not in self.functions:
                raise self.wrong(f'function "{token.text}" not defined', token.line)
            return Function(token.text)
        if type is Type.VARIABLE:
            if token.text not in self.variables:
                raise self.wrong(f'undefined variable "{token.text}"', token.line)
            return Variable((token.text,))
        if type is Type.OPEN:
            self.depth += 1
            if self.depth > DEPTH:
                raise self.wrong("max expression depth exceeded")
            pipe = self.pipe("parenthesized pipeline", Type.CLOSE)
            self.depth -= 1
            return pipe
        if type is Type.DOT:
            return Dot()
        if type is Type.NIL:
            return Nil()
        if type is Type.BOOL:
            return Bool(token.text == "true")
        try:
            if type is Type.STRING or type is Type.RAW:
                return String(unquoted(token.text))
            return character(token.text) if type is Type.CHARACTER else number(token.text)
        except BadLiteral as error:
            raise self.wrong(str(error), token.line) from None


def _empty(body: Body) -> bool:
    return all(isinstance(node, Text) and not node.value.strip() for node in body)
