"""The gate with the real policy and a scripted mechanism: who waits, who is released, what is never asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest

from queueproxy.errors import Failure
from queueproxy.freeze.gate import SETTLE_FOR, TELL_AFTER, Gate
from queueproxy.freeze.policy import Ask, IdlePolicy, IdleSettings, Look, Moved, Rung, State
from tests.support.wires import Clock, Loop, Mechanism

SETTINGS: dict[str, Any] = {"freeze_after": 1.0, "min_uptime": 0.0, "min_running": 0.0, "look_first": False}


class Waiting:
    """A held request: what it was told."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.told: list[str | Failure] = []
        self._then = then

    def awake(self) -> None:
        self.told.append("awake")
        self._then()

    def refused(self, failure: Failure) -> None:
        self.told.append(failure)
        self._then()


class Watch:
    """Everything an observer hears."""

    def __init__(self) -> None:
        self.moves: list[tuple[State, State]] = []
        self.asks: list[Rung] = []
        self.answers: list[tuple[Rung | None, float]] = []
        self.waits: list[float] = []

    def moved(self, moved: Moved, now: float) -> None:
        self.moves.append((moved.origin, moved.to))

    def asked(self, ask: Ask, now: float) -> None:
        self.asks.append(ask.rung)

    def answered(self, ask: Ask, rung: Rung | None, detail: str, took: float, now: float) -> None:
        self.answers.append((rung, took))

    def waited(self, waited_for: float) -> None:
        self.waits.append(waited_for)


class Stage:
    """A gate and everything around it."""

    def __init__(self, look: Any = None, mechanism: bool = True, patience: float = 0.0, **settings: Any) -> None:
        self.clock = Clock()
        loop: Any = Loop(self.clock)
        self.loop: Loop = loop
        self.mechanism = Mechanism()
        self.dropped = 0
        self.watch = Watch()
        self.policy = IdlePolicy(IdleSettings(**{**SETTINGS, **settings}))
        self.gate = Gate(
            self.policy,
            loop,
            self.mechanism if mechanism else None,
            drop_pool=self._drop,
            look=look,
            observers=(self.watch,),
            patience=patience,
        )

    def _drop(self) -> None:
        self.dropped += 1

    def arrives(self, then: Callable[[], None] = lambda: None) -> Waiting:
        waiting = Waiting(then)
        self.gate.arrived(self.clock())
        if not self.gate.is_open:
            self.gate.wait(waiting)
        return waiting

    def hear(self) -> None:
        """Lets the observers be told."""
        self.loop.advance(TELL_AFTER)

    def sleep(self) -> None:
        self.gate.ready()
        self.loop.advance(2.0)
        assert self.policy.state is State.FROZEN and not self.gate.is_open


@pytest.fixture
def stage() -> Iterator[Callable[..., Stage]]:
    made: list[Any] = []

    def make(**settings: Any) -> Stage:
        it = Stage(**settings)
        running = patch("queueproxy.freeze.gate.monotonic", it.clock)
        running.start()
        made.append(running)
        return it

    yield make
    for running in made:
        running.stop()


Make = Callable[..., Stage]


@pytest.mark.fz("FZ-020", "FZ-030", "FZ-013")
def test_an_idle_app_is_frozen_by_the_one_timer_and_its_pool_dropped_first(stage: Make) -> None:
    it = stage()
    assert it.loop.timers == 0
    it.gate.ready()
    assert it.loop.timers == 1
    it.loop.advance(0.999)
    assert it.mechanism.asked == [] and it.gate.is_open
    it.loop.advance(0.001)
    assert it.mechanism.asked == [(Rung.FROZEN, 1)] and it.dropped == 1 and not it.gate.is_open
    it.hear()
    assert it.watch.moves == [(State.GRACE, State.FROZEN)]


@pytest.mark.fz("FZ-021", "FZ-022")
def test_a_busy_app_is_left_alone_and_the_idle_time_starts_at_the_end(stage: Make) -> None:
    it = stage()
    it.gate.ready()
    it.gate.arrived(it.clock())
    it.loop.advance(100.0)
    assert it.mechanism.asked == []
    it.gate.left(it.clock())
    it.loop.advance(0.999)
    assert it.mechanism.asked == []
    it.loop.advance(0.001)
    assert it.mechanism.asked == [(Rung.FROZEN, 1)]


def test_requests_do_not_move_the_timer(stage: Make) -> None:
    it = stage()
    it.gate.ready()
    for _ in range(1000):
        it.gate.arrived(it.clock())
        it.gate.left(it.clock())
        assert it.loop.timers <= 1
    it.loop.advance(0.5)
    it.gate.arrived(it.clock())
    it.gate.left(it.clock())
    it.loop.advance(0.6)
    assert it.mechanism.asked == [], "an early timer is harmless"
    it.loop.advance(0.4)
    assert it.mechanism.asked == [(Rung.FROZEN, 1)]


