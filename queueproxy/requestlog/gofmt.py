"""Encodes one Go value as Go's fmt does: `%v` for what a template prints, and every other verb with its flags.

Not done: complex numbers, and the binary and hexadecimal verbs of floats; they end the line in an error, which the log
reports like any other.
"""

from __future__ import annotations

from math import isinf, isnan
from typing import Final

from queueproxy.requestlog.escape import backquotable, quoted, runes
from queueproxy.requestlog.values import (
    ExecutionError,
    NilPointer,
    NilStrings,
    Strings,
    StringsMap,
    Struct,
    Unsigned,
    Value,
    type_name,
)  # fmt: skip

_BASES: Final = {"d": "d", "v": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}


def printed(value: Value) -> bytes:
    """What `{{value}}` writes."""
    if value.__class__ is bytes:
        return value
    if value.__class__ is int:
        return b"%d" % value
    if value.__class__ is float:
        return shortest(value)
    if value is None:
        return b"<no value>"
    return Format().followed(value)


def sprint(args: tuple[Value, ...], *, follow: bool = False) -> bytes:
    """As fmt.Sprint: a space between two operands when neither is a string. follow: as `printed` does with pointers."""
    out: list[bytes] = []
    before = True
    for arg in args:
        text = arg.__class__ is bytes
        if out and not text and not before:
            out.append(b" ")
        out.append(Format().followed(arg) if follow else Format().value(arg, "v", 0))
        before = text
    return b"".join(out)


def sprintln(args: tuple[Value, ...]) -> bytes:
    """As fmt.Sprintln."""
    return b" ".join(Format().value(arg, "v", 0) for arg in args) + b"\n"


def shortest(value: float) -> bytes:
    """A float as %v: the shortest digits that mean it, with an exponent below 1e-4 and from 1e6 on."""
    text = repr(value)
    if -1e6 < value < 1e6:  # here Python writes what Go writes
        if text.endswith(".0"):
            text = text[:-2]
        return text.encode()
    if isnan(value) or isinf(value):
        return b"NaN" if isnan(value) else b"+Inf" if value > 0 else b"-Inf"
    if "e" not in text:
        whole, _, rest = text.lstrip("-").partition(".")
        digits = (whole + rest).rstrip("0")
        point = digits[0] + ("." + digits[1:] if len(digits) > 1 else "")
        text = f"{'-' if value < 0 else ''}{point}e+{len(whole) - 1:02d}"
    return text.encode()


