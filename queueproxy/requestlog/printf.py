"""Encodes with a format string as Go's fmt.Sprintf does: verbs, argument indexes, and what Go writes about mistakes."""

from __future__ import annotations

import re
from typing import Final

from queueproxy.requestlog.escape import runes
from queueproxy.requestlog.gofmt import Format
from queueproxy.requestlog.values import ExecutionError, Value, type_name

_LARGE: Final = 1_000_000  # Go's bound of width and precision
_FLAGS: Final = re.compile(rb"([#0+\- ]*)")


def sprintf(form: bytes, args: tuple[Value, ...]) -> bytes:
    """As fmt.Sprintf."""
    return _Printf(form, args).run()


class _Printf:
    """One format string being worked off. at: in the format; arg: the next argument."""

    def __init__(self, form: bytes, args: tuple[Value, ...]) -> None:
        self.form = form
        self.args = args
        self.at = 0
        self.arg = 0
        self.reordered = False
        self.good = True
        self.after_index = False

    def run(self) -> bytes:
        form, out = self.form, []
        while self.at < len(form):
            percent = form.find(b"%", self.at)
            if percent < 0:
                out.append(form[self.at :])
                break
            out.append(form[self.at : percent])
            self.at = percent + 1
            out.append(self.verb())
        if not self.reordered and self.arg < len(self.args):
            extra = [
                b"<nil>" if arg is None else type_name(arg).encode() + b"=" + Format().value(arg, "v", 0)
                for arg in self.args[self.arg :]
            ]
            out.append(b"%!(EXTRA " + b", ".join(extra) + b")")
        return b"".join(out)

    def verb(self) -> bytes:
        form, out = self.form, b""
        self.good = True
        flags = _FLAGS.match(form, self.at)
        assert flags is not None
        self.at = flags.end()
        one = Format(flags[1])
        self.after_index = False
        self.index()
        out += self.width(one)
        if self.at + 1 < len(form) and form[self.at] == 46:
            out += self.precision(one)
        if not self.after_index:
            self.index()
        if self.at >= len(form):
            return out + b"%!(NOVERB)"
        letter = runes(form[self.at : self.at + 4])[0]
        self.at += len(letter.encode("utf-8", "surrogateescape"))
        if 0xDC80 <= ord(letter) <= 0xDCFF:
            letter = "\ufffd"
        if letter == "%":
            return out + b"%"
        if not self.good:
            return out + b"%%!%b(BADINDEX)" % letter.encode()
        if self.arg >= len(self.args):
            return out + b"%%!%b(MISSING)" % letter.encode()
        value = self.args[self.arg]
        self.arg += 1
        if letter == "v":
            one.syntax, one.sharp = one.sharp, False
            one.names, one.plus = one.plus, False
        elif letter == "p":
            raise ExecutionError("an address cannot be printed")
        elif letter == "w":
            return out + (one.bad(value, letter) if value is not None else b"%!w(<nil>)")
        return out + one.value(value, letter, 0)

    def width(self, one: Format) -> bytes:
        form = self.form
        if self.at < len(form) and form[self.at] == 42:
            self.at += 1
            one.width = self.taken()
            if one.width is not None and one.width < 0:
                one.width, one.minus, one.zero = -one.width, True, False
            self.after_index = False
            return b"" if one.width is not None else b"%!(BADWIDTH)"
        one.width = self.number()
        if self.after_index and one.width is not None:
            self.good = False
        return b""

    def precision(self, one: Format) -> bytes:
        self.at += 1
        if self.after_index:
            self.good = False
        self.index()
        if self.at < len(self.form) and self.form[self.at] == 42:
            self.at += 1
            one.precision = self.taken()
            if one.precision is not None and one.precision < 0:
                one.precision = None
            self.after_index = False
            return b"" if one.precision is not None else b"%!(BADPREC)"
        one.precision = self.number() or 0
        return b""

    def number(self) -> int | None:
        """Digits here; None without any, and too many of them eat the rest of the format, as in Go."""
        start, form = self.at, self.form
        value = 0
        while self.at < len(form) and 48 <= form[self.at] <= 57:
            if value > _LARGE:
                self.at = len(form)
                return None
            value = value * 10 + form[self.at] - 48
            self.at += 1
        return value if self.at > start else None

    def taken(self) -> int | None:
        """An argument as a width or precision."""
        if self.arg >= len(self.args):
            return None
        value = self.args[self.arg]
        self.arg += 1
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGE:
            return None
        return int(value)

    def index(self) -> None:
        """`[n]`: which argument is next."""
        form = self.form
        if self.at >= len(form) or form[self.at] != 91:
            self.after_index = False
            return
        self.reordered = True
        end = form.find(b"]", self.at)
        if end < 0 or len(form) - self.at < 3:
            self.at += 1
            self.good = self.after_index = False
            return
        digits = form[self.at + 1 : end]
        self.at = end + 1
        if digits.isdigit() and int(digits) <= 10 * _LARGE:
            if 1 <= int(digits) <= len(self.args):
                self.arg = int(digits) - 1
            else:
                self.good = False
            self.after_index = True
        else:
            self.good = self.after_index = False
