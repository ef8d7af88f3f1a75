"""Levels, integrals and counts for the autoscaler, against arithmetic done by hand and a naive model."""

import random

import pytest

from queueproxy.metrics.window import Report, Window


@pytest.mark.qp("QP-134", "QP-131")
def test_averages_are_weighted_by_time() -> None:
    window = Window(10.0)
    window.arrived(10.25, False)
    window.arrived(10.5, True)
    window.left(10.75, False)
    # One for 0.25 s, two for 0.25 s, one (proxied) for 0.25 s.
    assert window.close(11.0) == Report(1.0, 0.5, 2, 1)


@pytest.mark.qp("QP-134")
def test_levels_are_carried_over_and_counts_are_not() -> None:
    window = Window(0.0)
    window.arrived(0.0, False)
    window.arrived(0.0, True)
    window.close(1.0)
    assert window.close(2.0) == Report(2.0, 1.0, 0, 0)
    window.left(2.5, True)
    assert window.close(3.0) == Report(1.5, 0.5, 0, 0)


@pytest.mark.qp("QP-145")
def test_an_idle_window_is_exactly_zero_whatever_came_before() -> None:
    window = Window(0.0)
    for number in range(1000):
        window.arrived(number * 0.1, number % 3 == 0)
        window.left(number * 0.1 + 0.07, number % 3 == 0)
    window.close(1000.0)
    assert window.close(1001.0) == (0.0, 0.0, 0, 0)


@pytest.mark.qp("QP-134")
def test_a_window_without_time_has_no_average_but_its_counts() -> None:
    window = Window(5.0)
    window.arrived(5.0, False)
    assert window.close(5.0) == Report(0.0, 0.0, 1, 0)
    assert window.close(6.0) == Report(1.0, 0.0, 0, 0)


@pytest.mark.qp("QP-134", "QP-356")
def test_time_that_goes_backwards_is_ignored_and_not_counted_twice() -> None:
    window = Window(10.0)
    window.arrived(10.0, False)
    window.arrived(11.0, False)
    window.left(9.0, False)  # back by two seconds: nothing is integrated, the reference stays at 11
    assert window.close(10.5) == Report(1.0, 0.0, 2, 0)
    assert window.close(12.0) == Report(1.0, 0.0, 0, 0)


@pytest.mark.qp("QP-134", "QP-131", "QP-133")
@pytest.mark.parametrize("seed", range(5))
def test_a_random_day_agrees_with_a_naive_sum(seed: int) -> None:
    dice = random.Random(seed)
    window, now = Window(0.0), 0.0
    levels, opened = [0, 0], list[bool]()
    for _ in range(20):
        area, began, counts = [0.0, 0.0], now, [0, 0]
        for _ in range(dice.randrange(50)):
            passed = dice.expovariate(30.0)
            area = [area[0] + levels[0] * passed, area[1] + levels[1] * passed]
            now += passed
            if opened and dice.random() < 0.5:
                proxied = opened.pop(dice.randrange(len(opened)))
                window.left(now, proxied)
                levels = [levels[0] - 1, levels[1] - proxied]
            else:
                proxied = dice.random() < 0.4
                opened.append(proxied)
                window.arrived(now, proxied)
                levels = [levels[0] + 1, levels[1] + proxied]
                counts = [counts[0] + 1, counts[1] + proxied]
        now += 0.1
        area = [area[0] + levels[0] * 0.1, area[1] + levels[1] * 0.1]
        report = window.close(now)
        took = now - began
        assert report == (pytest.approx(area[0] / took), pytest.approx(area[1] / took), *counts)
        assert (window.concurrency, window.proxied) == tuple(levels)
