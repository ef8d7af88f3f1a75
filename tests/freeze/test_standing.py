"""Where the policy stands, in words, and what must hold there."""

from collections.abc import Callable

import pytest

from queueproxy.freeze.policy import IdlePolicy, IdleSettings, Rung, State
from queueproxy.freeze.standing import check, words


def policy_in(state: State) -> IdlePolicy:
    """Armed at 0, asleep at 2, waking at 10."""
    policy = IdlePolicy(IdleSettings(min_uptime=0.0, look_first=False))
    policy.ready(0.0)
    policy.on_deadline(0.0)
    if state in (State.FROZEN, State.WAKING):
        policy.on_deadline(2.0)
        policy.confirmed(2.0, 1, Rung.FROZEN)
    if state is State.WAKING:
        policy.touched(10.0, "knock")
    if state is State.TERMINATING:
        policy.terminated(1.0)
    assert policy.state is state
    return policy


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.GRACE, "idle for 1 of 2 s"),
        (State.FROZEN, "idle for 2 s"),
        (State.WAKING, "knock"),
        (State.TERMINATING, "terminating"),
    ],
)
def test_the_words_name_the_cause(state: State, said: str) -> None:
    assert words(policy_in(state), 1.0) == said


@pytest.mark.parametrize(("count", "said"), [(1, "busy: 1 request"), (3, "busy: 3 requests")])
def test_requests_come_first(count: int, said: str) -> None:
    policy = policy_in(State.GRACE)
    policy.reading_began(1.0)
    assert words(policy, 1.0) == "busy: 1 half-read request"
    policy.reading_began(1.0)
    assert words(policy, 1.0) == "busy: 2 half-read requests"
    for _ in range(count):
        policy.arrived(1.0)
    assert words(policy, 1.0) == said


# Each breaks one invariant, as a bug in the policy would.
FAULTS: dict[str, tuple[State, Callable[[IdlePolicy], None], str]] = {
    "negative count": (State.GRACE, lambda policy: setattr(policy, "busy", -1), "busy=-1"),
    "asleep and busy": (State.FROZEN, lambda policy: setattr(policy, "busy", 1), "not kept running"),
    "grace and busy": (State.GRACE, lambda policy: setattr(policy, "half_read", 1), "not kept running"),
    "state without its wish": (State.FROZEN, lambda policy: setattr(policy, "state", State.AWAKE), "wish differ"),
    "unsettled at rest": (State.WAKING, lambda policy: setattr(policy, "state", State.AWAKE), "unsettled"),
    "waking for nothing": (State.WAKING, lambda policy: policy._wish.settle(), "waking, but for what"),
    "open too early": (State.WAKING, lambda policy: setattr(policy, "is_open", True), "the gate is wrong"),
    "closed for nothing": (State.GRACE, lambda policy: setattr(policy, "is_open", False), "the gate is wrong"),
    "no deadline": (State.WAKING, lambda policy: setattr(policy._wish, "until", float("inf")), "wait for ever"),
    "stuck while running": (State.GRACE, lambda policy: setattr(policy._wish, "stuck", True), "stuck without reason"),
    "grace while off": (State.GRACE, lambda policy: setattr(policy, "_off", "no freezer"), "may not sleep"),
    "grace while unready": (State.GRACE, lambda policy: policy._hold.unready(), "may not sleep"),
    "a look while frozen": (State.FROZEN, lambda policy: setattr(policy._lookout, "number", 3), "a look without use"),
}


@pytest.mark.parametrize("state", [State.GRACE, State.FROZEN, State.WAKING, State.TERMINATING])
def test_a_sound_policy_passes(state: State) -> None:
    check(policy_in(state))


@pytest.mark.parametrize("fault", FAULTS)
def test_each_invariant_notices_its_fault(fault: str) -> None:
    state, break_it, said = FAULTS[fault]
    policy = policy_in(state)
    break_it(policy)
    with pytest.raises(AssertionError, match=said):
        check(policy)
