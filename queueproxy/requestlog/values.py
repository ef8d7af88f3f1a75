"""Holds Go values as Python ones, and says what a template may ask of them.

| Go | here |
|---|---|
| string | bytes |
| bool, int, float64 | bool, int, float |
| int64, uint8, uint16 | `Int64`, `Uint8`, `Uint16` |
| []string | `Strings`; `NilStrings` for the nil one |
| map[string][]string with its methods | `StringsMap` and what derives from it |
| struct behind a pointer | `Struct` and what derives from it |
| nil pointer | `NilPointer` |
| nothing: untyped nil, a missing map key | None |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple

Value = Any  # one of the above


class ExecutionError(Exception):
    """The template met data that it cannot be applied to: the line becomes the fallback line."""


class Int64(int):
    """int64"""


class Unsigned(int):
    """Any uint: other comparisons, other %v with #."""


class Uint8(Unsigned):
    """uint8"""


class Uint16(Unsigned):
    """uint16"""


class Method(NamedTuple):
    """params: the Python type of each argument, variadic ones excluded. call: receiver and arguments to value."""

    params: tuple[type, ...]
    call: Callable[..., Value]


class Strings(list[bytes]):
    """[]string"""


class NilStrings(Strings):
    """A nil []string: what a missing header is."""


class Struct:
    """What a pointer to a struct offers. stringer: how it prints itself, if it does."""

    go_type: ClassVar[str]
    fields: ClassVar[Mapping[str, Callable[[Any], Value]]] = {}
    methods: ClassVar[Mapping[str, Method]] = {}
    stringer: ClassVar[Callable[[Any], bytes] | None] = None
    printable: ClassVar[bool] = True  # False: would print addresses


class NilPointer:
    """A nil pointer to a struct of that Go type. methods: those that bear it. text: what its String() says."""

    __slots__ = ("go_type", "methods", "text")

    def __init__(self, go_type: str, methods: Mapping[str, Method] | None = None, text: bytes | None = None) -> None:
        self.go_type = go_type
        self.methods = methods or {}
        self.text = text


class StringsMap(dict[bytes, Strings]):
    """map[string][]string"""

    go_type: ClassVar[str]
    methods: ClassVar[Mapping[str, Method]] = {}


_BASIC: Final[dict[type, str]] = {
    bytes: "string", bool: "bool", int: "int", float: "float64", Int64: "int64", Uint8: "uint8", Uint16: "uint16",
    Strings: "[]string", NilStrings: "[]string",
}  # fmt: skip


def type_name(value: Value) -> str:
    """As %T prints it."""
    basic = _BASIC.get(value.__class__)
    if basic is not None:
        return basic
    return f"*{value.go_type}" if isinstance(value, (Struct, NilPointer)) else str(value.go_type)


def truth(value: Value) -> bool:
    """Not the zero of its type."""
    if isinstance(value, (Struct, NilPointer)):
        return isinstance(value, Struct)
    return bool(value)


def method(receiver: Value, name: str) -> Method | None:
    """The method of that name, if the receiver has one."""
    methods: Mapping[str, Method] | None = getattr(receiver, "methods", None)
    return methods.get(name) if methods else None


def field(receiver: Value, name: str) -> Value:
    """A field of a struct or a key of a map; a method without arguments when there is one of that name."""
    if receiver is None:
        return None
    found = method(receiver, name)
    if found is not None:
        return call(found, name, receiver, ())
    if isinstance(receiver, Struct):
        get = receiver.fields.get(name)
        if get is not None:
            return get(receiver)
    elif isinstance(receiver, StringsMap):
        return receiver.get(name.encode("utf-8", "surrogateescape"))
    elif isinstance(receiver, NilPointer):
        raise ExecutionError(f"nil pointer evaluating *{receiver.go_type}.{name}")
    raise ExecutionError(f"can't evaluate field {name} in type {type_name(receiver)}")


def call(found: Method, name: str, receiver: Value, args: tuple[Value, ...]) -> Value:
    """Calls a method with arguments of the right number and types."""
    if len(args) != len(found.params):
        raise ExecutionError(f"wrong number of args for {name}: want {len(found.params)} got {len(args)}")
    for arg, param in zip(args, found.params, strict=True):
        if arg is None or arg.__class__ is not param:
            got = "invalid value" if arg is None else type_name(arg)
            raise ExecutionError(f"wrong type for value; expected {_BASIC[param]}; got {got}")
    return found.call(receiver, *args)
