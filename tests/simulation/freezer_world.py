"""A seeded world of pods, sidecars, a node freezer, a kernel and a network, all of them unreliable.

Real: `IdlePolicy` and `Session` on the sidecar's side, `Ledger` with everything under it on the node's, what they say
to each other and the journal's records by way of bytes. Modelled: gate and client (`Sidecar`), connections, the server
in front of the ledger (`Freezer`: token, session secret, replies), the mover and the kernel (`Pod`).

Times are the node's monotonic clock, which all processes of a node share. A process that is killed forgets everything
but the kernel and the journal; messages on its connections die with it. `World` keeps its own account of who may sleep
until when; what it holds everybody to is in the methods named `must_…`.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable
from math import inf

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
    Kind,
    Ledger,
    LedgerSettings,
    Move,
    Phase,
    Remember,
    Reply,
)
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.node.record import decode_record, encode_record
from queueproxy.freeze.policy import OPEN, Ask, IdlePolicy, IdleSettings, Look, Refuse, Rung, State
from queueproxy.freeze.session import Session
from queueproxy.freeze.wire import Problem, StateRequest, View, Wanted, encode_problem, encode_view
from tests.support import podfacts

MARGIN = 1.0  # how late a lease may end (FZ-090)
EXCUSED_FOR = 9.0  # a silent move's deadline, the longest pause between thaws, and the margin
LAST_WORDS = 80

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
        return podfacts.pod(self.number, mode=self.mode, containers=ids, terminating=self.terminating)


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
            if action.kind is Kind.THAWED:
                world.thaws += 1

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
        self.may_sleep = False
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
            if isinstance(effect, Ask):
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
            self.tell("adopted", self.policy.generation, Rung.RUNNING)
        elif isinstance(effect, Terms):
            self.may_sleep = effect.policy.mode in (Mode.THROTTLE, Mode.FREEZE)
            self.tell("enabled") if self.may_sleep and self.knows else self.tell("disabled", "policy")
        elif isinstance(effect, Up):
            # One that ends says so before it looks: it does not know, but its app is on the way to running.
            self.knows = self.policy.state is not State.TERMINATING
            if self.may_sleep:
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


class World:
    """The node, its clock, and everybody on it."""

    def __init__(self, seed: int) -> None:
        self.dice = dice = random.Random(seed)
        self.now = dice.choice([0.0, 1e6])
        self.history: deque[tuple[object, ...]] = deque(maxlen=LAST_WORDS)
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.turn = 0
        self.chaos = dice.choice([0.0, 0.1, 0.4])
        self.loss = dice.choice([0.0, 0.0, 0.1, 0.5])
        self.delays = dice.choice([[0.0], [0.0, 0.001], [0.0, 0.01, 0.4], [0.001, 0.2, 1.5, 6.0]])
        self.lease = dice.choice([6.0, 30.0, 30.0, 90.0])
        self.api_up = True
        self.token = 0
        self.journal: dict[str, bytes] = {}
        self.thaws = 0
        self.idle_settings = IdleSettings(
            freeze_after=dice.choice([0.0, 0.05, 1.0]),
            throttle_after=dice.choice([None, None, 0.02]),
            min_uptime=0.1, min_running=0.05, min_between_freezes=0.05, breaker_backoff=1.0, breaker_cap=5.0,
            thaw_backoff_cap=1.0,
        )  # fmt: skip
        self.lives = 0
        self.pods: dict[str, Pod] = {}
        for number in range(1, dice.choice([1, 1, 2, 3]) + 1):
            pod = Pod(self, number)
            self.pods[pod.uid] = pod
        self.freezer = Freezer(self, 0)
        self.freezer.start()
        for pod in self.pods.values():
            self.start_sidecar(pod)

    def note(self, *what: object) -> None:
        self.history.append((self.now, *what))

    # === The agenda. ===

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self.turn += 1
        heapq.heappush(self.agenda, (self.now + seconds, self.turn, what))

    def run_until(self, end: float) -> None:
        at_once = 0
        while self.agenda and self.agenda[0][0] <= end:
            at, _, what = heapq.heappop(self.agenda)
            at_once = at_once + 1 if at <= self.now else 0
            assert at_once < 2000, "something spins"
            self.now = max(self.now, at)
            what()
            self.must_hold()
        self.now = max(self.now, end)
        self.must_hold()

    def delay(self) -> float:
        return self.dice.choice(self.delays)

    # === What happens. ===

    def start_sidecar(self, pod: Pod) -> None:
        self.lives += 1
        pod.sidecar = Sidecar(self, pod, self.lives)
        pod.sidecar.start()
        pod.sidecar.tell("ready")

    def tell_of(self, pod: Pod) -> None:
        """The watch brings news of the pod, unless the API server is down."""
        freezer = self.freezer

        def news() -> None:
            if not freezer.alive:
                return
            if not self.api_up:
                self.later(1.0, news)
            elif pod.deleted:
                pod.allowed_until = min(pod.allowed_until, self.now)
                freezer.carry_out(freezer.ledger.gone(self.now, pod.uid))
            else:
                facts = pod.facts()
                if facts.terminating:
                    pod.ended |= pod.kernel.keys()
                if pod.rung > (Rung.RUNNING if facts.terminating else CAPS[pod.mode]):
                    pod.allowed_until = min(pod.allowed_until, self.now)
                freezer.carry_out(freezer.ledger.known(self.now, facts))

        self.later(self.dice.choice([0.0, 0.01, 0.5, 3.0]), news)

    def any_pod(self) -> Pod:
        return self.dice.choice(list(self.pods.values()))

    def request(self) -> None:
        sidecar = self.any_pod().sidecar
        if sidecar is not None:
            sidecar.request()

    def finish(self) -> None:
        sidecar = self.any_pod().sidecar
        if sidecar is not None:
            sidecar.finish()

    def kill_sidecar(self) -> None:
        pod = self.any_pod()
        if pod.sidecar is not None:
            pod.sidecar.alive = False
            pod.sidecar = None
            if self.dice.random() < 0.6 and not pod.deleted:
                self.later(self.dice.choice([0.1, 5.0, 20.0]), lambda: self.restart_sidecar(pod))

    def restart_sidecar(self, pod: Pod) -> None:
        if pod.sidecar is None and not pod.deleted:
            self.start_sidecar(pod)

    def kill_freezer(self) -> None:
        if self.freezer.alive:
            self.note("--- freezer killed ---")
            self.freezer.alive = False
            for mover in self.freezer.movers.values():
                mover.turn += 1
            for pod in self.pods.values():
                if pod.sidecar is not None:
                    self.later(self.delay(), self.hang_up(pod.sidecar, self.freezer))
            self.later(self.dice.choice([0.05, 1.0, 10.0]), self.restart_freezer)

    def hang_up(self, sidecar: Sidecar, freezer: Freezer) -> Callable[[], None]:
        def closed() -> None:
            if sidecar.connection is not None and sidecar.connection.freezer is freezer:
                sidecar.lost()

        return closed

    def cut(self) -> None:
        """A connection breaks; what was said on it may still be read."""
        sidecar = self.any_pod().sidecar
        if sidecar is not None:
            sidecar.lost()

    def replay(self) -> None:
        """Somebody repeats what a sidecar said earlier, token and secret included (T-07, T-08)."""
        pod = self.any_pod()
        if pod.sent:
            freezer, life, token, request = self.dice.choice(pod.sent)
            if freezer is self.freezer and freezer.alive:
                freezer.put(pod, life, token, request, lambda status, body: None)

    def restart_freezer(self) -> None:
        if not self.freezer.alive:
            self.note("--- freezer starts ---")
            self.freezer = Freezer(self, self.freezer.number + 1)
            self.freezer.start()

    def drain_freezer(self) -> None:
        freezer = self.freezer
        if freezer.alive and not freezer.ledger.is_draining:
            freezer.carry_out(freezer.ledger.draining(self.now))
            self.later(10.0, lambda: self.drained(freezer))

    def drained(self, freezer: Freezer) -> None:
        if freezer is self.freezer and freezer.alive:
            for pod in self.pods.values():
                held = pod.uid in freezer.ledger.pods and pod.rung
                assert not held or self.now < pod.excused_until or self.chaos, f"drained, but {pod.uid} sleeps (FZ-093)"
            self.kill_freezer()

    def restart_sidecar_kindly(self) -> None:
        """The kubelet restarts only queue-proxy: it says that it ends, and with that its app stays awake for ever."""
        pod = self.any_pod()
        sidecar = pod.sidecar
        if sidecar is None:
            return
        sidecar.terminate()

        def ended() -> None:
            if pod.sidecar is sidecar:
                sidecar.alive = False
                pod.sidecar = None
                self.restart_sidecar(pod)

        self.later(1.0, ended)

    def confuse(self) -> None:
        """A sidecar of another make repeats a generation with the opposite wish."""
        pod, freezer = self.any_pod(), self.freezer
        entry = freezer.ledger.pods.get(pod.uid)
        if freezer.alive and entry is not None and entry.wanted is not Wanted.IDLE and pod.uid in freezer.sessions:
            may_not = entry.permit.facts is not None and not CAPS[entry.permit.facts.policy.mode]
            request = StateRequest(Wanted.IDLE, entry.generation + may_not, 30.0, "confused")
            freezer.put(pod, freezer.sessions[pod.uid], self.token, request, lambda status, body: None)

    def rotate_token(self) -> None:
        self.token += 1

    def toggle_api(self) -> None:
        self.api_up = not self.api_up

    def change_mode(self) -> None:
        pod = self.any_pod()
        pod.mode = self.dice.choice(list(Mode))
        self.tell_of(pod)

    def restart_container(self) -> None:
        pod = self.any_pod()
        if not pod.kernel or pod.deleted:
            return
        old = self.dice.choice(sorted(pod.kernel))
        pod.put(old, None)
        pod.start_container()
        if pod.sidecar is not None:
            pod.sidecar.tell("app_restarted")
            pod.sidecar.tell("ready")
        self.tell_of(pod)

    def terminate(self) -> None:
        """The kubelet: SIGTERM to everybody, deletion seen in the watch, and some time later nothing is left."""
        pod = self.any_pod()
        if pod.terminating:
            return
        pod.terminating = True
        if pod.sidecar is not None and self.dice.random() < 0.8:
            pod.sidecar.terminate()
        if pod.rung is Rung.FROZEN:
            self.stop_waits(pod)
        self.tell_of(pod)
        if self.dice.random() < 0.5:
            self.later(self.dice.choice([0.5, 20.0]), lambda: self.delete(pod))

    def stop_waits(self, pod: Pod) -> None:
        """The freezer polls for pending stop signals at 2 Hz."""
        freezer, ids = self.freezer, frozenset(pod.kernel)
        if freezer.alive and pod.uid in freezer.ledger.pods and pod.rung is Rung.FROZEN:
            pod.ended |= freezer.ledger.pods[pod.uid].permit.ids & ids
            pod.allowed_until = min(pod.allowed_until, self.now)
            freezer.carry_out(freezer.ledger.stop_pending(self.now, pod.uid))

    def stop_signal(self) -> None:
        """Somebody stops a container, and tells neither the API server nor the sidecar."""
        self.stop_waits(self.any_pod())

    def delete(self, pod: Pod) -> None:
        pod.deleted = True
        if pod.sidecar is not None:
            pod.sidecar.alive = False
            pod.sidecar = None
        if self.dice.random() < 0.5:
            for id_ in list(pod.kernel):
                pod.put(id_, None)
        self.tell_of(pod)

    def operator(self) -> None:
        freezer = self.freezer
        if freezer.alive:
            uid = self.dice.choice([None, self.any_pod().uid])
            for pod in self.pods.values():
                if uid in (None, pod.uid) and pod.uid in freezer.ledger.pods:
                    pod.allowed_until = min(pod.allowed_until, self.now)
            freezer.carry_out(freezer.ledger.operator_thaw(self.now, uid, self.dice.choice([0.0, 5.0])))

    def harm(self) -> None:
        freezer = self.freezer
        pod = self.any_pod()
        if freezer.alive:
            entry = freezer.ledger.pods.get(pod.uid)
            if entry is not None and entry.permit.facts is not None:
                for other in self.pods.values():  # all are of one revision
                    entry = freezer.ledger.pods.get(other.uid)
                    if other.rung is Rung.FROZEN and entry is not None and entry.permit.facts is not None:
                        other.allowed_until = min(other.allowed_until, self.now)
            freezer.carry_out(freezer.ledger.harmed(self.now, pod.uid, "scripted"))

    def jam(self) -> None:
        pod = self.any_pod()
        pod.kernel_is_stuck = not pod.kernel_is_stuck
        pod.excused_until = inf if pod.kernel_is_stuck else self.now + EXCUSED_FOR

    def anything(self) -> None:
        action = self.dice.choices(
            [self.request, self.finish, self.kill_sidecar, self.kill_freezer, self.drain_freezer, self.rotate_token,
             self.toggle_api, self.change_mode, self.restart_container, self.terminate, self.operator, self.harm,
             self.jam, self.cut, self.replay, self.restart_sidecar_kindly, self.confuse,
             self.stop_signal],
            [30, 40, 3, 3, 0.5, 3, 1, 1.5, 2, 1, 1, 0.5, self.chaos * 2, 2, 4, 0.5, 1, 0.7],
        )[0]  # fmt: skip
        self.note("-", action.__name__)
        action()

    # === What everybody is held to. ===

    def must_hold(self) -> None:
        for pod in self.pods.values():
            sidecar = pod.sidecar
            if pod.rung and sidecar is not None and sidecar.knows and sidecar.policy.is_open:
                raise AssertionError(f"requests would go to {pod.number}, which is {pod.rung.name} (FZ-033)")
            if pod.rung and self.now > pod.allowed_until + MARGIN:
                assert not self.freezer.alive or self.chaos or self.now < pod.excused_until, (
                    f"pod {pod.number} sleeps {self.now - pod.allowed_until:.3f} s after its lease (FZ-090)"
                )

    def must_be_allowed_to_sleep(self, pod: Pod, ids: frozenset[str], rung: Rung) -> None:
        assert not pod.ended & ids, "put to sleep after it was terminal (FZ-050)"
        assert not self.freezer.ledger.is_draining, "put to sleep while draining (FZ-093)"
        facts = self.freezer.ledger.pods[pod.uid].permit.facts
        assert facts is not None and rung <= CAPS[facts.policy.mode], "put to sleep deeper than its policy allows"

    def must_be_true(self, freezer: Freezer, uid: str, view: View) -> None:
        """200 says what the kernel has (FZ-062)."""
        pod = self.pods[uid]
        entry = freezer.ledger.pods.get(uid)
        if entry is None:
            return  # deleted
        ids = entry.permit.ids
        real = max((rung for id_, rung in pod.kernel.items() if id_ in ids), default=None)
        assert real is None or real is view.rung, f"told {view.rung.name}, but {pod.number} is {real.name} (FZ-062)"

    # === The script. ===

    def play(self, actions: int) -> None:
        for _ in range(actions):
            self.run_until(self.now + self.dice.choice([0.0, 0.0, 0.001, 0.05, 0.3, 1.0, 2.0, 12.0]))
            self.anything()
        self.calm_down()

    def calm_down(self) -> None:
        """Faults end. Then whoever lives comes to terms, and what nobody looks after runs."""
        self.note("--- calm ---")
        self.chaos, self.loss, self.delays, self.api_up = 0.0, 0.0, [0.0, 0.001], True
        for pod in self.pods.values():
            pod.kernel_is_stuck = False
            pod.excused_until = self.now + EXCUSED_FOR
        self.run_until(self.now + 25)  # whatever was going to restart has
        self.restart_freezer()
        for pod in self.pods.values():
            if pod.sidecar is not None:
                pod.sidecar.lost()  # a changed policy is heard of with the next greeting
        for pod in self.pods.values():
            sidecar = pod.sidecar
            while sidecar is not None and sidecar.running:
                sidecar.finish()
        self.run_until(self.now + 30)
        self.must_serve()
        self.must_fall_asleep()
        self.must_wake_when_somebody_is_gone()

    def must_serve(self) -> None:
        for pod in self.pods.values():
            if pod.sidecar is not None:
                pod.sidecar.request()
        self.run_until(self.now + 5)
        for pod in self.pods.values():
            sidecar = pod.sidecar
            if sidecar is not None:
                assert sidecar.running and not sidecar.waiting, f"pod {pod.number} does not serve: {sidecar.policy!r}"
                sidecar.finish()

    def must_fall_asleep(self) -> None:
        self.run_until(self.now + 40)
        fallback = self.freezer.ledger._terms.fallback
        for pod in self.pods.values():
            if not pod.deleted:
                assert self.freezer.ledger.pods[pod.uid].permit.ids == pod.kernel.keys(), "holds other containers"
        for pod in self.pods.values():
            sidecar = pod.sidecar
            if sidecar is None or sidecar.policy.state is State.TERMINATING:
                assert not pod.rung or sidecar is None, "terminated, yet asleep (FZ-050)"
                continue
            entry = self.freezer.ledger.pods[pod.uid]
            deep = CAPS[pod.mode]
            if fallback.why(self.now, entry.permit.revision):
                deep = min(deep, Rung.THROTTLED)
            if entry.permit.is_terminal:
                deep = Rung.RUNNING
            assert pod.rung is deep, (
                f"pod {pod.number} is {pod.rung.name}, not {deep.name}: {entry!r} {sidecar.policy!r}"
            )

    def must_wake_when_somebody_is_gone(self) -> None:
        for pod in self.pods.values():
            gone = self.dice.choice(["sidecar", "pod", "nobody"])
            if gone == "nobody":
                continue
            if pod.sidecar is not None:
                pod.sidecar.alive = False
                pod.sidecar = None
            if gone == "pod":
                pod.deleted = True
                self.tell_of(pod)
        if self.dice.random() < 0.5:
            self.kill_freezer()
            self.run_until(self.now + 12)
        self.run_until(self.now + 70)
        for pod in self.pods.values():
            if pod.sidecar is None:
                assert not pod.rung, f"pod {pod.number} sleeps and nobody will wake it (FZ-090)"
            if pod.deleted:
                assert pod.uid not in self.freezer.ledger.pods, "deleted, yet known"
                assert pod.uid not in self.journal, "deleted, yet in the journal (FZ-096)"
        for uid, entry in self.freezer.ledger.pods.items():
            assert entry.phase in (Phase.RUNNING, Phase.ASLEEP), f"nothing comes to rest: {entry!r}"
            # A record stays only for what sleeps, or must never sleep again.
            assert (uid in self.journal) == (entry.phase is Phase.ASLEEP or bool(entry.permit.ended)), (
                f"journal: {entry!r}"
            )
