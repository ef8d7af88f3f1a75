"""Thaws that nobody waits for: in order, at a pace, and never too late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.node.storm import BATCH, Storm


def run(storm: Storm, now: float, until: float) -> list[tuple[float, str]]:
    """Call `release` when it says so, as a timer would."""
    let = []
    while (at := storm.next_at()) <= until:
        now = max(now, at)
        let += [(now, uid) for uid in storm.release(now)]
    return let


@pytest.mark.fz("FZ-095")
def test_a_burst_goes_at_once_and_the_rest_at_the_pace() -> None:
    storm = Storm(50.0, 5)
    for number in range(20):
        storm.add(0.0, f"p{number}", 100.0, soon=False)
    let = run(storm, 0.0, 1.0)
    assert [uid for _, uid in let] == [f"p{number}" for number in range(20)]
    assert [at for at, _ in let[:5]] == [0.0] * 5
    assert [at for at, _ in let[5:]] == pytest.approx([(number + 1) / 50 for number in range(15)])


@pytest.mark.fz("FZ-090", "FZ-095")
def test_none_goes_later_than_its_time_and_a_crowd_is_spread_evenly() -> None:
    storm = Storm(50.0, 5)
    for number in range(500):
        storm.add(0.0, f"p{number}", 0.8, soon=True)
    let = run(storm, 0.0, 10.0)
    assert len(let) == 500 and max(at for at, _ in let) <= 0.8 + 1e-9
    for tenth in range(8):
        count = sum(tenth / 10 <= at < (tenth + 1) / 10 for at, _ in let)
        assert 50 <= count <= 75, f"{count} of 500 within 100 ms"


def test_the_hurried_go_before_the_calm() -> None:
    storm = Storm(1.0, 1)
    storm.add(0.0, "calm", 8.0, soon=False)
    storm.add(0.0, "soon", 0.8, soon=True)
    assert storm.release(0.0) == ["soon"]
    assert run(storm, 0.0, 10.0) == [(pytest.approx(1.0), "calm")]


def test_whoever_is_in_a_hurry_now_leaves_the_calm_lane() -> None:
    storm = Storm(1.0, 1)
    storm.add(0.0, "a", 8.0, soon=False)
    storm.release(0.0)
    storm.add(0.0, "b", 8.0, soon=False)
    storm.add(0.1, "b", 0.9, soon=True)
    storm.add(0.2, "b", 8.2, soon=False)
    assert len(storm) == 1 and run(storm, 0.2, 10.0) == [(0.9, "b")]


def test_an_earlier_place_is_kept() -> None:
    storm = Storm(0.001, 1)
    storm.requested(0.0)
    storm.add(0.0, "a", 0.8, soon=True)
    storm.add(0.5, "a", 1.3, soon=True)
    assert run(storm, 0.5, 10.0) == [(0.8, "a")]


def test_a_batch_at_a_time_so_that_requests_get_in_between() -> None:
    storm = Storm(50.0, 5)
    for number in range(100):
        storm.add(0.0, f"p{number}", 0.5, soon=True)
    assert len(storm.release(10.0)) == BATCH and storm.next_at() <= 10.0


def test_a_thaw_by_request_takes_a_token_but_never_runs_up_a_debt() -> None:
    storm = Storm(10.0, 2)
    for _ in range(50):
        storm.requested(0.0)
    storm.add(0.0, "a", 8.0, soon=False)
    assert storm.release(0.0) == [] and storm.next_at() == pytest.approx(0.1)


def test_whoever_is_discarded_does_not_come_back() -> None:
    storm = Storm(50.0, 5)
    storm.add(0.0, "a", 0.8, soon=True)
    storm.add(0.0, "b", 8.0, soon=False)
    assert "a" in storm and "b" in storm
    storm.discard("a")
    storm.discard("b")
    storm.discard("c")
    assert "a" not in storm and len(storm) == 0 and storm.release(9.0) == [] and storm.next_at() == float("inf")


@given(
    st.lists(st.tuples(st.floats(0.0, 0.2), st.sampled_from(["soon", "calm", "discard", "requested"])), max_size=60),
    st.sampled_from([0.0, 1e6]),
)
def test_whatever_happens_each_goes_once_and_in_time(script: list[tuple[float, str]], start: float) -> None:
    storm, now, by = Storm(20.0, 3), start, dict[str, float]()
    for number, (pause, what) in enumerate(script):
        for at, uid in run(storm, now, now + pause):
            assert at <= by.pop(uid) + 1e-6
        now += pause
        if what == "requested":
            storm.requested(now)
        elif what == "discard":
            if by:
                uid = next(iter(by))
                storm.discard(uid)
                del by[uid]
        else:
            uid = f"p{number}"
            by[uid] = now + (0.8 if what == "soon" else 8.0)
            storm.add(now, uid, by[uid], soon=what == "soon")
    for at, uid in run(storm, now, now + 20):
        assert at <= by.pop(uid) + 1e-6
    assert not by and len(storm) == 0


def test_a_repr_counts_who_waits() -> None:
    storm = Storm(50.0, 5)
    storm.add(0.0, "a", 0.8, soon=True)
    assert repr(storm) == "<Storm soon=1 calm=0 tokens=5.00>"
