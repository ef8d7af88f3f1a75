"""One pod's lease: every phase meets every event, then each promise for itself."""

from collections.abc import Callable, Iterable
from math import inf

import pytest

from queueproxy.freeze.annotations import Mode
from queueproxy.freeze.node.actions import (
    TRANSITIONS,
    Action,
    Answer,
    Close,
    Event,
    Forget,
    Kind,
    LedgerSettings,
    Move,
    Phase,
    Remember,
    Reply,
    Verdict,
)
from queueproxy.freeze.node.entry import Entry
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.node.permit import Terms
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import Problem, StateRequest, Wanted
from tests.support import podfacts

RUNNING, THROTTLED, FROZEN = Rung.RUNNING, Rung.THROTTLED, Rung.FROZEN
UID = podfacts.pod_uid()
SETTINGS = LedgerSettings()


def idle(generation: int, rung: Rung = FROZEN, lease: float = 30.0) -> StateRequest:
    return StateRequest(Wanted.IDLE, generation, lease, "idle", rung)


def active(generation: int) -> StateRequest:
    return StateRequest(Wanted.ACTIVE, generation, reason="request")


def terminating(generation: int) -> StateRequest:
    return StateRequest(Wanted.TERMINATING, generation, reason="SIGTERM")


def same(said: Iterable[Action], *expected: Action) -> bool:
    """Types count: as tuples, `Remember` and `Forget` of one pod are equal."""
    return [(type(action), action) for action in said] == [(type(action), action) for action in expected]


def among(said: Iterable[Action], action: Action) -> bool:
    return any(same((one,), action) for one in said)


def moved(rung: Rung | None, detail: str = "", *, gone: bool = False) -> Moved:
    return Moved(rung, "cgroup2", 0.00025, detail, gone)


class Pod:
    """An entry, and what it has said so far."""

    def __init__(self, *, known: bool = True, mode: Mode = Mode.FREEZE) -> None:
        self.terms = Terms(SETTINGS)
        self.entry = Entry(self.terms, UID, 0.0)
        self.out: list[Action] = []
        if known:
            self.entry.known(0.0, podfacts.pod(mode=mode), self.out)

    def ask(self, now: float, request: StateRequest) -> Verdict:
        verdict = self.entry.asked(now, request)
        self.out += verdict.actions
        return verdict

    def hear(self, now: float, rung: Rung | None, detail: str = "", *, gone: bool = False) -> list[Action]:
        """The move that is out ends; what that leads to."""
        assert self.entry.move, f"nothing is out: {self.entry!r}"
        said: list[Action] = []
        self.entry.reached(now, moved(rung, detail, gone=gone), said)
        self.out += said
        return said

    def sleep(self, now: float = 1.0, generation: int = 1, rung: Rung = FROZEN, lease: float = 30.0) -> None:
        assert self.ask(now, idle(generation, rung, lease)).answer is Answer.ACCEPTED
        self.hear(now, rung)
        assert self.entry.phase is Phase.ASLEEP

    @property
    def move(self) -> Move:
        return next(action for action in reversed(self.out) if isinstance(action, Move))


# === Every phase meets every event. ===


def stage(phase: Phase) -> Pod:
    """A pod in this phase, by the shortest way."""
    pod = Pod()
    if phase is not Phase.RUNNING:
        if phase is Phase.SINKING:
            pod.ask(1.0, idle(1))
        else:
            pod.sleep()
        if phase is Phase.DUE:
            pod.entry.on_deadline(31.0, pod.out)
        elif phase in (Phase.RISING, Phase.STUCK):
            pod.ask(2.0, active(2))
        if phase is Phase.STUCK:
            pod.hear(2.1, None, "io")
    assert pod.entry.phase is phase
    pod.out.clear()
    return pod


