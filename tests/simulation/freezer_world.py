"""A seeded world of pods, sidecars, a node freezer, a kernel and a network, all of them unreliable.

Real: `IdlePolicy` and `Session` on the sidecar's side, `Ledger` with everything under it on the node's, what they say
to each other and the journal's records by way of bytes. Modelled: gate and client (`Sidecar`), connections, the server
in front of the ledger (`Freezer`: token, session secret, replies), the mover and the kernel (`Pod`).

Who lives in it is in `freezer_parts.py`. Times are the node's monotonic clock, which all processes of a node share. A
process that is killed forgets everything but the kernel and the journal; messages on its connections die with it.
`World` keeps its own account of who may sleep until when; what it holds everybody to is in the methods named `must_…`.
"""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from math import inf

from queueproxy.freeze.annotations import Mode
from queueproxy.freeze.node.ledger import Kind, Phase
from queueproxy.freeze.policy import IdleSettings, Rung, State
from queueproxy.freeze.wire import StateRequest, View, Wanted
from tests.simulation.freezer_parts import CAPS, Freezer, Pod, Sidecar

MARGIN = 1.0  # how late a lease may end (FZ-090)
EXCUSED_FOR = 9.0  # a silent move's deadline, the longest pause between thaws, and the margin
LAST_WORDS = 80


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
        self.happened: Counter[Kind] = Counter()
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
            permit = entry.permit if entry is not None else None
            # A pod that ends is not harmed, and a revision that is spared already is not spared for longer.
            spared = permit is not None and freezer.ledger._terms.fallback.why(self.now, permit.revision)
            if permit is not None and permit.facts is not None and not permit.is_terminal and not spared:
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