class Format:
    """One verb's flags, width and precision, and what they do to a value."""

    def __init__(self, flags: bytes = b"") -> None:
        self.sharp = b"#" in flags
        self.zero = b"0" in flags
        self.plus = b"+" in flags
        self.minus = b"-" in flags
        self.space = b" " in flags
        self.width: int | None = None
        self.precision: int | None = None
        self.names = False  # %+v
        self.syntax = False  # %#v
        self.erring = False  # inside %!x(…): no String() is asked

    # -- padding

    def pad(self, text: bytes, *, zeros: bool | None = None) -> bytes:
        if not self.width:
            return text
        missing = self.width - len(runes(text))
        if missing <= 0:
            return text
        if self.minus:
            return text + b" " * missing
        return (b"0" if (self.zero if zeros is None else zeros) else b" ") * missing + text

    def cut(self, text: bytes) -> bytes:
        if self.precision is None:
            return text
        return runes(text)[: self.precision].encode("utf-8", "surrogateescape")

    # -- values

    def value(self, value: Value, verb: str, depth: int) -> bytes:
        kind = value.__class__
        if value is None:
            return self.pad(b"<nil>") if verb in "vT" else b"%%!%b(<nil>)" % verb.encode()
        if verb == "T" and depth == 0:
            return self.pad(self.cut(type_name(value).encode()))
        if kind is bytes:
            return self.string(value, verb)
        if kind is bool:
            if verb in "tv":
                return self.pad(b"true" if value else b"false")
            return self.bad(value, verb)
        if isinstance(value, int):
            return self.integer(value, verb)
        if kind is float:
            return self.floating(value, verb)
        if isinstance(value, Strings):
            return self.strings(value, verb)
        if isinstance(value, StringsMap):
            return self.map(value, verb)
        asked = verb in "vsxXq" and not self.syntax and not self.erring
        if isinstance(value, NilPointer):
            if asked and value.text is not None:
                return self.string(value.text, verb)
            return self.nil(value, verb)
        if asked and value.stringer is not None:
            return self.string(value.stringer(), verb)
        if depth:
            raise ExecutionError("an address cannot be printed")
        return b"&" + self.struct(value, verb)

    def bad(self, value: Value, verb: str) -> bytes:
        self.erring = True
        text = b"%%!%b(%b=%b)" % (verb.encode(), type_name(value).encode(), self.value(value, "v", 0))
        self.erring = False
        return text

    def nil(self, value: NilPointer, verb: str) -> bytes:
        if verb == "v":
            return b"(*%b)(nil)" % value.go_type.encode() if self.syntax else self.pad(b"<nil>")
        if verb in "bodxX":
            return self.integer(Unsigned(0), verb)
        return self.bad(value, verb)

    def followed(self, value: Value) -> bytes:
        """A value as a template prints it: one pointer is followed, unless what it points to prints itself."""
        if isinstance(value, Struct) and value.stringer is None:
            return self.struct(value, "v")
        return self.value(value, "v", 0)

    def struct(self, value: Struct, verb: str) -> bytes:
        if not value.printable or self.syntax:
            raise ExecutionError(f"{type_name(value)} would print addresses")
        parts = []
        for name, get in value.fields.items():
            text = self.value(get(value), verb, 1)
            parts.append(name.encode() + b":" + text if self.names else text)
        return b"{" + b" ".join(parts) + b"}"

    def strings(self, value: Strings, verb: str) -> bytes:
        if verb == "p":
            raise ExecutionError("an address cannot be printed")
        if self.syntax and verb == "v":
            if isinstance(value, NilStrings):
                return b"[]string(nil)"
            return b"[]string{" + b", ".join(self.string(item, verb) for item in value) + b"}"
        return b"[" + b" ".join(self.string(item, verb) for item in value) + b"]"

    def map(self, value: StringsMap, verb: str) -> bytes:
        if verb == "p":
            raise ExecutionError("an address cannot be printed")
        pairs = [self.string(key, verb) + b":" + self.strings(value[key], verb) for key in sorted(value)]
        if self.syntax and verb == "v":
            name = value.go_type.encode()
            if getattr(value, "nil", False):
                return name + b"(nil)"
            return name + b"{" + b", ".join(pairs) + b"}"
        return b"map[" + b" ".join(pairs) + b"]"

    def string(self, value: bytes, verb: str) -> bytes:
        if verb == "s" or (verb == "v" and not self.syntax):
            return self.pad(self.cut(value))
        if verb == "q" or verb == "v":
            value = self.cut(value)
            if self.sharp and backquotable(value):
                return self.pad(b"`" + value + b"`")
            return self.pad(quoted(value, ascii_only=self.plus))
        if verb == "x" or verb == "X":
            return self.hexadecimal(value, verb)
        return self.bad(value, verb)

    def hexadecimal(self, value: bytes, verb: str) -> bytes:
        if self.precision is not None:
            value = value[: self.precision]
        prefix = b"0" + verb.encode() if self.sharp else b""
        if not value:
            return self.pad(b"")
        digits = [b"%02x" % c if verb == "x" else b"%02X" % c for c in value]
        text = prefix + ((b" " + prefix).join(digits) if self.space else b"".join(digits))
        return self.pad(text)

    # -- numbers

    def integer(self, value: int, verb: str) -> bytes:
        if verb in _BASES:
            return self.digits(value, verb)
        if verb == "c" or verb == "q":
            c = chr(value) if 0 <= value <= 0x10FFFF and not 0xD800 <= value < 0xE000 else "\ufffd"
            text = c.encode()
            return self.pad(quoted(text, "'", ascii_only=self.plus) if verb == "q" else text)
        if verb == "U":
            number = value if value >= 0 else value + (1 << 64)
            text = b"U+%0*X" % (max(self.precision or 0, 4), number)
            if self.sharp and number <= 0x10FFFF and chr(number).isprintable() and not 0xD800 <= number < 0xE000:
                text += f" '{chr(number)}'".encode()
            return self.pad(text, zeros=False)
        return self.bad(value, verb)

    def digits(self, value: int, verb: str) -> bytes:
        base = _BASES[verb]
        sharp = self.sharp
        if self.syntax and verb == "v" and isinstance(value, Unsigned):
            base, sharp = "x", True
        least = 0
        if self.precision is not None:
            least = self.precision
            if least == 0 and value == 0:
                return b" " * (self.width or 0)
        elif self.zero and not self.minus and self.width is not None:
            least = self.width - (value < 0 or self.plus or self.space)
        text = format(abs(int(value)), base).rjust(least, "0")
        if sharp and base == "o" and text[0] != "0":
            text = "0" + text
        elif sharp and base in "bxX":
            text = "0" + base + text
        if verb == "O":
            text = "0o" + text
        sign = "-" if value < 0 else "+" if self.plus else " " if self.space else ""
        return self.pad((sign + text).encode(), zeros=False)

    def floating(self, value: float, verb: str) -> bytes:
        if verb not in "vgGfFeE":
            if verb in "bxX":
                raise ExecutionError(f"%{verb} of a float is not supported")
            return self.bad(value, verb)
        text = self.unsigned_digits(value, verb)
        sign = "-" if str(value)[0] == "-" else "+"
        if isnan(value) or isinf(value):
            shown = sign if self.plus or (sign == "-") else " " if self.space else ""
            if isinf(value) and not shown:
                shown = ""
            return self.pad((shown + text).encode(), zeros=False)
        if self.sharp:
            text = _with_point(text, verb, self.precision)
        if self.space and sign == "+" and not self.plus:
            sign = " "
        if self.plus or sign != "+":
            if self.zero and not self.minus and self.width is not None and self.width > len(text) + 1:
                return (sign + text.rjust(self.width - 1, "0")).encode()
            return self.pad((sign + text).encode())
        return self.pad(text.encode())

    def unsigned_digits(self, value: float, verb: str) -> str:
        if isnan(value) or isinf(value):
            return "NaN" if isnan(value) else "Inf"
        value = abs(value)
        if verb in "fF":
            return f"{value:.{6 if self.precision is None else self.precision}f}"
        if verb in "eE":
            return f"{value:.{6 if self.precision is None else self.precision}{verb}}"
        if self.precision is None:
            text = shortest(value).decode()
            return text.upper() if verb == "G" else text
        return f"{value:.{self.precision}{'G' if verb == 'G' else 'g'}}"


def _with_point(text: str, verb: str, precision: int | None) -> str:
    """The # flag: a decimal point, and the zeros that %g drops."""
    digits = 0
    if verb in "vgG":
        digits = 6 if precision is None else precision
    mantissa, e, exponent = text.partition("e") if "e" in text else text.partition("E")
    significant = mantissa.replace(".", "").lstrip("0")
    digits -= len(significant)
    if "." not in mantissa:
        if mantissa == "0":
            digits -= 1
        mantissa += "."
    return mantissa + "0" * max(0, digits) + e + exponent
