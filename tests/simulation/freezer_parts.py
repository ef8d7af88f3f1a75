"""The inhabitants of the freezer's world: pods with a kernel, movers, freezers, connections, sidecars.

Each is one life of a process, or what outlives processes. None of them decides anything that the package decides: they
carry out, late, twice or not at all. See `freezer_world.py` for what happens to them and what they are held to.
"""

import random
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

from queueproxy.freeze.annotations import DEFAULTS, Mode
from queueproxy.freeze.dialogue import (
    DIAL,
    GET,
    HANG_UP,
    Down,
    Fault,
    Found,
    Patience,
    Say,
    Terms,
    Told,
    Up,
    Woken,
)
from queueproxy.freeze.node.inventory import PodFacts
from queueproxy.freeze.node.ledger import (
    Actions,
    Answer,
    Close,
    Event,
    Forget,
    Ledger,
    LedgerSettings,
    Move,
    Phase,
    Remember,
    Reply,
)
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.node.record import decode_record, encode_record
from queueproxy.freeze.policy import OPEN, Ask, IdlePolicy, Look, Refuse, Rung, State
from queueproxy.freeze.session import Session
from queueproxy.freeze.terms import settings
from queueproxy.freeze.wire import Problem, StateRequest, View, Wanted, encode_problem, encode_view
from tests.support import podfacts

if TYPE_CHECKING:
    from tests.simulation.freezer_world import World

CAPS = {Mode.OFF: Rung.RUNNING, Mode.SHADOW: Rung.RUNNING, Mode.THROTTLE: Rung.THROTTLED, Mode.FREEZE: Rung.FROZEN}

Answered = Callable[[int, bytes], None]


def say(answer: Answered, view: View | None, problem: Problem | None) -> None:
    """As the server writes it."""
    if problem is None:
        assert view is not None
        answer(200, encode_view(view))
    else:
        answer(problem.status, encode_problem(problem, view=view))


