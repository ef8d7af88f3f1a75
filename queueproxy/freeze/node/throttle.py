"""Runs the CPU rung: squeezes one cgroup to a small CPU quota and puts the exact previous limit back.

What it touches: `cpu.max` (v2) or `cpu.cfs_quota_us` and `cpu.cfs_period_us` (v1) of one held cgroup. Both are spoken
of in the text of v2, "<quota|max> <period>", microseconds, which is also what goes into a journal: `previous`, and
`squeezed` beside it so that a successor with other settings still recognises our work.

The limit has other writers: kubelet, CPU manager, in-place resize. We lift only what still reads as we wrote it; if
somebody else has written since, theirs stays and the outcome is FOREIGN (FZ-082). Nothing is true until read back.
"""

import errno
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Self

from queueproxy.freeze.node.directory import (
    CPU_MAX,
    CPU_PERIOD,
    CPU_QUOTA,
    CPU_STAT,
    CPUACCT_USAGE,
    Cgroup,
    NotACgroup,
    Version,
    Where,
    keyed,
)

__all__ = ["CpuThrottle", "Limit", "Squeeze", "cpu_usage_usec"]

# FZ-081: the kernel answers EINVAL to a quota of 999 us and to a period of 1,000,001 us.
QUOTA_FLOOR_US = 1_000
PERIOD_FLOOR_US = 1_000
PERIOD_CEILING_US = 1_000_000
# 1 % of a core. At 1 ms per 100 ms a small request still gets through in 0.6 ms, at 1 ms per 1 s it takes 630 ms.
QUOTA_US = 1_000
PERIOD_US = 100_000


class Squeeze(IntEnum):
    """What became of a squeeze or a restore."""

    SQUEEZED = 1
    RESTORED = 2
    UNCHANGED = 3  # nothing to do: already tighter than ours, or nothing of ours to lift
    FOREIGN = 4  # someone else changed the limit meanwhile; theirs stays
    GONE = 5
    FAILED = 6  # see `detail` and `errno`


