"""Holds the language between the session with a freezer and its door: phases, effects, and how patient to be.

Events are past participles and live on `Session` as methods; effects live here. Import all of it from `session.py`.
"""

from enum import Enum, IntEnum
from typing import Final, NamedTuple

from queueproxy.freeze.annotations import PodPolicy
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import OldAction, StateRequest

__all__ = [
    "DIAL", "GET", "HANG_UP", "QUIET",
    "Down", "Effect", "Effects", "Fault", "Found", "Out", "Patience", "Phase", "Say", "Signal", "Terms", "Told", "Up",
    "Woken",
]  # fmt: skip


class Phase(IntEnum):
    """Where the session stands."""

    CLOSED = 0  # not begun, or over
    AWAY = 1  # no connection; the next dial has its time
    DIALLING = 2  # the handshake is out
    GREETING = 3  # connected; the first answer on this connection is awaited
    READY = 4  # the freezer has answered on this connection


class Patience(NamedTuple):
    """Seconds (FZ-063). `attempt` is for one exchange, `total` for an ask with its repetitions."""

    connect: float = 0.1
    attempt: float = 0.3
    old_attempt: float = 1.0  # the daemon of old asks the API server and the runtime each time
    total: float = 1.0
    terminate: float = 2.0  # FZ-051
    lease: float = 30.0  # FZ-090
    backoff: float = 0.05  # after the first failure; doubles
    backoff_cap: float = 30.0  # while the app runs: one lease
    urgent_cap: float = 1.0  # while the app sleeps, or somebody waits


class Fault(Enum):
    """What goes wrong with a freezer, as a label of a metric."""

    CONNECT = "connect"
    TIMEOUT = "timeout"
    CLOSED = "closed"
    GARBAGE = "garbage"
    REFUSED = "refused"


class Signal(Enum):
    """Effects without arguments, and the one thing to say that has none."""

    DIAL = "dial"
    HANG_UP = "hang up"
    GET = "get"


DIAL: Final = Signal.DIAL  # read the token again if it changed, and connect; answered by `connected` or `lost`
HANG_UP: Final = Signal.HANG_UP  # close the connection; nothing is to be heard of it any more
GET: Final = Signal.GET


class Say(NamedTuple):
    """Send this on the connection, behind whatever is out."""

    what: StateRequest | OldAction | Signal


class Out(NamedTuple):
    """One exchange whose answer is awaited."""

    said: StateRequest | OldAction | Signal
    generation: int  # of the wish it was for; -1 for GET
    late_at: float
    ran: bool = False  # the app certainly ran when it was said


class Told(NamedTuple):
    """The answer to an ask; None: it failed."""

    generation: int
    rung: Rung | None
    detail: str


class Found(NamedTuple):
    """The freezer holds the app at this rung under a generation that is not ours: adopt it (FZ-068)."""

    generation: int
    rung: Rung


class Woken(NamedTuple):
    """The app runs although nobody here asked for it: an operator, a stop signal, an expired lease, harm."""

    why: str


class Terms(NamedTuple):
    """The pod's policy, as the freezer sees it now."""

    policy: PodPolicy


class Up(NamedTuple):
    """A freezer is there; sleep may be asked for."""

    mechanism: str


class Down(NamedTuple):
    """No freezer is to be had: fail open (D13). Said once per outage."""

    reason: str


Effect = Say | Told | Found | Woken | Terms | Up | Down | Signal
Effects = tuple[Effect, ...]
QUIET: Final[Effects] = ()
