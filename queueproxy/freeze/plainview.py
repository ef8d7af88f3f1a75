"""Decodes the answer to a wish the short way, where it has the shape that our own freezer gives it.

Theory of operation. A request that woke the app waits while the sidecar reads this answer, and the policy, which is
most of it, is the same as in the answer before. So the fixed fields are read by one expression, and a policy is read
once for each text, by the reader in `wire.py`, which is also asked about everything that looks any other way. What is
accepted, what it means and what is refused are that reader's; this one takes 20,000 instructions instead of 75,000.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from queueproxy.freeze import wire
from queueproxy.freeze.annotations import PodPolicy
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import RUNG_WORDS, View, WireError

__all__ = ["decode_view"]

_PLAIN: Final = re.compile(
    rb'{"state":"(running|throttled|frozen)","generation":(0|[1-9][0-9]{0,14}),"mechanism":"([a-z0-9]{0,20})",'
    rb'"took_us":(0|[1-9][0-9]{0,14}),"lease_s":(0|[1-9][0-9]{0,6})(\.[0-9]{1,20})?(?:,"policy":({.*}))?}'
)
_RUNGS: Final[dict[bytes, Rung]] = {word.encode(): rung for rung, word in RUNG_WORDS.items()}


def decode_view(body: bytes) -> View:
    """As `wire.decode_view`; raises WireError."""
    plain = _PLAIN.fullmatch(body)
    if plain is None:
        return wire.decode_view(body)
    state, generation, mechanism, took, lease, part, text = plain.groups()
    try:
        policy = None if text is None else _policy(text)
    except WireError:
        return wire.decode_view(body)
    seconds = float(lease + part) if part is not None else float(lease)
    return View(_RUNGS[state], int(generation), mechanism.decode(), int(took), None, seconds, policy)


@lru_cache(maxsize=4)  # a sidecar hears of one pod
def _policy(text: bytes) -> PodPolicy | None:
    # A text that is more than one value makes a key twice or an object cut short, and is refused here as well.
    return wire.decode_view(b'{"state":"running","generation":0,"policy":%b}' % text).policy