class Pod:
    """Containers with a real rung each, and what the API server says about them."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.uid = podfacts.pod_uid(number)
        self.next_id = number * 1000
        self.kernel: dict[str, Rung] = {}  # by container id
        self.rung = Rung.RUNNING  # the deepest of them
        self.numbers: dict[str, int] = {}
        self.mode = world.dice.choice([Mode.FREEZE] * 8 + [Mode.THROTTLE, Mode.SHADOW])
        self.terminating = False
        self.deleted = False
        self.stop_pending = False
        self.kernel_is_stuck = False  # thaws fail
        self.allowed_until = inf  # the world's account of the lease
        self.ended: set[str] = set()  # containers that must never be frozen again
        self.sidecar: Sidecar | None = None
        self.sent: deque[tuple[Freezer, int, int, StateRequest]] = deque(maxlen=6)
        self.excused_until = -inf  # its thaws failed so long
        for _ in range(world.dice.choice([1, 1, 2])):
            self.start_container()

    def start_container(self) -> None:
        self.next_id += 1
        id_ = podfacts.container_id(self.next_id)
        self.put(id_, Rung.RUNNING)
        self.numbers[id_] = self.next_id

    def put(self, id_: str, rung: Rung | None) -> None:
        """The kernel moves a container, or loses it."""
        if rung is None:
            del self.kernel[id_]
        else:
            self.kernel[id_] = rung
        self.rung = max(self.kernel.values(), default=Rung.RUNNING)

    def facts(self) -> PodFacts:
        ids = tuple(self.numbers[id_] for id_ in self.kernel)
        facts = podfacts.pod(self.number, mode=self.mode, containers=ids, terminating=self.terminating)
        own = self.world.idle_settings
        delays = {"freeze_after_s": own.freeze_after, "throttle_after_s": own.throttle_after, "min_uptime_s": 0.1}
        return facts._replace(policy=facts.policy._replace(**delays))


class Mover:
    """Moves one pod's containers; a newer move supersedes, an older one never answers."""

    def __init__(self, world: "World", pod: Pod, ids: frozenset[str]) -> None:
        self.world = world
        self.pod = pod
        self.ids = ids
        self.turn = 0

    def move(self, rung: Rung, done: Callable[[Moved], None]) -> None:
        world, pod, dice = self.world, self.pod, self.world.dice
        self.turn += 1
        turn = self.turn
        here = [id_ for id_ in sorted(self.ids) if id_ in pod.kernel]
        if rung:
            world.must_be_allowed_to_sleep(pod, self.ids, rung)
        if not here:
            done(Moved(Rung.RUNNING if not rung else None, "", 0.0, "gone", True))
            return
        bad = dice.random() < world.chaos
        fate = dice.choice(["slow", "fails", "silent", "half"]) if bad else dice.choice(["at once", "at once", "soon"])
        if not rung and pod.kernel_is_stuck:
            fate = "fails"
        if fate == "at once":
            for id_ in here:
                pod.put(id_, rung)
            done(Moved(rung, "cgroup2", 0.0001, "", False))
            return
        pause = dice.choice([0.1, 0.5, 1.9]) if fate == "slow" and not rung else dice.choice([0.0002, 0.002, 0.1])

        def step(left: list[str]) -> None:
            if turn != self.turn:
                if dice.random() < world.chaos:  # ours would not, but nobody should rely on it
                    done(Moved(rung, "cgroup2", pause, "of an overtaken move", False))
                return
            if left:
                if left[0] in pod.kernel:
                    pod.put(left[0], rung)
                world.later(pause, lambda: step(left[1:]))
            elif fate in ("slow", "soon"):
                alive = any(id_ in pod.kernel for id_ in self.ids)
                missing = any(id_ not in pod.kernel for id_ in self.ids)
                if not alive:
                    done(Moved(Rung.RUNNING if not rung else None, "", pause, "gone", True))
                elif rung and missing:
                    self.take_back(done)
                else:
                    done(Moved(rung, "cgroup2", pause, "", False))
            elif fate == "half" and rung:
                self.take_back(done)
            elif fate == "half":
                done(Moved(None, "cgroup2", pause, "scripted: one did not follow", False))

        def fail() -> None:
            if turn == self.turn:
                done(Moved(None, "cgroup2", pause, "scripted", False))

        if fate == "fails":
            world.later(pause, fail)
        elif fate == "half" and not rung:
            world.later(pause, lambda: step(here[1:]))  # the first stays as it is
        else:
            world.later(pause, lambda: step(here))  # silent: carried out, and nobody is told

    def take_back(self, done: Callable[[Moved], None]) -> None:
        if not self.pod.kernel_is_stuck:
            for id_ in sorted(self.ids & self.pod.kernel.keys()):
                self.pod.put(id_, Rung.RUNNING)
        done(Moved(None, "cgroup2", 0.001, "scripted: taken back", False))


