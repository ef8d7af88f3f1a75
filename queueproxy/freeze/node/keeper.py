"""Runs the ledger against the kernel and the journal: carries out its actions, tells it what came of them.

What it touches: the movers (one per pod, made when first needed), the journal, one timer for the ledger's deadlines.
It is the `Desk` of the sidecars' port: a wish goes to the ledger, its moves to the kernel, and the answer back to the
caller, usually in one pass. What nobody waits for (counting, logging, the event stream, removing journal records) is
put off until the app that was woken has had its first moments: it takes as long as the thaw, on cores that the app and
its sidecar need just then.

What happens when that breaks: a journal that cannot be written makes the freeze fail, because nobody could undo it
after a crash; a mover that cannot be made is a failed move. In both cases the ledger sees to it that the pod runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from queueproxy.clock import monotonic
from queueproxy.freeze.node.book import Book
from queueproxy.freeze.node.harm import Harm
from queueproxy.freeze.node.inventory import PodFacts
from queueproxy.freeze.node.journal import Journal, Unreadable
from queueproxy.freeze.node.ledger import (
    Action,
    Actions,
    Answer,
    Close,
    Event,
    Forget,
    Kind,
    Ledger,
    Move,
    Phase,
    Remember,
    Reply,
)
from queueproxy.freeze.node.locate import Tree
from queueproxy.freeze.node.mover import Moved, PodMover
from queueproxy.freeze.node.port import Answered
from queueproxy.freeze.node.record import Record
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import OldAction, Problem, StateRequest, Wanted
from queueproxy.log import Log

__all__ = ["LATER", "Keeper"]

_ASLEEP = frozenset({Phase.ASLEEP, Phase.DUE})
LATER: Final = 0.005  # seconds: the answer leaves, the sidecar dials, the app reads its request
_AWAKE, _RUNNING, _ACCEPTED, _IDLE = Rung.RUNNING, Phase.RUNNING, Answer.ACCEPTED, Wanted.IDLE
_THAWED, _ADOPTED = Kind.THAWED, Kind.ADOPTED  # looked up once: in Python 3.11 that takes 900 instructions
_RUNGS = {Kind.FROZEN: Rung.FROZEN, Kind.THROTTLED: Rung.THROTTLED, Kind.THAWED: Rung.RUNNING}


class Proofs(Protocol):
    """Knows how a pod's sidecar would prove its session to a freezer that takes over."""

    def proof(self, uid: str) -> str: ...