NOW = 31.5  # every phase's deadline is over, the late renewal's is not
EVENTS: dict[str, Callable[[Pod], object]] = {
    "older active": lambda pod: pod.ask(NOW, active(0)),
    "same idle": lambda pod: pod.ask(NOW, idle(pod.entry.generation)),
    "same active": lambda pod: pod.ask(NOW, active(pod.entry.generation)),
    "newer idle": lambda pod: pod.ask(NOW, idle(9)),
    "newer throttle": lambda pod: pod.ask(NOW, idle(9, THROTTLED)),
    "newer active": lambda pod: pod.ask(NOW, active(9)),
    "terminating": lambda pod: pod.ask(NOW, terminating(9)),
    "older terminating": lambda pod: pod.ask(NOW, terminating(0)),
    "reached running": lambda pod: pod.entry.move and pod.hear(NOW, RUNNING),
    "reached throttled": lambda pod: pod.entry.move and pod.hear(NOW, THROTTLED),
    "reached frozen": lambda pod: pod.entry.move and pod.hear(NOW, FROZEN),
    "reached nothing": lambda pod: pod.entry.move and pod.hear(NOW, None, "io"),
    "gone on a thaw": lambda pod: pod.entry.move and pod.hear(NOW, RUNNING, gone=True),
    "gone": lambda pod: pod.entry.move and pod.hear(NOW, None, gone=True),
    "known": lambda pod: pod.entry.known(NOW, podfacts.pod(), pod.out),
    "switched off": lambda pod: pod.entry.known(NOW, podfacts.pod(mode=Mode.OFF), pod.out),
    "refused": lambda pod: pod.entry.known(NOW, podfacts.pod(refusal="is being deleted"), pod.out),
    "other containers": lambda pod: pod.entry.known(NOW, podfacts.pod(containers=(99,)), pod.out),
    "ending": lambda pod: pod.entry.known(NOW, podfacts.pod(terminating=True), pod.out),
    "deleted": lambda pod: pod.entry.vanished(NOW, pod.out),
    "stop signal": lambda pod: pod.entry.stopping(NOW, pod.out),
    "operator": lambda pod: pod.entry.held_awake(NOW, NOW + 5, pod.out, urgent=True),
    "operator, all": lambda pod: pod.entry.held_awake(NOW, NOW + 5, pod.out, urgent=False),
    "deadline": lambda pod: pod.entry.until <= NOW and pod.entry.on_deadline(NOW, pod.out),
    "turn": lambda pod: pod.entry.turn(NOW, pod.out),
}
MOVING = (Phase.SINKING, Phase.RISING)


@pytest.mark.fz("FZ-060", "FZ-061", "FZ-062")
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("phase", Phase)
def test_every_phase_meets_every_event(phase: Phase, event: str) -> None:
    pod = stage(phase)
    EVENTS[event](pod)
    entry = pod.entry
    moves = [action for action in pod.out if isinstance(action, Move)]
    assert len(moves) <= 1, "two moves at once"
    assert not moves or pod.out[-1] is moves[0], "a move comes last, because it may be answered at once"
    assert (entry.move != 0) == (entry.phase in MOVING)
    assert not moves or moves[0].number == entry.move
    assert (entry.until < inf) == (entry.phase not in (Phase.RUNNING, Phase.DUE)), "would wait for ever, or for nothing"
    assert (UID in pod.terms.storm) == (entry.phase is Phase.DUE)
    asleep = entry.phase not in (Phase.RUNNING, Phase.RISING)
    assert entry.rung if asleep else entry.phase is Phase.RISING or not entry.rung, (
        "what is not certain counts as asleep"
    )
    replied = [action.number for action in pod.out if isinstance(action, Reply)]
    assert len(replied) == len(set(replied)), "answered twice"
    assert not entry._waiting or entry.phase in MOVING, "waits for a move that is not out"
    for move in moves:
        if move.rung:
            assert same(pod.out[-2:-1], Remember(UID)), "remembered before the kernel is asked (FZ-092)"
    # Whatever happened: from here it can be made to run.
    if not entry.permit.is_gone:
        verdict = pod.ask(NOW + 1, terminating(99))
        if verdict.answer is Answer.ACCEPTED:
            pod.hear(NOW + 1, RUNNING)
            assert among(pod.out, Reply(UID, verdict.number, entry.view(NOW + 1)))
        assert entry.phase is Phase.RUNNING and entry.permit.is_terminal


