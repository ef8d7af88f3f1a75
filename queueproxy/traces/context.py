"""Decides which requests are traced and under which name: W3C trace context and samplers (contract 5.5).

Theory of operation. A request either continues the trace its `traceparent` names or begins one. Whether it is recorded
is the sampler's word: the caller's decision where it is parent-based and there is a caller, else a fixed fraction of
trace ids, the same ids in every process (the id's lower 63 significant bits against a bound, as Go's and Python's SDK
do it). Recorded or not, the app is told the trace and our span, so that its own spans find their parent.

Ids stay what they are on the wire, hexadecimal bytes: equal lengths compare as numbers do, and nothing has to be
converted for a request that is not recorded. No SDK is involved (design D3).
"""

from __future__ import annotations

from typing import Final, NamedTuple

TRACE: Final = 32  # digits
SPAN: Final = 16
_LENGTH: Final = 55  # 00-<32>-<16>-<2>
_DIGITS: Final = b"0123456789abcdef"
_ODD: Final = frozenset(b"13579bdf")  # last digits of flags with the lowest bit, "sampled"
_NO_TRACE: Final = b"0" * TRACE
_NO_SPAN: Final = b"0" * SPAN


class Parent(NamedTuple):
    """What a valid traceparent says; ids as they came."""

    trace: bytes
    span: bytes
    sampled: bool


def parse(value: bytes) -> Parent | None:
    """A `traceparent` field; None for one that is not valid (W3C Trace Context 3.2.2): it counts for nothing."""
    if len(value) < _LENGTH or value[2] != 45 or value[35] != 45 or value[52] != 45:
        return None
    # What is left without the digits are the three dashes.
    if value[:_LENGTH].translate(None, _DIGITS) != b"---":
        return None
    version = value[:2]
    if version != b"00":
        # A later version may carry more after a dash; 255 is forbidden.
        if version == b"ff" or (len(value) > _LENGTH and value[_LENGTH] != 45):
            return None
    elif len(value) != _LENGTH:
        return None
    trace, span = value[3:35], value[36:52]
    if trace == _NO_TRACE or span == _NO_SPAN:
        return None
    return Parent(trace, span, value[54] in _ODD)


class Sampler:
    """ratio of the traces that begin here; parent_based: a caller's decision is ours.

    bound: a trace that begins here is kept when the lower half of its id is below.
    """

    __slots__ = ("bound", "parent_based", "ratio")

    def __init__(self, ratio: float, *, parent_based: bool) -> None:
        self.ratio = min(1.0, max(0.0, ratio))
        self.parent_based = parent_based
        below = int(self.ratio * (1 << 63)) << 1
        self.bound = b"g" if below >> 64 else b"%016x" % below  # "g" is above every digit

    def __repr__(self) -> str:
        return f"<Sampler {self.ratio:g}{' parent-based' if self.parent_based else ''}>"

    def samples(self, trace: bytes, parent: Parent | None) -> bool:
        """parent: None where the trace begins."""
        if parent is not None and self.parent_based:
            return parent.sampled
        return trace[SPAN:] < self.bound


def retitle(lines: list[bytes], received: bytes | None, value: bytes) -> None:
    """Writes our traceparent into header lines (flat groups name, ": ", value, CRLF) in place of those received."""
    if received is None:
        lines += (b"traceparent", b": ", value, b"\r\n")
        return
    # A search in C for what the parser put there; it is gone when a Connection header named it.
    at = lines.index(received) - 2 if received in lines else -1
    if at < 0 or lines[at].lower() != b"traceparent" or lines.count(lines[at]) > 1:
        places = [i for i in range(0, len(lines), 4) if lines[i].lower() == b"traceparent"]
        for i in reversed(places[1:]):
            del lines[i : i + 4]  # more than one is none to the next hop (W3C Trace Context 3.2.2)
        if not places:
            lines += (b"traceparent", b": ", value, b"\r\n")
            return
        at = places[0]
    lines[at + 2] = value