@pytest.mark.fz("FZ-031", "FZ-033")
@pytest.mark.parametrize("silent", [False, True], ids=["answered at once", "answered later"])
def test_all_waiters_are_released_together_by_one_confirmed_thaw(stage: Make, silent: bool) -> None:
    it = stage()
    it.sleep()
    it.mechanism.silent = silent
    waiters = [it.arrives() for _ in range(5)]
    if silent:
        assert it.gate.waiting == 5 and [w.told for w in waiters] == [[]] * 5
        it.loop.advance(0.1)
        it.mechanism.answer()
        assert [w.told for w in waiters] == [["awake"]] * 5
        it.loop.settle()  # observers hear of it in the next turn
        it.hear()
        assert it.watch.waits == [pytest.approx(0.1)] * 5 and it.watch.answers[-1][1] == pytest.approx(0.1)
    else:
        assert it.gate.waiting == 0, "open before anybody had to wait"
    assert it.gate.is_open and it.mechanism.asked == [(Rung.FROZEN, 1), (Rung.RUNNING, 2)]


@pytest.mark.fz("FZ-031")
def test_a_waiter_that_breaks_does_not_keep_the_others_waiting(stage: Make) -> None:
    it = stage()
    it.sleep()
    it.mechanism.silent = True

    def broken() -> None:
        raise RuntimeError("ours")

    first, bad, last = it.arrives(), it.arrives(broken), it.arrives()
    it.mechanism.answer()
    assert (first.told, bad.told, last.told) == (["awake"], ["awake"], ["awake"])
    assert [str(fault["exception"]) for fault in it.loop.faults] == ["ours"]


@pytest.mark.fz("FZ-038", "FZ-026")
def test_a_cancelled_waiter_hears_nothing(stage: Make) -> None:
    it = stage()
    it.sleep()
    it.mechanism.silent = True
    gone, stays = it.arrives(), it.arrives()
    it.gate.cancel(gone)
    it.gate.cancel(gone)
    it.mechanism.answer()
    assert (gone.told, stays.told) == ([], ["awake"])


@pytest.mark.fz("FZ-032", "FZ-039", "FZ-033")
def test_a_late_answer_to_an_older_question_opens_nothing(stage: Make) -> None:
    it = stage()
    it.mechanism.silent = True
    it.gate.ready()
    it.loop.advance(1.0)
    freeze = it.mechanism._answered
    assert freeze is not None
    waiting = it.arrives()
    assert it.mechanism.asked == [(Rung.FROZEN, 1), (Rung.RUNNING, 2)]
    freeze(1, Rung.FROZEN, "late")
    freeze(1, Rung.RUNNING, "late")
    assert waiting.told == [] and not it.gate.is_open
    it.mechanism.answer()
    assert waiting.told == ["awake"] and it.gate.is_open


@pytest.mark.fz("FZ-046", "FZ-067", "FZ-038")
def test_when_the_thaw_is_known_not_to_come_waiters_are_refused_and_later_ones_at_once(stage: Make) -> None:
    it = stage()
    it.sleep()
    it.mechanism.fails = True
    early = it.arrives()
    it.loop.advance(2.0)
    (failure,) = early.told
    assert isinstance(failure, Failure) and (failure.status, failure.retry_after) == (503, 1)
    late = it.arrives()
    assert isinstance(late.told[0], Failure) and it.gate.waiting == 0
    it.mechanism.fails = False
    it.loop.advance(10.0)
    assert it.gate.is_open, "it goes on trying"


@pytest.mark.fz("FZ-038", "FZ-046")
@pytest.mark.parametrize("comes_back", [True, False], ids=["in time", "too late"])
def test_with_patience_requests_wait_for_a_mechanism_that_is_away_and_readiness_does_not(
    stage: Make, comes_back: bool
) -> None:
    it = stage(patience=10.0)
    it.sleep()
    it.mechanism.fails = True
    first = it.arrives()
    it.loop.advance(2.0)
    assert it.policy.stuck, "readiness fails"
    second = it.arrives()
    it.loop.advance(6.0)
    assert first.told == second.told == []
    if comes_back:
        it.mechanism.fails = False
        it.gate.adopted(it.policy.generation, Rung.FROZEN)  # what a freezer that is back finds
        assert first.told == second.told == ["awake"] and it.gate.is_open
        it.gate.left(it.clock())
        it.gate.left(it.clock())
        it.loop.advance(5.0)
        it.mechanism.fails = True  # and the next time it has the same patience
        again = it.arrives()
        it.loop.advance(9.0)
        assert again.told == []
        return
    it.loop.advance(4.0)
    assert isinstance(first.told[0], Failure) and isinstance(second.told[0], Failure)
    assert first.told[0].status == 503
    late = it.arrives()
    assert isinstance(late.told[0], Failure), "nobody waits for what has not come in ten seconds"
    it.gate.close()
    assert it.loop.timers == 0


