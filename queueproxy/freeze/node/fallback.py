"""Decides which revisions are throttled for a while instead of frozen, because freezing did them harm (FZ-084)."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Fallback"]

_LARGEST = 1024  # revisions; nodes have a few hundred pods


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
