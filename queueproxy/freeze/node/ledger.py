"""Decides for all pods of the node: wanted against seen, and what to do about the difference.

Theory of operation. Past participles come in, actions come out (see `actions.py`), each pod for itself in its `Entry`;
the ledger finds the entry, keeps the one deadline that is next, and lets safety thaws go at the storm's pace. Whoever
owns it carries the actions out in order and sets one timer to `next_deadline()` after each call. An action may lead
straight back in: a `Move` that the kernel confirms at once calls `reached` while the remaining actions wait.

Times are monotonic and only ever compared: a step of the wall clock cannot be seen from here (FZ-091). A ledger that
is called late catches up; no lease is forgotten, because each sleeping pod has a deadline in the heap. Deadlines that
moved later stay in the heap until they come up, so that a renewal costs nothing.
"""

from __future__ import annotations

import heapq
from math import inf

from queueproxy.freeze.node.actions import (
    Action,
    Actions,
    Answer,
    Close,
    Event,
    Forget,
    Kind,
    LedgerSettings,
    Move,
    Phase,
    Remember,
    Reply,
    Verdict,
)
from queueproxy.freeze.node.entry import Entry
from queueproxy.freeze.node.held import JournalHeld
from queueproxy.freeze.node.inventory import PodFacts
from queueproxy.freeze.node.losses import WINDOW
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.node.permit import Terms
from queueproxy.freeze.node.record import Record
from queueproxy.freeze.vocabulary import HARMED, Rung
from queueproxy.freeze.wire import Problem, StateRequest, View

__all__ = [
    "Action", "Actions", "Answer", "Close", "Event", "Forget", "Kind", "Ledger", "LedgerSettings", "Move", "Phase",
    "Remember", "Reply", "Verdict",
]  # fmt: skip

_RUNNING = Phase.RUNNING  # Python 3.11: an enum's attribute is 900 instructions


