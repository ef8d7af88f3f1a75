"""Runs the sleep of one pod behind stock Knative: the freezer's client, the knock, and what both have to say.

It stands between the gate and the node's freezer. To the gate it is the look before sleep and an observer; to the
client it is the owner. It says once per change what became of the app (FZ-102), and once per outage that there is no
freezer (D13). Wakes by knock are frequent and ordinary: they and the sleep after them are told at debug level.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from math import inf
from random import Random
from typing import Protocol

from queueproxy.clock import monotonic
from queueproxy.freeze.client import FreezerClient
from queueproxy.freeze.credential import TokenFile
from queueproxy.freeze.deepcheck import HOLD, REASON, DeepCheck
from queueproxy.freeze.dialogue import Terms
from queueproxy.freeze.gate import Gate
from queueproxy.freeze.knock import Knock
from queueproxy.freeze.mounts import Way
from queueproxy.freeze.session import Session
from queueproxy.freeze.settings import IdleSettings
from queueproxy.freeze.terms import settings
from queueproxy.freeze.vocabulary import HARMED, Ask, Look, Moved, Rung, State
from queueproxy.freeze.watch import GateWatch

__all__ = ["FreezerCounts", "PodSleep", "SleepLog"]

# Seconds. A sidecar that was restarted may find its app asleep: what arrives before it knows is held for the time of a
# dial (0.1) and an answer, and then let through (D13). Over before a pod that is new can be ready.
UNSURE_FOR = 0.15

_DONE = {Rung.RUNNING: "The app runs again", Rung.THROTTLED: "The app is throttled", Rung.FROZEN: "The app is frozen"}
_NOT_DONE = {
    Rung.RUNNING: "The app could not be woken",
    Rung.THROTTLED: "The app could not be throttled",
    Rung.FROZEN: "The app could not be frozen",
}


class SleepLog(Protocol):
    """log.Log, as far as it is used here."""

    def debug(self, message: str, /, **fields: object) -> None: ...
    def info(self, message: str, /, **fields: object) -> None: ...
    def warning(self, message: str, /, **fields: object) -> None: ...


class FreezerCounts(Protocol):
    """metrics.pause.PauseCounts, as far as it is used here."""

    freezer_up: bool | None
    freezer_faults: Callable[[], dict[str, int]]
    knocks: Callable[[], int]


class Probes(Protocol):
    """probes.runner.Prober, as far as it is used here."""

    on_result: Callable[[bool], None]

    @property
    def running(self) -> bool: ...


class Requests(Protocol):
    """proxy.plane.Plane, as far as it is used here."""

    let_down: Callable[[float, str], None] | None

    def tell_waits(self, *, on: bool) -> None: ...


class PodSleep:
    """woke(): the app was woken for more than a knock; time for a real probe (FZ-042)."""

    __slots__ = (
        "_by_knock", "_checks", "_checks_timer", "_counts", "_failed", "_first", "_gate", "_is_routine", "_knock",
        "_log", "_loop", "_prober", "_requests", "_session", "_thawed_at", "_watch", "_woke", "client",
    )  # fmt: skip

    patience = 10.0
    """Seconds a request waits for a freezer that is away before it gets 503 (FZ-038). A DaemonSet's container is back
    in two to five, and thaws before anything else; readiness fails after 1.3 all the same (FZ-046)."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        way: Way,
        log: SleepLog,
        counts: FreezerCounts,
        woke: Callable[[], None],
        random: Random | None = None,
    ) -> None:
        self._loop = loop
        self._log = log
        self._counts = counts
        self._woke = woke
        self._session = Session(random or Random(), way.policy)
        self.client = FreezerClient(loop, way.address, TokenFile(way.token_path), self._session, self)
        self._gate: Gate | None = None
        self._knock: Knock | None = None
        self._watch: GateWatch | None = None
        self._by_knock = False  # the last wake
        self._is_routine = False  # the last wake: nothing to be told every time
        self._failed = -1  # the generation whose failure was told
        self._thawed_at = -inf
        self._first: tuple[float, str] | None = None  # the first request since the last sleep that found no app
        self._checks = DeepCheck()
        self._checks_timer: asyncio.TimerHandle | None = None
        self._prober: Probes | None = None
        self._requests: Requests | None = None
        counts.freezer_up = False
        counts.freezer_faults = lambda: {fault.value: n for fault, n in self._session.outage.faults.items()}

    def __repr__(self) -> str:
        return f"<PodSleep {self.client!r} {self._knock!r}>"

    def attach(self, gate: Gate, watch: GateWatch, user_port: int, ports_of_ours: Collection[int]) -> None:
        """The gate exists now; until there is a freezer it stays open."""
        self._gate, self._watch = gate, watch
        self._knock = knock = Knock(self._loop, gate, user_port, ports_of_ours)
        self._counts.knocks = lambda: knock.knocks
        self.client.why = self._why
        gate.disable("no freezer yet")

    def watch(self, requests: Requests, prober: Probes) -> None:
        """What requests and real probes find tells what sleep did to the app."""
        requests.let_down = self.let_down
        self._requests = requests
        self._prober, told = prober, prober.on_result

        def probed(ready: bool) -> None:
            self._checks.probed(monotonic())
            told(ready)

        prober.on_result = probed

    def begin(self) -> None:
        """Look for the freezer. Nothing waits for it (FZ-014) but what arrives in the first moment."""
        assert self._gate is not None
        self._gate.unsure(UNSURE_FOR)
        self.client.begin()

    def terminate(self) -> None:
        """The pod ends: the freezer hears of it, then the policy, which thaws first if need be (FZ-050)."""
        self.client.terminate()
        assert self._gate is not None
        self._gate.terminate()

    def close(self) -> None:
        self.client.close()
        self._stop_checks()
        if self._knock is not None:
            self._knock.close()

    def look(self, look: Look, looked: Callable[[int, str | None], None]) -> None:
        """For the gate: a reason not to sleep."""
        assert self._knock is not None
        if self._prober is not None and self._prober.running:
            looked(look.number, "a readiness probe is under way")
        else:
            self._knock.look(look, looked)

    def _stop_checks(self) -> None:
        if self._checks_timer is not None:
            self._checks_timer.cancel()
            self._checks_timer = None

    def _check(self) -> None:
        self._checks_timer = None
        assert self._gate is not None
        self._gate.touched(REASON, HOLD)

    def let_down(self, began_at: float, what: str) -> None:
        """A request failed at connection level. When it came tells whether it had waited for the thaw (FZ-084)."""
        if self._first is None or began_at < self._first[0]:
            self._first = began_at, what

    def _why(self) -> str:
        """The reason of a wish. Falling asleep is when the node has to know what the last sleep did."""
        assert self._gate is not None
        policy = self._gate.policy
        if self._first is None or policy.state is State.WAKING or policy.state is State.TERMINATING:
            return policy.why
        (began_at, what), self._first = self._first, None
        if began_at > self._thawed_at:
            return policy.why  # an ordinary failure: the app had been running
        self._log.warning("The first request after a thaw failed", error=what)
        return f"{HARMED}the first request after a thaw failed: {what}"

    # -- the client's owner

    def found(self, generation: int, rung: Rung) -> None:
        assert self._gate is not None
        self._gate.adopted(generation, rung)

    def woken(self, why: str) -> None:
        assert self._gate is not None
        self._log.info("The app was woken by the freezer", reason=why)
        self._gate.woken(why)

    def terms(self, terms: Terms) -> None:
        assert self._gate is not None and self._watch is not None
        policy = terms.policy
        self._log.info(
            "Sleep policy",
            mode=policy.mode.name.lower(),
            freezeAfter=policy.freeze_after_s,
            throttleAfter=policy.throttle_after_s,
            minUptime=policy.min_uptime_s,
            reason=policy.reason,
        )
        self._checks.configured(policy.deep_check_s)
        if self._requests is not None:
            self._requests.tell_waits(on=policy.server_timing)
        self._gate.configure(settings(policy, IdleSettings()))

    def up(self, mechanism: str) -> None:
        assert self._gate is not None
        self._counts.freezer_up = True
        self._log.info("The freezer is there", mechanism=mechanism)
        self._gate.enable()
        self._loop.call_soon(self._gate.sure)  # after `found`, which is told in the same turn

    def down(self, reason: str) -> None:
        assert self._gate is not None
        self._counts.freezer_up = False
        self._log.warning("No freezer: the app stays awake", reason=reason)
        self._gate.disable(reason)
        self._gate.sure()

    # -- the gate's observer

    def moved(self, moved: Moved, now: float) -> None:
        """What is told is what the kernel confirmed."""
        self._mirror_shadow()

    def asked(self, ask: Ask, now: float) -> None:
        self._mirror_shadow()
        if ask.rung is Rung.RUNNING and self._knock is not None:
            self._by_knock = ask.reason.startswith("knock")
            self._is_routine = self._by_knock or ask.reason == REASON
            self._knock.stop()
            self._stop_checks()

    def answered(self, ask: Ask, rung: Rung | None, detail: str, took: float, now: float) -> None:
        assert self._gate is not None and self._knock is not None
        if self._gate.policy.shadow:
            return
        fields = {"generation": ask.generation, "reason": ask.reason}
        if rung is None:
            if self._failed != ask.generation:  # a thaw is repeated for ever
                self._failed = ask.generation
                self._log.warning(_NOT_DONE[ask.rung], detail=detail, **fields)
            return
        tell = self._log.debug if self._is_routine else self._log.info
        tell(_DONE[rung], mechanism=detail, tookUs=round(took * 1e6), **fields)
        if rung is not Rung.RUNNING:
            self._knock.start()
            self._stop_checks()
            due = self._checks.due_at(monotonic())
            if due < inf:
                self._checks_timer = self._loop.call_later(due - monotonic(), self._check)
            return
        self._thawed_at = now
        if not self._by_knock:
            self._woke()

    def waited(self, waited_for: float) -> None:
        """The metrics count this."""

    def _mirror_shadow(self) -> None:
        """Terms may change while the app sleeps, and hold from its next wake: the policy knows when."""
        assert self._gate is not None and self._watch is not None
        self._watch.shadow = self._gate.policy.shadow