class Limit(NamedTuple):
    """A CPU limit. `quota_us` None: none at all."""

    quota_us: int | None
    period_us: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of "<quota|max> <period>", as `cpu.max` has it; ValueError for anything else."""
        quota, _, period = text.strip().partition(" ")
        return cls(None if quota == "max" else int(quota), int(period))

    @property
    def share(self) -> float:
        """Of one core."""
        return float("inf") if self.quota_us is None else self.quota_us / self.period_us

    def __str__(self) -> str:
        return f"{'max' if self.quota_us is None else self.quota_us} {self.period_us}"


class CpuThrottle:
    """Squeezes and restores one cgroup's CPU. `previous` is the limit to put back, None when nothing is squeezed."""

    __slots__ = ("_is_v2", "cgroup", "detail", "errno", "limit", "previous", "squeezed")

    def __init__(
        self,
        cgroup: Cgroup,
        *,
        quota_us: int = QUOTA_US,
        period_us: int = PERIOD_US,
        previous: str | None = None,
        squeezed: str | None = None,
    ) -> None:
        if quota_us < QUOTA_FLOOR_US or not PERIOD_FLOOR_US <= period_us <= PERIOD_CEILING_US:
            raise ValueError(f"quota {quota_us} us per {period_us} us: out of the kernel's bounds")
        self.cgroup = cgroup
        self.limit = Limit(quota_us, period_us)
        self.previous = previous
        self.squeezed = squeezed or (str(self.limit) if previous is not None else None)
        self.detail = ""
        self.errno = 0
        self._is_v2 = cgroup.version is Version.V2 or (cgroup.version is Version.FILES and cgroup.has(CPU_MAX))
        if not cgroup.has(CPU_MAX if self._is_v2 else CPU_QUOTA):
            raise NotACgroup(f"{cgroup.name!r}: no CPU limit here")
        cgroup.keep(*((CPU_MAX,) if self._is_v2 else (CPU_QUOTA, CPU_PERIOD)), writable=True)

    @classmethod
    def open(
        cls,
        where: Where,
        *,
        quota_us: int = QUOTA_US,
        period_us: int = PERIOD_US,
        previous: str | None = None,
        squeezed: str | None = None,
        require_cgroupfs: bool = True,
        inode: int | None = None,
    ) -> Self:
        """Hold the cgroup (see `Cgroup.open`). With `previous` (and `squeezed`) from a journal, adopt a squeeze found
        there."""
        cgroup = Cgroup.open(where, require_cgroupfs=require_cgroupfs, inode=inode)
        try:
            return cls(cgroup, quota_us=quota_us, period_us=period_us, previous=previous, squeezed=squeezed)
        except BaseException:
            cgroup.close()
            raise

    @property
    def is_squeezed(self) -> bool:
        return self.previous is not None

    def squeeze(self) -> Squeeze:
        """Lower the limit to ours, remembering the present one. Twice is once; a tighter limit is left alone.

        A journal writes `str(read())` down first: a crash between write and journal would leave the app squeezed.
        """
        return self._guarded(self._squeeze)

    def restore(self) -> Squeeze:
        """Put the remembered limit back, unless someone else has changed it since. FAILED may be tried again."""
        return self._guarded(self._restore)

    def read(self) -> Limit | None:
        """The limit in force, None when the cgroup is gone."""
        if self._is_v2:
            text = self.cgroup.read(CPU_MAX)
            return None if text is None else Limit.parse(text)
        quota, period = self.cgroup.read(CPU_QUOTA), self.cgroup.read(CPU_PERIOD)
        if quota is None or period is None:
            return None
        return Limit(None if int(quota) < 0 else int(quota), int(period))

    def close(self) -> None:
        self.cgroup.close()

    def _guarded(self, act: Callable[[], Squeeze]) -> Squeeze:
        self.detail, self.errno = "", 0
        try:
            return act()
        except OSError as error:
            self.errno = error.errno or 0
            self.detail = f"{error.strerror}: {error.filename or self.cgroup.name}"
        except ValueError as error:
            self.errno, self.detail = errno.EINVAL, f"unreadable limit: {error}"
        return Squeeze.FAILED

    def _squeeze(self) -> Squeeze:
        present = self.read()
        if present is None:
            return self._gone()
        if self.previous is not None and str(present) == self.squeezed:
            return Squeeze.SQUEEZED
        if present.share <= self.limit.share:
            self._forget()
            return Squeeze.UNCHANGED
        # Remembered before the write, so that a failure half-way can be undone; what someone wrote over our squeeze
        # meanwhile is the newer truth to go back to.
        self.previous, self.squeezed = str(present), str(self.limit)
        try:
            written = self._write(self.limit, present)
        except OSError:
            if self.read() == present:
                self._forget()
            raise
        if not written:
            return self._gone()
        return self._confirmed(self.limit, Squeeze.SQUEEZED)

    def _restore(self) -> Squeeze:
        if self.previous is None:
            return Squeeze.UNCHANGED
        previous = Limit.parse(self.previous)
        present = self.read()
        if present is None:
            return self._gone()
        if present == previous:
            self._forget()
            return Squeeze.RESTORED
        if str(present) != self.squeezed:
            self._forget()
            self.detail = f"limit is {present}, not ours"
            return Squeeze.FOREIGN
        if not self._write(previous, present):
            return self._gone()
        outcome = self._confirmed(previous, Squeeze.RESTORED)
        self._forget()
        return outcome

    def _confirmed(self, wanted: Limit, outcome: Squeeze) -> Squeeze:
        seen = self.read()
        if seen is None:
            return self._gone()
        if seen == wanted:
            return outcome
        self._forget()
        self.detail = f"limit is {seen}, not {wanted}: another writer"
        return Squeeze.FOREIGN

    def _write(self, wanted: Limit, present: Limit) -> bool:
        if self._is_v2:
            return self.cgroup.write(CPU_MAX, str(wanted))
        return self._write_v1(wanted, present)

    def _write_v1(self, wanted: Limit, present: Limit) -> bool:
        """Two files, one after the other, and the kernel checks each intermediate pair against parent and children.

        A pair with a larger share than the parent's is EINVAL, and so is one with a smaller share than a child's.
        Either order may therefore be refused; the tighter way round is tried first, then the other.
        """
        if wanted.period_us == present.period_us:
            return self._write_quota(wanted)
        quota_first = Limit(wanted.quota_us, present.period_us).share <= Limit(present.quota_us, wanted.period_us).share
        orders = [(self._write_quota, self._write_period), (self._write_period, self._write_quota)]
        for first, second in orders if quota_first else reversed(orders):
            try:
                if not first(wanted):
                    return False
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                continue
            try:
                return second(wanted)
            except OSError:
                first(present)  # half a limit is nobody's limit
                raise
        raise OSError(errno.EINVAL, f"the kernel refuses {wanted} in either order", self.cgroup.name)

    def _write_quota(self, limit: Limit) -> bool:
        return self.cgroup.write(CPU_QUOTA, "-1" if limit.quota_us is None else str(limit.quota_us))

    def _write_period(self, limit: Limit) -> bool:
        return self.cgroup.write(CPU_PERIOD, str(limit.period_us))

    def _gone(self) -> Squeeze:
        self._forget()
        return Squeeze.GONE

    def _forget(self) -> None:
        self.previous = self.squeezed = None

    def __repr__(self) -> str:
        return f"<CpuThrottle {self.cgroup.name!r} limit={str(self.limit)!r} previous={self.previous!r}>"


def cpu_usage_usec(cgroup: Cgroup) -> int | None:
    """CPU time used so far by a v2 cgroup (any) or a v1 one of the cpuacct hierarchy; None when gone or not counted
    there."""
    try:
        if cgroup.version is Version.V2 or (cgroup.version is Version.FILES and not cgroup.has(CPUACCT_USAGE)):
            return keyed(cgroup.raw(CPU_STAT) or b"", b"usage_usec ")
        data = cgroup.raw(CPUACCT_USAGE)
        return None if data is None else int(data) // 1000
    except FileNotFoundError:
        return None
