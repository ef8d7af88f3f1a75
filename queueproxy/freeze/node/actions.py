"""Holds the language between the ledger and the freezer around it: phases with their edges, verdicts and actions.

Events are past participles and live on `Ledger` as methods; actions are imperatives and live here. They are carried
out in order. For one pod a `Move` always comes last, so `reached` may be called before carrying it out returns.
"""

from dataclasses import dataclass, fields
from enum import IntEnum, StrEnum
from math import inf
from typing import NamedTuple

from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import Problem, View

__all__ = [
    "TRANSITIONS",
    "Action",
    "Actions",
    "Answer",
    "Close",
    "Event",
    "Forget",
    "Kind",
    "LedgerSettings",
    "Move",
    "Phase",
    "Remember",
    "Reply",
    "Verdict",
]


class Phase(IntEnum):
    """Where one pod stands."""

    RUNNING = 0  # nothing of ours holds it
    SINKING = 1  # a move down is out
    ASLEEP = 2  # confirmed by the kernel, on a lease
    DUE = 3  # has to run again and waits for its turn among the safety thaws
    RISING = 4  # a thaw is out
    STUCK = 5  # a thaw failed and is going to be repeated


# A missing edge is an error. Sleep is left only through RISING; RUNNING -> ASLEEP is adoption.
TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.RUNNING: frozenset({Phase.SINKING, Phase.ASLEEP, Phase.RISING}),
    Phase.SINKING: frozenset({Phase.ASLEEP, Phase.RISING, Phase.RUNNING}),
    Phase.ASLEEP: frozenset({Phase.SINKING, Phase.DUE, Phase.RISING}),
    Phase.DUE: frozenset({Phase.ASLEEP, Phase.SINKING, Phase.RISING}),
    Phase.RISING: frozenset({Phase.RUNNING, Phase.SINKING, Phase.STUCK}),
    Phase.STUCK: frozenset({Phase.RISING}),
}


class Answer(IntEnum):
    """What becomes of a request."""

    ACCEPTED = 0  # a `Reply` with its number follows, once
    ANSWER = 1  # 200 with the view, now
    REFUSED = 2  # the problem, now


class Kind(StrEnum):
    """What an event says happened to a pod (FZ-104)."""

    ACTIVE = "active"
    IDLE = "idle"
    TERMINATING = "terminating"
    THROTTLED = "throttled"
    FROZEN = "frozen"
    THAWED = "thawed"
    ADOPTED = "adopted"
    EXPIRED = "expired"  # the lease is over; thawed follows
    FAILED = "failed"  # the kernel did not confirm
    HARMED = "harmed"


class Move(NamedTuple):
    """Move all containers of the pod; tell `reached` with this number. A newer move supersedes an older one."""

    uid: str
    rung: Rung
    number: int
    urgent: bool  # somebody waits for it; false: a safety thaw, paced


class Reply(NamedTuple):
    """Answer the request that got this number from `asked`. Nobody may be left to hear it."""

    uid: str
    number: int
    view: View
    problem: Problem | None = None
    detail: str = ""


class Remember(NamedTuple):
    """Write the pod's journal record: before a `Move` down, and again when something about it changed. If writing
    fails, do not carry out the `Move` that follows: tell `reached` that it failed."""

    uid: str


class Forget(NamedTuple):
    """Remove the pod's journal record."""

    uid: str


class Event(NamedTuple):
    """Tell whoever listens (FZ-104)."""

    uid: str
    kind: Kind
    generation: int
    reason: str


class Close(NamedTuple):
    """Let go of the pod's mover: its containers are not the pod's any more. The next `Move` needs a new one."""

    uid: str


Action = Move | Reply | Remember | Forget | Event | Close
Actions = tuple[Action, ...]


class Verdict(NamedTuple):
    """What `asked` decided. Note the number before carrying out the actions: the reply may be among them."""

    answer: Answer
    number: int  # of the request
    view: View | None
    problem: Problem | None = None
    detail: str = ""
    actions: Actions = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSettings:
    """All times are seconds."""

    lease_cap: float = 60.0
    """The longest a freeze holds without being renewed (FZ-090, T-09)."""

    lease_default: float = 30.0
    """What an adopted pod gets, once (FZ-092), and what a request gets that asks for no proper lease."""

    move_deadline: float = 2.5
    """A move without an answer has failed by now: a freeze has 0.2 s and its roll-back, like a thaw, 2 s (FZ-072)."""

    thaw_retry_after: float = 0.25
    """From a failed thaw to the next; doubles. Requests do not wait for it."""

    thaw_retry_cap: float = 5.0
    """The longest pause between thaws of a pod that cannot be thawed."""

    expiry_for: float = 0.8
    """How long a thaw may wait its turn when the lease is over, the pod is ending or its policy changed: a sleeper must
    run at most 1 s after its lease (FZ-090)."""

    calm_for: float = 8.0
    """The same when nobody is harmed by waiting: node drain and freezer stop, which have 10 s (FZ-093)."""

    pace: float = 50.0
    """Safety thaws per second (FZ-095)."""

    burst: int = 5
    """Safety thaws at once before the pace counts."""

    harm_for: float = 3600.0
    """How long a harmed revision is throttled instead of frozen (FZ-084)."""

    waiting_cap: int = 16
    """Requests of one pod that may wait for the same move."""

    def __post_init__(self) -> None:
        wrong = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if not 0 < getattr(self, field.name) < inf
        ]
        if wrong:
            raise ValueError(f"out of range: {', '.join(wrong)}")
