"""Runs one thread that carries telemetry away, so that no collector can ever hold up a request (QP-245).

The loop's side is `put`: an append to a bounded queue. Nothing of the exporter exists before the first delivery: its
libraries are loaded in the thread, once. A collector that is down, slow or out of its mind costs what waits beyond the
limit and one line in the log; what failed is not kept for later, as in OpenTelemetry's SDK.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from queueproxy.clock import monotonic

_T = TypeVar("_T")
# Exporters are loaded one after the other: of packages that two threads import at once, one may see a half.
_OPENING = threading.Lock()
_ABANDON = 0.5  # seconds for a delivery under way to notice that it was called off


class Exporter(Protocol[_T]):
    """Delivers in the courier's thread. stop: called from another one, ends a delivery under way.

    deliver returns "" or what went wrong.
    """

    def deliver(self, batch: list[_T]) -> str: ...
    def stop(self) -> None: ...


class Words(Protocol):
    """Where it is told."""

    def info(self, message: str, /, **fields: object) -> None: ...
    def warning(self, message: str, /, **fields: object) -> None: ...


class Courier(Generic[_T]):
    """what: "metrics" or "traces". limit: items that wait at most; with limit 1 the newest replaces the one that waits.

    batch: items of one delivery, `gather` seconds at most are spent on collecting them.
    """

    __slots__ = (
        "_batch", "_closing", "_exporter", "_failing", "_full", "_gather", "_limit", "_log", "_open", "_some",
        "_thread", "_waiting", "_what", "delivered", "lost",
    )  # fmt: skip

    def __init__(
        self, what: str, open: Callable[[], Exporter[_T]], log: Words, *, limit: int, batch: int = 1, gather: float = 0
    ) -> None:
        self._what = what
        self._open = open
        self._log = log
        self._limit = limit
        self._batch = batch
        self._gather = gather
        self._waiting: deque[_T] = deque()
        self._some = threading.Event()
        self._full = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._exporter: Exporter[_T] | None = None
        self._failing = False
        self.delivered = 0  # items
        self.lost = 0

    def __repr__(self) -> str:
        return f"<Courier {self._what} waiting={len(self._waiting)} delivered={self.delivered} lost={self.lost}>"

    def put(self, item: _T) -> None:
        """Takes one item; never waits."""
        waiting = self._waiting
        if len(waiting) >= self._limit:
            if self._limit > 1:
                self.lost += 1
                return
            waiting.clear()
        waiting.append(item)
        if len(waiting) == 1:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._what, daemon=True)
                self._thread.start()
            self._some.set()
        if len(waiting) >= self._batch:
            self._full.set()

    def finish(self) -> None:
        """Deliver what waits, without gathering, and end. `join` waits for it."""
        self._closing = True
        self._full.set()
        self._some.set()

    def join(self, within: float) -> bool:
        """At most `within` seconds, then what is under way is called off. True when everything was delivered."""
        thread = self._thread
        if thread is None:
            return True
        thread.join(max(0.0, within))
        if not thread.is_alive():
            return not self._waiting
        if self._exporter is not None:
            self._exporter.stop()
            thread.join(_ABANDON)
        return False

    # -- the thread

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._some.clear()
            if self._gather and not self._closing:
                self._full.wait(self._gather)
            self._full.clear()
            while self._waiting:
                self._deliver()
                if self._batch > len(self._waiting) and not self._closing:
                    break  # the rest may gather again
            if self._closing and not self._waiting:
                if self._exporter is not None:
                    self._exporter.stop()
                return
            if self._waiting:
                self._some.set()

    def _deliver(self) -> None:
        # The loop may put while we take, and with limit 1 clear: whatever is gone meanwhile is not ours.
        batch: list[_T] = []
        try:
            while len(batch) < self._batch:
                batch.append(self._waiting.popleft())
        except IndexError:
            pass
        if not batch:
            return
        began_at = monotonic()
        try:
            if self._exporter is None:
                with _OPENING:
                    self._exporter = self._open()
            wrong = self._exporter.deliver(batch)
        except Exception as error:  # whatever a collector's answer does to an exporter ends here
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            self.lost += len(batch)
            if not self._failing:
                self._failing = True
                self._log.warning(
                    f"Failed to export {self._what}; requests are not affected.",
                    error=wrong[:500], took=round(monotonic() - began_at, 3),
                )  # fmt: skip
            return
        self.delivered += len(batch)
        if self._failing:
            self._failing = False
            self._log.info(f"Exporting {self._what} works again.", lost=self.lost)