@pytest.mark.fz("FZ-065")
def test_a_freeze_that_fails_leaves_the_app_running(stage: Make) -> None:
    it = stage()
    it.mechanism.fails = True
    it.gate.ready()
    it.loop.advance(1.0)
    it.hear()
    assert it.watch.answers[0][0] is None
    it.mechanism.fails = False
    it.loop.advance(0.3)
    assert it.gate.is_open and it.mechanism.asked[1][0] is Rung.RUNNING


@pytest.mark.fz("FZ-113")
def test_shadow_decides_and_counts_but_never_calls_the_mechanism_nor_closes(stage: Make) -> None:
    it = stage(shadow=True)
    it.gate.ready()
    for _ in range(3):
        it.loop.advance(2.0)
        assert it.gate.is_open
        assert it.arrives().told == []
        it.gate.left(it.clock())
    it.loop.settle()
    assert it.mechanism.asked == [] and it.dropped == 0
    it.hear()
    assert it.watch.asks == [Rung.FROZEN, Rung.RUNNING] * 3


@pytest.mark.fz("FZ-002")
def test_without_rungs_nothing_is_ever_asked_nor_armed(stage: Make) -> None:
    it = stage(freeze_after=None, mechanism=False)
    it.gate.ready()
    for _ in range(3):
        it.gate.arrived(it.clock())
        it.gate.left(it.clock())
        it.gate.reading(it.clock())
        it.gate.read(it.clock())
    it.gate.touched("knock")
    it.gate.terminate()
    it.hear()
    assert it.loop.timers == 0 and it.gate.is_open and it.watch.asks == []


@pytest.mark.fz("FZ-036", "FZ-021")
def test_first_bytes_wake_and_count_until_they_are_read(stage: Make) -> None:
    it = stage()
    it.sleep()
    it.gate.reading(it.clock())
    assert it.gate.is_open and it.policy.half_read == 1
    it.loop.advance(100.0)
    assert it.gate.is_open
    it.gate.read(it.clock())
    it.loop.advance(2.0)
    assert not it.gate.is_open


@pytest.mark.fz("FZ-050", "FZ-054")
def test_terminate_wakes_for_good(stage: Make) -> None:
    it = stage()
    it.sleep()
    it.gate.terminate()
    assert it.gate.is_open and it.mechanism.asked[-1][0] is Rung.RUNNING
    it.loop.advance(1000.0)
    assert len(it.mechanism.asked) == 2 and it.loop.timers == 0


@pytest.mark.fz("FZ-014")
def test_disable_wakes_and_says_so(stage: Make) -> None:
    it = stage()
    it.sleep()
    it.gate.disable("no freezer")
    assert it.gate.is_open and it.policy.state is State.DISABLED
    it.loop.advance(1000.0)
    assert it.loop.timers == 0


@pytest.mark.fz("FZ-010")
def test_an_unready_app_is_woken_and_stays_awake(stage: Make) -> None:
    it = stage()
    it.sleep()
    it.gate.unready()
    assert it.gate.is_open
    it.loop.advance(1000.0)
    assert it.gate.is_open
    it.gate.ready()
    it.loop.advance(2.0)
    assert not it.gate.is_open


def test_before_it_accepts_requests_are_refused_with_the_line_given(stage: Make) -> None:
    it = stage()
    it.gate.refuse_with("the app is not ready yet")
    waiting = it.arrives()
    assert isinstance(waiting.told[0], Failure) and waiting.told[0].text == "the app is not ready yet"
    it.gate.left(it.clock())
    it.gate.ready()
    it.gate.touched("x")
    assert not it.gate.is_open, "no event opens it before accept"
    it.gate.accept()
    assert it.gate.is_open and it.arrives().told == []