def test_each_edge_of_the_table_is_taken_by_some_event_and_no_other_is() -> None:
    taken: set[tuple[Phase, Phase]] = set()
    for phase in Phase:
        for event in EVENTS.values():
            pod = stage(phase)
            event(pod)
            if pod.entry.phase is not phase:
                taken.add((phase, pod.entry.phase))
    for rung in (FROZEN, RUNNING):  # adoption
        pod = Pod(known=False)
        pod.entry.adopted(0.0, 1, rung, pod.out)
        taken.add((Phase.RUNNING, Phase.ASLEEP))
        assert pod.entry.phase is (Phase.ASLEEP if rung else Phase.DUE)
    assert taken == {(origin, to) for origin, reachable in TRANSITIONS.items() for to in reachable}


def test_a_missing_edge_is_an_error() -> None:
    for phase in Phase:
        for to in set(Phase) - TRANSITIONS[phase] - {phase}:
            with pytest.raises(AssertionError, match=f"cannot move to {to.name}"):
                stage(phase).entry._set(NOW, to)


# === Wishes and generations. ===


@pytest.mark.fz("FZ-060", "FZ-062", "FZ-092")
def test_a_wish_to_sleep_is_answered_when_the_kernel_has_confirmed_it() -> None:
    pod = Pod()
    verdict = pod.ask(1.0, idle(1))
    assert verdict.answer is Answer.ACCEPTED
    assert same(
        verdict.actions, Event(UID, Kind.IDLE, 1, "idle"), Remember(UID), Move(UID, FROZEN, pod.entry.move, False)
    )
    said = pod.hear(1.0002, FROZEN)
    view = pod.entry.view(1.0002)
    assert same(said, Reply(UID, verdict.number, view), Event(UID, Kind.FROZEN, 1, "idle"), Remember(UID))
    assert (view.rung, view.generation, view.mechanism, view.took_us) == (FROZEN, 1, "cgroup2", 250)
    assert view.lease_s == pytest.approx(29.9998)


@pytest.mark.fz("FZ-060")
def test_a_wish_to_run_is_urgent_and_forgets_the_record() -> None:
    pod = Pod()
    pod.sleep()
    verdict = pod.ask(2.0, active(2))
    assert same(verdict.actions, Event(UID, Kind.ACTIVE, 2, "request"), Move(UID, RUNNING, pod.entry.move, True))
    said = pod.hear(2.0002, RUNNING)
    view = pod.entry.view(2.0002)
    assert same(said, Reply(UID, verdict.number, view), Event(UID, Kind.THAWED, 2, "request"), Forget(UID))
    assert (view.rung, view.lease_s, pod.entry.wakes, pod.entry.slept_for) == (RUNNING, 0.0, 1, 1.0)


@pytest.mark.fz("FZ-061")
def test_an_older_generation_is_refused_with_the_present_view() -> None:
    pod = Pod()
    pod.sleep(generation=5)
    for request in (active(4), idle(4)):
        verdict = pod.ask(2.0, request)
        assert (verdict.answer, verdict.problem) == (Answer.REFUSED, Problem.STALE_GENERATION)
        assert verdict.view is not None and (verdict.view.rung, verdict.view.generation) == (FROZEN, 5)
        assert verdict.actions == ()


@pytest.mark.fz("FZ-061")
def test_under_one_generation_the_wish_to_run_wins_in_whichever_order_they_come() -> None:
    pod = Pod()
    pod.sleep(generation=5)
    assert pod.ask(2.0, active(5)).answer is Answer.ACCEPTED
    assert pod.ask(2.0, idle(5)).problem is Problem.STALE_GENERATION
    pod.hear(2.0, RUNNING)
    assert pod.ask(2.1, idle(5)).problem is Problem.STALE_GENERATION


