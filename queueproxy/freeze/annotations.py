"""Decodes the annotations `queueproxy.dev/...` of a pod into its sleep policy; no value in them can stop a pod.

Theory of operation
-------------------
Annotations are written by people and nobody validates them, so each one stands alone: a value that makes no sense
leaves the default in place and costs one warning that names the annotation, the value and what would have been
understood (FZ-110). The defaults come from the caller: the freezer's configuration on a node, `DEFAULTS` in a sidecar
that speaks to a daemon of old. Annotations with our prefix that nobody knows are mentioned, because they are typing
mistakes; all others are somebody else's.

Two readers share this: the freezer, which sees the pod, and the sidecar, which may have the annotations mounted.
`parse_podinfo` decodes the latter's file: one `key="value"` per line, the value quoted as Go quotes strings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

from queueproxy.freeze.deepcheck import SHORTEST

__all__ = ["DEFAULTS", "PREFIX", "Liveness", "Mode", "PodPolicy", "parse", "parse_duration", "parse_podinfo"]

PREFIX: Final = "queueproxy.dev/"
_SHOWN: Final = 60  # characters of a wrong value that a warning repeats


class Mode(IntEnum):
    """How far the pod may be put to sleep. Greater is deeper; OFF and SHADOW never touch it."""

    OFF = 0
    SHADOW = 1
    THROTTLE = 2
    FREEZE = 3


class Liveness(IntEnum):
    """How a sleeping app's liveness is answered for (design D9)."""

    KNOCK = 0
    SHIELD = 1
    THROTTLE = 2


class PodPolicy(NamedTuple):
    """What one pod's owner and the node's operator agreed on. Times are seconds; None leaves the rung out."""

    mode: Mode
    freeze_after_s: float | None
    throttle_after_s: float | None
    min_uptime_s: float
    liveness: Liveness
    containers: tuple[str, ...]  # which ones sleep; () is every container of the revision
    reason: str  # why the mode is less than was asked for; empty otherwise
    deep_check_s: float | None = None  # wake a sleeping app so often for a real probe (FZ-043)
    server_timing: bool = False  # answers say how long their request waited for the thaw (FZ-101)


# Of a pod that says nothing, on a node that says nothing: grace FZ-020, uptime FZ-011.
DEFAULTS: Final = PodPolicy(Mode.FREEZE, 2.0, None, 10.0, Liveness.KNOCK, (), "")

_MODES: Final = {"on": Mode.FREEZE, "off": Mode.OFF, "shadow": Mode.SHADOW, "throttle": Mode.THROTTLE}
_SWITCH: Final = {"on": True, "off": False}
_LIVENESS: Final = {"knock": Liveness.KNOCK, "shield": Liveness.SHIELD, "throttle": Liveness.THROTTLE}
_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PIECE: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)  # both of Go's mu
_LONGEST: Final = (1 << 63) / 1e9  # Go counts nanoseconds in 64 bits
_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)  # a container's name (RFC 1123)
_MOST_CONTAINERS: Final = 64


def parse_duration(text: str) -> float:
    """Seconds of a Go duration ("1m30s", "250ms", "0"), never negative. ValueError says what is understood."""
    if text == "0":
        return 0.0
    seconds, at = 0.0, 0
    while at < len(text) and (piece := _PIECE.match(text, at)) is not None:
        seconds += float(piece[1]) * _UNITS[piece[2]]
        at = piece.end()
    if not text or at < len(text) or seconds >= _LONGEST:
        raise ValueError('a duration like "1s", "250ms" or "1m30s"')
    return seconds


def parse(annotations: Mapping[str, str], defaults: PodPolicy) -> tuple[PodPolicy, list[str]]:
    """The pod's policy over `defaults`, and one warning for each value that was not understood."""
    policy, warnings = defaults, []
    for key in sorted(annotations):
        if not key.startswith(PREFIX):
            continue
        name, value = key[len(PREFIX) :], annotations[key]
        reader = _READERS.get(name)
        if name in _ELSEWHERE:
            continue
        if reader is None:
            if name not in _LATER:
                warnings.append(f"annotation {key} is not known; ignored")
            elif value.strip() != "off":
                warnings.append(f'annotation {key}: only "off" is understood by this version; ignored')
            continue
        field, read = reader
        try:
            policy = policy._replace(**{field: read(value.strip())})
        except ValueError as error:
            warnings.append(f"annotation {key}: {_shown(value)} is not {error}; using {_default(defaults, field)}")
    if policy.liveness is Liveness.SHIELD and defaults.liveness is not Liveness.SHIELD:
        warnings.append(f'annotation {PREFIX}liveness: "shield" is treated as "knock" by this version')
    return policy, warnings


