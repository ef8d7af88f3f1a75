"""The loop's lateness is measured from when it was due, and summed up by nearest rank."""

from __future__ import annotations

from typing import Any

import pytest

from queueproxy.admin.profiling_lag import EVERY, LagMeter, summary
from tests.support.wires import Clock, Loop


@pytest.mark.parametrize(
    ("late", "said"),
    [
        ([], "no measurement\n"),
        ([0.002], "measurements 1\np50 2.00 ms\np90 2.00 ms\np99 2.00 ms\nmax 2.00 ms\n"),
        (
            [n / 1000 for n in range(100, 0, -1)],
            "measurements 100\np50 50.00 ms\np90 90.00 ms\np99 99.00 ms\nmax 100.00 ms\n",
        ),
        ([0.0, 0.0, 0.0, 0.5], "measurements 4\np50 0.00 ms\np90 500.00 ms\np99 500.00 ms\nmax 500.00 ms\n"),
    ],
    ids=["none", "one", "hundred-in-any-order", "one-stall"],
)
def test_quantiles(late: list[float], said: str) -> None:
    assert summary(late) == said


def test_a_punctual_loop_is_never_late_and_a_stall_counts_once() -> None:
    clock = Clock()
    loop: Any = Loop(clock)
    meter = LagMeter(loop, clock)
    meter.start()
    loop.advance(EVERY * 3.5)
    assert meter.late == pytest.approx([0, 0, 0], abs=1e-9)
    clock.now += 0.2  # something kept the loop
    loop.advance(0)
    assert meter.late[3] == pytest.approx(0.2 - EVERY / 2)
    loop.advance(EVERY)
    assert meter.late[4:] == pytest.approx([0], abs=1e-9)
    assert "5 measurements" in repr(meter)


def test_stopped_it_leaves_nothing_on_the_loop() -> None:
    clock = Clock()
    loop: Any = Loop(clock)
    meter = LagMeter(loop, clock)
    meter.stop()
    meter.start()
    assert loop.timers == 1
    meter.stop()
    assert loop.timers == 0
    loop.advance(1)
    assert meter.late == []
