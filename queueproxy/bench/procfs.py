"""Decodes what the kernel tells about a process: CPU time, resident memory, time on a run queue."""

from __future__ import annotations

__all__ = ["cpu_ticks", "resident_kb", "scheduled_ns"]


def cpu_ticks(stat: str) -> int:
    """utime + stime of /proc/<pid>/stat, all threads, in clock ticks."""
    # The command name is in parentheses and may hold spaces and parentheses itself: the last one ends it.
    fields = stat[stat.rindex(")") + 2 :].split()
    return int(fields[11]) + int(fields[12])


def resident_kb(status: str) -> int:
    """VmRSS of /proc/<pid>/status."""
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError("no VmRSS line: a kernel thread or a process that has ended")


def scheduled_ns(schedstat: str) -> int:
    """Time on a CPU from one thread's /proc/<pid>/task/<tid>/schedstat, exact where ticks are not."""
    return int(schedstat.split()[0])
