"""Whose settled processes ended right after a thaw, and who only looks like that."""

from math import inf

import pytest

from queueproxy.freeze.node.losses import SETTLED, WINDOW, Losses

OLD = dict.fromkeys(range(100, 200), 0.0)  # born at 0


def slept_and_thawed(at: float = 60.0, asleep_for: float = 30.0, pids: range = range(100, 103)) -> Losses:
    losses = Losses()
    losses.slept(at - asleep_for, "pod", [])
    losses.thawed(at, "pod", pids, OLD)
    return losses


@pytest.mark.fz("FZ-084")
def test_a_settled_process_that_is_gone_five_seconds_after_the_thaw_is_a_loss() -> None:
    losses = slept_and_thawed(60.0)
    assert (losses.next_at(), losses.due(64.9), losses.due(65.0)) == (65.0, [], ["pod"])
    assert losses.looked("pod", {100, 150, 151}) == "2 of 3 processes died within 5 s of a thaw"
    assert losses.next_at() == inf and losses.looked("pod", set()) == "", "told once"


@pytest.mark.fz("FZ-084")
@pytest.mark.parametrize(
    ("now", "left"),
    [
        pytest.param(65.0, {100, 101, 102}, id="nobody is gone"),
        pytest.param(65.0, {100, 101, 102, 103}, id="somebody is new"),
    ],
)
def test_who_is_still_there_is_no_loss(now: float, left: set[int]) -> None:
    losses = slept_and_thawed(60.0)
    assert losses.due(now) == ["pod"] and losses.looked("pod", left) == ""


@pytest.mark.fz("FZ-084")
@pytest.mark.parametrize(
    ("born", "counts"),
    [
        pytest.param({100: 1.0, 101: 30.0 - SETTLED}, True, id="settled to the second"),
        pytest.param({100: 1.0, 101: 30.01 - SETTLED}, False, id="a moment too young"),
        pytest.param({100: 1.0, 101: 45.0}, False, id="started while the others slept"),
        pytest.param({100: 1.0}, False, id="gone before it could be asked"),
    ],
)
def test_an_exit_is_ordinary_when_the_process_was_young_at_the_freeze(born: dict[int, float], counts: bool) -> None:
    losses = Losses()
    losses.thawed(10.0, "pod", {100}, {100: 1.0})
    losses.slept(30.0, "pod", [])
    losses.thawed(60.0, "pod", {100, 101}, born)
    assert losses.due(65.0) == ["pod"]
    assert bool(losses.looked("pod", {100})) is counts


@pytest.mark.fz("FZ-084")
def test_the_sleep_in_a_shells_loop_never_counts_however_often_it_ends() -> None:
    """A shell that starts `sleep 5` again and again: at each thaw another one is there, and ends."""
    losses = Losses()
    for cycle in range(1, 20):
        now = cycle * 60.0
        losses.slept(now - 32.0, "pod", [])
        losses.thawed(now, "pod", {100, 500 + cycle}, {100: 0.0, 500 + cycle: now - 33.0})
        assert losses.due(now + WINDOW) == ["pod"]
        assert losses.looked("pod", {100, 600 + cycle}) == ""


@pytest.mark.fz("FZ-084")
def test_a_pod_that_sleeps_again_inside_the_window_is_looked_at_before() -> None:
    losses = slept_and_thawed(60.0)
    assert set(losses.settled("pod")) == {100, 101, 102}
    losses.slept(62.0, "pod", [101, 102])
    assert losses.next_at() == 62.0 and losses.due(62.0) == ["pod"]
    assert losses.looked("pod", {100}) == "2 of 3 processes died within 5 s of a thaw"
    losses.thawed(90.0, "pod", {100}, {})
    assert losses.due(95.0) == ["pod"] and losses.looked("pod", {100}) == "", "those who died are not missed twice"


