"""What the idle policy learns from: gaps, cycles and failures."""

import random
from collections.abc import Callable

import pytest

from queueproxy.freeze.grace import (
    FIRST_STEP_S,
    GAPS_KEPT,
    AdaptiveGrace,
    FlapLimiter,
    FreezeBreaker,
)

FLOOR, CAP = 0.25, 60.0

# === The adaptive grace. ===


def bursty(dice: random.Random) -> float:
    """Sixteen requests a second for a while, then a pause of around half a minute."""
    return dice.uniform(0.01, 0.12) if dice.random() < 0.95 else dice.uniform(10, 60)


def periodic(dice: random.Random) -> float:
    """A poller every 3 s, with jitter."""
    return dice.gauss(3.0, 0.1)


def slow_periodic(dice: random.Random) -> float:
    """A cron job every half minute."""
    return dice.gauss(30.0, 0.5)


def poisson(dice: random.Random) -> float:
    """People, two seconds apart on average."""
    return dice.expovariate(0.5)


def heavy_tailed(dice: random.Random) -> float:
    """Pareto with infinite variance: mostly short, now and then an hour."""
    return 0.3 * dice.paretovariate(1.2)


def two_rhythms(dice: random.Random) -> float:
    """A human reading (1-4 s between clicks), then gone for minutes."""
    return dice.uniform(1, 4) if dice.random() < 0.8 else dice.uniform(100, 1000)


TRACES = [bursty, periodic, slow_periodic, poisson, heavy_tailed, two_rhythms]
# Measured thaws: a cgroup write, the wake budget's tail, containerd's resume p50.
THAWS = [0.0002, 0.0005, 0.003, 0.008]
WEIGHT = 1000.0


def cost(gap: float, grace: float, cycle: float) -> float:
    return gap if gap <= grace else grace + cycle


def best_in_hindsight(gaps: list[float], cycle: float) -> float:
    """The cheapest fixed grace of all: of two graces with no gap between, the shorter is cheaper."""
    ordered = sorted(gaps)
    cheapest = sum(cost(gap, FLOOR, cycle) for gap in ordered)
    waited = 0.0
    for index, gap in enumerate(ordered):
        waited += gap
        if FLOOR <= gap <= CAP:
            cheapest = min(cheapest, waited + (len(ordered) - index - 1) * (gap + cycle))
    return min(cheapest, sum(cost(gap, CAP, cycle) for gap in ordered))


def test_hindsight_is_what_brute_force_finds() -> None:
    dice = random.Random(1)
    gaps = [heavy_tailed(dice) for _ in range(100)]
    candidates = {FLOOR, CAP, *(gap for gap in gaps if FLOOR <= gap <= CAP), *(step / 10 for step in range(3, 600))}
    brute = min(sum(cost(gap, grace, 3.0) for gap in gaps) for grace in candidates)
    assert best_in_hindsight(gaps, 3.0) == pytest.approx(brute)


@pytest.mark.fz("FZ-025")
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("thaw", THAWS, ids=lambda thaw: f"thaw {thaw * 1000:g} ms")
@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: trace.__name__)
def test_the_adaptive_grace_costs_at_most_a_fifth_more_than_hindsight(
    trace: Callable[[random.Random], float], thaw: float, seed: int
) -> None:
    dice = random.Random(seed)
    gaps = [max(0.0, trace(dice)) for _ in range(1500)]
    cycle = WEIGHT * thaw
    adaptive = AdaptiveGrace(2.0, FLOOR, CAP, WEIGHT)
    paid = 0.0
    for gap in gaps:
        paid += cost(gap, adaptive.grace, cycle)
        if gap > adaptive.grace:
            adaptive.thaw_seen(thaw * dice.uniform(0.8, 1.2))
        adaptive.gap_seen(gap)
        assert FLOOR <= adaptive.grace <= CAP
    assert paid <= 1.20 * best_in_hindsight(gaps, cycle)


@pytest.mark.fz("FZ-025")
def test_it_follows_a_rhythm_that_changes() -> None:
    adaptive = AdaptiveGrace(2.0, FLOOR, CAP, WEIGHT)
    for _ in range(20):
        adaptive.thaw_seen(0.008)
    for _ in range(200):
        adaptive.gap_seen(3.0)
    assert 3.0 <= adaptive.grace <= 3.3  # staying awake for 3 s beats a cycle worth 8
    for _ in range(2 * GAPS_KEPT):
        adaptive.gap_seen(600.0)
    assert adaptive.grace == FLOOR


@pytest.mark.fz("FZ-025")
def test_a_slower_thaw_makes_it_more_patient() -> None:
    dice = random.Random(5)
    quick, slow = (AdaptiveGrace(2.0, FLOOR, CAP, WEIGHT) for _ in range(2))
    for _ in range(50):
        quick.thaw_seen(0.0002)
        slow.thaw_seen(0.008)
    for _ in range(200):
        gap = dice.choice([0.9, 2.0, 40.0])
        quick.gap_seen(gap)
        slow.gap_seen(gap)
    assert quick.grace == FLOOR and slow.grace >= 2.0


