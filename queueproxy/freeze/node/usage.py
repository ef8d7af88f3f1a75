"""Counts what sleep is worth: time asleep, CPU used in each state, and CPU saved.

Theory of operation. For each pod two counters of the kernel are read when its state changes: CPU used, and time spent
frozen where the kernel counts that (FZ-103). Their differences belong to the state that has just ended (FZ-105).

What sleep saved is an estimate and says so: the CPU that the pod used per second in the idle stretch right before it
fell asleep, times the time asleep, less what it used meanwhile (throttled pods do use some). That stretch ends with the
freeze and is as long as the pod's grace; `looked` takes a sample now and then while the pod runs, so that there is one
inside it. Without a sample the last known rate stands; before there is any, nothing is claimed.
"""

from collections import deque
from typing import Final

from queueproxy.freeze.vocabulary import Rung

__all__ = ["PodUsage"]

_SAMPLES: Final = 4  # one a second, and a grace is a second or two
_SHORTEST: Final = 0.1  # seconds: less than that measures the clock tick, not the app


class PodUsage:
    """One pod. Times are seconds; arguments in microseconds are the kernel's, None where it does not tell."""

    __slots__ = (
        "_samples", "_since", "asleep_s", "cpu_s", "cpu_usec", "frozen_usec", "idle_rate", "rung", "saved_s",
    )  # fmt: skip

    def __init__(self, now: float) -> None:
        self.rung = Rung.RUNNING
        self._since = now
        self.cpu_usec: int | None = None  # the counters as they were last read
        self.frozen_usec: int | None = None
        self._samples: deque[tuple[float, int]] = deque(maxlen=_SAMPLES)
        self.idle_rate: float | None = None  # CPU seconds per second while awake and idle
        self.asleep_s = [0.0] * len(Rung)  # by rung; RUNNING stays 0
        self.cpu_s = [0.0] * len(Rung)
        self.saved_s = 0.0

    def __repr__(self) -> str:
        return f"<PodUsage {self.rung.name} asleep={sum(self.asleep_s):.3f} saved={self.saved_s:.3f}>"

    def looked(self, now: float, cpu_usec: int | None) -> None:
        """A sample while it runs."""
        if cpu_usec is None or self.rung:
            return
        if self.cpu_usec is None:
            self.cpu_usec = cpu_usec
        self._samples.append((now, cpu_usec))

    def moved(
        self, now: float, rung: Rung, cpu_usec: int | None, frozen_usec: int | None, idle_for: float = 0.0
    ) -> None:
        """It reached another rung. `idle_for`: how long it had been idle by then, when it fell asleep."""
        if not self.rung and rung and cpu_usec is not None:
            self._learn(now, cpu_usec, idle_for)
        self._settle(now, cpu_usec, frozen_usec)
        self.rung = rung
        self._samples.clear()

    def asleep_for(self, now: float) -> float:
        """All its sleep, the present one included."""
        return sum(self.asleep_s) + (now - self._since if self.rung else 0.0)

    def saved(self, now: float) -> float:
        """CPU seconds, the present sleep included."""
        return self.saved_s + (self.idle_rate or 0.0) * (now - self._since if self.rung else 0.0)

    def _learn(self, now: float, cpu_usec: int, idle_for: float) -> None:
        for at, before in self._samples:
            if now - at <= idle_for:
                if now - at >= _SHORTEST:
                    self.idle_rate = max(0, cpu_usec - before) / 1e6 / (now - at)
                return

    def _settle(self, now: float, cpu_usec: int | None, frozen_usec: int | None) -> None:
        lasted = now - self._since
        if self.rung is Rung.FROZEN and frozen_usec is not None and self.frozen_usec is not None:
            lasted = max(0, frozen_usec - self.frozen_usec) / 1e6
        used = 0.0
        if cpu_usec is not None and self.cpu_usec is not None:
            used = max(0, cpu_usec - self.cpu_usec) / 1e6
        self.cpu_s[self.rung] += used
        if self.rung:
            self.asleep_s[self.rung] += lasted
            self.saved_s += max(0.0, (self.idle_rate or 0.0) * lasted - used)
        self._since = now
        self.cpu_usec = cpu_usec
        self.frozen_usec = frozen_usec
