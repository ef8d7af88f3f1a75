"""A seeded world around `IdlePolicy`: clients, an app with a real rung, and a mechanism that is late, lossy and
sometimes wrong.

Each schedule has a chaotic part, where anything may happen at any time, and a calm one, where the mechanism works
and what was promised has to come true. The world keeps its own account of everything (who waits, since when it is
idle, what was asked) and never reads the policy's private parts. What the policy is held to is in the methods named
`must_…`.

    QUEUEPROXY_SIM_SEED=7 QUEUEPROXY_SIM_SCHEDULES=100000 pytest tests/simulation/test_sim_freeze.py

A failure prints the line that replays it, and the last things that happened.
"""

import heapq
import os
import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from math import inf

import pytest

from queueproxy.freeze.policy import (
    DROP_POOL,
    OPEN,
    Ask,
    Effects,
    IdlePolicy,
    IdleSettings,
    Look,
    Moved,
    Refuse,
    Rung,
    State,
)

SEED = int(os.environ.get("QUEUEPROXY_SIM_SEED", "1"))
SCHEDULES = int(os.environ.get("QUEUEPROXY_SIM_SCHEDULES", "1500"))
ACTIONS = 80  # random actions per schedule; answers, timers and repetitions come on top
LAST_WORDS = 60  # lines of history shown on failure


class Question:
    """An ask as the world sees it, to be carried out and answered in any order, or never."""

    def __init__(self, ask: Ask, at: float, deadline: float) -> None:
        self.ask = ask
        self.at = at
        self.deadline = deadline
        self.answered = False


