"""Decides what a template's built-in functions answer: comparison, indexing, printing. Go's rules by type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from queueproxy.requestlog.escape import html, js, urlquery
from queueproxy.requestlog.gofmt import sprint, sprintln
from queueproxy.requestlog.printf import sprintf
from queueproxy.requestlog.values import (
    ExecutionError,
    NilPointer,
    NilStrings,
    Strings,
    StringsMap,
    Struct,
    Uint8,
    Value,
    truth,
    type_name,
)  # fmt: skip

Args = tuple[Value, ...]
_NUMBER, _TEXT, _FLOAT, _BOOL = "integer", "string", "float64", "bool"


def _basic(value: Value) -> str | None:
    """The kind that comparison asks for; signed and unsigned integers compare with each other."""
    if value.__class__ is bytes:
        return _TEXT
    if value.__class__ is bool:
        return _BOOL
    if value.__class__ is float:
        return _FLOAT
    return _NUMBER if isinstance(value, int) else None


def _nil(value: Value) -> bool:
    return value is None or isinstance(value, (NilPointer, NilStrings)) or getattr(value, "nil", False)


def equal(args: Args) -> bool:
    """`eq a b c`: a is b or c."""
    first, rest = args[0], args[1:]
    if not rest:
        raise ExecutionError("missing argument for comparison")
    kind = _basic(first)
    for other in rest:
        if _basic(other) != kind:
            if first is not None and other is not None:
                raise ExecutionError(f"incompatible types for comparison: {type_name(first)} and {type_name(other)}")
        elif kind is not None:
            if first == other:
                return True
        elif _same(first, other):
            return True
    return False


def _same(first: Value, other: Value) -> bool:
    if first is not None and other is not None and _shape(first) != _shape(other):
        raise ExecutionError("non-comparable types")
    if _nil(first) or _nil(other):
        return _nil(first) == _nil(other)
    if isinstance(other, (Strings, StringsMap)):
        raise ExecutionError(f"non-comparable type {type_name(other)}")
    return first is other


def _shape(value: Value) -> type:
    if isinstance(value, (Struct, NilPointer)):
        return Struct
    return Strings if isinstance(value, Strings) else StringsMap


def not_equal(args: Args) -> bool:
    """`ne a b`"""
    return not equal(args)


def less(args: Args) -> bool:
    """`lt a b`"""
    first, other = args
    kind = _basic(first)
    if kind is None or _basic(other) is None:
        raise ExecutionError("invalid type for comparison")
    if _basic(other) != kind:
        raise ExecutionError(f"incompatible types for comparison: {type_name(first)} and {type_name(other)}")
    if kind is _BOOL:
        raise ExecutionError("invalid type for comparison")
    return bool(first < other)


def less_or_equal(args: Args) -> bool:
    """`le a b`"""
    return less(args) or equal(args)


def greater(args: Args) -> bool:
    """`gt a b`"""
    return not less_or_equal(args)


def greater_or_equal(args: Args) -> bool:
    """`ge a b`"""
    return not less(args)


def _position(index: Value, most: int) -> int:
    if isinstance(index, bool) or not isinstance(index, int):
        raise ExecutionError("cannot index slice/array with that type")
    if not 0 <= index <= most:
        raise ExecutionError(f"index out of range: {index}")
    return int(index)


def index(args: Args) -> Value:
    """`index x 1 2`: x[1][2]; a missing key gives the zero value."""
    item = args[0]
    if item is None:
        raise ExecutionError("index of untyped nil")
    for key in args[1:]:
        if isinstance(item, (bytes, Strings)):
            at = _position(key, len(item))
            if at == len(item):
                raise ExecutionError("reflect: index out of range")
            item = Uint8(item[at]) if isinstance(item, bytes) else item[at]
        elif isinstance(item, StringsMap):
            if key.__class__ is not bytes:
                raise ExecutionError("the keys are strings")
            item = item.get(key, NilStrings())
        else:
            raise ExecutionError(f"can't index item of type {type_name(item)}")
    return item


def cut(args: Args) -> Value:
    """`slice x 1 2`: x[1:2], in bytes."""
    item, at = args[0], args[1:]
    if not isinstance(item, (bytes, Strings)) or len(at) > (2 if isinstance(item, bytes) else 3):
        raise ExecutionError("can't slice that")
    bounds = [_position(one, len(item)) for one in at]
    low = bounds[0] if bounds else 0
    high = bounds[1] if len(bounds) > 1 else len(item)
    if low > high or (len(bounds) == 3 and high > bounds[2]):
        raise ExecutionError(f"invalid slice index: {low} > {high}")
    if isinstance(item, bytes):
        return item[low:high]
    return item if isinstance(item, NilStrings) else Strings(item[low:high])


def length(args: Args) -> int:
    """`len x`, in bytes for a string."""
    if isinstance(args[0], (bytes, Strings, StringsMap)):
        return len(args[0])
    raise ExecutionError("len of a type without length")


def joined(args: Args) -> bytes:
    """What js, html and urlquery work on: the one string, or everything as `print` prints it."""
    if len(args) == 1 and args[0].__class__ is bytes:
        return args[0]
    return sprint(tuple(b"<no value>" if arg is None else arg for arg in args), follow=True)


def _call(args: Args) -> Value:
    raise ExecutionError("call of a value that is no function")  # a request holds none


class Function:
    """least, most: how many arguments; texts: the first must be a string."""

    __slots__ = ("call", "least", "most", "texts")

    def __init__(self, call: Callable[[Args], Value], least: int, most: int = 1 << 30, *, texts: bool = False) -> None:
        self.call = call
        self.least = least
        self.most = most
        self.texts = texts


FUNCTIONS: Final = {
    "and": Function(lambda args: args[-1], 1),  # these two do not evaluate all their arguments: see compiler.py
    "or": Function(lambda args: args[-1], 1),
    "not": Function(lambda args: not truth(args[0]), 1, 1),
    "call": Function(_call, 1),
    "html": Function(lambda args: html(joined(args)), 0),
    "index": Function(index, 1),
    "slice": Function(cut, 1),
    "js": Function(lambda args: js(joined(args)), 0),
    "len": Function(length, 1, 1),
    "print": Function(sprint, 0),
    "printf": Function(lambda args: sprintf(args[0], args[1:]), 1, texts=True),
    "println": Function(sprintln, 0),
    "urlquery": Function(lambda args: urlquery(joined(args)), 0),
    "eq": Function(equal, 1),
    "ge": Function(greater_or_equal, 2, 2),
    "gt": Function(greater, 2, 2),
    "le": Function(less_or_equal, 2, 2),
    "lt": Function(less, 2, 2),
    "ne": Function(not_equal, 2, 2),
}
