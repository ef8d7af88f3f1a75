"""What the gate does, as it is told and counted."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from queueproxy.freeze.policy import Ask, Moved, Rung, State
from queueproxy.local.idlecpu import IdleCpu
from queueproxy.local.report import Report
from queueproxy.local.tally import Tally
from queueproxy.local.watch import RunWatch


class Rig:
    def __init__(self, *, shadow: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.report = Report(as_json=True, verbose=False, terminal=False)
        self.tally = Tally("running", 0.0)
        self.cpu = IdleCpu(self.loop, lambda: None, lambda: (0, 0), lambda *_: None, every=3600.0)
        self.cpu.start()
        self.watch = RunWatch(self.tally, self.report, self.cpu, shadow=shadow)

    def go(self, rung: Rung, generation: int, reached: Rung | None, now: float) -> None:
        ask = Ask(rung, generation, "why")
        self.watch.moved(Moved(State.GRACE, State.FROZEN, "why"), now)
        self.watch.asked(ask, now)
        self.watch.answered(ask, reached, "detail", 0.001, now)
        self.watch.waited(0.001)

    def close(self) -> None:
        self.cpu.stop()
        self.loop.close()


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    found = Rig(shadow=getattr(request, "param", False))
    yield found
    found.close()


def events(capfd: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


@pytest.mark.fz("FZ-102")
def test_a_nap_is_told_at_both_ends_and_counted_once(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    rig.go(Rung.FROZEN, 1, Rung.FROZEN, 10.0)
    assert repr(rig.cpu) == "<IdleCpu resting>"
    rig.go(Rung.RUNNING, 2, Rung.RUNNING, 15.0)
    assert repr(rig.cpu) == "<IdleCpu looking>"
    assert [(e["from"], e["to"], e["generation"]) for e in events(capfd)] == [
        ("running", "frozen", 1),
        ("frozen", "running", 2),
    ]
    assert (rig.tally.slept, rig.tally.wakes, rig.tally.in_state("frozen", 20.0)) == (1, 1, 5.0)


def test_a_freeze_taken_back_before_it_was_confirmed_is_no_wake(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    rig.watch.asked(Ask(Rung.FROZEN, 1, "idle"), 10.0)
    rig.go(Rung.RUNNING, 2, Rung.RUNNING, 10.001)
    assert events(capfd) == []
    assert (rig.tally.slept, rig.tally.wakes) == (0, 0)
    assert repr(rig.cpu) == "<IdleCpu looking>"


def test_a_failure_is_a_problem_with_its_reason(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    rig.go(Rung.FROZEN, 1, None, 10.0)
    (problem,) = events(capfd)
    assert (problem["event"], problem["message"]) == ("problem", "could not reach frozen: detail")
    assert rig.tally.state == "running"


@pytest.mark.fz("FZ-113")
@pytest.mark.parametrize("rig", [True], indirect=True)
def test_shadow_only_says_what_would_be(rig: Rig, capfd: pytest.CaptureFixture[str]) -> None:
    rig.go(Rung.FROZEN, 1, Rung.FROZEN, 10.0)
    rig.go(Rung.RUNNING, 2, Rung.RUNNING, 15.0)
    (would,) = events(capfd)
    assert (would["event"], would["rung"]) == ("would", "frozen")
    assert (rig.tally.state, rig.tally.slept, rig.tally.wakes) == ("running", 0, 0)
