"""Whoever is killed, whenever, under load: nobody stays frozen, no request is lost, no stop signal is lost.

A round kills the sidecar, the freezer, the app or containerd with SIGKILL at a random moment, now and then just after
the app was told to end, and starts again what was killed. Requests are excused only while they were in a process that
was killed, or meant for it before it was back. QUEUEPROXY_SEED replays a run; it is printed.
"""

import os
import random
import signal
import threading
from collections import Counter
from contextlib import ExitStack
from time import monotonic

import pytest

from tests.support.e2e_pod import SIDECAR, Pod
from tests.support.e2e_watch import Load
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
        self.kills: Counter[str] = Counter()
        self.asleep = 0  # kills that hit a frozen app
        self.longest_thaw = 0.0

    def round(self) -> None:
        pod, victim = self.chance.choice(self.pods), self.chance.choice(VICTIMS)
        threading.Event().wait(self.chance.uniform(0.0, 0.8))  # the random moment
        tells = victim != "app" and self.chance.random() < 0.25
        old = pod.app
        if tells:
            old.signal(signal.SIGTERM)
        began = monotonic()
        self.kills[f"{victim} after SIGTERM" if tells else victim] += 1
        self.asleep += old.frozen
        getattr(self, f"kill_{victim}")(pod)
        if tells:
            old.log.until(lambda: old.log.find("sigterm"), LEASE + 3.0)
            assert old.wait() == 0, "told to end, and killed instead"
            self.restart(pod, old.name)
        if victim in ("sidecar", "app") or tells:
            self.excused.append((pod.name, began, monotonic()))

    def kill_sidecar(self, pod: Pod) -> None:
        pod.sidecar.kill()
        if self.chance.random() < 0.4:  # it stays away for longer than its lease lasts
            thawed = pod.app.until_frozen(False, within=LEASE + 1.0)
            self.longest_thaw = max(self.longest_thaw, thawed)
        self.restart(pod, SIDECAR)

    def kill_app(self, pod: Pod) -> None:
        pod.app.kill()
        self.restart(pod, pod.app.name)

    def kill_freezer(self, pod: Pod) -> None:
        self.world.freezer.kill()
        self.world.freezer.start().ready()

    def kill_containerd(self, pod: Pod) -> None:
        self.world.node.containerd.kill()
        self.world.node.containerd.start()

    def restart(self, pod: Pod, name: str) -> None:
        self.world.restart(pod, name)
        pod.ready()
        self.world.until(lambda: pod.ask("/").status == 200)

    def is_excused(self, pod: str, began: float, ended: float) -> bool:
        return any(pod == name and began < until and ended > since for name, since, until in self.excused)


def survive(rounds: int) -> None:
    seed = int(os.environ.get("QUEUEPROXY_SEED", random.randrange(1 << 32)))
    print(f"QUEUEPROXY_SEED={seed}")
    with World(leases={"longest": f"{LEASE:g}s"}) as world, ExitStack() as stack:
        pods = [stack.enter_context(world.pod(annotations=QUICK)) for _ in range(2)]
        chaos = Chaos(world, pods, seed)
        with Load(pods) as load:
            for _ in range(rounds):
                chaos.round()
        lost = [request for request in load.lost() if not chaos.is_excused(request.pod, request.began, request.ended)]
        print(
            f"{rounds} rounds, {sum(chaos.kills.values())} kills {dict(chaos.kills)}, {chaos.asleep} of them of a "
            f"frozen pod; {len(load.done)} requests, {len(load.lost())} failed, {len(lost)} of these without excuse"
        )
        assert lost == []
        assert len(load.done) > rounds  # there was load
        # In the end all sidecars are gone for good: no lease may outlive them.
        for pod in pods:
            world.until(lambda app=pod.app: app.frozen)
            pod.sidecar.kill()
            pod.app.until_frozen(False, within=LEASE + 1.0)
            pod.app.signal(signal.SIGTERM)
            pod.app.log.heard("sigterm", within=1.0)


@pytest.mark.fz("FZ-068", "FZ-090", "FZ-092", "FZ-055", "FZ-014")
def test_ten_kills_lose_nothing() -> None:
    survive(10)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.fz("FZ-068", "FZ-090", "FZ-092", "FZ-055", "FZ-014")
def test_two_hundred_kills_lose_nothing() -> None:
    survive(200)
