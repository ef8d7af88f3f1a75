"""Sidecars, a freezer, a kernel and a network against each other, on seeded schedules.

    QUEUEPROXY_SIM_SEED=7 QUEUEPROXY_SIM_SCHEDULES=1 pytest tests/simulation/test_freezer_world.py

replays schedule 7. A failure prints the line that replays it, and the last things that happened.
"""

import os
import time
from collections import Counter

import pytest

from queueproxy.freeze.node.actions import Kind
from tests.simulation.freezer_world import World

SEED = int(os.environ.get("QUEUEPROXY_SIM_SEED", "1"))
SCHEDULES = int(os.environ.get("QUEUEPROXY_SIM_SCHEDULES", "2000"))
LONG = int(os.environ.get("QUEUEPROXY_SIM_LONG", "100000"))
PARTS = 8  # so that two cores share the work, and none runs into the time limit on a busy machine
ACTIONS = 25


def play(seed: int) -> World:
    world = None
    try:
        world = World(seed)
        world.play(ACTIONS)
    except AssertionError as error:
        history = "\n".join(map(str, world.history)) if world is not None else ""
        replay = f"QUEUEPROXY_SIM_SEED={seed} QUEUEPROXY_SIM_SCHEDULES=1 pytest tests/simulation/test_freezer_world.py"
        raise AssertionError(f"{error}\n{history}\n{replay}") from error
    return world


PROVES = pytest.mark.fz(
    "FZ-050", "FZ-055", "FZ-061", "FZ-062", "FZ-064", "FZ-065", "FZ-068", "FZ-085", "FZ-090", "FZ-092", "FZ-093",
    "FZ-096", "FZ-113", "FZ-140",
)  # fmt: skip

pytestmark = pytest.mark.slow  # half a minute of two cores: not for `make test-fast`


@PROVES
@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_fails_nobody_forwards_to_a_sleeper_and_nobody_sleeps_for_ever(part: int) -> None:
    for seed in range(SEED + part, SEED + SCHEDULES, PARTS):
        play(seed)


@PROVES
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_same_for_a_hundred_thousand_schedules(part: int) -> None:
    for seed in range(SEED + part, SEED + LONG, PARTS):
        play(seed)


@pytest.mark.fz("FZ-091")
def test_the_wall_clock_is_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> float:
        raise AssertionError("somebody reads the wall clock")

    for name in ("time", "time_ns", "localtime", "gmtime", "ctime"):
        monkeypatch.setattr(time, name, read)
    for seed in range(SEED, SEED + 20):
        play(seed)


@pytest.mark.fz("FZ-104")
def test_enough_happens_in_these_worlds() -> None:
    happened = Counter[Kind]()
    for seed in range(SEED, SEED + 120):
        happened += play(seed).happened
    assert happened.keys() == set(Kind), f"never seen: {set(Kind) - happened.keys()}"
    assert happened[Kind.FROZEN] > 300 and happened[Kind.THAWED] > 300


def test_a_schedule_is_the_same_every_time() -> None:
    assert [*map(str, play(SEED).history)] == [*map(str, play(SEED).history)]
