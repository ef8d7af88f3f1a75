"""Holds what the idle policy may be told: every setting with its unit, default and the origin of the number."""

from dataclasses import dataclass, fields

__all__ = ["IdleSettings"]

_POSITIVE = frozenset({
    "flap_window", "look_deadline", "recheck_after", "quiesce_cpu",
    "freeze_deadline", "thaw_deadline", "thaw_backoff", "thaw_backoff_cap",
})  # fmt: skip
_COUNTS = {"flap_limit": 1, "thaw_retries": 0, "breaker_failures": 1}  # with the least that makes sense


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleSettings:
    """All times are seconds. A delay is measured from the moment the app fell idle."""

    freeze_after: float | None = 2.0
    """Idle time before freezing; 0 is allowed (at the next turn of the loop), None leaves the rung out (FZ-020)."""

    throttle_after: float | None = None
    """Idle time before throttling; None leaves the rung out. Not shorter than
    `freeze_after` is the same as None (FZ-080)."""

    min_uptime: float = 10.0
    """From the app's first readiness to the earliest sleep, so that its warm-up can finish (FZ-011)."""

    min_running: float = 0.25
    """From a confirmed thaw to the next sleep; also what a touch is worth (FZ-023)."""

    min_between_freezes: float = 1.0
    """From one fall asleep to the next; bounds what a hostile or unlucky rhythm
    can cost when `freeze_after` is short (FZ-023)."""

    flap_limit: int = 20
    """More cycles woken by requests than this within `flap_window` double the grace (FZ-024)."""

    flap_window: float = 60.0
    """See `flap_limit`; one calm window takes one doubling back (FZ-024)."""

    grace_cap: float = 60.0
    """The longest grace that the flap limiter or the adaptive mode may choose; a longer
    `freeze_after` stands (FZ-024)."""

    adaptive: bool = False
    """Choose the grace from observed idle gaps and measured thaws; the first delay given is only the start (FZ-025)."""

    adaptive_floor: float = 0.25
    """The shortest grace that the adaptive mode may choose (FZ-025); the minimum
    running time makes shorter ones moot."""

    wait_weight: float = 1000.0
    """Seconds of idle running that one second of a request's waiting is worth: a 0.5 ms
    thaw is worth 0.5 s awake, a runtime's 8 ms thaw 8 s, which is close to the 10 s OpenWhisk settled on for one
    (FZ-025)."""

    shadow: bool = False
    """Decide and ask, but let the gate be open throughout: the door confirms without touching anything (FZ-113)."""

    look_first: bool = True
    """Look for connections waiting at the app before putting it to sleep (FZ-028)."""

    recheck_after: float = 0.5
    """From a look that found an obstacle to the next one (FZ-028)."""

    look_deadline: float = 1.0
    """A look not answered in this time found an obstacle: when in doubt, awake."""

    quiesce_cpu: float | None = None
    """Do not sleep while the app uses more than this fraction of one core; None ignores it (FZ-027)."""

    quiesce_for: float = 60.0
    """How long CPU use alone can keep an idle app awake (FZ-027)."""

    freeze_deadline: float = 1.0
    """An unanswered freeze has failed by now; the total call budget of FZ-063 (the kernel part has 0.2 s, FZ-072)."""

    thaw_deadline: float = 0.3
    """An unanswered thaw is asked for again; the attempt budget of FZ-063."""

    thaw_retries: int = 3
    """Fast repetitions of a thaw before waiters are refused and readiness fails. With the
    deadlines as they are that is 1.3 s after the first attempt: FZ-046 allows 2 s (FZ-067)."""

    thaw_retry_after: float = 0.02
    """From a failed thaw to the first fast repetition; doubles (FZ-067)."""

    thaw_backoff: float = 0.5
    """From the refusal to the next thaw; doubles (FZ-067)."""

    thaw_backoff_cap: float = 5.0
    """The longest pause between thaws: how much later than it could a repaired pod may come back (FZ-067)."""

    breaker_failures: int = 3
    """Freezes failed in a row that suspend freezing (FZ-066)."""

    breaker_backoff: float = 30.0
    """How long the first suspension lasts; doubles with each further failure
    (FZ-066). One lease: a freezer that restarts has sorted itself out by then."""

    breaker_cap: float = 600.0
    """The longest suspension (FZ-066)."""

    def __post_init__(self) -> None:
        wrong = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None or isinstance(value, bool):
                continue
            least = _COUNTS.get(field.name, 0)
            if not least <= value < float("inf") or (field.name in _POSITIVE and value == 0):
                wrong.append(f"{field.name}={value!r}")
        if wrong:
            raise ValueError(f"out of range: {', '.join(wrong)}")