@pytest.mark.fz("FZ-033", "FZ-068")
@pytest.mark.parametrize("told", ["sure", "nothing", "asleep", "shutting down"])
def test_requests_wait_while_nobody_knows_whether_the_app_sleeps(stage: Make, told: str) -> None:
    it = stage()
    it.mechanism.silent = True
    it.gate.unsure(0.15)
    waiting = it.arrives()
    it.gate.touched("x")
    assert waiting.told == [] and not it.gate.is_open, "no event opens it"
    if told == "sure":
        it.gate.sure()
        it.gate.sure()
    elif told == "nothing":
        it.loop.advance(0.14)
        assert waiting.told == []
        it.loop.advance(0.01)
    elif told == "asleep":  # found so: it is woken, and only that opens
        it.gate.adopted(7, Rung.FROZEN)
        it.gate.sure()
        it.loop.advance(0.15)
        assert waiting.told == [] and not it.gate.is_open
        it.mechanism.answer()
    else:
        it.gate.close()
        assert isinstance(waiting.told[0], Failure)
        return
    assert waiting.told == ["awake"] and it.gate.is_open
    assert it.arrives().told == []


@pytest.mark.fz("FZ-028")
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_an_obstacle_found_keeps_it_awake_and_a_clear_look_lets_it_sleep(stage: Make, at_once: bool) -> None:
    looks: list[tuple[Look, Callable[[int, str | None], None]]] = []
    obstacle: str | None = "backlog"

    def look(question: Look, found: Callable[[int, str | None], None]) -> None:
        looks.append((question, found))
        if at_once:
            found(question.number, obstacle)

    it = stage(look=look, look_first=True)
    it.gate.ready()
    it.loop.advance(1.0)
    assert looks == [] and it.dropped == 1, "the app first sees that our connections end"
    it.loop.advance(SETTLE_FOR)
    if not at_once:
        looks[-1][1](looks[-1][0].number, obstacle)
    assert len(looks) == 1 and it.mechanism.asked == [] and it.gate.is_open
    obstacle = None
    it.loop.advance(0.5 + SETTLE_FOR)
    if not at_once:
        looks[-1][1](looks[-1][0].number, obstacle)
    assert len(looks) == 2 and it.mechanism.asked == [(Rung.FROZEN, 1)]


@pytest.mark.fz("FZ-028")
def test_a_request_while_the_app_settles_before_its_sleep_is_not_held_and_calls_the_sleep_off(stage: Make) -> None:
    looks: list[Look] = []

    def look(question: Look, found: Callable[[int, str | None], None]) -> None:
        looks.append(question)
        found(question.number, None)

    it = stage(look=look, look_first=True)
    it.gate.ready()
    it.loop.advance(1.0 + SETTLE_FOR / 2)
    it.gate.arrived(it.clock())
    assert it.gate.is_open
    it.loop.advance(10.0)
    assert it.gate.is_open and it.mechanism.asked == []
    it.gate.left(it.clock())
    it.loop.advance(1.0 + SETTLE_FOR)
    assert it.mechanism.asked == [(Rung.FROZEN, 1)]


@pytest.mark.fz("FZ-014", "FZ-110")
def test_a_freezer_that_comes_and_goes_switches_sleep_on_and_off(stage: Make) -> None:
    it = stage()
    it.gate.disable("no freezer yet")
    it.gate.ready()
    it.loop.advance(60.0)
    assert it.mechanism.asked == [] and it.gate.is_open
    it.gate.configure(IdleSettings(**SETTINGS | {"freeze_after": 3.0}))
    it.gate.enable()
    it.loop.advance(2.9)
    assert it.mechanism.asked == []
    it.loop.advance(0.2)
    assert it.mechanism.asked == [(Rung.FROZEN, 1)]
    it.gate.disable("gone")
    assert it.mechanism.asked[-1] == (Rung.RUNNING, 2) and it.gate.policy.state is State.DISABLED


@pytest.mark.fz("FZ-012", "FZ-068")
@pytest.mark.parametrize(
    "event",
    [lambda gate: gate.woken("operator"), lambda gate: gate.app_restarted(),
     lambda gate: gate.touched("knock", 5.0), lambda gate: gate.disable("gone")],
    ids=["woken", "app restarted", "touched", "disabled"],
)  # fmt: skip
def test_news_about_a_sleeping_app_wake_it(stage: Make, event: Callable[[Gate], None]) -> None:
    it = stage()
    it.sleep()
    assert not it.gate.is_open
    event(it.gate)
    assert it.gate.is_open and it.mechanism.asked[-1][0] is Rung.RUNNING
    it.loop.advance(0.9)
    assert it.gate.is_open


def test_close_refuses_who_waits_and_leaves_no_timer(stage: Make) -> None:
    it = stage()
    it.sleep()
    it.mechanism.silent = True
    waiting = it.arrives()
    it.hear()
    assert it.loop.timers == 1
    it.gate.close()
    assert isinstance(waiting.told[0], Failure) and it.loop.timers == 0 and it.gate.waiting == 0
    it.gate.close()
    assert repr(it.gate).startswith("<Gate <IdlePolicy WAKING") and repr(it.gate).endswith("waiting=0>")