def parse_podinfo(text: str) -> dict[str, str]:
    """The downward API's file of annotations. A line that cannot be read is left out: the others still count."""
    annotations = {}
    for line in text.split("\n"):
        key, separator, quoted = line.partition("=")
        if separator and len(quoted) >= 2 and quoted[0] == quoted[-1] == '"':
            value = _unquoted(quoted[1:-1])
            if value is not None:
                annotations[key] = value
    return annotations


def _one_of(words: Mapping[str, IntEnum | bool]) -> Callable[[str], Any]:
    def read(text: str) -> IntEnum | bool:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return words[text]

    return read


def _delay(text: str) -> float | None:
    try:
        return None if text == "off" else parse_duration(text)
    except ValueError as error:
        raise ValueError(f'{error}, or "off"') from None


def _period(text: str) -> float | None:
    try:
        seconds = None if text == "off" else parse_duration(text)
    except ValueError as error:
        raise ValueError(f'{error}, or "off"') from None
    if seconds is not None and seconds < SHORTEST:
        raise ValueError(f'a duration of {SHORTEST:g}s or more, or "off"')
    return seconds


def _containers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or len(names) > _MOST_CONTAINERS or not all(_LABEL.fullmatch(name) for name in names):
        raise ValueError("a list of container names")
    return names


# Annotation, field it sets, how its value is read.
_READERS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "freeze": ("mode", _one_of(_MODES)),
    "freeze-after": ("freeze_after_s", _delay),
    "throttle-after": ("throttle_after_s", _delay),
    "min-uptime": ("min_uptime_s", parse_duration),
    "liveness": ("liveness", _one_of(_LIVENESS)),
    "containers": ("containers", _containers),
    "deep-check": ("deep_check_s", _period),
    "server-timing": ("server_timing", _one_of(_SWITCH)),
}
_ELSEWHERE: Final = frozenset({"freezer"})  # an address: freeze/address.py
_LATER: Final = frozenset({"reclaim-after", "heartbeat"})  # known rungs that are not built yet


def _default(defaults: PodPolicy, field: str) -> str:
    value = getattr(defaults, field)
    if value is None or value is False:
        return "off"
    if value is True:
        return "on"
    if isinstance(value, IntEnum):
        words: Mapping[str, IntEnum] = _MODES if isinstance(value, Mode) else _LIVENESS
        return next(word for word, meant in words.items() if meant is value)
    if isinstance(value, tuple):
        return ", ".join(value) or "all containers"
    return f"{value:g}s"


def _shown(value: str) -> str:
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")


_ESCAPE: Final = re.compile(
    r"""\\(?:([abfnrtv\\'"])|([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"""
)
_SIMPLE: Final = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", "'": "'", '"': '"',
}  # fmt: skip


def _unquoted(text: str) -> str | None:
    """The inside of a Go string literal (strconv.Quote); None when it is none."""
    out: list[str] = []
    at = 0
    while at < len(text):
        letter = text[at]
        if letter == '"':
            return None
        if letter != "\\":
            out.append(letter)
            at += 1
            continue
        escape = _ESCAPE.match(text, at)
        if escape is None:
            return None
        simple, octal, byte, short, long = escape.groups()
        if simple is not None:
            out.append(_SIMPLE[simple])
        else:
            code = int(octal, 8) if octal else int(byte or short or long, 16)
            if code > 0x10FFFF:
                return None
            # A byte that was no UTF-8: kept as Python keeps such bytes.
            out.append(chr(code if short or long or code < 0x80 else 0xDC00 + (code & 0xFF)))
        at = escape.end()
    return "".join(out)
