"""The in-process mechanism on real processes: each rung from each rung, newer questions, cgroups that vanish."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from queueproxy.freeze.node.cgroup import open_freezer
from queueproxy.freeze.node.directory import Cgroup
from queueproxy.freeze.node.throttle import CpuThrottle, cpu_usage_usec
from queueproxy.freeze.policy import Rung
from queueproxy.local import placement
from queueproxy.local.freezer import LocalFreezer
from queueproxy.local.journal import run_name
from queueproxy.local.procfs import identity
from queueproxy.local.stopper import SessionStopper

pytestmark = pytest.mark.clock  # milliseconds of cadence and deadlines

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: cgroups need root"),
]

SPIN = "while True: pass"
RUNGS = list(Rung)


class Rig(NamedTuple):
    """One spinning app and what holds it."""

    pid: int
    stoppable: SessionStopper | object
    throttle: CpuThrottle | None
    place: placement.Place | None

    def usage_usec(self) -> int:
        assert self.place is not None and self.place.plan.usage is not None
        with Cgroup.open(self.place.plan.usage) as cgroup:
            used = cpu_usage_usec(cgroup)
        assert used is not None
        return used


def build(way: str, *, needs_cpu: bool) -> Iterator[Rig]:
    us = identity(os.getpid())
    assert us is not None
    mounts, places = placement.read_hierarchy()
    place, refused = placement.place(placement.plans(way, mounts, places, run_name(us), needs_cpu=needs_cpu))
    doors = place.doors if place is not None else []

    def join() -> None:
        for door in doors:
            os.write(door, b"0")

    child = subprocess.Popen([sys.executable, "-c", SPIN], preexec_fn=join, start_new_session=True)
    try:
        if place is None:
            assert way == "signal", refused
            yield Rig(child.pid, SessionStopper(child.pid), None, None)
            return
        place.close()
        freezer = open_freezer(place.plan.freezer or "")
        throttle = CpuThrottle.open(place.plan.cpu) if place.plan.cpu else None
        yield Rig(child.pid, freezer, throttle, place)
        freezer.kill()
        freezer.close()
        if throttle is not None:
            throttle.close()
    finally:
        child.kill()
        if place is not None and place.plan.freezer and os.path.isdir(place.plan.freezer):
            freezer = open_freezer(place.plan.freezer)
            freezer.kill()
            freezer.close()
        child.wait(5)
        if place is not None:
            assert place.remove() == []


@pytest.fixture(params=[pytest.param("v2", marks=needs_root), pytest.param("v1", marks=needs_root), "signal"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from build(request.param, needs_cpu=False)


@pytest.fixture(params=[pytest.param("v2", marks=needs_root), pytest.param("v1", marks=needs_root)])
def ladder(request: pytest.FixtureRequest) -> Iterator[Rig]:
    yield from build(request.param, needs_cpu=True)


def mechanism(loop: asyncio.AbstractEventLoop, rig: Rig) -> LocalFreezer:
    return LocalFreezer(loop, "test", rig.stoppable, rig.throttle)  # type: ignore[arg-type]


def answers_to(
    rig: Rig, ask: Callable[[LocalFreezer, Callable[..., None]], None], *, until: int
) -> list[tuple[int, Rung | None, str]]:
    """Run a loop until the answer to generation `until` is there."""
    answers: list[tuple[int, Rung | None, str]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def answered(generation: int, rung: Rung | None, detail: str) -> None:
            answers.append((generation, rung, detail))
            if generation == until:
                done.set_result(None)

        ask(mechanism(loop, rig), answered)
        async with asyncio.timeout(10):
            await done

    asyncio.run(main())
    return answers


def move(rig: Rig, rung: Rung, generation: int = 1) -> tuple[int, Rung | None, str]:
    (answer,) = answers_to(rig, lambda freezer, answered: freezer.ask(rung, generation, answered), until=generation)
    return answer


def test_asleep_means_no_cpu_at_all_and_awake_means_some(rig: Rig) -> None:
    session = SessionStopper(rig.pid)
    assert move(rig, Rung.FROZEN, 1)[:2] == (1, Rung.FROZEN)
    before = session.usage_usec() if rig.place is None else rig.usage_usec()
    # Frozen is confirmed, so a hundred looks later there is still nothing.
    assert {session.usage_usec() if rig.place is None else rig.usage_usec() for _ in range(100)} == {before}
    assert move(rig, Rung.RUNNING, 2)[:2] == (2, Rung.RUNNING)
    while (session.usage_usec() if rig.place is None else rig.usage_usec()) == before:
        os.sched_yield()


@pytest.mark.fz("FZ-080", "FZ-083")
@pytest.mark.parametrize("to", RUNGS, ids=lambda rung: f"to {rung.name}")
@pytest.mark.parametrize("start", RUNGS, ids=lambda rung: f"from {rung.name}")
def test_every_rung_is_reached_from_every_rung(ladder: Rig, start: Rung, to: Rung) -> None:
    def ask(freezer: LocalFreezer, answered: Callable[..., None]) -> None:
        def then(generation: int, rung: Rung | None, detail: str) -> None:
            answered(generation, rung, detail)
            freezer.ask(to, 2, answered)

        freezer.ask(start, 1, then)

    first, second = answers_to(ladder, ask, until=2)
    assert (first[1], second[1]) == (start, to)
    assert ladder.throttle is not None
    limit = ladder.throttle.read()
    assert limit is not None
    assert (limit.quota_us is not None) is (to is Rung.THROTTLED)
    assert ladder.stoppable.observe().frozen is (to is Rung.FROZEN)  # type: ignore[attr-defined]


@pytest.mark.fz("FZ-039")
def test_a_newer_question_takes_the_place_of_an_older_one(rig: Rig) -> None:
    def ask(freezer: LocalFreezer, answered: Callable[..., None]) -> None:
        for generation in range(1, 41):
            freezer.ask(Rung.FROZEN if generation % 2 else Rung.RUNNING, generation, answered)

    answers = answers_to(rig, ask, until=40)
    # Some of the older ones were confirmed on the spot; whatever was not is never answered, and none is answered twice.
    generations = [generation for generation, _, _ in answers]
    assert generations == sorted(set(generations))
    assert all(rung is (Rung.FROZEN if generation % 2 else Rung.RUNNING) for generation, rung, _ in answers)


def test_no_answer_comes_after_close(rig: Rig) -> None:
    late: list[int] = []

    def ask(freezer: LocalFreezer, answered: Callable[..., None]) -> None:
        freezer.ask(Rung.FROZEN, 1, lambda *_: None)
        freezer.ask(Rung.RUNNING, 2, lambda generation, *_: late.append(generation))
        on_the_spot = list(late)
        freezer.close()
        late[:] = late[len(on_the_spot) :]
        mechanism(asyncio.get_running_loop(), rig).ask(Rung.RUNNING, 3, answered)

    answers_to(rig, ask, until=3)
    assert late == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: cgroups need root")
@pytest.mark.parametrize("way", ["v2", "v1"])
def test_a_cgroup_removed_under_us_cannot_be_frozen_and_counts_as_running(way: str) -> None:
    rigs = build(way, needs_cpu=False)
    rig = next(rigs)
    try:
        assert rig.place is not None and rig.place.plan.freezer is not None
        parent = os.path.dirname(rig.place.plan.freezer)
        with open(f"{parent}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(rig.pid))
        assert placement.remove_cgroup(rig.place.plan.freezer)
        gone: list[str] = []

        def ask(freezer: LocalFreezer, answered: Callable[..., None]) -> None:
            freezer.on_gone = lambda: gone.append("gone")
            freezer.ask(Rung.FROZEN, 1, answered)
            freezer.ask(Rung.RUNNING, 2, answered)

        frozen, running = answers_to(rig, ask, until=2)
        assert frozen[:2] == (1, None) and "gone" in frozen[2]
        assert running[:2] == (2, Rung.RUNNING)
        assert gone == ["gone"]
    finally:
        for _ in rigs:
            pass


def test_without_a_cpu_controller_throttling_fails_and_says_so(rig: Rig) -> None:
    assert move(rig, Rung.THROTTLED) == (1, None, "no cpu controller for this app")
