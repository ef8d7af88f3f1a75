"""Holds the latest events of this node for whoever reads them: bounded, numbered, at least once (FZ-104).

Theory of operation. Each event has a number one greater than the last. A reader says which it has seen last and gets
those after it, as often as it asks; what has been pushed out of the buffer meanwhile is said to be lost, with the
count. Numbers begin anew with each freezer, so they come with the name of the stream, and a reader that knows another
stream gets everything there is: at least once, never silently less. The pair (pod, generation) tells repetitions apart.

Readers are woken by a callback each; a slow one costs nobody anything but itself.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

__all__ = ["Events", "Happening"]

KEPT: Final = 4096  # a node's four seconds at the budget of 1,000 changes a second, hours in practice


class Happening(NamedTuple):
    """One event. `at` is wall-clock seconds, for people and bills."""

    number: int
    at: float
    uid: str
    namespace: str
    name: str
    revision: str
    kind: str
    generation: int
    reason: str


class Events:
    """The latest events."""

    __slots__ = ("_kept", "_readers", "number", "stream")

    def __init__(self, stream: str, kept: int = KEPT) -> None:
        self.stream = stream
        self.number = 0  # of the latest
        self._kept: deque[Happening] = deque(maxlen=kept)
        self._readers: set[Callable[[], None]] = set()

    def __repr__(self) -> str:
        return f"<Events {self.stream} {len(self._kept)} kept, {self.number} in all, {len(self._readers)} readers>"

    def add(
        self, at: float, uid: str, namespace: str, name: str, revision: str, kind: str, generation: int, reason: str
    ) -> None:
        self.number += 1
        self._kept.append(Happening(self.number, at, uid, namespace, name, revision, kind, generation, reason))
        for wake in self._readers:
            wake()

    def after(self, seen: int, most: int) -> tuple[int, list[Happening]]:
        """How many are lost between `seen` and the first that is kept, and the next ones, at most `most`."""
        seen = min(seen, self.number)
        first = self._kept[0].number if self._kept else self.number + 1
        lost = max(0, first - seen - 1)
        start = max(0, seen - first + 1)
        return lost, [self._kept[at] for at in range(start, min(len(self._kept), start + most))]

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls `wake` for each new event, on the spot; returns what ends that."""
        self._readers.add(wake)
        return lambda: self._readers.discard(wake)