class World:
    """The door, the clients, the app, the mechanism and the clock."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.now = dice.choice([0.0, 1e6])
        self.settings = draw_settings(dice)
        self.policy = IdlePolicy(self.settings)
        self.history: deque[str] = deque(maxlen=LAST_WORDS)
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.turn = 0
        self.timer_at: float | None = None
        self.timer_number = 0

        self.chaos = dice.choice([0.0, 0.2, 0.6])  # how likely the mechanism misbehaves
        self.app = Rung.RUNNING  # what the kernel has
        self.seen_generation = 0  # the mechanism fences, too
        self.question: Question | None = None  # the newest
        self.waiting = 0
        self.running = 0
        self.half_read = 0
        self.pooled = False

        # The world's own account of when sleep is allowed.
        self.armed_at = inf
        self.first_ready_at: float | None = None
        self.idle_at = self.now
        self.disabled = False
        self.pending: IdleSettings | None = None
        self.pledge: float | None = None
        self.least_awake = 0.0  # what the last wake is worth
        self.terminated = False
        self.spent = False
        self.awoke_at = -inf
        self.slept_at = -inf
        self.failures = 0
        self.suspended_until = -inf
        self.look: Look | None = None  # the one that is out
        self.look_is_clear = False
        self.obstacle_at = -inf
        self.slept = self.opened = 0

    # === The agenda. ===

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self.turn += 1
        heapq.heappush(self.agenda, (self.now + seconds, self.turn, what))

    def run_until(self, end: float) -> None:
        at_once = 0
        while self.agenda and self.agenda[0][0] <= end:
            at, _, what = heapq.heappop(self.agenda)
            at_once = at_once + 1 if at <= self.now else 0
            assert at_once < 1000, f"the timer spins: {self.policy!r}"
            self.now = max(self.now, at)
            what()
        self.now = max(self.now, end)

    def tell(self, event: str, *args: object) -> None:
        """Call the policy as a door does: carry the effects out, then see to the timer."""
        effects: Effects = getattr(self.policy, event)(self.now, *args)
        self.history.append(f"{self.now:.4f} {event}{args} -> {effects} {self.policy!r}")
        self.must_be_well_formed(effects)
        for effect in effects:
            self.carry_out(effect)
        counts = event in ("arrived", "finished", "reading_began", "reading_ended")
        if effects or self.timer_at is None or not counts:
            self.set_timer()
        self.must_hold()

    def set_timer(self) -> None:
        due = self.policy.next_deadline()
        if due == self.timer_at:
            return
        self.timer_number += 1
        self.timer_at = due
        if due is not None:
            number = self.timer_number
            slip = self.dice.choice([0.0, 0.0, -0.001, 0.03])  # loops round timers in both directions
            self.later(max(0.0, due + slip - self.now), lambda: self.timer_fired(number))

    def timer_fired(self, number: int) -> None:
        if number == self.timer_number:
            self.timer_at = None
            self.tell("on_deadline")

    # === Effects. ===

    def carry_out(self, effect: object) -> None:
        if isinstance(effect, Ask):
            self.must_be_allowed_to_ask(effect)
            deadline = self.settings.freeze_deadline if effect.rung else self.settings.thaw_deadline
            self.question = question = Question(effect, self.now, self.now + deadline)
            self.mechanism(question)
        elif isinstance(effect, Look):
            self.look, self.look_is_clear = effect, False
            assert effect.backlog == self.settings.look_first
            self.look_around(effect)
        elif effect is OPEN:
            self.opened += 1
            self.awoke_at = self.now
            wanted = self.busy or self.half_read or self.pledge is None
            self.least_awake = max(self.settings.min_running if wanted else 0.0, self.pledge or 0.0)
            self.pledge = None
            if self.pending is not None:
                self.settled_on(self.pending)
            self.running += self.waiting
            self.waiting = 0
        elif effect is DROP_POOL:
            self.pooled = False
        elif isinstance(effect, Refuse):
            assert self.policy.stuck
            for _ in range(self.waiting):
                self.finish_one(waiting=True)
        else:
            assert isinstance(effect, Moved) and effect.origin is not effect.to and effect.reason

    def mechanism(self, question: Question) -> None:
        dice, ask = self.dice, question.ask
        bad = dice.random() < self.chaos
        late = dice.choice([0.001, 0.1, 0.6, 3.0]) if bad else dice.choice([0.0, 0.0005, 0.002])
        fate = dice.choice(["late", "lost", "fails", "half", "twice", "liar", "sidesteps"]) if bad else "works"
        if self.settings.shadow:
            self.answer(question, ask.rung)
        elif fate == "works" and late == 0.0:  # a mechanism in our own process answers before ask() is back
            self.act(question, ask.rung)
            self.answer(question, ask.rung)
        elif fate in ("works", "late", "twice"):
            for _ in range(2 if fate == "twice" else 1):
                self.later(late, lambda: self.act_and_answer(question, ask.rung))
        elif fate == "lost":  # done or not, nobody hears of it
            self.later(late, dice.choice([lambda: self.act(question, ask.rung), lambda: None]))
        elif fate == "fails":
            self.later(late, lambda: self.answer(question, None))
        elif fate == "half":  # done, but reported as failed
            self.later(late / 2, lambda: self.act(question, ask.rung))
            self.later(late, lambda: self.answer(question, None))
        elif fate == "liar":  # first one answer, then the other
            self.later(late / 2, lambda: self.answer(question, None))
            self.later(late, lambda: self.act_and_answer(question, ask.rung))
        else:  # reaches another rung, honestly
            self.later(late, lambda: self.act_and_answer(question, dice.choice(list(Rung))))

    def act_and_answer(self, question: Question, rung: Rung) -> None:
        self.answer(question, rung if self.act(question, rung) else None)

    def act(self, question: Question, rung: Rung) -> bool:
        if question.ask.generation < self.seen_generation:
            return False
        if question.ask.generation == self.seen_generation and question.ask.rung is Rung.RUNNING and rung:
            return False  # repeating a thaw never puts anything to sleep
        self.seen_generation = question.ask.generation
        self.app = rung
        return True

    def answer(self, question: Question, rung: Rung | None) -> None:
        newest = self.question
        # A late answer to an earlier attempt at the same thaw is an answer: they share their generation.
        if newest is not None and newest.ask.generation == question.ask.generation and not self.policy.settled:
            heard, newest.answered = newest.answered, True
            if newest.ask.rung and not heard:
                self.freeze_went(rung)
        if rung is None:
            self.tell("failed", question.ask.generation, "scripted")
        else:
            self.tell("confirmed", question.ask.generation, rung)

    def freeze_went(self, rung: Rung | None) -> None:
        good = rung is not None and rung is not Rung.RUNNING
        self.failures = 0 if good else self.failures + 1
        if not good:
            self.spent = True
            if self.failures >= self.settings.breaker_failures:
                self.suspended_until = self.now + self.settings.breaker_backoff

    def look_around(self, look: Look) -> None:
        def looked() -> None:
            obstacle = "backlog of 1" if self.dice.random() < 0.3 and self.chaos else None
            if self.look is look:
                self.look_is_clear = obstacle is None
                self.obstacle_at = self.now if obstacle else self.obstacle_at
                self.look = None  # a second answer is none
            self.tell("looked", look.number, obstacle)

        fate = self.dice.random()
        if fate < 0.5:
            looked()
        elif fate < 0.8 or not self.chaos:
            self.later(0.002, looked)
        elif fate < 0.9:  # late, and twice
            self.later(0.7, looked)
            self.later(1.3, looked)

    # === What happens in the world. ===

    @property
    def busy(self) -> int:
        return self.waiting + self.running

    def stir(self) -> None:
        if not self.busy and not self.half_read:
            self.spent = False
            self.forget_look()

    def forget_look(self) -> None:
        self.look, self.look_is_clear, self.obstacle_at = None, False, -inf

    def arrive(self) -> None:
        self.stir()
        if self.dice.random() < 0.3:
            self.half_read += 1
            self.tell("reading_began")
            self.later(self.dice.choice([0.0, 0.01, 1.0]), self.read)
        else:
            self.enter()

    def read(self) -> None:
        if self.dice.random() < 0.8:  # otherwise the client went away mid-head
            self.enter()
        self.half_read -= 1
        if not self.half_read and not self.busy:
            self.idle_at = self.now
        self.tell("reading_ended")

    def enter(self) -> None:
        if self.policy.is_open:
            self.running += 1
        else:
            self.waiting += 1
        self.tell("arrived")
        self.pooled = self.pooled or bool(self.running)

    def finish(self) -> None:
        if self.waiting and self.dice.random() < 0.5:
            self.finish_one(waiting=True)  # the client gave up
        elif self.running:
            self.finish_one(waiting=False)

    def finish_one(self, *, waiting: bool) -> None:
        if waiting:
            self.waiting -= 1
        else:
            self.running -= 1
        if not self.busy and not self.half_read:
            self.idle_at = self.now
        self.tell("finished")

    def touch(self) -> None:
        self.forget_look()
        hold = self.dice.choice([None, 0.0, 0.5])
        if self.policy.state in (State.THROTTLED, State.FROZEN, State.WAKING):
            self.pledge = max(self.pledge or 0.0, self.settings.min_running if hold is None else hold)
        self.tell("touched", "knock", hold)

    def wake_outside(self) -> None:
        """An operator, a stop signal, an expired lease: the app runs, and the policy hears of it. Or a rumour."""
        if self.policy.state in (State.THROTTLED, State.FROZEN):
            self.idle_at = self.now
            self.forget_look()
        self.app = Rung.RUNNING
        self.tell("woken", "operator")

    def configure(self) -> None:
        """The pod's terms changed: other delays, another uptime, shadow mode on or off, no sleep at all."""
        drawn = draw_settings(self.dice)
        settings = replace(self.settings, freeze_after=drawn.freeze_after, throttle_after=drawn.throttle_after,
                           min_uptime=drawn.min_uptime, shadow=drawn.shadow)  # fmt: skip
        asleep = self.question is not None and self.question.ask.rung is not Rung.RUNNING
        if asleep or not self.policy.settled:
            self.pending = settings
        else:
            self.settled_on(settings)
            self.idle_at, self.spent = self.now, False
        self.forget_look()
        self.tell("configured", settings)

    def settled_on(self, settings: IdleSettings) -> None:
        self.settings, self.pending = settings, None
        if self.armed_at < inf and self.first_ready_at is not None:
            self.armed_at = self.first_ready_at + settings.min_uptime

    def become_ready(self) -> None:
        if self.armed_at == inf:
            if self.first_ready_at is None:
                self.first_ready_at = self.now
            self.armed_at = max(self.now, self.first_ready_at + self.settings.min_uptime)
            self.spent = False
        self.tell("ready")

    def fall_unready(self) -> None:
        self.armed_at = inf
        self.forget_look()
        if self.dice.random() < 0.5:
            self.first_ready_at = None
            self.tell("app_restarted")
        else:
            self.tell("unready")

    @property
    def hopeless(self) -> bool:
        return self.settings.freeze_after is None and self.settings.throttle_after is None

    @property
    def off(self) -> bool:
        return self.disabled or self.hopeless

    def disable(self) -> None:
        self.disabled = True
        self.forget_look()
        self.tell("disabled", "no freezer")

    def enable(self) -> None:
        if self.disabled:
            self.disabled = self.spent = False
        self.tell("enabled")

    def terminate(self) -> None:
        self.terminated = True
        self.tell("terminated")

    def restart_sidecar(self) -> None:
        """What a restarted sidecar finds: it adopts before it serves."""
        self.app = self.dice.choice(list(Rung))
        self.seen_generation = self.dice.randrange(50)
        self.tell("adopted", self.seen_generation, self.app)

    def anything(self) -> None:
        dice = self.dice
        action = dice.choices(
            [self.arrive, self.finish, self.touch, self.become_ready, self.fall_unready, self.disable, self.enable,
             self.terminate, self.wake_outside, self.configure],
            [30, 40, 6, 6, 1, 1, 3, 0.25, 1, 1],
        )[0]  # fmt: skip
        action()

    # === What the policy is held to. ===

    def must_be_well_formed(self, effects: Effects) -> None:
        answerable = [e for e in effects if not isinstance(e, Moved) and e is not DROP_POOL]
        assert not answerable or answerable == [effects[-1]], "what can be answered comes last, and alone"

    def must_hold(self) -> None:
        policy = self.policy
        assert policy.busy == self.busy and policy.half_read == self.half_read
        assert policy.asleep == (not policy.is_open)
        assert policy.state is not State.GRACE or not (self.busy or self.half_read), "in grace while busy (FZ-021)"
        if self.settings.shadow:
            assert policy.is_open, "shadow mode closed the gate"
        elif policy.is_open:
            assert self.app is Rung.RUNNING, "a request would be forwarded to an app that does not run (FZ-033)"
            assert not self.waiting, "open, but somebody was left waiting (FZ-031)"
        assert policy.settled or policy.next_deadline() is not None, "would wait for ever"
        if self.terminated:
            assert policy.state is State.TERMINATING

    def must_be_allowed_to_ask(self, ask: Ask) -> None:
        last, settings = self.question, self.settings
        if last is not None and ask.generation == last.ask.generation:
            assert ask.rung is last.ask.rung is Rung.RUNNING, "only a thaw is repeated"
            overdue = self.now >= last.deadline
            assert last.answered or overdue or self.terminated, "asked again while the question is out"
        else:
            assert last is None or ask.generation > last.ask.generation, "generations grow"
            assert last is None or ask.rung is not last.ask.rung, "the same wish under another generation"
        if ask.rung is Rung.RUNNING:
            if last is not None and last.ask.rung and ask.reason.startswith("freeze failed: no answer"):
                assert not last.answered and self.now >= last.deadline, "gave up before the deadline"
                last.answered = True
                self.freeze_went(None)
            return
        self.slept += 1
        assert not self.busy and not self.half_read, "asked to sleep while busy (FZ-021)"
        assert not self.terminated, "asked to sleep while terminating (FZ-050)"
        assert not self.off, "asked to sleep while disabled"
        assert self.now >= self.armed_at, "asked to sleep before armed (FZ-010, FZ-011)"
        assert not self.spent, "a failed freeze was tried again in the same idle period (FZ-065)"
        assert self.now >= self.suspended_until, "asked to sleep while freezing is suspended (FZ-066)"
        idle_for = self.now - max(self.idle_at, self.armed_at)
        assert idle_for > self.least_grace(ask.rung) - 1e-6, f"asked to sleep after {idle_for} s (FZ-020)"
        assert self.now >= self.awoke_at + self.least_awake, "asked to sleep right after a thaw (FZ-023)"
        if last is None or not last.ask.rung:
            assert self.now >= self.slept_at + settings.min_between_freezes, "slept twice too soon (FZ-023)"
            self.slept_at = self.now
            assert self.settings.shadow or not self.pooled, "slept with pooled connections (FZ-030)"
        if settings.look_first:
            assert self.look_is_clear, "slept without a clear look (FZ-028)"
            assert self.now >= self.obstacle_at + settings.recheck_after, "looked again too soon (FZ-028)"
            self.look_is_clear = False

    def least_grace(self, rung: Rung) -> float:
        if self.settings.adaptive:
            return self.settings.adaptive_floor
        delay = self.settings.freeze_after if rung is Rung.FROZEN else self.settings.throttle_after
        assert delay is not None, "asked for a rung that is off"
        return delay

    # === The script. ===

    def play(self) -> None:
        dice = self.dice
        if dice.random() < 0.2 and not self.settings.shadow:
            self.restart_sidecar()
        if dice.random() < 0.9:
            self.become_ready()
        for _ in range(ACTIONS):
            self.run_until(self.now + dice.choice([0.0, 0.0, 0.001, 0.05, 0.3, 1.0, 2.0, 12.0]))
            self.anything()
        self.calm_down()

    def calm_down(self) -> None:
        self.history.append("--- calm ---")
        self.chaos = 0.0
        for _ in range(30):  # enough for whatever thaw is still going wrong
            while self.running:
                self.finish_one(waiting=False)
            self.run_until(self.now + 1.0)
        assert not self.busy and not self.half_read, "requests neither served nor refused"
        for restore in (self.enable, self.become_ready):
            restore()
        self.request_must_be_served()
        if self.terminated or self.hopeless:
            self.run_until(self.now + 10_000)
            assert self.policy.is_open and (self.settings.shadow or self.app is Rung.RUNNING)
            return
        self.must_fall_asleep()
        self.request_must_be_served()
        self.must_fall_asleep()
        self.terminate()
        self.run_until(self.now + 60)
        assert self.policy.is_open and self.policy.settled, "not running after termination (FZ-050)"
        assert self.settings.shadow or self.app is Rung.RUNNING, "not running after termination (FZ-050)"

    def request_must_be_served(self) -> None:
        """Bounded by the longest pause between thaws and one more attempt."""
        self.stir()
        self.enter()
        self.run_until(self.now + self.settings.thaw_backoff_cap + 2 * self.settings.thaw_deadline + 0.1)
        assert self.running and not self.waiting, "somebody waits and the mechanism works, yet the app is not open"
        self.finish_one(waiting=False)

    def must_fall_asleep(self) -> None:
        settings = self.settings
        grace = max(settings.grace_cap, settings.freeze_after or 0, settings.throttle_after or 0)
        patience = settings.min_uptime + settings.breaker_cap + 3 * grace + settings.min_running + 20
        self.run_until(self.now + patience)
        deepest = State.FROZEN if settings.freeze_after is not None else State.THROTTLED
        assert self.policy.state is deepest and self.policy.settled, "idle, armed and healthy, yet not asleep"
        assert settings.shadow or self.app is Rung[deepest.name]
        assert self.policy.next_deadline() is None, "asleep, yet the timer runs"


