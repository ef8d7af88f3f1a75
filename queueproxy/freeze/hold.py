"""Counts what keeps an idle app awake, down to one instant: `until`.

Nothing sleeps before it is armed (ready, and up for its minimum time), before its hysteresis is over (it just woke,
it just slept, somebody touched it), while freezing is suspended, or in an idle period in which a freeze already
failed. The latest of these is `until`; infinity means that only an event can end it. Kept up to date by every
method, so that the request path reads one float.
"""

from math import inf

from queueproxy.freeze.grace import FreezeBreaker
from queueproxy.freeze.settings import IdleSettings

__all__ = ["Hold"]


class Hold:
    """Until when may the app not sleep, and why?"""

    __slots__ = ("_breaker", "_failure", "_keep_until", "_pledge", "_ready_since", "_set", "armed_at", "spent", "until")

    def __init__(self, settings: IdleSettings) -> None:
        self._set = settings
        self._breaker = FreezeBreaker(settings.breaker_failures, settings.breaker_backoff, settings.breaker_cap)
        self._ready_since: float | None = None  # the first readiness of this app process
        self._keep_until = -inf
        self._pledge: float | None = None  # running time promised to a touch, due from the confirmed thaw
        self._failure = ""
        self.armed_at = inf
        self.spent = False  # a freeze failed in this idle period (FZ-065)
        self.until = inf

    def __repr__(self) -> str:
        return f"<Hold until={self.until:g} armed_at={self.armed_at:g} spent={self.spent} {self._breaker!r}>"

    def configured(self, settings: IdleSettings) -> None:
        """Other settings: what holds already goes on holding, the minimum uptime is served anew from when it began."""
        self._set = settings
        if self._ready_since is not None and self.armed_at < inf:
            self.armed_at = self._ready_since + settings.min_uptime
        self._reckon()

    def ready(self, now: float) -> None:
        """Armed once the minimum uptime is served; a second readiness of the same process need not serve it again."""
        if self._ready_since is None:
            self._ready_since = now
        self.armed_at = max(now, self._ready_since + self._set.min_uptime)
        self._reckon()

    def unready(self) -> None:
        self.armed_at = inf
        self._reckon()

    def restarted(self) -> None:
        self._ready_since = None
        self.unready()

    def keep(self, now: float, seconds: float | None) -> None:
        """Run at least so long from now; None is the minimum running time."""
        self._keep_until = max(self._keep_until, now + (self._set.min_running if seconds is None else seconds))
        self._reckon()

    def pledge(self, seconds: float | None) -> None:
        """Run so long from the next confirmed thaw; None is the minimum running time. The longest pledge counts."""
        self._pledge = max(self._pledge or 0.0, self._set.min_running if seconds is None else seconds)

    def awoke(self, now: float, *, wanted: bool) -> None:
        """Running is confirmed: redeem the pledge. A request gets no less than the minimum (FZ-023)."""
        least = self._set.min_running if wanted or self._pledge is None else 0.0
        self.keep(now, max(least, self._pledge or 0.0))
        self._pledge = None

    def slept(self, now: float) -> None:
        """Sleep was asked for: the next time counts from here (FZ-023)."""
        self.keep(now, self._set.min_between_freezes)

    def failed(self, now: float, detail: str) -> None:
        """A freeze failed: not again in this idle period, and after several for longer (FZ-065, FZ-066)."""
        self._breaker.failed(now)
        self._failure = detail
        self.spent = True
        self._reckon()

    def succeeded(self) -> None:
        self._breaker.succeeded()

    def renew(self) -> None:
        """A new idle period begins, or is bound to."""
        self.spent = False
        self._reckon()

    def words(self, now: float) -> str:
        """What holds at `now`; empty when nothing does."""
        if self.armed_at == inf:
            return "not ready yet"
        if now < self.armed_at:
            return f"min uptime: {self.armed_at - now:.0f} s to go"
        if self.spent:
            return f"freeze failed: {self._failure}; not again before the next request"
        if now < self._breaker.until:
            return f"{self._breaker.failures} freezes failed: suspended for {self._breaker.until - now:.0f} s"
        if now < self._keep_until:
            return f"held: {self._keep_until - now:.2g} s to go"
        return ""

    def _reckon(self) -> None:
        self.until = inf if self.spent else max(self.armed_at, self._keep_until, self._breaker.until)
