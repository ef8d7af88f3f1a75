"""Sessions: who may speak for a pod, connection by connection."""

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.node.sessions import LOCKED_OUT, Entry, Sessions

SIDECAR, OTHER_SIDECAR = "a" * 64, "b" * 64


def sessions() -> Sessions:
    numbers = count(1)
    return Sessions(lambda: f"secret-{next(numbers)}")


@pytest.mark.fz("FZ-129")
def test_the_first_request_learns_the_secret_and_later_ones_are_not_told_again() -> None:
    held = sessions()
    assert held.enter("pod", 1, None, SIDECAR) == Entry(True, "secret-1")
    assert held.enter("pod", 1, "secret-1", SIDECAR) == Entry(True, None)


def test_a_second_request_that_left_before_the_first_answer_came_is_told_the_same_secret() -> None:
    held = sessions()
    held.enter("pod", 1, None)
    assert held.enter("pod", 1, None) == Entry(True, "secret-1")


@pytest.mark.fz("FZ-129")
@pytest.mark.parametrize(
    "offered",
    [
        pytest.param(None, id="no secret"),
        pytest.param("secret-2", id="a wrong one"),
        pytest.param("é", id="not even ASCII"),
    ],
)
def test_another_connection_without_the_secret_is_locked_out_while_the_holder_is_connected(offered: str | None) -> None:
    held = sessions()
    held.enter("pod", 1, None, SIDECAR)
    assert held.enter("pod", 2, offered, SIDECAR) == LOCKED_OUT
    assert held.enter("pod", 1, "secret-1", SIDECAR).allowed, "and the holder does not notice"


def test_a_wrong_secret_is_refused_on_the_holders_own_connection() -> None:
    held = sessions()
    held.enter("pod", 1, None)
    assert held.enter("pod", 1, "wrong") == LOCKED_OUT


def test_a_secret_opens_one_pod_only() -> None:
    held = sessions()
    secret = held.enter("pod", 1, None).issue
    held.enter("other", 2, None)
    assert held.enter("other", 1, secret) == LOCKED_OUT


def test_the_holder_may_dial_anew_before_the_old_connection_is_known_to_be_dead() -> None:
    held = sessions()
    held.enter("pod", 1, None)
    assert held.enter("pod", 2, "secret-1") == Entry(True, None)
    held.left(1)  # the late news of the old one must not unseat the new one
    assert held.held("pod") and held.enter("pod", 3, None) == LOCKED_OUT


@pytest.mark.fz("FZ-068", "FZ-129")
def test_a_restarted_sidecar_takes_over_when_the_old_connection_is_gone() -> None:
    held = sessions()
    held.enter("pod", 1, None)
    held.left(1)
    assert not held.held("pod")
    assert held.enter("pod", 2, None) == Entry(True, "secret-2")
    assert held.takeovers == 1 and held.enter("pod", 2, "secret-1") == LOCKED_OUT


def test_a_holder_that_comes_back_with_its_secret_keeps_its_session() -> None:
    held = sessions()
    held.enter("pod", 1, None)
    held.left(1)
    assert held.enter("pod", 2, "secret-1") == Entry(True, None) and held.takeovers == 0


@pytest.mark.fz("FZ-097", "FZ-129")
def test_a_secret_of_an_earlier_freezer_is_replaced() -> None:
    assert sessions().enter("pod", 1, "from before the restart") == Entry(True, "secret-1")


@pytest.mark.fz("FZ-129")
def test_a_new_sidecar_container_ends_the_hold_of_whoever_came_first() -> None:
    held = sessions()
    held.enter("pod", 1, None, SIDECAR)
    assert not held.held("pod", OTHER_SIDECAR)
    assert held.enter("pod", 2, None, OTHER_SIDECAR) == Entry(True, "secret-2")
    assert held.enter("pod", 1, "secret-1", OTHER_SIDECAR) == LOCKED_OUT


def test_a_pod_watch_that_does_not_know_the_sidecar_ends_nothing() -> None:
    held = sessions()
    held.enter("pod", 1, None, SIDECAR)
    assert held.enter("pod", 2, None, "") == LOCKED_OUT


def test_a_pod_that_is_gone_leaves_nothing_behind() -> None:
    held = sessions()
    held.enter("pod", 1, None)
    held.forget("pod")
    held.forget("pod")
    held.left(1)
    assert repr(held) == "<Sessions 0, 0 connected, 0 taken over>"


@pytest.mark.fz("FZ-064", "FZ-092")
def test_a_successor_knows_the_sidecar_of_a_sleeping_pod_by_its_secret() -> None:
    before, after = sessions(), sessions()
    secret = before.enter("pod", 1, None, SIDECAR).issue
    assert before.proof("other") == "" and secret is not None and secret not in before.proof("pod")
    after.restore("pod", before.proof("pod"), SIDECAR)
    after.restore("none", "", "")
    assert not after.held("pod") and after.enter("pod", 5, secret, SIDECAR) == Entry(True, None)
    assert after.enter("pod", 6, None, SIDECAR) == LOCKED_OUT
    after.restore("pod", "0" * 64, SIDECAR)
    assert after.enter("pod", 5, secret, SIDECAR).allowed, "a session that is there is not replaced"


def test_a_restored_session_passes_to_a_sidecar_that_started_anew() -> None:
    held = sessions()
    held.restore("pod", "0" * 64, SIDECAR)
    assert held.enter("pod", 1, None, OTHER_SIDECAR) == Entry(True, "secret-1")


def test_no_repr_tells_a_secret() -> None:
    held = sessions()
    held.enter("pod", 1, None)
    assert "secret-1" not in repr(held)


_EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from("AB"), st.integers(1, 4), st.booleans()),
        st.tuples(st.just("left"), st.integers(1, 4)),
        st.tuples(st.just("forget"), st.sampled_from("AB")),
    ),
    max_size=60,
)


@pytest.mark.slow
@given(_EVENTS)
def test_at_most_one_connection_speaks_for_a_pod_whatever_happens(events: list[tuple]) -> None:
    held = sessions()
    known: dict[tuple[str, int], str] = {}  # what each connection was told
    speaker: dict[str, int | None] = {}
    for event in events:
        if event[0] == "enter":
            _, uid, connection, honest = event
            offered = known.get((uid, connection)) if honest else None
            before = speaker.get(uid)
            entry = held.enter(uid, connection, offered)
            if before is not None and before != connection and offered is None:
                assert entry == LOCKED_OUT
            if entry.allowed:
                speaker[uid] = connection
            if entry.issue is not None:
                known[uid, connection] = entry.issue
        elif event[0] == "left":
            held.left(event[1])
            speaker.update({uid: None for uid, holder in speaker.items() if holder == event[1]})
        else:
            held.forget(event[1])
            speaker.pop(event[1], None)
        for uid in "AB":
            assert held.held(uid) == (speaker.get(uid) is not None)
