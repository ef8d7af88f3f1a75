"""Probes as a kubelet sends them, looked for as the knock looks; time is a number."""

from collections.abc import Iterator
from heapq import merge
from itertools import count, islice
from random import Random

import pytest

from queueproxy.freeze.rhythm import COARSE, FINE, Rhythm


def beats(period: float, phase: float, jitter: float = 0.0, dice: Random | None = None) -> Iterator[float]:
    for number in count():
        yield phase + number * period + (dice.uniform(0.0, jitter) if dice else 0.0)


class Watch:
    """Looks as often as it is told to, from `start` to `end`; remembers how late each knock was seen."""

    def __init__(self, *probes: Iterator[float]) -> None:
        self.rhythm = Rhythm()
        self.rhythm.began(0.0)
        self.knocks = merge(*probes)
        self.next = next(self.knocks, None)
        self.now = 0.0
        self.looks = 0
        self.late: list[float] = []

    def until(self, end: float) -> "Watch":
        self.looks, self.late = 0, []
        while self.now < end:
            seen = []
            while self.next is not None and self.next <= self.now:
                seen.append(self.next)
                self.next = next(self.knocks, None)
            self.late += [self.now - at for at in seen]
            self.looks += 1
            self.now += self.rhythm.looked(self.now, bool(seen))
        return self


@pytest.mark.fz("FZ-098")
def test_without_knocks_four_looks_a_second_are_enough() -> None:
    assert Watch().until(600.0).looks == pytest.approx(600 / COARSE, abs=1)


@pytest.mark.fz("FZ-098")
@pytest.mark.parametrize("period", [1.0, 2.0, 5.0, 10.0, 30.0])
def test_a_steady_probe_is_learnt_and_then_seen_at_once(period: float) -> None:
    watch = Watch(beats(period, 0.37)).until(12 * period)
    assert watch.rhythm.periods == [pytest.approx(period, rel=0.05)]
    watch.until(40 * period)
    assert max(watch.late) <= 2 * FINE, "one look after it came, two at the most"
    assert watch.looks <= 28 * period / COARSE + 28 * 16, "and not much more often than before"


@pytest.mark.fz("FZ-098")
@pytest.mark.parametrize("jitter", [0.0, 0.005, 0.01, 0.02])
def test_a_probe_a_second_costs_few_looks(jitter: float) -> None:
    """A look costs 0.1 ms and a core has 2 ms a second for all of this (design 7): three coarse looks, and these."""
    watch = Watch(beats(1.0, 0.37, jitter, Random(1))).until(20.0).until(320.0)
    assert watch.looks / 300 <= 3 + 3.1, "two or three about each probe"
    assert sorted(watch.late)[290] <= 2 * FINE and max(watch.late) <= COARSE


@pytest.mark.fz("FZ-098")
def test_interleaved_probes_are_told_apart() -> None:
    watch = Watch(beats(2.0, 0.1), beats(5.0, 0.73)).until(120.0)
    assert watch.rhythm.periods == [pytest.approx(2.0, rel=0.05), pytest.approx(5.0, rel=0.05)]
    watch.until(240.0)
    assert sorted(watch.late)[len(watch.late) * 9 // 10] <= 2 * FINE


@pytest.mark.fz("FZ-098")
@pytest.mark.parametrize("seed", range(20))
def test_whatever_knocks_is_seen_within_a_coarse_look(seed: int) -> None:
    """What is learnt may only make it quicker: a timeout of one second is met by any rhythm."""
    dice = Random(seed)
    probes = [beats(dice.uniform(0.3, 12.0), dice.uniform(0, 5), dice.choice([0.0, 0.1, 2.0]), dice) for _ in range(3)]
    watch = Watch(*(sorted(islice(probe, 300)).__iter__() for probe in probes)).until(200.0)
    assert max(watch.late) <= COARSE + 1e-9


@pytest.mark.fz("FZ-098")
def test_a_probe_that_stops_is_forgotten() -> None:
    watch = Watch(islice(beats(1.0, 0.5), 30)).until(35.0)
    assert watch.rhythm.periods == [pytest.approx(1.0, rel=0.05)]
    watch.until(60.0)
    assert watch.rhythm.periods == []
    assert watch.until(120.0).looks == pytest.approx(60 / COARSE, abs=1)


@pytest.mark.fz("FZ-098")
def test_a_beat_goes_on_through_the_times_the_app_was_awake() -> None:
    """A request woke the app; the probe of that second was taken by the app itself and never seen as a knock."""
    watch = Watch(beats(1.0, 0.5)).until(20.0)
    watch.now = 21.2
    watch.next = next(watch.knocks)
    while watch.next is not None and watch.next < watch.now:
        watch.next = next(watch.knocks)
    watch.rhythm.began(watch.now)
    watch.until(30.0)
    assert max(watch.late) <= 2 * FINE and len(watch.rhythm.periods) == 1


def test_a_burst_is_no_rhythm() -> None:
    watch = Watch(beats(0.1, 0.0)).until(5.0)
    assert all(period >= 0.4 for period in watch.rhythm.periods)


def test_the_memory_is_bounded() -> None:
    dice = Random(3)
    watch = Watch(iter(sorted(dice.uniform(0, 2000) for _ in range(4000)))).until(2000.0)
    assert len(watch.rhythm._beats) <= 8 and len(watch.rhythm._strays) <= 12
    assert repr(watch.rhythm).startswith("<Rhythm [")
