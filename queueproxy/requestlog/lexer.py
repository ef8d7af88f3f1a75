"""Decodes the text of a Go template into tokens.

Theory of operation. Text between actions passes through; inside `{{` and `}}` the rules of Go's text/template hold,
trim markers and comments included. Spaces are tokens, because `$x .Field` and `$x.Field` differ. Scanning stops at the
first mistake, which becomes the last token: the parser may find an earlier one, and the earlier one is what Go reports.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple


class Type(IntEnum):
    """What a token is. Keywords come after KEYWORD."""

    ERROR = 0
    EOF = 1
    TEXT = 2
    LEFT = 3
    RIGHT = 4
    SPACE = 5
    ASSIGN = 6
    DECLARE = 7
    PIPE = 8
    OPEN = 9
    CLOSE = 10
    CHAR = 11  # a printable character that means nothing by itself, such as the comma
    BOOL = 12
    CHARACTER = 13  # 'x'
    NUMBER = 14
    COMPLEX = 15
    STRING = 16
    RAW = 17
    IDENTIFIER = 18
    FIELD = 19
    VARIABLE = 20
    KEYWORD = 30
    BLOCK = 31
    BREAK = 32
    CONTINUE = 33
    DEFINE = 34
    DOT = 35
    ELSE = 36
    END = 37
    IF = 38
    NIL = 39
    RANGE = 40
    TEMPLATE = 41
    WITH = 42


class Token(NamedTuple):
    """line counts from 1."""

    type: Type
    text: str
    line: int


_KEYWORDS: Final = {
    "block": Type.BLOCK, "break": Type.BREAK, "continue": Type.CONTINUE, "define": Type.DEFINE, "else": Type.ELSE,
    "end": Type.END, "if": Type.IF, "nil": Type.NIL, "range": Type.RANGE, "template": Type.TEMPLATE,
    "with": Type.WITH, "true": Type.BOOL, "false": Type.BOOL,
}  # fmt: skip
_SPACES: Final = " \t\r\n"
_SINGLE: Final = {"=": Type.ASSIGN, "|": Type.PIPE}


class _Mistake(Exception):
    pass


def tokens(text: str) -> list[Token]:
    """All tokens of a template; the last one is EOF or ERROR, whose text says what is wrong."""
    lexer = _Lexer(text)
    try:
        lexer.run()
    except _Mistake as mistake:
        lexer.out.append(Token(Type.ERROR, str(mistake), lexer.line(lexer.start)))
    return lexer.out


class _Lexer:
    """One pass over the text. start: where the present token began."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.start = 0
        self.out: list[Token] = []
        self.parens = 0

    def line(self, at: int) -> int:
        return self.text.count("\n", 0, at) + 1

    def run(self) -> None:
        text = self.text
        while True:
            self.start = self.at
            left = text.find("{{", self.at)
            end = len(text) if left < 0 else left
            piece = text[self.at : end]
            if left >= 0 and _left_trim(text, left + 2):
                piece = piece.rstrip(_SPACES)
            if piece:
                self.emit(Type.TEXT, piece)
            self.at = self.start = end
            if left < 0:
                self.emit(Type.EOF, "EOF")
                return
            self.action()

    def emit(self, type: Type, text: str) -> None:
        self.out.append(Token(type, text, self.line(self.start)))

    def take(self, type: Type) -> None:
        self.emit(type, self.text[self.start : self.at])

    def action(self) -> None:
        """From a left delimiter to behind the right one; a comment leaves no token."""
        text = self.text
        inside = self.at + 2
        if _left_trim(text, inside):
            inside += 2
        if text.startswith("/*", inside):
            self.comment(inside)
            return
        self.emit(Type.LEFT, "{{")
        self.at = inside
        self.parens = 0
        while True:
            self.start = self.at
            right, trim = self.right()
            if right:
                if self.parens:
                    raise _Mistake("unclosed left paren")
                self.close(right, trim)
                return
            self.inside()

    def right(self) -> tuple[int, bool]:
        """(where the right delimiter begins here ends, trimming), (0, False) when it is not here."""
        text, at = self.text, self.at
        if text[at : at + 1] in _SPACES and text.startswith("-}}", at + 1) and at < len(text):
            return at + 4, True
        if text.startswith("}}", at):
            return at + 2, False
        return 0, False

    def close(self, end: int, trim: bool) -> None:
        self.emit(Type.RIGHT, "}}")
        self.after(end, trim)

    def after(self, end: int, trim: bool) -> None:
        if trim:
            while end < len(self.text) and self.text[end] in _SPACES:
                end += 1
        self.at = end

    def comment(self, at: int) -> None:
        end = self.text.find("*/", at + 2)
        if end < 0:
            raise _Mistake("unclosed comment")
        self.at = end + 2
        right, trim = self.right()
        if not right:
            raise _Mistake("comment ends before closing delimiter")
        self.after(right, trim)

    # -- inside an action

    def peek(self) -> str:
        """The character here, "" at the end."""
        return self.text[self.at : self.at + 1]

    def inside(self) -> None:
        c = self.peek()
        self.at += 1
        if not c:
            self.at -= 1
            raise _Mistake("unclosed action")
        if c in _SPACES:
            self.spaces()
        elif c in _SINGLE:
            self.take(_SINGLE[c])
        elif c == ":":
            if self.peek() != "=":
                raise _Mistake("expected :=")
            self.at += 1
            self.take(Type.DECLARE)
        elif c == '"':
            self.quoted('"', Type.STRING, "unterminated quoted string")
        elif c == "'":
            self.quoted("'", Type.CHARACTER, "unterminated character constant")
        elif c == "`":
            end = self.text.find("`", self.at)
            if end < 0:
                raise _Mistake("unterminated raw quoted string")
            self.at = end + 1
            self.take(Type.RAW)
        elif c == "$":
            self.name(Type.VARIABLE)
        elif c == "." and self.at < len(self.text) and self.peek() not in "0123456789":
            self.name(Type.FIELD)
        elif c in ".+-0123456789":
            self.at -= 1
            self.number()
        elif _alphanumeric(c):
            self.word()
        elif c == "(":
            self.parens += 1
            self.take(Type.OPEN)
        elif c == ")":
            self.parens -= 1
            if self.parens < 0:
                raise _Mistake("unexpected right paren")
            self.take(Type.CLOSE)
        elif c.isascii() and c.isprintable():
            self.take(Type.CHAR)
        else:
            raise _Mistake(f"unrecognized character in action: {_named(c)}")

    def spaces(self) -> None:
        """A run of blanks, but the last one belongs to ` -}}` when that follows."""
        while self.peek() and self.peek() in _SPACES:
            self.at += 1
        if self.text.startswith("-}}", self.at):
            self.at -= 1
        if self.at > self.start:
            self.take(Type.SPACE)

    def quoted(self, mark: str, type: Type, unterminated: str) -> None:
        while True:
            c = self.peek()
            self.at += 1
            if c == "\\":
                c = self.peek()
                self.at += 1
                if c and c != "\n":
                    continue
            if not c or c == "\n":
                raise _Mistake(unterminated)
            if c == mark:
                self.take(type)
                return

    def terminated(self) -> bool:
        """A word may end here; `$x+2` may not."""
        c = self.peek()
        return not c or c in _SPACES or c in ".,|:)(" or self.text.startswith("}}", self.at)

    def name(self, type: Type) -> None:
        """A field or a variable, its first character taken; alone, the dot or the dollar."""
        if self.terminated():
            self.take(Type.DOT if type is Type.FIELD else type)
            return
        self.letters()
        self.take(type)

    def letters(self) -> None:
        while (c := self.peek()) and _alphanumeric(c):
            self.at += 1
        if not self.terminated():
            raise _Mistake(f"bad character {_named(self.peek())}")

    def word(self) -> None:
        self.letters()
        self.take(_KEYWORDS.get(self.text[self.start : self.at], Type.IDENTIFIER))

    def accept(self, valid: str) -> bool:
        c = self.peek()
        if c and c in valid:
            self.at += 1
            return True
        return False

    def number(self) -> None:
        """Not a perfect scanner, as in Go: what it lets through and is no number, the parser refuses."""
        if not self.scan():
            raise _Mistake(f'bad number syntax: "{self.text[self.start : self.at]}"')
        if self.peek() and self.peek() in "+-":
            if not self.scan() or self.text[self.at - 1] != "i":
                raise _Mistake(f'bad number syntax: "{self.text[self.start : self.at]}"')
            self.take(Type.COMPLEX)
            return
        self.take(Type.NUMBER)

    def scan(self) -> bool:
        self.accept("+-")
        digits, exponent = "0123456789_", "eE"
        if self.accept("0"):
            if self.accept("xX"):
                digits, exponent = "0123456789abcdefABCDEF_", "pP"
            elif self.accept("oO"):
                digits, exponent = "01234567_", ""
            elif self.accept("bB"):
                digits, exponent = "01_", ""
        while self.accept(digits):
            pass
        if self.accept("."):
            while self.accept(digits):
                pass
        if exponent and self.accept(exponent):
            self.accept("+-")
            while self.accept("0123456789_"):
                pass
        self.accept("i")
        if self.peek() and _alphanumeric(self.peek()):
            self.at += 1
            return False
        return True


def _left_trim(text: str, at: int) -> bool:
    return text.startswith("-", at) and at + 1 < len(text) and text[at + 1] in _SPACES


def _alphanumeric(c: str) -> bool:
    return c == "_" or c.isalpha() or c.isdecimal()


def _named(c: str) -> str:
    """As Go's %#U."""
    return f"U+{ord(c):04X} '{c}'" if c.isprintable() else f"U+{ord(c):04X}"