@pytest.mark.fz("FZ-061")
def test_the_same_generation_joins_what_is_on_its_way_and_gets_the_same_answer_afterwards() -> None:
    pod = Pod()
    pod.sleep()
    first, second = pod.ask(2.0, active(2)), pod.ask(2.1, active(2))
    assert first.answer is second.answer is Answer.ACCEPTED and second.actions == ()
    replies = [action for action in pod.hear(2.2, RUNNING) if isinstance(action, Reply)]
    assert [reply.number for reply in replies] == [first.number, second.number]
    third = pod.ask(2.3, active(2))
    assert (third.answer, third.actions) == (Answer.ANSWER, ()) and third.view == replies[0].view


def test_a_repeated_wish_to_sleep_joins_the_freeze_that_is_out() -> None:
    pod = Pod()
    first, second = pod.ask(1.0, idle(1)), pod.ask(1.1, idle(1))
    assert second.answer is Answer.ACCEPTED and second.actions == ()
    replies = [action.number for action in pod.hear(1.2, FROZEN) if isinstance(action, Reply)]
    assert replies == [first.number, second.number]


@pytest.mark.fz("FZ-061", "FZ-039")
def test_a_newer_wish_overtakes_the_one_that_waits() -> None:
    pod = Pod()
    freeze = pod.ask(1.0, idle(1))
    old_move = pod.entry.move
    thaw = pod.ask(1.1, active(2))
    reply = thaw.actions[0]
    assert isinstance(reply, Reply) and (reply.number, reply.problem) == (freeze.number, Problem.STALE_GENERATION)
    assert pod.move.rung is RUNNING and pod.entry.move > old_move
    assert isinstance(pod.hear(1.2, RUNNING)[0], Reply)


def test_a_thaw_that_is_out_already_serves_a_new_wish_to_run() -> None:
    pod = stage(Phase.DUE)
    pod.entry.turn(31.6, pod.out)
    out = pod.entry.move
    verdict = pod.ask(31.7, active(2))
    assert verdict.answer is Answer.ACCEPTED and pod.entry.move == out
    assert [a.number for a in pod.hear(31.8, RUNNING) if isinstance(a, Reply)] == [verdict.number]


def test_a_request_that_finds_a_safety_thaw_waiting_goes_ahead_of_the_queue() -> None:
    for request in (active(2), idle(1)):
        pod = stage(Phase.DUE)
        pod.entry._why = "draining"  # not for a late renewal to take back
        assert pod.ask(31.6, request).answer is Answer.ACCEPTED
        assert pod.move.urgent and UID not in pod.terms.storm


def test_too_many_that_wait_are_turned_away_and_nobody_else_is_harmed() -> None:
    pod = stage(Phase.ASLEEP)
    verdicts = [pod.ask(2.0, active(2)) for _ in range(SETTINGS.waiting_cap + 1)]
    assert verdicts[-1].problem is Problem.RATE_LIMITED
    assert sum(isinstance(action, Reply) for action in pod.hear(2.1, RUNNING)) == SETTINGS.waiting_cap


@pytest.mark.fz("D-25")
def test_a_wish_to_run_looks_at_the_kernel_even_when_nothing_is_held() -> None:
    pod = Pod()
    verdict = pod.ask(1.0, active(1))
    assert verdict.answer is Answer.ACCEPTED and pod.move.rung is RUNNING
    assert [type(action) for action in pod.hear(1.0, RUNNING)] == [Reply], "nothing was held: no event, no record"


