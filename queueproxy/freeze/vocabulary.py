"""Holds the language between the idle policy and its door: rungs, states with their edges, and effects.

Events are past participles and live on `IdlePolicy` as methods; effects are imperatives and live here. Import all
of it from `policy.py`, which says what each means in time.
"""

from enum import Enum, IntEnum
from typing import NamedTuple

__all__ = [
    "DROP_POOL", "HARMED", "NOTHING", "OPEN", "TRANSITIONS",
    "Ask", "Effect", "Effects", "Look", "Moved", "Refuse", "Rung", "Signal", "State",
]  # fmt: skip


class Rung(IntEnum):
    """How far from running the app is. Deeper is higher."""

    RUNNING = 0
    THROTTLED = 1
    FROZEN = 2


class State(IntEnum):
    """Where the policy stands."""

    DISABLED = 0  # always awake, with a reason: fail open
    AWAKE = 1  # running: busy, or not armed, or held (hysteresis, a failed freeze)
    GRACE = 2  # running and idle; a rung is going to be due
    THROTTLED = 3  # asked for; `settled` says whether confirmed
    FROZEN = 4  # asked for; `settled` says whether confirmed
    WAKING = 5  # the thaw is asked for and not confirmed
    TERMINATING = 6  # for ever awake; thaws first if need be


# A missing edge is an error. AWAKE and GRACE are left for sleep only through GRACE; sleep is left only through WAKING.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.DISABLED: frozenset({State.AWAKE, State.WAKING, State.TERMINATING}),
    State.AWAKE: frozenset({State.GRACE, State.DISABLED, State.WAKING, State.TERMINATING}),
    State.GRACE: frozenset(
        {State.AWAKE, State.THROTTLED, State.FROZEN, State.DISABLED, State.WAKING, State.TERMINATING}
    ),
    State.THROTTLED: frozenset({State.FROZEN, State.WAKING, State.TERMINATING}),
    State.FROZEN: frozenset({State.THROTTLED, State.WAKING, State.TERMINATING}),
    State.WAKING: frozenset({State.AWAKE, State.DISABLED, State.TERMINATING}),
    State.TERMINATING: frozenset(),
}


class Signal(Enum):
    """Effects without arguments."""

    OPEN = "open"
    DROP_POOL = "drop pool"


HARMED = "harmed: "  # how the reason of a wish begins when the first request after a thaw found no app (FZ-084)
OPEN = Signal.OPEN  # running is confirmed: release all waiters together (FZ-031)
DROP_POOL = Signal.DROP_POOL  # close the pooled upstream connections: their keep-alive is overdue after sleep (FZ-030)


class Ask(NamedTuple):
    """Ask the mechanism for `rung`; the answer comes back through `confirmed` or `failed` with the same generation."""

    rung: Rung
    generation: int
    reason: str


class Look(NamedTuple):
    """Before sleeping, look for a reason not to; answer through `looked` with the same number."""

    number: int
    backlog: bool  # look for connections waiting at the app's listener, and readable upstream sockets (FZ-028)
    cpu_above: float | None  # report CPU use above this fraction of a core; None: CPU does not matter (FZ-027)


class Refuse(NamedTuple):
    """The app cannot be woken: fail all waiters with 503. `stuck` is set, so readiness must fail (FZ-046, FZ-067)."""

    detail: str


class Moved(NamedTuple):
    """The state changed: count it, log it once (FZ-102)."""

    origin: State
    to: State
    reason: str


Effect = Ask | Look | Refuse | Moved | Signal
Effects = tuple[Effect, ...]
NOTHING: Effects = ()