def test_what_was_found_before_the_sleep_is_told_even_if_a_thaw_comes_first() -> None:
    losses = slept_and_thawed(60.0)
    losses.slept(61.0, "pod", [100])
    losses.thawed(61.1, "pod", {101, 102}, {})
    assert losses.due(61.1) == ["pod"] and losses.looked("pod", {101, 102}).startswith("1 of 3")


@pytest.mark.fz("FZ-084")
def test_what_dies_after_the_window_or_asleep_proves_nothing() -> None:
    losses = slept_and_thawed(60.0)
    assert losses.looked("pod", {100, 101, 102}) == ""
    losses.slept(66.0, "pod", [102])  # an ordinary end
    assert losses.due(66.0) == [] and set(losses.settled("pod")) == {100, 101}
    losses.thawed(90.0, "pod", {100}, {})  # 101 has moved to another container
    assert losses.due(95.0) == ["pod"] and losses.looked("pod", {100}) == ""


@pytest.mark.fz("FZ-084")
def test_who_ended_before_anybody_could_look_is_missed_all_the_same() -> None:
    losses = slept_and_thawed(60.0)
    assert losses.looked("pod", {100, 101, 102}) == ""
    losses.slept(66.0, "pod", [])
    losses.thawed(90.0, "pod", {100, 102}, {}, missing=[101])
    assert losses.due(95.0) == ["pod"]
    assert losses.looked("pod", {100, 102}) == "1 of 3 processes died within 5 s of a thaw"


def test_a_pod_that_goes_down_in_steps_slept_at_the_first() -> None:
    losses = Losses()
    losses.thawed(0.0, "pod", {1}, {1: -60.0})
    losses.slept(30.0, "pod", [])
    losses.slept(40.0, "pod", [])
    losses.thawed(60.0, "pod", {1, 2}, {2: 25.0})
    assert losses.looked("pod", {1}) == "", "2 was 5 s old when the pod began to sleep"


def test_each_thaw_starts_a_window_of_its_own() -> None:
    losses = Losses()
    losses.thawed(60.0, "a", {101}, OLD)
    losses.thawed(61.0, "b", {102}, OLD)
    losses.thawed(62.0, "a", {101}, OLD)
    assert losses.due(66.5) == ["b"] and losses.due(62.0 + WINDOW) == ["a"]
    losses.thawed(63.0, "b", set(), {})
    assert losses.due(99.0) == [], "nobody to be missed"


def test_who_is_due_is_named_once_even_if_nobody_looks() -> None:
    """Its containers may have been replaced meanwhile; a timer that never got past it would spin."""
    losses = slept_and_thawed(60.0)
    assert losses.due(65.0) == ["pod"] and losses.due(65.0) == [] and losses.next_at() == inf
    losses.slept(70.0, "pod", [])
    losses.thawed(90.0, "pod", {100}, {})
    assert losses.due(95.0) == ["pod"]


@pytest.mark.fz("FZ-084")
def test_containers_that_went_as_a_whole_leave_nobody_to_be_missed() -> None:
    losses = slept_and_thawed(60.0)
    losses.slept(66.0, "pod", [])
    losses.thawed(90.0, "pod", set(), {}, missing=[100, 101, 102])
    assert losses.next_at() == inf and losses.looked("pod", set()) == ""


def test_only_strangers_are_asked_their_age() -> None:
    losses = Losses()
    assert set(losses.strangers("pod", {100, 101})) == {100, 101}
    losses.thawed(60.0, "pod", {100, 101}, {100: 0.0, 101: 59.0})
    assert losses.strangers("pod", {100, 101}) == [101], "100 has settled"


def test_the_table_is_bounded_and_nobody_is_due_who_was_dropped() -> None:
    losses = Losses(largest=2)
    for now, uid in enumerate(("a", "b", "c"), start=60):
        losses.thawed(float(now), uid, {100}, OLD)
    losses.slept(62.0, "d", [])
    assert repr(losses) == "<Losses watches 1 of 2>"
    assert losses.due(99.0) == ["c"] and losses.looked("a", set()) == ""