def test_going_deeper_is_one_more_move_under_a_new_generation() -> None:
    pod = Pod()
    pod.sleep(rung=THROTTLED)
    pod.ask(2.0, idle(2, FROZEN))
    assert pod.move.rung is FROZEN and pod.entry.view(2.0).rung is FROZEN, "from here on it may be"
    pod.hear(2.1, FROZEN)
    assert pod.entry.slept_for == pytest.approx(1.0)


def test_a_shallower_rung_than_asked_for_is_taken_as_it_is() -> None:
    pod = Pod()
    pod.ask(1.0, idle(1, FROZEN))
    said = pod.hear(1.1, THROTTLED)
    assert (
        isinstance(said[0], Reply)
        and said[0].view.rung is THROTTLED
        and said[1] == Event(UID, Kind.THROTTLED, 1, "idle")
    )


# === Failures. ===


@pytest.mark.fz("FZ-065", "FZ-062")
def test_a_failed_freeze_is_told_at_once_and_made_certain_of() -> None:
    pod = Pod()
    verdict = pod.ask(1.0, idle(1))
    said = pod.hear(1.1, None, "not confirmed within 200 ms")
    reply = said[0]
    assert isinstance(reply, Reply) and reply.number == verdict.number
    assert (reply.problem, reply.detail) == (Problem.NOT_CONFIRMED, "not confirmed within 200 ms")
    assert reply.view.rung is FROZEN, "until the kernel says otherwise"
    assert said[1] == Event(UID, Kind.FAILED, 1, "not confirmed within 200 ms")
    assert pod.move.rung is RUNNING and pod.move.urgent
    assert among(pod.hear(1.2, RUNNING), Forget(UID))
    again = pod.ask(1.3, idle(1))
    assert (again.answer, again.problem) == (Answer.REFUSED, Problem.NOT_CONFIRMED), "same generation, same answer"
    assert pod.ask(1.4, idle(2)).answer is Answer.ACCEPTED


@pytest.mark.parametrize("rung", [RUNNING, None])
def test_a_freeze_after_which_the_pod_runs_has_failed(rung: Rung | None) -> None:
    pod = Pod()
    pod.ask(1.0, idle(1))
    reply = pod.hear(1.1, rung)[0]
    assert isinstance(reply, Reply) and reply.problem is Problem.NOT_CONFIRMED


@pytest.mark.fz("FZ-096")
def test_containers_that_are_gone_end_a_freeze_without_a_thaw() -> None:
    pod = Pod()
    pod.ask(1.0, idle(1))
    said = pod.hear(1.1, None, gone=True)
    assert [type(action) for action in said] == [Reply, Event, Event, Forget, Close]
    assert pod.entry.phase is Phase.RUNNING


@pytest.mark.fz("FZ-096")
def test_containers_that_are_gone_are_running_as_an_answer_to_a_thaw() -> None:
    pod = stage(Phase.RISING)
    said = pod.hear(3.0, None, gone=True)
    assert isinstance(said[0], Reply) and said[0].problem is None and said[0].view.rung is RUNNING
    assert same(said[1:], Event(UID, Kind.THAWED, 2, "gone"), Forget(UID), Close(UID)) and pod.entry.wakes == 0


def test_a_failed_thaw_is_told_and_repeated_for_ever() -> None:
    pod = stage(Phase.ASLEEP)
    pod.ask(2.0, active(2))
    pauses = []
    now = 2.0
    for _ in range(8):
        said = pod.hear(now, None, "io")
        pauses.append(pod.entry.until - now)
        now = pod.entry.until
        assert Event(UID, Kind.FAILED, 2, "io") in said and pod.entry.phase is Phase.STUCK
        pod.entry.on_deadline(now, pod.out)
        assert pod.move.number == pod.entry.move and not pod.move.urgent
    assert pauses == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0])
    assert sum(isinstance(action, Reply) for action in pod.out) == 1
    pod.hear(now, RUNNING)
    assert pod.entry.phase is Phase.RUNNING


