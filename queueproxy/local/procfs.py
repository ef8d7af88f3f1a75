"""Decodes /proc/<pid>/stat: who a process is (pid and start time), what it does, whose child and in which session it
is.

A pid alone names nobody: the kernel hands it out again. A pid with its start time (field 22, clock ticks since boot)
names one process for as long as the machine is up, so that pair is what the journal holds and what is compared before
anything is signalled. A session id is safe on its own: the kernel does not hand a number out again while any process
still has it as its session.
"""

from __future__ import annotations

import os
from typing import NamedTuple

__all__ = [
    "STOPPED",
    "Identity",
    "Stat",
    "boot_id",
    "identity",
    "in_session",
    "parse_stat",
    "pid_namespace",
    "read_stat",
]

# State letters of fs/proc/array.c. T is a stop by signal; t is a tracer's stop, which SIGCONT does not end.
STOPPED = "T"
_DEAD = "ZXx"


class Identity(NamedTuple):
    """One process: `pid` and the clock tick since boot at which it started."""

    pid: int
    started: int


class Stat(NamedTuple):
    """The fields of one stat line that are used here."""

    pid: int
    state: str
    parent: int
    session: int
    cpu_ticks: int
    started: int

    @property
    def dead(self) -> bool:
        return self.state in _DEAD


def parse_stat(text: str) -> Stat:
    """Read one stat line. The name in brackets may hold spaces and brackets: the last bracket ends it."""
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Stat(
        pid=int(head.partition("(")[0]),
        state=fields[0],
        parent=int(fields[1]),
        session=int(fields[3]),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        started=int(fields[19]),
    )


def read_stat(pid: int) -> Stat | None:
    """The process as it is now, or None when there is none of that number (any more)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return parse_stat(file.read())
    except (FileNotFoundError, ProcessLookupError):
        return None


def identity(pid: int) -> Identity | None:
    """Who holds this pid now; a zombie is nobody."""
    stat = read_stat(pid)
    return None if stat is None or stat.dead else Identity(stat.pid, stat.started)


def in_session(session: int) -> list[Stat]:
    """Every living process of a session. Costs one stat read per process on the machine (about 10 us each)."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            stat = read_stat(int(name))
            if stat is not None and stat.session == session and not stat.dead:
                found.append(stat)
    return found


def boot_id() -> str:
    """Changes with every boot: start times of two boots are not to be compared."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def pid_namespace() -> str:
    """Pids mean something only within one pid namespace."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
