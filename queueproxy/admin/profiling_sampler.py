"""Runs the two samplers of a profile: where CPU time goes (a signal), where all threads are (a thread).

CPU: the kernel's profiling timer sends SIGPROF for each slice of CPU time used, and Python runs the handler in the main
thread, where the loop is. A sampling thread cannot do this job: it needs the interpreter lock, gets it when a callback
ends, and would find the loop waiting each time. An idle process yields no samples. What other threads burn is counted
to whatever the loop does then; the other sampler tells them apart.

Wall: a thread looks at every thread, every so often, whether it runs or waits.

How often is a wish: the kernel's tick limits the first (4 ms at 250 Hz: asked for 500 samples a second it gave 230), a
busy interpreter delays the second. So what one sample stands for is computed at the end, from the time that passed.
"""

from __future__ import annotations

import atexit
import resource
import signal
import sys
import threading
from types import FrameType
from typing import Final, Protocol

from queueproxy.admin.profiling_samples import Samples
from queueproxy.clock import monotonic

ENDS_WITHIN: Final = 1.0  # seconds; the thread's longest sleep, at one sample a second


class Sampler(Protocol):
    """start, stop, then samples and period: the seconds that one of them stands for."""

    samples: Samples
    period: float

    def start(self, period: float) -> None: ...

    def stop(self) -> None: ...


def _cpu_used() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class CpuSampler:
    """Only one at a time, and only from the main thread: signal handlers belong to the process."""

    def __init__(self) -> None:
        self.samples = Samples()
        self.period = 0.0
        self._used_before = 0.0
        self._before: signal._HANDLER = signal.SIG_DFL

    def __repr__(self) -> str:
        return f"<CpuSampler {self.samples!r}>"

    def start(self, period: float) -> None:
        before = signal.signal(signal.SIGPROF, self._sample)
        # Nobody's system call ends with EINTR because somebody looks (SA_RESTART).
        signal.siginterrupt(signal.SIGPROF, False)
        self._before = signal.SIG_DFL if before is None else before
        # A process that ends in the middle gives handlers back while the timer still runs, and SIGPROF's default is
        # death: exit status 0 would become a signal.
        atexit.register(self.stop)
        self._used_before = _cpu_used()
        signal.setitimer(signal.ITIMER_PROF, period, period)

    def _sample(self, number: int, frame: FrameType | None) -> None:
        self.samples.add("", frame)

    def stop(self) -> None:
        """A signal that is already on its way must not meet the default action: it is ignored from now on."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, signal.SIG_IGN if self._before is signal.SIG_DFL else self._before)
        atexit.unregister(self.stop)
        self.period = (_cpu_used() - self._used_before) / max(1, self.samples.taken)


class WallSampler:
    """All threads but its own."""

    def __init__(self) -> None:
        self.samples = Samples()
        self.period = 0.0
        self._began_at = 0.0
        self._rounds = 0
        self._enough = threading.Event()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<WallSampler {self.samples!r}>"

    def start(self, period: float) -> None:
        self._began_at = monotonic()
        self._thread = threading.Thread(target=self._run, args=(period,), name="wall profile", daemon=True)
        self._thread.start()

    def _run(self, period: float) -> None:
        me = threading.get_ident()
        while not self._enough.wait(period):
            self._rounds += 1
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, frame in sys._current_frames().items():
                if ident != me:
                    self.samples.add(names.get(ident, str(ident)), frame)

    def stop(self) -> None:
        self._enough.set()
        if self._thread is not None:
            self._thread.join(ENDS_WITHIN)
        self.period = (monotonic() - self._began_at) / max(1, self._rounds)