def test_a_stuck_pod_is_tried_at_once_when_asked_to_run_and_not_at_all_when_asked_to_sleep() -> None:
    pod = stage(Phase.STUCK)
    verdict = pod.ask(2.2, idle(3))
    assert verdict.problem is Problem.NOT_CONFIRMED and verdict.detail == "io"
    assert pod.ask(2.2, active(4)).answer is Answer.ACCEPTED and pod.move.urgent


def test_a_failed_thaw_of_what_ran_already_counts_as_asleep() -> None:
    pod = Pod()
    pod.ask(1.0, active(1))
    reply = pod.hear(1.1, None, "frozen by somebody else")[0]
    assert isinstance(reply, Reply) and (reply.problem, reply.view.rung) == (Problem.NOT_CONFIRMED, FROZEN)
    pod.entry.on_deadline(pod.entry.until, pod.out)
    assert among(pod.hear(2.0, RUNNING), Event(UID, Kind.THAWED, 1, "request"))


def test_a_move_without_an_answer_has_failed() -> None:
    pod = stage(Phase.SINKING)
    assert pod.entry.until == 1.0 + SETTINGS.move_deadline
    pod.entry.on_deadline(pod.entry.until, pod.out)
    assert pod.entry.phase is Phase.RISING
    assert isinstance(pod.out[0], Reply) and pod.out[0].problem is Problem.NOT_CONFIRMED
    pod.entry.on_deadline(pod.entry.until, pod.out)
    assert pod.entry.phase is Phase.STUCK


# === Leases. ===


@pytest.mark.fz("FZ-090")
def test_a_lease_that_is_not_renewed_ends_in_a_thaw_at_its_turn() -> None:
    pod = Pod()
    pod.sleep(now=1.0, lease=30.0)
    assert pod.entry.until == 31.0
    pod.out.clear()
    pod.entry.on_deadline(31.0, pod.out)
    assert pod.out == [Event(UID, Kind.EXPIRED, 1, "lease over")]
    assert pod.terms.storm.release(31.0) == [UID]
    pod.entry.turn(31.0, pod.out)
    assert pod.move.rung is RUNNING and not pod.move.urgent
    assert Event(UID, Kind.THAWED, 1, "lease over") in pod.hear(31.1, RUNNING)


@pytest.mark.fz("FZ-090")
def test_the_same_generation_again_renews_the_lease() -> None:
    pod = Pod()
    pod.sleep(now=1.0, lease=30.0)
    verdict = pod.ask(11.0, idle(1))
    assert verdict.answer is Answer.ANSWER and verdict.actions == () and verdict.view is not None
    assert (verdict.view.lease_s, pod.entry.until) == (30.0, 41.0)


@pytest.mark.fz("FZ-090")
@pytest.mark.parametrize(("wished", "granted"), [(5.0, 5.0), (60.0, 60.0), (3600.0, 60.0), (0.0, 30.0)])
def test_a_lease_is_no_longer_than_the_freezer_allows(wished: float, granted: float) -> None:
    pod = Pod()
    pod.sleep(now=1.0, lease=wished)
    assert pod.entry.until == 1.0 + granted
    pod.ask(2.0, idle(1, lease=wished))
    assert pod.entry.until == 2.0 + granted


def test_a_renewal_that_comes_before_its_thaw_takes_it_back() -> None:
    pod = stage(Phase.DUE)
    verdict = pod.ask(31.5, idle(1))
    assert verdict.answer is Answer.ANSWER and pod.entry.phase is Phase.ASLEEP and UID not in pod.terms.storm
    assert pod.entry.until == 61.5


def test_a_renewal_learns_that_somebody_else_woke_the_app() -> None:
    pod = stage(Phase.ASLEEP)
    pod.entry.held_awake(2.0, 7.0, pod.out, urgent=True)
    pod.hear(2.1, RUNNING)
    verdict = pod.ask(3.0, idle(1))
    assert verdict.answer is Answer.ANSWER and verdict.view is not None and verdict.view.rung is RUNNING


