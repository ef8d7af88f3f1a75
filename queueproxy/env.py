"""Decodes single environment variables by Go's rules and collects everything that is wrong with them.

Knative's controller writes the environment for a Go program, so the accepted spellings and the error lines are Go's:
`strconv.ParseInt` with base 0, `strconv.ParseBool`, and envconfig's sentence around their complaint (QP-022, QP-010).
Operators grep for those lines. One difference: Go stops at the first error, we report all of them at once.

`Environment` reads from a mapping that somebody else took from the process. Each reader returns a usable value even
after an error, so that reading goes on, and `finish()` raises one `ConfigError` with every line in reading order.
Present but empty satisfies `required` for text and fails for numbers and booleans, as it does upstream.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["ConfigError", "Environment", "field_name", "parse_bool", "parse_float", "parse_int", "parse_port", "quoted"]

_T = TypeVar("_T")
_INT64_MAX = (1 << 63) - 1
_UINT64_MAX = (1 << 64) - 1
_BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)
_BASES = {"b": 2, "o": 8, "x": 16}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Words that Go writes in capitals inside field names: EnableHTTP2AutoDetection, QueueServingTLSPort.
_INITIALISMS = frozenset({"HTTP", "HTTP2", "TLS", "IP", "CA"})


class ConfigError(Exception):
    """The configuration cannot be used. `lines` says why, one printable sentence each."""

    def __init__(self, lines: tuple[str, ...]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def parse_int(text: str) -> int:
    """Go's `strconv.ParseInt(text, 0, 64)`; ValueError carries Go's words."""
    negative = text[:1] == "-"
    digits = text[1:] if text[:1] in ("+", "-") else text
    number, prefixed = 0, False
    base = 10
    if digits[:1] == "0":
        prefixed = len(digits) >= 2 and digits[1].lower() in _BASES
        # A lone prefix ("0x") is octal zero followed by a bad digit, hence the length.
        base = _BASES[digits[1].lower()] if prefixed and len(digits) >= 3 else 8
    body = digits[2:] if prefixed and len(digits) >= 3 else digits
    if not body:
        raise ValueError(_complaint("ParseInt", text, "invalid syntax"))
    for letter in body:
        if letter == "_":
            continue
        digit = _DIGITS.find(letter.lower()) if letter.isascii() else -1
        if not 0 <= digit < base:
            raise ValueError(_complaint("ParseInt", text, "invalid syntax"))
        number = number * base + digit
        if number > _UINT64_MAX:  # Go gives up here, before it has seen the rest
            raise ValueError(_complaint("ParseInt", text, "value out of range"))
    if "_" in body and (body[-1] == "_" or "__" in body or (body[0] == "_" and not prefixed)):
        raise ValueError(_complaint("ParseInt", text, "invalid syntax"))
    if number > _INT64_MAX + negative:
        raise ValueError(_complaint("ParseInt", text, "value out of range"))
    return -number if negative else number


def parse_bool(text: str) -> bool:
    """Go's `strconv.ParseBool`: these twelve spellings and nothing else, not even `yes`."""
    value = _BOOLEANS.get(text)
    if value is None:
        raise ValueError(_complaint("ParseBool", text, "invalid syntax"))
    return value


def parse_float(text: str) -> float:
    """A decimal fraction, as `strconv.ParseFloat` reads the sample rates people write (no hexadecimal floats)."""
    if text == text.strip() and text.isascii() and "_" not in text:
        try:
            return float(text)
        except ValueError:
            pass
    raise ValueError(_complaint("ParseFloat", text, "invalid syntax"))


def parse_port(text: str) -> int:
    """A TCP port. Upstream keeps ports as text and fails when it binds; we say so at once."""
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    raise ValueError(f"{quoted(text)} is not a port number between 1 and 65535")


def field_name(variable: str) -> str:
    """The Go field behind a variable: `CONTAINER_CONCURRENCY` -> `ContainerConcurrency`."""
    return "".join(word if word in _INITIALISMS else word.capitalize() for word in variable.split("_"))


def quoted(text: str) -> str:
    """Go's `strconv.Quote`, so that a stray tab or byte is visible in the error line."""
    out = []
    for letter in text:
        code = ord(letter)
        if letter in '"\\':
            out.append("\\" + letter)
        elif letter.isprintable():
            out.append(letter)
        elif letter in _ESCAPES:
            out.append(_ESCAPES[letter])
        elif 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as os.environ keeps it
            out.append(f"\\x{code - 0xDC00:02x}")
        elif code < 0x20 or code == 0x7F:
            out.append(f"\\x{code:02x}")
        else:
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def _complaint(function: str, text: str, reason: str) -> str:
    return f"strconv.{function}: parsing {quoted(text)}: {reason}"


class Environment:
    """One mapping of variables, and the list of what was wrong with those that were read."""

    __slots__ = ("_values", "wrong")

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.wrong: list[str] = []

    def __repr__(self) -> str:
        return f"<Environment {len(self._values)} variables, {len(self.wrong)} wrong>"

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, *, required: bool = False, default: str = "") -> str:
        value = self._values.get(name)
        if value is None:
            if required:
                self.wrong.append(f"required key {name} missing value")
            return default
        return value

    def integer(self, name: str, *, required: bool = False, default: int = 0) -> int:
        return self._converted(name, "int", parse_int, required, default)

    def boolean(self, name: str, *, required: bool = False, default: bool = False) -> bool:
        return self._converted(name, "bool", parse_bool, required, default)

    def fraction(self, name: str, *, required: bool = False, default: float = 0.0) -> float:
        return self._converted(name, "float64", parse_float, required, default)

    def port(self, name: str, *, required: bool = False, default: int = 0) -> int:
        return self._converted(name, "port", parse_port, required, default)

    def finish(self) -> None:
        """Raises when anything read so far was wrong."""
        if self.wrong:
            raise ConfigError(tuple(self.wrong))

    def _converted(self, name: str, kind: str, parse: Callable[[str], _T], required: bool, default: _T) -> _T:
        value = self._values.get(name)
        if value is None:
            if required:
                self.wrong.append(f"required key {name} missing value")
            return default
        try:
            return parse(value)
        except ValueError as error:
            self.wrong.append(
                f"envconfig.Process: assigning {name} to {field_name(name)}: "
                f"converting '{value}' to type {kind}. details: {error}"
            )
            return default