def draw_settings(dice: random.Random) -> IdleSettings:
    return IdleSettings(
        freeze_after=dice.choice([0.0, 0.05, 0.05, 2.0, 2.0, None]),
        throttle_after=dice.choice([None, None, 0.0, 0.02, 1.0]),
        min_uptime=dice.choice([0.0, 0.1, 10.0]),
        min_running=dice.choice([0.0, 0.25]),
        min_between_freezes=dice.choice([0.0, 0.0, 1.0]),
        flap_limit=dice.choice([1, 3, 20]),
        adaptive=dice.random() < 0.2,
        adaptive_floor=0.05,
        shadow=dice.random() < 0.1,
        look_first=dice.random() < 0.6,
        quiesce_cpu=dice.choice([None, None, 0.1]),
        freeze_deadline=dice.choice([0.05, 1.0]),
        thaw_deadline=dice.choice([0.05, 0.3]),
        thaw_retries=dice.choice([0, 3]),
        thaw_retry_after=dice.choice([0.0, 0.02]),
        breaker_failures=dice.choice([1, 3]),
    )


@pytest.mark.slow
@pytest.mark.fz("FZ-021", "FZ-030", "FZ-031", "FZ-033", "FZ-039", "FZ-050", "FZ-065", "FZ-066", "FZ-140")
def test_no_schedule_breaks_a_promise() -> None:
    slept = opened = 0
    for seed in range(SEED, SEED + SCHEDULES):
        world = World(seed)
        try:
            world.play()
        except Exception as failure:
            told = "\n".join(world.history)
            replay = f"QUEUEPROXY_SIM_SEED={seed} QUEUEPROXY_SIM_SCHEDULES=1 pytest tests/simulation/test_sim_freeze.py"
            cause = f"{type(failure).__name__}: {failure}"
            pytest.fail(f"{world.settings}\n{told}\n{cause}\nreplay: {replay}", pytrace=False)
        slept += world.slept
        opened += world.opened
    # A simulator in which nothing happens proves nothing.
    assert slept > SCHEDULES and opened > SCHEDULES