@pytest.mark.fz("FZ-061", "FZ-090")
def test_a_renewal_that_comes_too_late_puts_nobody_to_sleep_again() -> None:
    pod = stage(Phase.DUE)
    pod.entry.turn(31.1, pod.out)
    pod.hear(31.2, RUNNING)
    verdict = pod.ask(31.5, idle(1))
    assert (verdict.answer, verdict.actions) == (Answer.ANSWER, ())
    assert verdict.view is not None and verdict.view.rung is RUNNING and pod.entry.phase is Phase.RUNNING


# === What forbids sleep. ===


@pytest.mark.fz("FZ-050")
def test_terminating_is_heard_whatever_its_generation_and_nothing_sleeps_after_it() -> None:
    pod = Pod()
    pod.sleep(generation=5)
    verdict = pod.ask(2.0, terminating(0))
    assert verdict.answer is Answer.ACCEPTED and pod.entry.generation == 5
    assert same(verdict.actions[1:], Remember(UID), Move(UID, RUNNING, pod.entry.move, True)), "known to a successor"
    said = pod.hear(2.1, RUNNING)
    assert among(said, Remember(UID)) and not among(said, Forget(UID)), "for as long as it is there"
    refused = pod.ask(3.0, idle(6))
    assert (refused.answer, refused.problem) == (Answer.REFUSED, Problem.TERMINAL)
    assert pod.ask(3.1, active(7)).answer is Answer.ACCEPTED, "a thaw is never refused to the owner"


@pytest.mark.fz("FZ-050")
def test_terminating_again_gets_the_same_answer() -> None:
    pod = Pod()
    first = pod.ask(1.0, terminating(1))
    pod.hear(1.1, RUNNING)
    assert first.answer is Answer.ACCEPTED and pod.ask(2.0, terminating(1)).answer is Answer.ANSWER


def test_an_active_under_the_generation_of_terminating_does_not_overtake_it() -> None:
    pod = Pod()
    pod.sleep()
    ending = pod.ask(2.0, terminating(2))
    late = pod.ask(2.1, active(2))
    assert [a.number for a in pod.hear(2.2, RUNNING) if isinstance(a, Reply)] == [ending.number, late.number]
    assert pod.entry.wanted is Wanted.TERMINATING


@pytest.mark.fz("FZ-055")
def test_a_stop_signal_wakes_at_once_and_for_good() -> None:
    pod = stage(Phase.ASLEEP)
    pod.entry.stopping(2.0, pod.out)
    assert same(pod.out, Remember(UID), Move(UID, RUNNING, pod.entry.move, True))
    pod.entry.stopping(2.05, pod.out)
    assert len(pod.out) == 2, "seen again: no news"
    pod.hear(2.1, RUNNING)
    assert pod.ask(3.0, idle(2)).problem is Problem.TERMINAL


@pytest.mark.fz("FZ-113", "FZ-085")
@pytest.mark.parametrize(
    ("mode", "reached"),
    [(Mode.OFF, RUNNING), (Mode.SHADOW, RUNNING), (Mode.THROTTLE, THROTTLED), (Mode.FREEZE, FROZEN)],
)
def test_the_policy_caps_the_rung(mode: Mode, reached: Rung) -> None:
    pod = Pod(mode=mode)
    verdict = pod.ask(1.0, idle(1))
    if reached is RUNNING:
        assert verdict.answer is Answer.ANSWER and verdict.view is not None and verdict.view.policy is not None
        assert (verdict.view.rung, verdict.view.generation, verdict.view.policy.mode) == (RUNNING, 1, mode)
        assert not any(isinstance(action, Move | Remember) for action in verdict.actions)
    else:
        assert pod.move.rung is reached


def test_a_policy_that_forbids_what_is_asleep_wakes_it() -> None:
    pod = stage(Phase.ASLEEP)
    pod.entry.known(2.0, podfacts.pod(mode=Mode.THROTTLE), pod.out)
    assert pod.entry.phase is Phase.DUE
    pod = stage(Phase.SINKING)
    pod.entry.known(2.0, podfacts.pod(mode=Mode.OFF), pod.out)
    assert pod.move.rung is RUNNING


