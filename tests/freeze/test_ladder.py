"""When each rung is due."""

import pytest

from queueproxy.freeze.ladder import Ladder
from queueproxy.freeze.settings import IdleSettings
from queueproxy.freeze.vocabulary import Rung

RUNNING, THROTTLED, FROZEN = Rung


@pytest.mark.fz("FZ-080")
def test_each_rung_is_due_after_its_own_delay_from_the_beginning() -> None:
    ladder = Ladder(IdleSettings(throttle_after=1.0, freeze_after=3.0))
    assert ladder.dues(100.0, RUNNING) == [(101.0, THROTTLED), (103.0, FROZEN)]
    assert ladder.next_due(100.0, RUNNING) == 101.0
    assert ladder.next_due(100.0, THROTTLED) == 103.0
    assert ladder.next_due(100.0, FROZEN) is None


@pytest.mark.fz("FZ-020", "FZ-080")
@pytest.mark.parametrize(
    ("now", "rung"), [(100.999, None), (101.0, THROTTLED), (102.999, THROTTLED), (103.0, FROZEN), (1e9, FROZEN)]
)
def test_the_deepest_rung_due_is_taken(now: float, rung: Rung | None) -> None:
    ladder = Ladder(IdleSettings(throttle_after=1.0, freeze_after=3.0))
    assert ladder.deepest_due(now, 100.0, RUNNING) is rung
    assert ladder.deepest_due(now, 100.0, FROZEN) is None


@pytest.mark.fz("FZ-080")
@pytest.mark.parametrize(
    ("throttle", "freeze", "rungs"),
    [
        (None, None, ()),
        (1.0, None, ((1.0, THROTTLED),)),
        (None, 2.0, ((2.0, FROZEN),)),
        (2.0, 2.0, ((2.0, FROZEN),)),
        (3.0, 2.0, ((2.0, FROZEN),)),
        (0.0, 2.0, ((0.0, THROTTLED), (2.0, FROZEN))),
    ],
)
def test_any_subset_of_rungs_will_do(
    throttle: float | None, freeze: float | None, rungs: tuple[tuple[float, Rung], ...]
) -> None:
    assert Ladder(IdleSettings(throttle_after=throttle, freeze_after=freeze)).rungs == rungs


@pytest.mark.fz("FZ-024")
def test_a_doubled_grace_shifts_the_deeper_rungs_and_stands_for_the_whole_period() -> None:
    ladder = Ladder(IdleSettings(throttle_after=1.0, freeze_after=3.0, flap_limit=1, flap_window=60.0))
    ladder.cycled(9.0)
    ladder.cycled(10.0)
    assert ladder.dues(10.0, RUNNING) == [(12.0, THROTTLED), (14.0, FROZEN)]
    assert ladder.dues(69.0, RUNNING) == [(71.0, THROTTLED), (73.0, FROZEN)]  # decays at 70, this period began before
    assert ladder.dues(70.0, RUNNING) == [(71.0, THROTTLED), (73.0, FROZEN)]


@pytest.mark.fz("FZ-025")
def test_only_an_adaptive_ladder_learns() -> None:
    fixed, adaptive = Ladder(IdleSettings(freeze_after=2.0)), Ladder(IdleSettings(freeze_after=2.0, adaptive=True))
    for ladder in (fixed, adaptive):
        for _ in range(50):
            ladder.gap_seen(600.0)
            ladder.thaw_seen(0.0002)
    assert (fixed.learns, fixed.grace(0.0)) == (False, 2.0)
    assert (adaptive.learns, adaptive.grace(0.0)) == (True, 0.25)
    assert not Ladder(IdleSettings(freeze_after=None, adaptive=True)).learns


def test_the_repr_shows_what_it_goes_by() -> None:
    assert repr(Ladder(IdleSettings())) == f"<Ladder ((2.0, {FROZEN!r}),) <FlapLimiter level=0 cycles=0> None>"