class Keeper:
    """All pods of this node."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        ledger: Ledger,
        tree: Tree,
        journal: Journal,
        book: Book,
        proofs: Proofs,
        log: Log,
        *,
        old_lease: float = 60.0,
    ) -> None:
        self.ledger = ledger
        self.book = book
        self.adopted: dict[str, Record] = {}  # pods that only the journal knows
        self.on_gone: Callable[[str], None] = lambda uid: None
        self.on_idle: Callable[[], None] | None = None  # nothing is held any more; asked for by a drain
        self._loop = loop
        self._tree = tree
        self._journal = journal
        self._proofs = proofs
        self._log = log
        self._old_lease = old_lease
        self._movers: dict[str, PodMover] = {}
        self._replies: dict[int, Answered] = {}
        self._written: dict[str, tuple[object, ...]] = {}  # what of each pod's record would matter to a successor
        self._unwritten: dict[str, str] = {}  # pods whose record could not be written just now, and why
        self._harm = Harm()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._later: list[tuple[float, Event | Forget]] = []
        self._later_timer: asyncio.TimerHandle | None = None
        self._depth = 0  # of actions that led straight back in
        self._is_to_wind = False
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Keeper {self.ledger!r} movers={len(self._movers)} waiting={len(self._replies)}>"

    # -- the desk

    def sidecar_of(self, uid: str) -> str:
        entry = self.ledger.pods.get(uid)
        if entry is not None and entry.permit.facts is not None:
            return entry.permit.facts.sidecar_id
        record = self.adopted.get(uid)
        return record.sidecar_id if record is not None else ""

    def viewed(self, uid: str, answered: Answered) -> None:
        view = self.ledger.view(monotonic(), uid)
        answered(view, None if view is not None else Problem.NOT_READY, "")

    def asked(self, uid: str, request: StateRequest, answered: Answered, *, fresh: bool = True) -> None:
        """`fresh`: the caller's token was confirmed lately. If not, it may thaw and renew, but not fall asleep."""
        now = monotonic()
        if not fresh and request.wanted is _IDLE and not self._renews(uid, request):
            answered(self.ledger.view(now, uid), Problem.NOT_READY, "the API server cannot be asked")
            return
        verdict = self.ledger.asked(now, uid, request)
        if verdict.answer is _ACCEPTED:
            self._replies[verdict.number] = self.book.timed(now, request.wanted, answered)
        else:
            answered(verdict.view, verdict.problem, verdict.detail)
        self._carry_out(verdict.actions)

    def asked_of_old(self, uid: str, action: OldAction, answered: Answered, *, fresh: bool = True) -> None:
        """The protocol of old counts no generations and renews nothing. Its clients end themselves when a pause is
        refused for long, so a pause that we do not carry out is confirmed all the same: the app just runs."""
        entry = self.ledger.pods.get(uid)
        if entry is None:
            answered(None, None, "")  # nothing of ours holds it
            return
        if action is OldAction.RESUME:
            self.asked(uid, StateRequest(Wanted.ACTIVE, entry.generation + 1, reason="resume"), answered)
            return
        policy = entry.permit.policy(monotonic())
        young = policy is None or self.book.known_for(uid, monotonic()) < policy.min_uptime_s
        if young or not fresh:  # it pauses before the app has started (lineage D-03)
            answered(None, None, "")
            return
        wish = StateRequest(_IDLE, entry.generation + 1, self._old_lease, "pause")
        self.asked(uid, wish, lambda view, problem, detail: answered(view, None, detail))

    def _renews(self, uid: str, request: StateRequest) -> bool:
        entry = self.ledger.pods.get(uid)
        return entry is not None and request.generation == entry.generation and entry.wanted is _IDLE

    # -- the inventory

    def known(self, facts: PodFacts) -> None:
        self.adopted.pop(facts.uid, None)
        self.book.known(monotonic(), facts)
        self._carry_out(self.ledger.known(monotonic(), facts))

    def gone(self, uid: str) -> None:
        self.adopted.pop(uid, None)
        self._harm.forget(uid)
        self._carry_out(self.ledger.gone(monotonic(), uid))
        self.on_gone(uid)

    # -- operators and the node

    def thaw(self, uid: str | None, hold_for: float) -> bool:
        """One pod at once, or all at the pace of the storm; False when there is no such pod."""
        if uid is not None and uid not in self.ledger.pods:
            return False
        self._carry_out(self.ledger.operator_thaw(monotonic(), uid, hold_for))
        return True

    def drain(self) -> None:
        self._carry_out(self.ledger.draining(monotonic()))

    def adopt(self) -> None:
        """What a former freezer left: takes over what is asleep, thaws what cannot be read (FZ-092, FZ-097)."""
        for found in self._journal.records():
            try:
                if isinstance(found, Unreadable):
                    self._thaw_unreadable(found)
                else:
                    self._adopt(found)
            except (OSError, ValueError) as error:
                self._log.error("a journal record could not be adopted", pod=found.uid, error=str(error))
        if self.ledger.pods:
            self._log.info("adopted pods from the journal", pods=len(self.ledger.pods))

    def _adopt(self, record: Record) -> None:
        uid = record.uid
        mover = PodMover(self._loop, self._tree, record.containers, uid, record.qos, adopt=record.held)
        there = bool(mover.held()["containers"])
        rung = mover.seen() if there else None
        if there:
            self._movers[uid] = mover
            self.adopted[uid] = record
            self.book.adopted(monotonic(), record)
        else:
            mover.close()
        self._carry_out(self.ledger.adopted(monotonic(), record, rung))

    def _thaw_unreadable(self, found: Unreadable) -> None:
        self._log.error("a journal record cannot be read", pod=found.uid, why=found.why)
        if found.held is None or found.uid in self._movers:
            return
        mover = PodMover(self._loop, self._tree, (), found.uid, "burstable", adopt=found.held)

        def moved(moved: Moved) -> None:
            mover.close()
            if moved.rung is _AWAKE or moved.gone:
                self._journal.remove(found.uid)
                self._log.warning("thawed what an unreadable record named", pod=found.uid)
            else:
                self._log.error("could not thaw what an unreadable record names", pod=found.uid, why=moved.detail)

        mover.move(_AWAKE, moved)

    # -- actions

    def _carry_out(self, actions: Actions) -> None:
        self._depth += 1
        try:
            for action in actions:
                self._do(action)
        finally:
            self._depth -= 1
        if not self._depth and not self._is_to_wind:
            self._is_to_wind = True
            self._loop.call_soon(self._wind)  # the loop writes answers out before it comes to this

    def _do(self, action: Action) -> None:
        if isinstance(action, Reply):
            answered = self._replies.pop(action.number, None)
            if answered is not None:
                answered(action.view, action.problem, action.detail)
        elif isinstance(action, Move):
            self._move(action)
        elif isinstance(action, Remember):
            self._remember(action.uid)
        elif isinstance(action, Close):
            self._do_later()
            mover = self._movers.pop(action.uid, None)
            self._written.pop(action.uid, None)
            if mover is not None:
                mover.close()
            if action.uid not in self.ledger.pods:
                self.book.forget(action.uid)
        else:
            if isinstance(action, Forget):
                self._written.pop(action.uid, None)  # if it is remembered again, that record counts
            self._later.append((monotonic(), action))

    def _move(self, move: Move) -> None:
        uid = move.uid
        problem = self._unwritten.pop(uid, "") if move.rung else ""
        try:
            mover = self._mover(uid)
        except (OSError, ValueError) as error:
            problem = str(error)
        if problem:
            self._reached(move, Moved(None, "", 0.0, problem, False))
        else:
            if move.rung:
                self._harm.forget(uid)
            mover.move(move.rung, lambda moved: self._reached(move, moved))

    def _reached(self, move: Move, moved: Moved) -> None:
        self.book.moved(move, moved)
        self._carry_out(self.ledger.reached(monotonic(), move.uid, move.number, moved))

    def _mover(self, uid: str) -> PodMover:
        mover = self._movers.get(uid)
        if mover is None:
            permit = self.ledger.pods[uid].permit
            facts = permit.facts
            if facts is None:
                raise ValueError("nothing is known of its containers")
            containers = [container for container in facts.containers if container.id in permit.ids]
            mover = self._movers[uid] = PodMover(self._loop, self._tree, containers, uid, facts.qos)
        return mover

    def _remember(self, uid: str) -> None:
        try:
            entry, proof = self.ledger.pods[uid], self._proofs.proof(uid)
            written = (entry.generation, entry.rung, entry.permit.ids, entry.permit.ended, proof)
            if self._written.get(uid) == written:
                return  # the kernel has confirmed what was written down before it was asked
            mover = self._movers.get(uid) or self._mover(uid)
            record = self.ledger.record(monotonic(), uid, mover.held(), proof)
            if record is not None:
                self._journal.write(record)
                self._written[uid] = written
            self._unwritten.pop(uid, None)
        except (OSError, ValueError, KeyError) as error:
            self._unwritten[uid] = f"the journal cannot be written: {error}"
            self._log.error("the journal cannot be written", pod=uid, error=str(error))

    def _do_later(self) -> None:
        if self._later_timer is not None:
            self._later_timer.cancel()
            self._later_timer = None
        later, self._later = self._later, []
        for at, action in later:
            if isinstance(action, Event):
                self._tell(at, action)
            elif action.uid not in self._written:
                try:
                    self._journal.remove(action.uid)
                except OSError as error:
                    self._log.error("the journal cannot be written", pod=action.uid, error=str(error))
        if later and self.on_idle is not None and not self.ledger.held:
            self.on_idle()

    def _tell(self, at: float, event: Event) -> None:
        uid, kind = event.uid, event.kind
        mover = self._movers.get(uid) if kind in _RUNGS or kind is _ADOPTED else None
        if mover is not None:
            entry = self.ledger.pods.get(uid)
            now = entry.rung if entry is not None else _AWAKE
            self.book.changed(at, uid, _RUNGS.get(kind, now), mover.cpu_usec, mover.frozen_usec)
            if kind is _THAWED and not now and entry is not None and not entry.permit.is_terminal:
                self._harm.thawed(at, uid, mover.pids())
                self._wind()
        self.book.happened(at, event)

    # -- time

    def _wind(self) -> None:
        """One timer for what is put off, and one for the ledger and the second look after a thaw, moved only to an
        earlier instant."""
        self._is_to_wind = False
        if self._is_closed:
            return
        if self._later and self._later_timer is None:
            self._later_timer = self._loop.call_later(LATER, self._do_later)
        due = min(self.ledger.next_deadline() or inf, self._harm.next_at())
        if due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self._loop.call_later(max(0.0, due - monotonic()), self._due)

    def _due(self) -> None:
        self._timer, self._timer_at = None, inf
        now = monotonic()
        for uid in self._harm.due(now):
            mover = self._movers.get(uid)
            why = self._harm.looked(uid, mover.pids()) if mover is not None else ""
            actions = self.ledger.harmed(now, uid, why) if why else ()
            if actions:  # it does not ask about a pod that ends, or is spared already
                self._log.warning("sleep harmed a pod; its revision is throttled for a while", pod=uid, why=why)
                self._carry_out(actions)
        self._carry_out(self.ledger.on_deadline(now))

    # -- looking around (see patrol.py)

    def sleepers(self) -> list[str]:
        return [uid for uid, entry in self.ledger.pods.items() if entry.phase in _ASLEEP]

    def wakers(self) -> list[str]:
        """Pods that run, may sleep, and are held."""
        pods = self.ledger.pods
        return [uid for uid in self._movers if (entry := pods.get(uid)) is not None and entry.phase is _RUNNING]

    def look_for_stop(self, uid: str) -> None:
        """A stop signal that waits for a frozen container (FZ-055)."""
        mover = self._movers.get(uid)
        container = mover.stop_pending() if mover is not None else None
        if container is not None:
            self._log.info("a stop signal is pending; thawing", pod=uid, container=container)
            self._carry_out(self.ledger.stop_pending(monotonic(), uid))

    def look_at_cpu(self, uid: str) -> None:
        mover = self._movers.get(uid)
        if mover is not None:
            self.book.looked(monotonic(), uid, mover.cpu_usec())

    def close(self) -> None:
        """Lets go of everything as it is."""
        self._is_closed = True
        self._do_later()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, inf
        for mover in self._movers.values():
            mover.close()
        self._movers.clear()
