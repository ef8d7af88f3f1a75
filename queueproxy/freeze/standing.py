"""Decides nothing: says where an idle policy stands, in words for people and as invariants that must hold.

`words` is for status pages and log lines, never for the request path. `check` runs between two events wherever
`__debug__` does, in every test and in the simulator above all.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from queueproxy.freeze.vocabulary import Rung, State

if TYPE_CHECKING:
    from queueproxy.freeze.hold import Hold
    from queueproxy.freeze.ladder import Ladder
    from queueproxy.freeze.lookout import Lookout
    from queueproxy.freeze.wish import Wish

__all__ = ["Standing", "check", "words"]

# By names of our own: in Python 3.11 an attribute of an enum costs 900 instructions.
_DISABLED, _AWAKE, _GRACE, _THROTTLED, _FROZEN, _WAKING, _TERMINATING = State
_ASLEEP = frozenset({_THROTTLED, _FROZEN})
_MAY_LOOK, _RUNNING = (_GRACE, _THROTTLED), Rung.RUNNING


class Standing:
    """What an operator, a probe and a status page ask of an idle policy: its read-only side."""

    __slots__ = ()

    busy: int
    half_read: int
    is_open: bool
    shadow: bool
    state: State
    _hold: Hold
    _idle_at: float
    _ladder: Ladder
    _lookout: Lookout
    _off: str
    _wish: Wish

    @property
    def asleep(self) -> bool:
        """Probes are answered from the last real result. Never in shadow mode."""
        return not self.is_open

    @property
    def off(self) -> str:
        """Why there is no freezing at all; empty when there is."""
        return self._off if self._ladder.rungs else "freezing is off"

    @property
    def generation(self) -> int:
        """Of the newest wish."""
        return self._wish.generation

    @property
    def why(self) -> str:
        """The reason of the newest wish."""
        return self._wish.why

    @property
    def settled(self) -> bool:
        """The newest wish is confirmed."""
        return self._wish.settled

    @property
    def stuck(self) -> bool:
        """The app cannot be woken: readiness fails (FZ-046)."""
        return self._wish.stuck

    @property
    def grace(self) -> float | None:
        """Seconds of idleness before the first rung, as it stands now; None without rungs."""
        return self._ladder.grace(self._idle_at) if self._ladder.rungs else None

    def reason(self, now: float) -> str:
        """Why the app is awake, or asleep, in words for a status page."""
        said = words(self, now)
        return f"shadow: {said}" if self.shadow else said

    def _idle_since(self) -> float:
        """The idle period's beginning. Idleness before the app was armed does not count (FZ-013)."""
        return max(self._idle_at, self._hold.armed_at)


def words(policy: Standing, now: float) -> str:
    """Why the app is awake, or asleep."""
    if policy.state is _DISABLED:
        return policy.off
    if policy.state is not _AWAKE and policy.state is not _GRACE:
        wish = policy._wish
        return wish.why + (f", cannot thaw after {wish.attempts} attempts" if wish.stuck else "")
    if policy.busy:
        return f"busy: {policy.busy} request{'s' if policy.busy > 1 else ''}"
    if policy.half_read:
        return f"busy: {policy.half_read} half-read request{'s' if policy.half_read > 1 else ''}"
    if policy._lookout.obstacle:
        return f"idle, but {policy._lookout.obstacle}"
    since = policy._idle_since()
    return policy._hold.words(now) or f"idle for {now - since:.2g} of {policy._ladder.grace(since):.3g} s"


def check(policy: Standing) -> None:
    """What must hold between two events, whatever happened."""
    state, wish = policy.state, policy._wish
    running = wish.rung is _RUNNING
    idle = not policy.busy and not policy.half_read
    assert policy.busy >= 0 and policy.half_read >= 0, policy
    assert idle or (running and state is not _GRACE), f"busy, yet not kept running: {policy!r}"
    assert running == (state not in _ASLEEP), f"state and wish differ: {policy!r}"
    assert wish.settled or state in _ASLEEP or state in (_WAKING, _TERMINATING), f"unsettled: {policy!r}"
    assert not (wish.settled and state is _WAKING), f"waking, but for what? {policy!r}"
    assert policy.is_open == (policy.shadow or (running and wish.settled)), f"the gate is wrong: {policy!r}"
    assert wish.settled == (wish.until == inf), f"would wait for ever, or for nothing: {policy!r}"
    assert not wish.stuck or (running and not wish.settled), f"stuck without reason: {policy!r}"
    assert state is not _GRACE or (not policy.off and policy._hold.until < inf), f"may not sleep: {policy!r}"
    assert not policy._lookout.number or state in _MAY_LOOK, f"a look without use: {policy!r}"