class Ledger:
    """Who sleeps by which lease."""

    __slots__ = ("_armed", "_heap", "_records", "_terms", "pods")

    def __init__(self, settings: LedgerSettings | None = None) -> None:
        self._terms = Terms(settings or LedgerSettings())
        self.pods: dict[str, Entry] = {}  # by uid; for reading
        self._records: dict[str, Record] = {}  # of adopted pods that the API server has not shown yet
        self._heap: list[tuple[float, str]] = []
        self._armed: dict[str, float] = {}  # uid -> its earliest place in the heap

    def __repr__(self) -> str:
        return f"<Ledger {len(self.pods)} pods, {self.held} held, {self._terms!r}>"

    # === What may be asked of it. ===

    @property
    def held(self) -> int:
        """Pods that are not certainly running; a drain is over when there are none."""
        return sum(entry.phase is not _RUNNING for entry in self.pods.values())

    @property
    def is_draining(self) -> bool:
        return self._terms.draining

    def view(self, now: float, uid: str) -> View | None:
        """For GET; None when the pod is not known."""
        entry = self.pods.get(uid)
        return None if entry is None else entry.view(now)

    def record(self, now: float, uid: str, held: JournalHeld | None, proof: str = "") -> Record | None:
        """What `Remember` has to write; None when there is nothing to say about the pod (any more)."""
        entry = self.pods.get(uid)
        if entry is None:
            return None
        facts, before = entry.permit.facts, self._records.get(uid)
        if facts is None and before is None:
            return None
        # Containers as held, not as the newest facts have them: those may name others already, or none.
        named = {container.id: container for container in (before.containers if before is not None else ())}
        named |= {container.id: container for container in (facts.containers if facts is not None else ())}
        source = facts if facts is not None else before
        assert source is not None
        return Record(
            uid, source.namespace, source.name, source.revision, source.qos, source.ips, source.sidecar_id,
            tuple(named[id_] for id_ in sorted(entry.permit.ids & named.keys())),
            entry.generation, entry.rung, max(0.0, entry.lease_until - now) if entry.rung else 0.0,
            tuple(sorted(entry.permit.ended)), held, proof,
        )  # fmt: skip

    # === Events. ===

    def known(self, now: float, facts: PodFacts) -> Actions:
        """The pod as the API server has it: new, changed or the same."""
        entry = self.pods.get(facts.uid)
        if entry is None:
            entry = self.pods[facts.uid] = Entry(self._terms, facts.uid, now)
        out: list[Action] = []
        ids, awake_for = entry.permit.ids, now - entry.since if entry.wakes and not entry.rung else inf
        entry.known(now, facts, out)
        actions = self._done(entry, out)
        # The kubelet is quick to start another one; then nobody is left whose processes could be missed.
        if awake_for <= WINDOW and not ids <= {container.id for container in facts.containers}:
            actions += self.harmed(now, facts.uid, f"a container ended within {WINDOW:g} s of a thaw")
        return actions

    def gone(self, now: float, uid: str) -> Actions:
        """The pod was deleted."""
        entry = self.pods.get(uid)
        if entry is None:
            return ()
        out: list[Action] = []
        entry.vanished(now, out)
        return self._done(entry, out)

    def asked(self, now: float, uid: str, request: StateRequest) -> Verdict:
        """The sidecar's wish. Note the verdict's number, then carry out its actions."""
        entry = self.pods.get(uid)
        if entry is None:
            return Verdict(Answer.REFUSED, self._terms.number(), None, Problem.NOT_READY, "the pod is not known yet")
        harm: Actions = ()
        if request.generation > entry.generation and request.reason.startswith(HARMED):
            harm = self.harmed(now, uid, request.reason.removeprefix(HARMED))
        verdict = entry.asked(now, request)
        self._arm(entry)
        return verdict._replace(actions=harm + verdict.actions) if harm else verdict

    def reached(self, now: float, uid: str, number: int, moved: Moved) -> Actions:
        """The end of a move. One that was overtaken is not heard."""
        entry = self.pods.get(uid)
        if entry is None or not number or number != entry.move:
            return ()
        out: list[Action] = []
        entry.reached(now, moved, out)
        return self._done(entry, out)

    def adopted(self, now: float, record: Record, rung: Rung | None) -> Actions:
        """A journal record, and the rung the kernel has its containers at; None when none of them exists."""
        entry = self.pods.get(record.uid)
        if rung is None:
            return (Forget(record.uid),) if entry is None or entry.phase is _RUNNING else ()
        if entry is None:
            entry = self.pods[record.uid] = Entry(self._terms, record.uid, now)
        elif entry.phase is not _RUNNING:
            return ()  # no news: it is held already
        self._records[record.uid] = record
        permit = entry.permit
        permit.ids = frozenset(container.id for container in record.containers)
        if permit.ids.intersection(record.ended):
            permit.end()
        out: list[Action] = [Event(record.uid, Kind.ADOPTED, record.generation, rung.name.lower())]
        entry.adopted(now, record.generation, rung, out)
        if permit.facts is not None:
            entry.known(now, permit.facts, out)
        return self._done(entry, out)

    def stop_pending(self, now: float, uid: str) -> Actions:
        """A stop signal waits for a sleeping container: it must run, and never sleep again (FZ-055)."""
        entry = self.pods.get(uid)
        if entry is None:
            return ()
        out: list[Action] = []
        entry.stopping(now, out)
        return self._done(entry, out)

    def operator_thaw(self, now: float, uid: str | None, hold_for: float = 0.0) -> Actions:
        """Run now and for `hold_for` seconds: one pod at once, or all (None) at the pace of the storm."""
        if uid is not None and uid not in self.pods:
            return ()
        out: list[Action] = []
        for entry in [self.pods[uid]] if uid is not None else list(self.pods.values()):
            entry.held_awake(now, now + hold_for, out, urgent=uid is not None)
            self._arm(entry)
        return tuple(out)

    def harmed(self, now: float, uid: str, why: str) -> Actions:
        """Sleep did the pod harm: its revision is throttled for a while (FZ-084). Not so a pod that ends, whose
        processes are meant to, and one that is spared already: what happens to it now was not done by a freeze."""
        entry = self.pods.get(uid)
        if entry is None or entry.permit.is_terminal or not (revision := entry.permit.revision):
            return ()
        if self._terms.fallback.why(now, revision):
            return ()
        self._terms.fallback.harmed(now, revision, f"harmed: {why}")
        out: list[Action] = [Event(uid, Kind.HARMED, entry.generation, why)]
        for other in self.pods.values():
            if other.permit.revision == revision:
                other.review(now, "harmed", out)
                self._arm(other)
        return tuple(out)

    def draining(self, now: float) -> Actions:
        """The freezer or the node stops: nobody falls asleep any more, and all that sleep run in a while (FZ-093)."""
        self._terms.draining = True
        out: list[Action] = []
        for entry in self.pods.values():
            entry.review(now, "draining", out, soon=False)
            self._arm(entry)
        return tuple(out)

    # === Time. ===

    def next_deadline(self) -> float | None:
        """When to call `on_deadline`; None while there is nothing to wait for."""
        self._clean()
        due = min(self._heap[0][0] if self._heap else inf, self._terms.storm.next_at())
        return due if due < inf else None

    def on_deadline(self, now: float) -> Actions:
        """Whatever is due by `now`; harmless when nothing is."""
        out: list[Action] = []
        while self._heap and self._heap[0][0] <= now:
            at, uid = heapq.heappop(self._heap)
            entry = self.pods.get(uid)
            if entry is None or self._armed.get(uid) != at:
                continue
            del self._armed[uid]
            if entry.until <= now:
                entry.on_deadline(now, out)
            self._arm(entry)
        for uid in self._terms.storm.release(now):
            entry = self.pods.get(uid)
            if entry is not None:
                entry.turn(now, out)
                self._arm(entry)
        return tuple(out)

    # === Small parts. ===

    def _done(self, entry: Entry, out: list[Action]) -> Actions:
        uid = entry.uid
        if entry.permit.facts is not None and entry.phase is _RUNNING:
            self._records.pop(uid, None)
        if entry.permit.is_gone and entry.phase is _RUNNING:
            self.pods.pop(uid, None)
            self._records.pop(uid, None)
            self._armed.pop(uid, None)
            self._terms.storm.discard(uid)
        else:
            self._arm(entry)
        return tuple(out)

    def _arm(self, entry: Entry) -> None:
        """Only an earlier deadline needs a place of its own."""
        until = entry.until
        if until < self._armed.get(entry.uid, inf):
            self._armed[entry.uid] = until
            heapq.heappush(self._heap, (until, entry.uid))

    def _clean(self) -> None:
        """Bring up the first deadline that still stands."""
        heap = self._heap
        while heap:
            at, uid = heap[0]
            entry = self.pods.get(uid)
            if entry is not None and self._armed.get(uid) == at:
                if entry.until == at:
                    return
                del self._armed[uid]
                heapq.heappop(heap)
                self._arm(entry)
            else:
                heapq.heappop(heap)
