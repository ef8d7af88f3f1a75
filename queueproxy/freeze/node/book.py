"""Keeps the books of this node: names and usage of each pod, its latest changes, and what is counted for all of them.

What it touches: the process log and the event buffer, both of which never wait. Whatever happens is written down once,
with generation and reason and nothing that the caller kept secret (FZ-102). Counters are plain integers with few labels
(FZ-100): reasons that sidecars write are free text, so causes are sorted into a handful of words.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final, NamedTuple

from queueproxy.buckets import THAWS, Histogram
from queueproxy.clock import monotonic, wall_clock
from queueproxy.freeze.node.actions import Event, Kind, Move
from queueproxy.freeze.node.events import Events
from queueproxy.freeze.node.inventory import PodFacts
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.node.port import Answered
from queueproxy.freeze.node.record import Record
from queueproxy.freeze.node.usage import PodUsage
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import RUNG_WORDS, Problem, View, Wanted
from queueproxy.log import Log

__all__ = ["Book", "Page", "cause_of"]

Count = Callable[[], int | None]  # microseconds, by the kernel

_CHANGES: Final = 5  # of each pod, for `queueproxy status`
_LOUD: Final = frozenset({Kind.FAILED, Kind.HARMED})
_QUIET: Final = frozenset({Kind.ACTIVE, Kind.IDLE})  # wishes: what came of them is said anyway
_WORDS: Final = {kind: kind.value for kind in Kind}
_FROZEN, _THAWED = Rung.FROZEN, Kind.THAWED  # Python 3.11: an enum's attribute is 900 instructions
# The ledger's own reasons; everything else was the sidecar's.
_CAUSES: Final = {
    "lease over": "lease", "operator": "operator", "stop signal": "stop_signal", "draining": "drain",
    "pod deleted": "deleted", "containers changed": "containers", "policy": "policy", "harmed": "harmed",
    "may not sleep": "policy", "adopted": "adoption", "found awake": "adoption", "gone": "gone",
}  # fmt: skip


def cause_of(reason: str) -> str:
    """One of a handful of words, for metrics."""
    if reason.startswith("freeze failed"):
        return "failure"
    return _CAUSES.get(reason, "sidecar")


class Change(NamedTuple):
    """One line of a pod's history. `at` is monotonic."""

    at: float
    kind: str
    reason: str


class Page:
    """One pod."""

    __slots__ = ("changes", "idle_for", "ids", "known_at", "name", "namespace", "revision", "usage")

    def __init__(self, now: float, namespace: str, name: str, revision: str) -> None:
        self.namespace = namespace
        self.name = name
        self.revision = revision
        self.ids: frozenset[str] = frozenset()
        self.known_at = now  # of these containers
        self.idle_for = 0.0  # how long it is idle before it sleeps
        self.usage = PodUsage(now)
        self.changes: deque[Change] = deque(maxlen=_CHANGES)


