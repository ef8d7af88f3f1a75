r"""Reads the corpora of hostile requests and responses: text files a person can read and extend.

A case is a block; the first word of a line says what the rest is:

    == name          unique within its file
    why  ...         where the verdict comes from
    in   BYTES       what the attacker sends; several lines are joined
    is   VERDICT     what must come of it; several lines are several outcomes, in order
    out  BYTES       after `is forward`, `begun` or `abort`: the head the other side gets, exactly
    body BYTES       after `out`: the body it gets, decoded
    with BYTES       after `out`: a trailer line it gets
    but  NAME HOW    after `out`: a server of the differential test reads it otherwise on
                     purpose: `refuses STATUS`, `says nothing`, `reads no further` (takes the rest for another
                     protocol), `capitalises` the method
    ask HOW          responses: what the client asks, GET if nothing is said; HEAD; upgrade (to x)
    end yes          responses: the app ends the connection after its bytes

BYTES have escapes (\r \n \t \0 \\ \xNN) and repeats ({x*500}); a line end of the file is not part of them.

Verdicts on requests: `forward` once, unambiguously; `close` the connection ends after the answer before it, whatever
else was sent; `reject STATUS TEXT` an answer, the end of the connection, and nothing at the app; `abort TEXT` the head
was forwarded, its body breaks: 502, the app's connection ends; `begun` the same but the rest may still come; `local
STATUS` answered without the app; `wait` incomplete, nothing happens.

Verdicts on responses: `forward kept` or `forward dropped`: whole, and what became of the connection to the app;
`bad` 502; `cut` begun, and ended so that it never looks whole. The Date that we add is written `Date: D`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|([rnt0\\]))")
_REPEAT = re.compile(rb"\{(.+?)\*([0-9]+)\}")
_PLAIN = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\"}


@dataclass(slots=True)
class Outcome:
    """kind and text are the words of `is`; the others what the other side gets, if anything."""

    kind: str
    text: str = ""
    out: bytes = b""
    body: bytes = b""
    trailers: list[bytes] = field(default_factory=list)
    but: dict[str, str] = field(default_factory=dict, compare=False)


@dataclass(slots=True)
class Case:
    name: str
    why: str = ""
    data: bytes = b""
    outcomes: list[Outcome] = field(default_factory=list)
    settings: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Case {self.name}>"

    @property
    def large(self) -> bool:
        """Too large to be cut at every byte."""
        return len(self.data) > 1000


def unescaped(text: str) -> bytes:
    def one(match: re.Match[bytes]) -> bytes:
        return bytes.fromhex(match[1].decode()) if match[1] else _PLAIN[match[2]]

    def many(match: re.Match[bytes]) -> bytes:
        return _ESCAPE.sub(one, match[1]) * int(match[2])

    raw = text.encode()
    pieces = []
    at = 0
    for match in _REPEAT.finditer(raw):
        pieces += (_ESCAPE.sub(one, raw[at : match.start()]), many(match))
        at = match.end()
    pieces.append(_ESCAPE.sub(one, raw[at:]))
    return b"".join(pieces)


@cache
def corpus(kind: str) -> tuple[Case, ...]:
    """Every case of `requests` or `responses`; names are prefixed with their file's."""
    found: dict[str, Case] = {}
    for path in sorted((HERE / kind).glob("*.txt")):
        for case in _cases(path):
            assert case.name not in found, f"{case.name} is there twice"
            assert case.why and case.data and case.outcomes, f"{case.name} is incomplete"
            found[case.name] = case
    return tuple(found.values())


def _cases(path: Path) -> list[Case]:
    cases: list[Case] = []
    for number, line in enumerate(path.read_text().split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        rest = rest.lstrip(" ")
        if word == "==":
            cases.append(Case(f"{path.stem}: {rest}"))
            continue
        case = cases[-1]
        if word == "why":
            case.why = rest
        elif word == "in":
            case.data += unescaped(rest)
        elif word == "is":
            kind, _, text = rest.partition(" ")
            case.outcomes.append(Outcome(kind, text))
        elif word == "out":
            case.outcomes[-1].out += unescaped(rest)
        elif word == "body":
            case.outcomes[-1].body += unescaped(rest)
        elif word == "with":
            case.outcomes[-1].trailers.append(unescaped(rest))
        elif word == "but":
            who, _, why = rest.partition(" ")
            case.outcomes[-1].but[who] = why
        else:
            assert word in ("ask", "end"), f"{path.name}:{number}: {word}?"
            case.settings[word] = rest
    return cases