@pytest.mark.fz("FZ-025")
@pytest.mark.parametrize("start", [0.0, 0.1, 5.0, 300.0])
def test_before_it_knows_anything_it_is_the_configured_grace_but_never_below_the_floor(start: float) -> None:
    assert AdaptiveGrace(start, FLOOR, CAP, WEIGHT).grace == max(start, FLOOR)


def test_gaps_below_the_floor_are_not_remembered() -> None:
    adaptive = AdaptiveGrace(2.0, FLOOR, CAP, WEIGHT)
    for _ in range(100):
        adaptive.gap_seen(30.0)
    before = repr(adaptive)
    for _ in range(10_000):
        adaptive.gap_seen(FLOOR)
    assert repr(adaptive) == before == "<AdaptiveGrace 0.25 s from 100 gaps, thaw 0.5 ms>"


def test_its_memory_is_bounded() -> None:
    adaptive = AdaptiveGrace(2.0, FLOOR, CAP, WEIGHT)
    for gap in range(10_000):
        adaptive.gap_seen(1.0 + gap)
    assert f"from {GAPS_KEPT} gaps" in repr(adaptive)


def test_one_slow_thaw_moves_the_cycle_cost_by_a_fifth() -> None:
    adaptive = AdaptiveGrace(2.0, FLOOR, CAP, WEIGHT)
    assert adaptive.cycle_cost == pytest.approx(0.5)
    adaptive.thaw_seen(0.1005)
    assert adaptive.cycle_cost == pytest.approx(20.5)


# === The flap limiter. ===


@pytest.mark.fz("FZ-024")
@pytest.mark.parametrize(("cycles", "level"), [(20, 0), (21, 1), (41, 1), (42, 2)])
def test_more_than_the_limit_in_a_window_is_one_doubling(cycles: int, level: int) -> None:
    limiter = FlapLimiter(limit=20, window=60.0, cap=60.0)
    for cycle in range(cycles):
        limiter.cycled(cycle * 1.0)
    assert limiter.level(float(cycles)) == level
    assert limiter.stretch(2.0, float(cycles)) == 2.0 * 2**level


@pytest.mark.fz("FZ-024")
def test_the_same_number_over_a_longer_time_is_none() -> None:
    limiter = FlapLimiter(limit=20, window=60.0, cap=60.0)
    for cycle in range(1000):
        limiter.cycled(cycle * 3.01)
    assert limiter.level(3010.0) == 0


@pytest.mark.fz("FZ-024")
def test_each_calm_window_gives_one_doubling_back() -> None:
    limiter = FlapLimiter(limit=1, window=60.0, cap=60.0)
    for cycle in range(6):
        limiter.cycled(float(cycle))
    assert [limiter.stretch(1.0, 5.0 + calm) for calm in (0.0, 59.9, 60.0, 120.0, 180.0, 1e9)] == [8, 8, 4, 2, 1, 1]
    assert repr(limiter) == "<FlapLimiter level=3 cycles=0>"


@pytest.mark.fz("FZ-024")
def test_the_stretched_grace_is_capped_but_never_shorter_than_the_configured_one() -> None:
    limiter = FlapLimiter(limit=1, window=60.0, cap=60.0)
    for cycle in range(10_000):
        limiter.cycled(cycle * 0.01)
    assert limiter.stretch(2.0, 100.0) == 60.0
    assert limiter.stretch(300.0, 100.0) == 300.0
    assert limiter.stretch(2.0, 100.0 + 9 * 60.0) == 2.0  # a long storm decays no longer than the cap is worth


@pytest.mark.fz("FZ-024")
def test_a_grace_of_zero_can_be_doubled_too() -> None:
    limiter = FlapLimiter(limit=1, window=60.0, cap=60.0)
    assert limiter.stretch(0.0, 0.0) == 0.0
    limiter.cycled(1.0)
    limiter.cycled(2.0)
    assert limiter.stretch(0.0, 2.0) == 2 * FIRST_STEP_S


@pytest.mark.parametrize("cap", [0.0, 0.1])
def test_a_cap_below_the_first_step_switches_the_limiter_off(cap: float) -> None:
    limiter = FlapLimiter(limit=1, window=60.0, cap=cap)
    for cycle in range(100):
        limiter.cycled(float(cycle))
    assert limiter.stretch(2.0, 100.0) == 2.0


# === The freeze breaker. ===


@pytest.mark.fz("FZ-066")
def test_the_breaker_suspends_from_the_limit_on_and_doubles_up_to_the_cap() -> None:
    breaker = FreezeBreaker(limit=3, backoff=30.0, cap=100.0)
    suspended = []
    for _ in range(6):
        breaker.failed(1000.0)
        suspended.append(breaker.until - 1000.0)
    assert suspended == [float("-inf"), float("-inf"), 30.0, 60.0, 100.0, 100.0]
    assert repr(breaker) == "<FreezeBreaker failures=6 until=1100>"


@pytest.mark.fz("FZ-066")
def test_a_success_makes_the_breaker_forget() -> None:
    breaker = FreezeBreaker(limit=1, backoff=30.0, cap=100.0)
    breaker.failed(0.0)
    breaker.failed(0.0)
    breaker.succeeded()
    breaker.failed(500.0)
    assert breaker.until == 530.0 and breaker.failures == 1