def test_a_pod_that_may_not_sleep_answers_when_it_runs() -> None:
    pod = stage(Phase.RISING)
    pod.entry.known(2.5, podfacts.pod(mode=Mode.OFF), pod.out)
    verdict = pod.ask(2.6, idle(3))
    assert verdict.answer is Answer.ACCEPTED
    reply = pod.hear(2.7, RUNNING)[0]
    assert isinstance(reply, Reply) and (reply.number, reply.view.rung, reply.problem) == (
        verdict.number,
        RUNNING,
        None,
    )


def test_other_containers_wake_the_old_ones_and_then_take_their_place() -> None:
    pod = stage(Phase.ASLEEP)
    pod.entry.known(2.0, podfacts.pod(containers=(99,)), pod.out)
    assert pod.entry.phase is Phase.DUE and pod.ask(2.1, idle(2)).problem is Problem.NOT_READY
    pod.entry.turn(2.2, pod.out)
    assert same(pod.hear(2.3, RUNNING)[-1:], Close(UID))
    assert pod.entry.permit.ids == {podfacts.container_id(99)}
    assert pod.ask(2.4, idle(3)).answer is Answer.ACCEPTED


@pytest.mark.fz("FZ-096")
def test_a_deleted_pod_is_let_go_before_it_is_forgotten() -> None:
    pod = stage(Phase.ASLEEP)
    pod.entry.vanished(2.0, pod.out)
    assert pod.entry.phase is Phase.DUE
    pod.entry.turn(2.1, pod.out)
    assert same(pod.hear(2.2, RUNNING)[-2:], Forget(UID), Close(UID)) and pod.entry.phase is Phase.RUNNING


# === Adoption. ===


@pytest.mark.fz("FZ-092")
def test_what_a_former_freezer_left_is_leased_once_more() -> None:
    pod = Pod(known=False)
    pod.entry.adopted(100.0, 7, FROZEN, pod.out)
    assert (pod.entry.phase, pod.entry.until, pod.entry.view(100.0).generation) == (Phase.ASLEEP, 130.0, 7)
    assert pod.ask(101.0, idle(7)).answer is Answer.ANSWER, "renewed without the API server (FZ-064)"
    assert pod.ask(102.0, idle(8)).problem is Problem.NOT_READY, "a new sleep needs it"
    assert pod.ask(103.0, active(9)).answer is Answer.ACCEPTED, "a thaw never does"


def test_what_looks_awake_is_made_certain() -> None:
    pod = Pod(known=False)
    pod.entry.adopted(100.0, 7, RUNNING, pod.out)
    assert pod.entry.phase is Phase.DUE and UID in pod.terms.storm
    pod.entry.turn(100.1, pod.out)
    assert among(pod.hear(100.2, RUNNING), Forget(UID))


def test_the_reason_says_why_it_is_awake_or_asleep() -> None:
    assert Pod().entry.reason(0.0) == ""
    assert stage(Phase.ASLEEP).entry.reason(2.0) == "idle"
    assert stage(Phase.STUCK).entry.reason(2.0) == "request, cannot thaw after 1 attempts: io"
    assert Pod(known=False).entry.reason(0.0) == "not known yet"
    pod = stage(Phase.ASLEEP)
    pod.entry.held_awake(2.0, 7.0, pod.out, urgent=True)
    pod.hear(2.0, RUNNING)
    assert pod.entry.reason(2.0) == "held by an operator for 5 s"


def test_a_repr_names_phase_wish_and_generation() -> None:
    assert repr(stage(Phase.RISING).entry) == (
        f"<Entry {UID} RISING FROZEN ACTIVE gen=2 waiting=1 <Permit plain> 'request'>"
    )
