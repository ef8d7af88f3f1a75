"""The rounds: everybody is looked at, nobody ends them for the others."""

import asyncio
import os
import threading
from collections import Counter

import pytest

from queueproxy.freeze.node.patrol import SLEEPERS_IN, WAKERS_IN, Patrol
from queueproxy.log import LineWriter, Log


class Pods:
    """Counts looks; one of them always fails."""

    def __init__(self, done: asyncio.Event) -> None:
        self.stops: Counter[str] = Counter()
        self.cpus: Counter[str] = Counter()
        self.done = done

    def sleepers(self) -> list[str]:
        return [f"s{number}" for number in range(12)]

    def wakers(self) -> list[str]:
        return [f"w{number}" for number in range(12)]

    def look_for_stop(self, uid: str) -> None:
        self.stops[uid] += 1
        if uid == "s3":
            raise OSError("no such process")

    def look_at_cpu(self, uid: str) -> None:
        self.cpus[uid] += 1
        if all(self.cpus[name] >= 2 for name in self.wakers()):
            self.done.set()


@pytest.mark.fz("FZ-055")
def test_every_sleeper_is_looked_at_twice_as_often_as_every_waker() -> None:
    async def story() -> Pods:
        done = asyncio.Event()
        pods = Pods(done)
        out = os.open(os.devnull, os.O_WRONLY)
        patrol = Patrol(asyncio.get_running_loop(), pods, Log(LineWriter(out)), every=0.001)
        async with asyncio.timeout(10):
            await done.wait()
        patrol.close()
        os.close(out)
        before = pods.stops.total()
        await asyncio.sleep(0.02)
        assert pods.stops.total() == before, "closed is closed"
        return pods

    pods = asyncio.run(story())
    assert set(pods.stops) == set(pods.sleepers()) and set(pods.cpus) == set(pods.wakers())
    assert max(pods.stops.values()) - min(pods.stops.values()) <= 1, "the one that fails is looked at like the others"
    assert WAKERS_IN == 2 * SLEEPERS_IN and min(pods.stops.values()) >= 2 * min(pods.cpus.values()) - 1
    assert threading.active_count() == 1
