"""Whoever is killed, whenever, under load: nobody stays frozen, no request is lost, no stop signal is lost.

A round kills the sidecar, the freezer, the app or containerd with SIGKILL at a random moment, now and then just after
the app was told to end, and starts again what was killed. Requests are excused only while they were in a process that
was killed, or meant for it before it was back; while the freezer is away, sidecars have patience (FZ-038).
QUEUEPROXY_SEED replays a run; it is printed.
"""

import os
import random
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from time import monotonic

import pytest

from tests.support.e2e_pod import SIDECAR, Pod
from tests.support.e2e_watch import Load, Request
from tests.support.e2e_world import QUICK, World

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("e2e")]

LEASE = 2.0
VICTIMS = ("sidecar", "freezer", "app", "containerd")


class Chaos:
    """The rounds, and what is excused by them."""

    def __init__(self, world: World, pods: list[Pod], seed: int) -> None:
        self.world = world
        self.pods = pods
        self.chance = random.Random(seed)
        self.excused: list[tuple[str, float, float]] = []  # pod, from, to
        self.outages: list[tuple[float, float]] = []  # of the freezer
        self.kills: Counter[str] = Counter()
        self.history: list[tuple[float, str]] = []  # printed when something was lost
        self.asleep = 0  # kills that hit a frozen app
        self.longest_thaw = 0.0

    def round(self) -> None:
        pod, victim = self.chance.choice(self.pods), self.chance.choice(VICTIMS)
        if self.chance.random() < 0.5:  # half of the time while it sleeps, or just after, or so the hope is
            with suppress(AssertionError):
                pod.app.until_frozen(within=3.0)
            threading.Event().wait(self.chance.uniform(0.0, 0.01))
        else:
            threading.Event().wait(self.chance.uniform(0.0, 0.8))
        tells = victim != "app" and self.chance.random() < 0.25
        old = pod.app
        if tells:
            old.signal(signal.SIGTERM)
        began = monotonic()
        self.kills[f"{victim} after SIGTERM" if tells else victim] += 1
        self.history.append(
            (began, f"kill {victim} of {pod.name}, {'frozen' if old.frozen else 'awake'}, told={tells}")
        )
        self.asleep += old.frozen
        getattr(self, f"kill_{victim}")(pod)
        if tells:
            old.log.heard("sigterm", within=LEASE + 3.0)
            assert old.wait() == 0, "told to end, and killed instead"
            self.world.restart(pod, old.name)
        self.world.until(lambda: pod.ready().ask("/").status == 200)
        if victim in ("sidecar", "app") or tells:
            self.excused.append((pod.name, began, monotonic()))

    def tell_if(self, lost: list[Request]) -> None:
        """What happened, for whoever has to find out why."""
        if lost:
            freezer = [(at, f"freezer {line}") for at, line in self.world.freezer.log.lines]
            sidecars = [(at, f"{pod.name} {line}") for pod in self.pods for at, line in pod.sidecar.log.lines]
            losses = [(request.ended, f"lost {request}") for request in lost]
            for at, line in sorted([*self.history, *freezer, *sidecars, *losses]):
                print(f"{at:.3f} {line}")

    def kill_sidecar(self, pod: Pod) -> None:
        pod.sidecar.kill()
        if self.chance.random() < 0.4:  # it stays away for longer than its lease lasts
            killed_at = monotonic()
            thawed_at = pod.app.until_frozen(False, within=LEASE + 1.0)
            self.longest_thaw = max(self.longest_thaw, thawed_at - killed_at)
        self.world.restart(pod, SIDECAR)

    def kill_app(self, pod: Pod) -> None:
        pod.app.kill()
        self.world.restart(pod, pod.app.name)

    def kill_freezer(self, pod: Pod) -> None:
        freezer, began = self.world.freezer, monotonic()
        freezer.kill()
        freezer.start().ready()
        self.outages.append((began, monotonic()))

    def kill_containerd(self, pod: Pod) -> None:
        self.world.node.containerd.kill()
        self.world.node.containerd.start()

    def is_excused(self, request: Request) -> bool:
        return any(
            request.pod == name and request.began < until and request.ended > since
            for name, since, until in self.excused
        )


def survive(rounds: int) -> None:
    seed = int(os.environ.get("QUEUEPROXY_SEED", random.randrange(1 << 32)))
    print(f"QUEUEPROXY_SEED={seed}")
    with World(leases={"longest": f"{LEASE:g}s"}) as world, ExitStack() as stack:
        pods = [stack.enter_context(world.pod(annotations=QUICK)) for _ in range(2)]
        chaos = Chaos(world, pods, seed)
        with Load(pods, clients=2, pause=0.6) as load:  # an app sleeps about half of the time
            for _ in range(rounds):
                chaos.round()
        lost = [request for request in load.lost() if not chaos.is_excused(request)]
        away = max((back - since for since, back in chaos.outages), default=0.0)
        print(
            f"{rounds} rounds, kills {dict(chaos.kills)}, {chaos.asleep} of a frozen pod, thawed at most "
            f"{chaos.longest_thaw:.2f} s after its sidecar died; freezer away for at most {away:.2f} s; "
            f"{len(load.done)} requests, {len(load.lost())} failed, {len(lost)} lost"
        )
        chaos.tell_if(lost)
        assert lost == []
        assert len(load.done) > rounds  # there was load
        # In the end all sidecars are gone for good: no lease may outlive them.
        for pod in pods:
            pod.sidecar.kill()
            pod.app.until_frozen(False, within=LEASE + 1.0)
            pod.app.signal(signal.SIGTERM)
            pod.app.log.heard("sigterm", within=1.0)


@pytest.mark.fz("FZ-038", "FZ-092")
def test_a_request_waits_for_a_freezer_that_is_killed_and_comes_back_in_two_seconds() -> None:
    with World() as world, world.pod() as pod, ThreadPoolExecutor(1) as client:
        pod.app.until_frozen()
        world.freezer.kill()
        answer = client.submit(pod.ask, "/")
        threading.Event().wait(2.0)  # as long as a DaemonSet's container takes
        world.freezer.start().ready()
        assert answer.result(20.0).status == 200


@pytest.mark.fz("FZ-068", "FZ-090", "FZ-092", "FZ-055", "FZ-014")
def test_ten_kills_lose_nothing() -> None:
    survive(10)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.fz("FZ-068", "FZ-090", "FZ-092", "FZ-055", "FZ-014")
def test_two_hundred_kills_lose_nothing() -> None:
    survive(200)
