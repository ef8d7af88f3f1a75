"""How often who may ask."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.node import limits
from queueproxy.freeze.node.limits import Limits, Rate, Rates

SMALL = Rates(pod=Rate(2.0, 3), source=Rate(10.0, 5), everyone=Rate(100.0, 8), unproven=Rate(1.0, 2))


@pytest.mark.fz("FZ-130")
def test_a_burst_passes_and_then_the_rate_holds() -> None:
    some = Limits(SMALL)
    assert [some.pod(0.0, "a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert some.pod(0.0, "a") == pytest.approx(0.5)  # when the next one would pass
    assert some.pod(0.5, "a") == 0.0 and some.pod(0.5, "a") > 0
    assert some.refused["pod"] == 2


@pytest.mark.fz("FZ-130")
def test_one_pod_at_its_limit_does_not_slow_another() -> None:
    some = Limits(SMALL)
    while not some.pod(0.0, "a"):
        pass
    assert some.pod(0.0, "b") == 0.0


@pytest.mark.fz("FZ-130")
def test_a_source_at_its_limit_takes_nothing_from_the_others() -> None:
    some = Limits(SMALL)
    assert sum(some.call(0.0, "10.0.0.1") == 0.0 for _ in range(100)) == 5
    assert sum(some.call(0.0, "10.0.0.2") == 0.0 for _ in range(100)) == 3  # the rest of everybody's burst of 8
    assert some.refused == {"pod": 0, "source": 95 + 95, "everyone": 2, "unproven": 0}


@pytest.mark.fz("FZ-130")
def test_calls_without_proof_have_a_limit_of_their_own() -> None:
    some = Limits(SMALL)
    assert [some.unproven(0.0, "10.0.0.1") for _ in range(3)] == [0.0, 0.0, 1.0]
    assert some.call(0.0, "10.0.0.1") == 0.0


@pytest.mark.fz("FZ-130")
def test_the_defaults_are_the_documented_ones() -> None:
    some = Limits()
    assert sum(some.pod(0.0, "a") == 0.0 for _ in range(500)) == 100
    assert sum(some.pod(1.0, "a") == 0.0 for _ in range(500)) == 50
    assert sum(some.unproven(0.0, "x") == 0.0 for _ in range(500)) == 20
    assert sum(some.unproven(1.0, "x") == 0.0 for _ in range(500)) == 10
    assert sum(some.call(0.0, str(source)) == 0.0 for source in range(11_000)) == 10_000


@pytest.mark.fz("FZ-130")
@given(st.lists(st.floats(0.0, 0.3), min_size=1, max_size=300), st.floats(0.5, 100.0), st.integers(1, 20))
def test_never_more_than_burst_and_rate_in_any_window(gaps: list[float], rate: float, burst: int) -> None:
    some = Limits(Rates(pod=Rate(rate, burst)))
    now, allowed = 0.0, []
    for gap in gaps:
        now += gap
        wait = some.pod(now, "a")
        if not wait:
            allowed.append(now)
            first = allowed[0]
            assert len(allowed) <= burst + (now - first) * rate + 1e-6
        else:
            assert 0.0 < wait <= 1.0 / rate + 1e-9


def test_who_waits_as_told_passes() -> None:
    some = Limits(Rates(pod=Rate(3.0, 1)))
    now = 0.0
    for _ in range(1000):
        wait = some.pod(now, "a")
        if wait:
            now += wait
            assert some.pod(now, "a") == 0.0


@pytest.mark.fz("FZ-130")
def test_a_flood_of_sources_costs_bounded_memory() -> None:
    some = Limits()
    for source in range(3 * limits._KEYS_MAX):
        some.unproven(source * 1e-4, str(source))
    assert repr(some).startswith(f"<Limits pods=0 sources=0 refused={some.refused}")
    assert len(some._unproven) == limits._KEYS_MAX


def test_a_deleted_pod_is_forgotten() -> None:
    some = Limits(SMALL)
    while not some.pod(0.0, "a"):
        pass
    some.gone("a")
    some.gone("never seen")
    assert some.pod(0.0, "a") == 0.0


@pytest.mark.parametrize("rate", [Rate(0.0, 1), Rate(-1.0, 1), Rate(1.0, 0)], ids=str)
def test_a_limit_that_lets_nothing_through_is_a_mistake(rate: Rate) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Limits(Rates(source=rate))
