"""Decides whether freezing harms a revision, which is then throttled for a while instead (FZ-084).

Theory of operation. Some apps do not survive sleep: a watchdog finds its deadline long past and kills the worker
(gunicorn's sync workers after `--timeout`, observed), or a connection pool fails the first request. Two things count as
harm: a process that was there when the pod was thawed and is not `WINDOW` seconds later, and a first request after a
thaw that failed at connection level, which only the sidecar sees and says in its reason, beginning with `HARMED`.
`Harm` remembers whose processes are to be counted again and compares; somebody else reads the pids. `Fallback`
remembers the revisions. Both are bounded. A pod that is ending is not looked at: its processes are meant to die.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from math import inf

__all__ = ["HARMED", "WINDOW", "Fallback", "Harm"]

HARMED = "harmed: "  # how a sidecar's reason begins when the first request after a thaw failed at connection level
WINDOW = 5.0  # seconds from the thaw (FZ-084)
_LARGEST = 1024  # revisions; nodes have a few hundred pods


class Harm:
    """Who lost processes after a thaw?"""

    __slots__ = ("_watched",)

    def __init__(self) -> None:
        self._watched: OrderedDict[str, tuple[float, frozenset[int]]] = OrderedDict()  # uid -> look at, pids then

    def __repr__(self) -> str:
        return f"<Harm watches {len(self._watched)}>"

    def __len__(self) -> int:
        return len(self._watched)

    def thawed(self, now: float, uid: str, pids: Collection[int]) -> None:
        """The pod runs again with these processes. A thaw inside the window of an earlier one starts anew."""
        self._watched.pop(uid, None)
        if pids:
            self._watched[uid] = (now + WINDOW, frozenset(pids))

    def forget(self, uid: str) -> None:
        """It sleeps again, is ending, or gone: what dies now proves nothing."""
        self._watched.pop(uid, None)

    def next_at(self) -> float:
        """When somebody is due for a look; infinity while nobody is watched."""
        return next(iter(self._watched.values()))[0] if self._watched else inf

    def due(self, now: float) -> list[str]:
        """Whose pids to read now and hand to `looked`."""
        found = []
        for uid, (at, _) in self._watched.items():
            if at > now:
                break
            found.append(uid)
        return found

    def looked(self, uid: str, pids: Collection[int]) -> str:
        """Compare; what harm was done, in words, or nothing."""
        watched = self._watched.pop(uid, None)
        if watched is None:
            return ""
        before = watched[1]
        died = len(before.difference(pids))
        return f"{died} of {len(before)} processes died within {WINDOW:g} s of a thaw" if died else ""


class Fallback:
    """Which revisions are throttled instead of frozen, until when and why?"""

    __slots__ = ("_for", "_largest", "_revisions")

    def __init__(self, seconds: float, largest: int = _LARGEST) -> None:
        self._for = seconds
        self._largest = largest
        self._revisions: OrderedDict[str, tuple[float, str]] = OrderedDict()  # in order of their end

    def __repr__(self) -> str:
        return f"<Fallback {len(self._revisions)} revisions>"

    def __len__(self) -> int:
        return len(self._revisions)

    def harmed(self, now: float, revision: str, why: str) -> None:
        """From now on for the time set. When the table is full, the one that has served longest makes room."""
        self._revisions.pop(revision, None)
        self._revisions[revision] = (now + self._for, why)
        while len(self._revisions) > self._largest:
            self._revisions.popitem(last=False)

    def why(self, now: float, revision: str) -> str:
        """Why the revision must not be frozen; empty when it may."""
        found = self._revisions.get(revision)
        if found is None:
            return ""
        if now >= found[0]:
            del self._revisions[revision]
            return ""
        return found[1]