class Freezer:
    """One life of the freezer process: server, ledger, movers."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.ledger = Ledger(LedgerSettings(expiry_for=0.8, calm_for=5.0))
        self.alive = True
        self.movers: dict[str, Mover] = {}
        self.waiting: dict[int, Answered] = {}
        self.asked: dict[int, StateRequest] = {}
        self.sessions: dict[str, int] = {}  # uid -> life of the sidecar that holds it
        self.moves: dict[str, int] = {}  # uid -> number of the newest
        self.timer_at: float | None = None
        self.timer_number = 0
        self.depth = 0

    def start(self) -> None:
        """Adopt what the journal has; the API server comes later."""
        world = self.world
        found = []
        for uid, data in world.journal.items():
            record = decode_record(data)
            kernel = world.pods[uid].kernel
            here = [kernel[container.id] for container in record.containers if container.id in kernel]
            # Of a half-frozen pod nobody can say better than one of the two.
            found.append((record, world.dice.choice([min, max])(here, default=None)))
            if any(here):
                world.pods[uid].allowed_until = world.now + LedgerSettings().lease_default
        for record, seen in found:
            self.carry_out(self.ledger.adopted(world.now, record, seen))
        for pod in world.pods.values():
            world.tell_of(pod)

    def carry_out(self, actions: Actions) -> None:
        self.depth += 1
        for action in actions:
            self.do(action)
        self.depth -= 1
        if not self.depth:
            self.set_timer()
            self.world.must_hold()

    def do(self, action: object) -> None:
        world = self.world
        world.note("freezer", action)
        if isinstance(action, Move):
            pod = world.pods[action.uid]
            assert action.number > self.moves.get(action.uid, 0), "a move with an old number"
            self.moves[action.uid] = action.number
            if action.rung:
                assert action.uid in world.journal, "a freeze without a journal record (FZ-092)"
                record = decode_record(world.journal[action.uid])
                assert record.rung >= action.rung, "the journal does not say how deep it may be"
            mover = self.movers.get(action.uid)
            if mover is None:
                mover = self.movers[action.uid] = Mover(world, pod, self.ledger.pods[action.uid].permit.ids)
            mover.move(action.rung, lambda moved: self.reached(action, moved))
        elif isinstance(action, Reply):
            answer = self.waiting.pop(action.number, None)
            assert answer is not None, "a reply that nobody waits for, or a second one"
            request = self.asked.pop(action.number)
            if action.problem is None:
                newest = request.generation == action.view.generation or request.wanted is Wanted.TERMINATING
                assert newest, "an overtaken wish was confirmed"
                world.must_be_true(self, action.uid, action.view)
            say(answer, action.view, action.problem)
        elif isinstance(action, Remember):
            record = self.ledger.record(world.now, action.uid, None)
            assert record is not None, "nothing to remember"
            world.journal[action.uid] = encode_record(record)
        elif isinstance(action, Forget):
            world.journal.pop(action.uid, None)
        elif isinstance(action, Close):
            mover = self.movers.pop(action.uid, None)
            if mover is not None:
                mover.turn += 1
        else:
            assert isinstance(action, Event)
            world.happened[action.kind] += 1

    def reached(self, move: Move, moved: Moved) -> None:
        if self.alive:
            self.world.note("kernel", move.uid, move.number, moved)
            self.carry_out(self.ledger.reached(self.world.now, move.uid, move.number, moved))

    def set_timer(self) -> None:
        due = self.ledger.next_deadline()
        if due == self.timer_at or not self.alive:
            return
        self.timer_number += 1
        self.timer_at = due
        if due is not None:
            number = self.timer_number
            self.world.later(max(0.0, due - self.world.now) + self.world.dice.choice([0.0, 0.001, 0.05]),
                             lambda: self.timer_fired(number))  # fmt: skip

    def timer_fired(self, number: int) -> None:
        if self.alive and number == self.timer_number:
            self.timer_at = None
            self.carry_out(self.ledger.on_deadline(self.world.now))

    # === The server. ===

    def get(self, pod: Pod, life: int, token: int, answer: Answered) -> None:
        if self.may(pod, life, token, answer):
            view = self.ledger.view(self.world.now, pod.uid)
            say(answer, view, None if view is not None else Problem.NOT_READY)

    def put(self, pod: Pod, life: int, token: int, request: StateRequest, answer: Answered) -> None:
        if not self.may(pod, life, token, answer):
            return
        world = self.world
        entry = self.ledger.pods.get(pod.uid)
        before = entry.generation if entry is not None else 0
        verdict = self.ledger.asked(world.now, pod.uid, request)
        world.note("freezer", request, verdict)
        if request.wanted is Wanted.TERMINATING and entry is not None:
            assert verdict.problem in (None, Problem.RATE_LIMITED), "terminating was refused (FZ-050)"
            pod.ended |= entry.permit.ids
        elif request.generation < before:
            assert verdict.problem is Problem.STALE_GENERATION, "an older generation was heard (FZ-061)"
        if entry is not None and verdict.problem is None and entry.phase in (Phase.SINKING, Phase.ASLEEP):
            pod.allowed_until = world.now + min(request.lease_s, 60.0)
        if verdict.answer is Answer.ACCEPTED:
            self.waiting[verdict.number] = answer
            self.asked[verdict.number] = request
            world.later(8.0, lambda: self.must_have_answered(verdict.number))
            self.carry_out(verdict.actions)
        else:
            if verdict.answer is Answer.ANSWER:
                assert verdict.view is not None
                world.must_be_true(self, pod.uid, verdict.view)
            self.carry_out(verdict.actions)
            say(answer, verdict.view, verdict.problem)

    def may(self, pod: Pod, life: int, token: int, answer: Answered) -> bool:
        if token != self.world.token:
            say(answer, None, Problem.UNAUTHENTICATED)
            return False
        if life < self.sessions.get(pod.uid, -1):  # that sidecar is dead, and another one has the session
            say(answer, None, Problem.SESSION_REQUIRED)
            return False
        self.sessions[pod.uid] = life
        return True

    def must_have_answered(self, number: int) -> None:
        assert not self.alive or number not in self.waiting, "a request was accepted and never answered"


class Connection:
    """Two ordered pipes between a sidecar and a freezer. It may stall: then nothing arrives any more, either way."""

    def __init__(self, world: "World", sidecar: "Sidecar", freezer: Freezer) -> None:
        self.world = world
        self.sidecar = sidecar
        self.freezer = freezer
        self.stalled_up = world.dice.random() < world.loss / 4
        self.stalled_down = world.dice.random() < world.loss / 4
        self.up_at = self.down_at = world.now
        self.slots: list[list[tuple[int, bytes]]] = []  # answers leave in the order of their questions

    def send(self, what: object) -> None:
        self.stalled_up = self.stalled_up or self.world.dice.random() < self.world.loss / 8
        self.up_at = max(self.up_at, self.world.now + self.world.delay())
        if not self.stalled_up:
            token = self.sidecar.token
            self.world.later(self.up_at - self.world.now, lambda: self.arrived(what, token))

    def arrived(self, what: object, token: int) -> None:
        """Also when the sidecar has hung up since: what is in the socket is read first."""
        freezer, sidecar = self.freezer, self.sidecar
        if not freezer.alive:
            return
        slot: list[tuple[int, bytes]] = []
        self.slots.append(slot)

        def answer(status: int, body: bytes) -> None:
            assert not slot, "answered twice"
            slot.append((status, body))
            while self.slots and self.slots[0]:
                self.answered(*self.slots.pop(0)[0])

        if isinstance(what, StateRequest):
            sidecar.pod.sent.append((freezer, sidecar.life, token, what))
            freezer.put(sidecar.pod, sidecar.life, token, what, answer)
        else:
            assert what is GET
            freezer.get(sidecar.pod, sidecar.life, token, answer)

    def answered(self, status: int, body: bytes) -> None:
        self.stalled_down = self.stalled_down or self.world.dice.random() < self.world.loss / 8
        self.down_at = max(self.down_at, self.world.now + self.world.delay())
        if not self.stalled_down:
            self.world.later(self.down_at - self.world.now, lambda: self.sidecar.heard(self, status, body))


class Sidecar:
    """One life of a sidecar process: the real policy and the real session; gate and client are modelled."""

    def __init__(self, world: "World", pod: Pod, life: int) -> None:
        self.world = world
        self.pod = pod
        self.life = life
        self.name = f"sidecar {pod.number}.{life}"
        self.policy = IdlePolicy(world.idle_settings)
        self.session = Session(random.Random(life), DEFAULTS, Patience(lease=world.lease))
        self.alive = True
        self.knows = False  # a freezer has told it where its app is; before that it fails open (D13)
        self.token = world.token
        self.connection: Connection | None = None
        self.queue: deque[object] = deque()
        self.is_hearing = False
        self.waiting = 0
        self.running = 0
        self.timers: dict[str, tuple[float, int]] = {}

    def start(self) -> None:
        self.tell("disabled", "no freezer yet")
        self.hear(self.session.began(self.world.now))

    # === The policy's door. ===

    def tell(self, event: str, *args: object) -> None:
        if not self.alive:
            return
        policy = self.policy
        effects = getattr(policy, event)(self.world.now, *args)
        self.world.note(self.name, event, args, effects, policy.state, policy.generation, policy.settled)
        for effect in effects:
            if isinstance(effect, Ask) and policy.shadow:
                self.tell("confirmed", effect.generation, effect.rung)
            elif isinstance(effect, Ask):
                self.hear(self.session.asked(self.world.now, effect.rung, effect.generation, effect.reason))
            elif isinstance(effect, Look):
                self.tell("looked", effect.number, None)
            elif effect is OPEN:
                self.running += self.waiting
                self.waiting = 0
            elif isinstance(effect, Refuse):
                waiting, self.waiting = self.waiting, 0
                for _ in range(waiting):
                    self.tell("finished")
        self.set_timers()

    def hear(self, effects: tuple[object, ...]) -> None:
        """What the session decided, in its order: what a callback brings waits behind it, as in the client."""
        self.world.note(self.name, "session", effects, self.session.phase)
        self.queue.extend(effects)
        if self.is_hearing:
            return
        self.is_hearing = True
        while self.queue:
            self.carry_out(self.queue.popleft())
        self.is_hearing = False
        self.set_timers()

    def carry_out(self, effect: object) -> None:
        if isinstance(effect, Say):
            if self.connection is not None:
                self.connection.send(effect.what)
        elif isinstance(effect, Told):
            if effect.rung is None:
                self.tell("failed", effect.generation, effect.detail)
            else:
                self.tell("confirmed", effect.generation, effect.rung)
        elif effect is DIAL:
            self.dial()
        elif effect is HANG_UP:
            self.connection = None
        elif isinstance(effect, Found):
            self.tell("adopted", effect.generation, effect.rung)
        elif isinstance(effect, Woken):
            self.tell("woken", effect.why)
        elif isinstance(effect, Terms):
            self.tell("configured", settings(effect.policy, self.world.idle_settings))
        elif isinstance(effect, Up):
            # One that ends says so before it looks: it does not know, but its app is on the way to running.
            self.knows = self.policy.state is not State.TERMINATING
            self.tell("enabled")
        else:
            assert isinstance(effect, Down)
            self.tell("disabled", effect.reason)

    def set_timers(self) -> None:
        policy = self.policy
        resting = policy.state is State.DISABLED and policy.settled
        self.set_timer("policy", None if resting else policy.next_deadline())
        self.set_timer("session", self.session.next_deadline())

    def set_timer(self, whose: str, due: float | None) -> None:
        """Moved only to fire earlier, as the client's is: early is harmless."""
        at, number = self.timers.get(whose, (inf, 0))
        if due is None or at <= due:
            return
        self.timers[whose] = (due, number + 1)
        self.world.later(max(0.0, due - self.world.now), lambda: self.timer_fired(whose, number + 1))

    def timer_fired(self, whose: str, number: int) -> None:
        if not self.alive or self.timers[whose][1] != number:
            return
        self.timers[whose] = (inf, number)
        if whose == "policy":
            self.tell("on_deadline")
        else:
            self.hear(self.session.on_deadline(self.world.now))

    # === The client's socket. ===

    def dial(self) -> None:
        world = self.world
        self.connection = None
        self.token = world.token
        freezer = world.freezer
        if not freezer.alive:
            world.later(0.0, self.refused)
            return
        connection = self.connection = Connection(world, self, freezer)

        def connected() -> None:
            if self.alive and connection is self.connection:
                if freezer.alive:
                    self.hear(self.session.connected(world.now))
                else:
                    self.lost()

        world.later(min(world.delay(), 0.05), connected)

    def refused(self) -> None:
        if self.alive and self.connection is None:
            self.hear(self.session.lost(self.world.now, Fault.CONNECT, "refused"))

    def lost(self) -> None:
        if self.alive and self.connection is not None:
            self.connection = None
            self.hear(self.session.lost(self.world.now, Fault.CLOSED, "closed"))

    def heard(self, connection: Connection, status: int, body: bytes) -> None:
        if self.alive and connection is self.connection:
            self.hear(self.session.answered(self.world.now, status, body))

    # === The app's clients, and the kubelet. ===

    def request(self) -> None:
        if self.policy.is_open:
            self.running += 1
        else:
            self.waiting += 1
        self.tell("arrived")

    def finish(self) -> None:
        if self.running:
            self.running -= 1
            self.tell("finished")

    def terminate(self) -> None:
        self.hear(self.session.terminated(self.world.now))
        self.tell("terminated")