class Book:
    """All of them."""

    def __init__(self, events: Events, log: Log) -> None:
        self.events = events
        self.pages: dict[str, Page] = {}
        self._log = log
        self.happenings: Counter[str] = Counter()  # by kind
        self.thaws: Counter[str] = Counter()  # by cause
        self.moves: Counter[tuple[str, str]] = Counter()  # by rung and outcome
        self.took = {rung: Histogram(THAWS) for rung in Rung}  # in the kernel, moves that were confirmed
        self.answered = {wanted: Histogram(THAWS) for wanted in Wanted}  # from the whole request to its answer
        self.asleep_s = [0.0] * len(Rung)  # of pods that are gone
        self.cpu_s = [0.0] * len(Rung)
        self.saved_s = 0.0

    def __repr__(self) -> str:
        return f"<Book {len(self.pages)} pods, {self.happenings.total()} events>"

    # -- who is who

    def known(self, now: float, facts: PodFacts) -> None:
        page = self._page(now, facts.uid, facts.namespace, facts.name, facts.revision)
        ids = frozenset(container.id for container in facts.containers)
        if ids and ids != page.ids:
            page.ids, page.known_at = ids, now
        delays = (facts.policy.freeze_after_s, facts.policy.throttle_after_s)
        page.idle_for = min((delay for delay in delays if delay is not None), default=0.0)

    def adopted(self, now: float, record: Record) -> None:
        self._page(now, record.uid, record.namespace, record.name, record.revision)

    def known_for(self, uid: str, now: float) -> float:
        """Seconds since these containers were first seen."""
        page = self.pages.get(uid)
        return now - page.known_at if page is not None else 0.0

    def forget(self, uid: str) -> None:
        """Its totals stay."""
        page = self.pages.pop(uid, None)
        if page is None:
            return
        for rung in Rung:
            self.asleep_s[rung] += page.usage.asleep_s[rung]
            self.cpu_s[rung] += page.usage.cpu_s[rung]
        self.saved_s += page.usage.saved_s

    def _page(self, now: float, uid: str, namespace: str, name: str, revision: str) -> Page:
        page = self.pages.get(uid)
        if page is None:
            page = self.pages[uid] = Page(now, namespace, name, revision)
        page.namespace, page.name, page.revision = namespace, name, revision
        return page

    # -- what happens

    def timed(self, asked_at: float, wanted: Wanted, answered: Answered) -> Answered:
        """The same callback, with the time until it is called written down."""

        def done(view: View | None, problem: Problem | None, detail: str) -> None:
            if problem is None:
                self.answered[wanted].observe(monotonic() - asked_at)
            answered(view, problem, detail)

        return done

    def moved(self, move: Move, moved: Moved) -> None:
        """A move has ended."""
        reached = moved.rung is move.rung
        self.moves[RUNG_WORDS[move.rung], "confirmed" if reached else "gone" if moved.gone else "failed"] += 1
        if reached:
            self.took[move.rung].observe(moved.took)

    def changed(self, now: float, uid: str, rung: Rung, cpu_usec: Count, frozen_usec: Count) -> None:
        """The kernel's counters are read as far as they can have moved since: each costs some 10 us."""
        page = self.pages.get(uid)
        if page is None:
            return
        usage = page.usage
        was_frozen = usage.rung is _FROZEN
        cpu = usage.cpu_usec if was_frozen and usage.cpu_usec is not None else cpu_usec()
        frozen = usage.frozen_usec if not was_frozen and usage.frozen_usec is not None else frozen_usec()
        usage.moved(now, rung, cpu, frozen, page.idle_for)

    def looked(self, now: float, uid: str, cpu_usec: int | None) -> None:
        page = self.pages.get(uid)
        if page is not None:
            page.usage.looked(now, cpu_usec)

    def happened(self, now: float, event: Event) -> None:
        """An event of the ledger: counted, logged, kept for readers and for the pod's history."""
        kind, uid = event.kind, event.uid
        page = self.pages.get(uid) or Page(now, "", "", "")
        word = _WORDS[kind]
        self.happenings[word] += 1
        if kind is _THAWED:
            self.thaws[cause_of(event.reason)] += 1
        page.changes.append(Change(now, word, event.reason))
        self.events.add(
            wall_clock(), uid, page.namespace, page.name, page.revision, word, event.generation, event.reason
        )
        if kind in _QUIET and not self._log.debug_on:
            return
        say = self._log.warning if kind in _LOUD else self._log.debug if kind in _QUIET else self._log.info
        say(
            word, pod=page.name, namespace=page.namespace, uid=uid,
            generation=event.generation, reason=event.reason,
        )  # fmt: skip

    # -- sums over all pods, those that are gone included

    def asleep(self, rung: Rung) -> float:
        """Seconds, of sleeps that have ended or changed."""
        return self.asleep_s[rung] + sum(page.usage.asleep_s[rung] for page in self.pages.values())

    def cpu(self, rung: Rung) -> float:
        """CPU seconds used on this rung, as far as it was measured."""
        return self.cpu_s[rung] + sum(page.usage.cpu_s[rung] for page in self.pages.values())

    def saved(self) -> float:
        """CPU seconds that sleep has saved, an estimate."""
        return self.saved_s + sum(page.usage.saved_s for page in self.pages.values())
