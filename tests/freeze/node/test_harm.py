"""The harm detector with real processes: their ages, and whether they are still there."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from queueproxy.clock import monotonic
from queueproxy.freeze.node.harm import Harm
from queueproxy.freeze.node.losses import SETTLED, WINDOW

pytestmark = pytest.mark.slow  # it starts some


@contextmanager
def processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    started = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def thawed(harm: Harm, pids: set[int], age: float = SETTLED + 1.0) -> float:
    """A thaw `age` seconds from now: as if they had been running for so long; to a tick of 10 ms."""
    now = monotonic() + age
    harm.thawed(now, "pod", pids)
    return now


@pytest.mark.fz("FZ-084")
def test_settled_processes_that_end_within_the_window_are_harm_and_told_when_it_is_over() -> None:
    with processes(3) as started:
        harm, pids = Harm(), {process.pid for process in started}
        now = thawed(harm, pids)
        assert (harm.next_at(), harm.due(now + WINDOW)) == (now + WINDOW, ["pod"])
        started[0].kill()
        started[0].wait()
        assert harm.looked("pod", pids - {started[0].pid}) == "1 of 3 processes died within 5 s of a thaw"


def test_a_list_that_could_not_be_read_is_no_harm() -> None:
    with processes(2) as started:
        harm = Harm()
        thawed(harm, {process.pid for process in started})
        assert harm.looked("pod", set()) == ""


@pytest.mark.fz("FZ-084")
def test_young_processes_may_end_as_they_like() -> None:
    with processes(2) as started:
        harm = Harm()
        now = thawed(harm, {process.pid for process in started}, age=SETTLED - 1.0)
        assert harm.due(now + WINDOW) == [] and harm.looked("pod", set()) == ""


@pytest.mark.fz("FZ-084")
def test_a_pod_put_to_sleep_inside_the_window_is_looked_at_before() -> None:
    with processes(2) as started:
        harm, pids = Harm(), {process.pid for process in started}
        thawed(harm, pids)
        harm.forget("pod")
        assert harm.due(monotonic()) == [], "all are there"
        thawed(harm, pids)
        started[1].kill()
        started[1].wait()
        harm.forget("pod")
        assert harm.due(monotonic()) == ["pod"]
        assert harm.looked("pod", {started[0].pid}) == "1 of 2 processes died within 5 s of a thaw"


@pytest.mark.fz("FZ-084")
def test_a_process_that_ended_before_the_thaw_was_looked_at_is_missed() -> None:
    with processes(2) as started:
        harm, pids = Harm(), {process.pid for process in started}
        thawed(harm, pids)
        harm.forget("pod")
        started[0].kill()
        started[0].wait()
        now = thawed(harm, {started[1].pid})
        assert harm.due(now + WINDOW) == ["pod"]
        assert harm.looked("pod", {started[1].pid}) == "1 of 2 processes died within 5 s of a thaw"


def test_a_process_that_cannot_be_asked_does_not_count(tmp_path: object) -> None:
    with processes(1) as started:
        harm = Harm(proc=str(tmp_path))
        now = thawed(harm, {started[0].pid})
        assert harm.due(now + WINDOW) == []
        harm.forget("pod")
        harm.forget("never seen")
    assert repr(harm) == "<Harm <Losses watches 0 of 2>>"
