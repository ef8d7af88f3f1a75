"""Decides whether a pod has lost processes to its sleep: those that had settled before it and ended right after it.

Theory of operation. Some apps do not survive sleep: a watchdog finds its deadline long past and kills the worker
(gunicorn's sync workers after `--timeout`, observed). What gives that away is a process that ends within `WINDOW`
seconds of running after a thaw (FZ-084). But processes also end because their work is done: a helper that was started
for one job, the `sleep` in a shell's loop. Those are young. So only processes count that had *settled*: they were
`SETTLED` seconds old when the pod was put to sleep.

A pod that sleeps again sooner than the window is looked at just before, because a single request and a grace of two
seconds would otherwise always be shorter than the window. What was found then waits until somebody asks for it: the
way to sleep is no place for a decision. Who is settled is remembered, so that in the long run nobody's age is asked,
and who was there when the pod fell asleep is missed even if it ended before anybody could look.

A pod that ends loses all its processes and is not harmed by that; who owns this must know (`Ledger.harmed` does).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from math import inf

__all__ = ["SETTLED", "WINDOW", "Losses"]

WINDOW = 5.0  # seconds from the thaw (FZ-084)
SETTLED = 10.0  # seconds; an app is at least that old when it may sleep for the first time (FZ-011)
_LARGEST = 1024  # pods remembered


class _Pod:
    """settled: who counts. look_at: the end of the window; infinity outside of one. why: what was found."""

    __slots__ = ("look_at", "settled", "slept_at", "why")

    def __init__(self) -> None:
        self.settled: frozenset[int] = frozenset()
        self.slept_at = inf
        self.look_at = inf
        self.why = ""


class Losses:
    """All pods of a node. Processes are pids; ages are in the seconds of `now`."""

    __slots__ = ("_due", "_largest", "_pods")

    def __init__(self, largest: int = _LARGEST) -> None:
        self._pods: OrderedDict[str, _Pod] = OrderedDict()  # the one that slept or thawed last comes last
        self._due: OrderedDict[str, float] = OrderedDict()  # uid -> when to look, in that order
        self._largest = largest

    def __repr__(self) -> str:
        return f"<Losses watches {len(self._due)} of {len(self._pods)}>"

    def strangers(self, uid: str, pids: Collection[int]) -> Collection[int]:
        """Whose age `thawed` has to be told."""
        pod = self._pods.get(uid)
        return pids if pod is None else [pid for pid in pids if pid not in pod.settled]

    def thawed(
        self, now: float, uid: str, pids: Collection[int], born: Mapping[int, float], missing: Collection[int] = ()
    ) -> None:
        """The pod runs again with these processes. born: of the strangers, as far as that is known. missing: who of
        `settled` is gone already."""
        pod = self._known(uid)
        before = min(pod.slept_at, now) - SETTLED
        found = {pid for pid in pids if pid in pod.settled or born.get(pid, inf) <= before}
        # Without any process it is the containers that are gone, perhaps long since: the ledger knows about those.
        pod.settled = frozenset(found.union(missing)) if pids else frozenset()
        pod.slept_at = inf
        if not pod.why:  # else that is told first
            self._due.pop(uid, None)
            pod.look_at = now + WINDOW if pod.settled else inf
            if pod.settled:
                self._due[uid] = pod.look_at

    def settled(self, uid: str) -> Collection[int]:
        """Who counts; to be looked at before the pod sleeps."""
        pod = self._pods.get(uid)
        return pod.settled if pod is not None else ()

    def slept(self, now: float, uid: str, missing: Collection[int]) -> None:
        """The pod is put to sleep now; missing: who of `settled` is gone."""
        pod = self._known(uid)
        is_window = now < pod.look_at < inf
        of, pod.settled = len(pod.settled), pod.settled.difference(missing)
        pod.slept_at = min(pod.slept_at, now)  # a pod goes down in steps
        pod.look_at = inf
        if pod.why:
            return
        self._due.pop(uid, None)
        if missing and is_window:
            pod.why = _words(len(missing), of)
            self._due[uid] = now
            self._due.move_to_end(uid, last=False)

    def _known(self, uid: str) -> _Pod:
        pod = self._pods.pop(uid, None) or _Pod()
        self._pods[uid] = pod
        while len(self._pods) > self._largest:
            self._due.pop(self._pods.popitem(last=False)[0], None)
        return pod

    def next_at(self) -> float:
        """When somebody is due; infinity while nobody is."""
        return next(iter(self._due.values())) if self._due else inf

    def due(self, now: float) -> list[str]:
        """Whose pids to read now and hand to `looked`; each is named once, whatever becomes of it."""
        found = []
        while self._due and self.next_at() <= now:
            found.append(self._due.popitem(last=False)[0])
        return found

    def looked(self, uid: str, pids: Collection[int]) -> str:
        """What harm was done, in words, or nothing."""
        self._due.pop(uid, None)
        pod = self._pods.get(uid)
        if pod is None:
            return ""
        if pod.why:
            why, pod.why = pod.why, ""
            return why
        if pod.look_at == inf:
            return ""
        pod.look_at = inf
        left = pod.settled.intersection(pids)
        died, of = len(pod.settled) - len(left), len(pod.settled)
        pod.settled = left
        return _words(died, of) if died else ""


def _words(died: int, of: int) -> str:
    return f"{died} of {of} processes died within {WINDOW:g} s of a thaw"
