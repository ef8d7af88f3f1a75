"""Opens the place the app will live in: cgroups of its own below ours, or none where none can be written.

What is tried, in this order and unless --cgroup names one: a child of our own v2 cgroup, a child of our own place in
the v1 freezer hierarchy, signals. A place counts only when a trial process could really move into it, since
permission to create a directory is not yet permission to move (a delegated subtree also needs the common ancestor's
cgroup.procs). CPU throttling wants `cpu.max` in the same v2 cgroup, else one in the v1 cpu hierarchy; where we sit
below a group that does not hand its cpu controller down, root looks once more at the top of the hierarchy.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from queueproxy.clock import monotonic
from queueproxy.freeze.node.directory import CGROUP_PROCS, CPU_MAX, Cgroup, NotACgroup
from queueproxy.freeze.node.hierarchy import UNIFIED, Mounts, parse_mounts, parse_self
from queueproxy.local.settings import AUTO, SIGNAL, V1, V2

__all__ = ["SIGNALS", "Place", "PlacementError", "Plan", "place", "plans", "read_hierarchy", "remove_cgroup"]

CGROUP2, CGROUP1, SIGNALS = "cgroup2", "cgroup1", "signal"

# An exiting task leaves its cgroup a moment after its parent has collected it.
REMOVE_WITHIN = 1.0


class PlacementError(Exception):
    """Nowhere to put the app in the way that was asked for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One way to try: directories to make. `usage` is the one whose CPU time is counted."""

    mechanism: str
    freezer: str | None = None
    cpu: str | None = None
    usage: str | None = None

    @property
    def cgroups(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path for path in (self.freezer, self.cpu, self.usage) if path))


def plans(way: str, mounts: Mounts, places: dict[str, str], name: str, *, needs_cpu: bool) -> list[Plan]:
    """The ways to try for a run of this name, best first. Pure: what exists and what may be written shows when it is
    tried."""

    def below(controller: str) -> str | None:
        found = mounts.place(controller, places)
        return None if found is None else f"{found}/{name}"

    found: list[Plan] = []
    unified, freezer, cpu, account = below(UNIFIED), below("freezer"), below("cpu"), below("cpuacct")
    if way in (AUTO, V2) and unified is not None:
        if not needs_cpu:
            found.append(Plan(CGROUP2, unified, None, unified))
        else:
            found.append(Plan(CGROUP2, unified, unified, unified))
            if cpu is not None:
                found.append(Plan(CGROUP2, unified, cpu, unified))
            top = f"{mounts.v2}/{name}"
            if top != unified:
                found.append(Plan(CGROUP2, top, top, top))
    if way in (AUTO, V1) and freezer is not None:
        if not needs_cpu:
            found.append(Plan(CGROUP1, freezer, None, account))
        elif cpu is not None:
            found.append(Plan(CGROUP1, freezer, cpu, account))
    if way in (AUTO, SIGNAL) and not needs_cpu:
        found.append(Plan(SIGNALS))
    return found


class Place:
    """A plan that works: directories made, their doors held open for the app to walk in."""

    __slots__ = ("doors", "plan")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.doors: list[int] = []
        try:
            for path in plan.cgroups:
                os.mkdir(path)
            if plan.cpu is not None and plan.cpu == plan.freezer:
                # With v2 the file is there only when the parent hands the cpu controller down.
                os.stat(f"{plan.cpu}/{CPU_MAX}")
            for path in plan.cgroups:
                with Cgroup.open(path):
                    self.doors.append(os.open(f"{path}/{CGROUP_PROCS}", os.O_WRONLY | os.O_CLOEXEC))
            _try_to_move(self.doors)
        except BaseException:
            self.close()
            self.remove()
            raise

    def __repr__(self) -> str:
        return f"<Place {self.plan.mechanism} {' '.join(self.plan.cgroups)}>"

    def close(self) -> None:
        """Close the doors: the app is in."""
        while self.doors:
            os.close(self.doors.pop())

    def remove(self) -> list[str]:
        """Remove what we made; the directories that could not be."""
        return [path for path in self.plan.cgroups if not remove_cgroup(path)]


def place(candidates: list[Plan]) -> tuple[Place | None, list[str]]:
    """The first plan that works (None: signals) and why the ones before it did not."""
    refused: list[str] = []
    for plan in candidates:
        if plan.mechanism == SIGNALS:
            return None, refused
        try:
            return Place(plan), refused
        except (OSError, NotACgroup) as error:
            refused.append(f"{plan.mechanism}: {error}")
    raise PlacementError("; ".join(refused))


def read_hierarchy() -> tuple[Mounts, dict[str, str]]:
    """Where the hierarchies are mounted, and where we are in them."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        mounts = parse_mounts(file.read())
    with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
        return mounts, parse_self(file.read())


def leftovers(mounts: Mounts) -> Iterator[tuple[str, str]]:
    """Every cgroup named like a run's, in the hierarchies a run may use: (directory, its name)."""
    from queueproxy.local.journal import NAME

    tops = [mounts.v2, *(mounts.v1.get(controller) for controller in ("freezer", "cpu", "cpuacct"))]
    for top in dict.fromkeys(top for top in tops if top is not None):
        for directory, below, _ in os.walk(top):
            for name in sorted(below):
                if NAME.fullmatch(name):
                    yield f"{directory}/{name}", name
            # What an app made inside its own cgroup is its own, and goes with it.
            below[:] = [name for name in below if not NAME.fullmatch(name)]


def remove_cgroup(path: str, within: float = REMOVE_WITHIN) -> bool:
    """Remove an empty cgroup and the empty ones inside it; False when something still lives there."""
    deadline = monotonic() + within
    while True:
        try:
            for directory, _, _ in os.walk(path, topdown=False):
                os.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError:
            if monotonic() >= deadline:
                return not os.path.isdir(path)
            time.sleep(0.005)  # the kernel offers nothing to wait on that works for v1 as well
            continue
        return not os.path.isdir(path)


def _try_to_move(doors: list[int]) -> None:
    """Let a short-lived process do what the app will do, and fail as it would."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for door in doors:
                os.write(door, b"0")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.write(writing, b"%d" % (error.errno or 0))
        finally:
            os._exit(0)
    os.close(writing)
    try:
        failed = os.read(reading, 16)
    finally:
        os.close(reading)
        os.waitpid(pid, 0)
    if failed:
        raise OSError(int(failed), f"cannot move a process in: {os.strerror(int(failed))}")
