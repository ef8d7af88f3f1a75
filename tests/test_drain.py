from __future__ import annotations

import itertools
import random

import pytest

from queueproxy.drain import TRANSITIONS, Drain, Effect, Event, Settings, State

FAIL, RECOVER, RELEASE = Effect.FAIL_PROBES, Effect.RECOVER_PROBES, Effect.RELEASE_WAITERS
CLOSE, GIVE_UP, EXIT, EXIT_NOW = Effect.CLOSE_LISTENERS, Effect.GIVE_UP_HIJACKED, Effect.EXIT, Effect.EXIT_NOW

# A quiet period below the one second of /wait-for-drain: the only way into QUIET.
SHORT = Settings(quiet_for=0.5)


def in_state(state: State) -> Drain:
    """A machine in `state`, reached by events alone, all at t=0 where time allows."""
    drain = Drain(SHORT if state is State.QUIET else Settings())
    if state in (State.ASKED, State.QUIET):
        drain.waited(0.0)
    if state is State.QUIET:
        drain.on_deadline(0.5)
    if state >= State.CLOSING or state is State.DRAINING:
        drain.terminated(0.0)
    if state >= State.CLOSING:
        drain.on_deadline(30.0)
    if state >= State.HIJACKED:
        drain.emptied(30.0, hijacked=True)
    if state is State.STOPPED:
        drain.hijacked_ended(30.0)
    assert drain.state is state
    return drain


def tell(drain: Drain, event: Event, now: float) -> tuple[Effect, ...]:
    if event is Event.REQUEST_ARRIVED:
        drain.request_arrived(now)
        return ()
    if event is Event.ONLY_HIJACKED_LEFT:
        return drain.emptied(now, hijacked=True)
    return {
        Event.TERMINATED: drain.terminated,
        Event.WAITED: drain.waited,
        Event.EMPTIED: drain.emptied,
        Event.HIJACKED_ENDED: drain.hijacked_ended,
    }.get(event, drain.on_deadline)(now)


# The whole table once more, by hand: (state, event) -> (state after, effects). Absent: stays, does nothing.
EXPECTED = {
    (State.SERVING, Event.TERMINATED): (State.DRAINING, (FAIL,)),
    (State.SERVING, Event.WAITED): (State.ASKED, (FAIL,)),
    (State.ASKED, Event.TERMINATED): (State.DRAINING, ()),
    (State.ASKED, Event.WAIT_EXPIRED): (State.SERVING, (RECOVER, RELEASE)),
    (State.ASKED, Event.QUIET_REACHED): (State.QUIET, (RELEASE,)),
    (State.DRAINING, Event.TERMINATED): (State.STOPPED, (EXIT_NOW,)),
    (State.DRAINING, Event.QUIET_REACHED): (State.CLOSING, (RELEASE, CLOSE)),
    (State.QUIET, Event.TERMINATED): (State.CLOSING, (CLOSE,)),
    (State.QUIET, Event.WAITED): (State.QUIET, (RELEASE,)),
    (State.QUIET, Event.REQUEST_ARRIVED): (State.ASKED, ()),
    (State.QUIET, Event.WAIT_EXPIRED): (State.SERVING, (RECOVER,)),
    (State.CLOSING, Event.TERMINATED): (State.STOPPED, (EXIT_NOW,)),
    (State.CLOSING, Event.WAITED): (State.CLOSING, (RELEASE,)),
    (State.CLOSING, Event.EMPTIED): (State.STOPPED, (EXIT,)),
    (State.CLOSING, Event.ONLY_HIJACKED_LEFT): (State.HIJACKED, ()),
    (State.HIJACKED, Event.TERMINATED): (State.STOPPED, (EXIT_NOW,)),
    (State.HIJACKED, Event.WAITED): (State.HIJACKED, (RELEASE,)),
    (State.HIJACKED, Event.EMPTIED): (State.STOPPED, (EXIT,)),
    (State.HIJACKED, Event.HIJACKED_ENDED): (State.STOPPED, (EXIT,)),
    (State.HIJACKED, Event.HIJACK_EXPIRED): (State.STOPPED, (GIVE_UP, EXIT)),
    (State.STOPPED, Event.TERMINATED): (State.STOPPED, (EXIT_NOW,)),
    (State.STOPPED, Event.WAITED): (State.STOPPED, (RELEASE,)),
}


@pytest.mark.parametrize("state, event", [*itertools.product(State, Event)], ids=lambda x: x.name)
def test_every_state_meets_every_event(state: State, event: Event) -> None:
    wanted = EXPECTED.get((state, event), (state, ()))
    assert TRANSITIONS[state, event] == wanted
    if event >= Event.WAIT_EXPIRED:
        return  # deadlines come by time, not by call: see the timelines
    drain = in_state(state)
    effects = tell(drain, event, 30.0 if state >= State.CLOSING else 0.5)
    assert (drain.state, effects) == wanted
    assert drain.draining is (drain.state is not State.SERVING)


def test_the_repr_shows_state_and_deadline() -> None:
    drain = Drain()
    assert repr(drain) == "<Drain SERVING>"
    drain.terminated(10.0)
    assert repr(drain) == "<Drain DRAINING until 40.000>"


@pytest.mark.parametrize(
    "effect, code",
    [(effect, {EXIT: 0, EXIT_NOW: 1}.get(effect)) for effect in Effect],
    ids=[effect.name for effect in Effect],
)
def test_only_the_exits_have_an_exit_code(effect: Effect, code: int | None) -> None:
    assert effect.exit_code == code


def test_nothing_is_due_while_serving() -> None:
    drain = Drain()
    assert drain.next_deadline() is None
    assert drain.on_deadline(1e9) == ()
    drain.request_arrived(5.0)
    assert drain.next_deadline() is None


# --- timelines of the contract, 7.2 ---


@pytest.mark.qp("QP-280", "QP-281", "QP-289")
def test_an_idle_process_exits_thirty_seconds_after_sigterm() -> None:
    drain = Drain()
    assert drain.terminated(100.0) == (FAIL,)
    assert drain.draining
    assert drain.next_deadline() == 130.0
    assert drain.on_deadline(129.999) == ()
    assert drain.on_deadline(130.0) == (RELEASE, CLOSE)
    assert drain.emptied(130.0) == (EXIT,)
    assert drain.next_deadline() is None


@pytest.mark.qp("QP-282")
def test_the_quiet_period_counts_from_the_last_ordinary_arrival() -> None:
    drain = Drain()
    drain.terminated(0.0)
    drain.request_arrived(20.0)
    assert drain.on_deadline(30.0) == ()
    assert drain.next_deadline() == 50.0
    assert drain.on_deadline(50.0) == (RELEASE, CLOSE)
    assert drain.emptied(50.0) == (EXIT,)


@pytest.mark.qp("QP-282")
def test_an_arrival_before_the_drain_does_not_count() -> None:
    drain = Drain()
    drain.request_arrived(99.0)
    drain.terminated(100.0)
    assert drain.next_deadline() == 130.0


@pytest.mark.qp("QP-282")
def test_steady_traffic_keeps_the_listeners_open() -> None:
    drain = Drain()
    drain.terminated(0.0)
    for second in range(0, 600, 29):
        drain.request_arrived(float(second))
        assert drain.on_deadline(second + 29.0) == ()
    assert drain.state is State.DRAINING


@pytest.mark.qp("QP-282")
def test_an_arrival_stamped_out_of_order_does_not_shorten_the_quiet_period() -> None:
    drain = Drain()
    drain.terminated(0.0)
    drain.request_arrived(10.0)
    drain.request_arrived(9.0)
    assert drain.next_deadline() == 40.0


@pytest.mark.qp("QP-283")
def test_a_request_in_flight_finishes_without_limit() -> None:
    drain = Drain()
    drain.terminated(0.0)
    drain.request_arrived(5.0)
    assert drain.on_deadline(35.0) == (RELEASE, CLOSE)
    assert drain.next_deadline() is None  # no limit of ours
    assert drain.on_deadline(10_000.0) == ()
    assert drain.emptied(10_000.3) == (EXIT,)


@pytest.mark.qp("QP-285")
def test_a_websocket_left_open_is_cut_after_sixty_seconds() -> None:
    drain = Drain()
    drain.terminated(0.0)
    drain.on_deadline(30.0)
    assert drain.emptied(30.0, hijacked=True) == ()
    assert drain.next_deadline() == 90.0
    assert drain.on_deadline(89.9) == ()
    assert drain.on_deadline(90.0) == (GIVE_UP, EXIT)


@pytest.mark.qp("QP-285")
def test_a_websocket_closed_by_its_client_ends_the_process_then() -> None:
    drain = Drain()
    drain.terminated(0.0)
    drain.on_deadline(30.0)
    drain.emptied(30.0, hijacked=True)
    assert drain.hijacked_ended(35.0) == (EXIT,)


@pytest.mark.qp("QP-285")
def test_upgraded_requests_that_end_while_ordinary_ones_finish_do_not_end_the_process() -> None:
    drain = Drain()
    drain.terminated(0.0)
    drain.on_deadline(30.0)
    assert drain.hijacked_ended(31.0) == ()
    assert drain.state is State.CLOSING
    # An h2c client opened another stream meanwhile: its sixty seconds start when the ordinary ones are done.
    assert drain.emptied(45.0, hijacked=True) == ()
    assert drain.next_deadline() == 105.0


@pytest.mark.parametrize("state", [State.DRAINING, State.CLOSING, State.HIJACKED, State.STOPPED], ids=lambda s: s.name)
def test_a_second_signal_exits_at_once_with_one(state: State) -> None:
    drain = in_state(state)
    (effect,) = drain.terminated(31.0)
    assert effect is EXIT_NOW and effect.exit_code == 1
    assert drain.next_deadline() is None


# --- /wait-for-drain, 7.3 ---


@pytest.mark.qp("QP-286")
def test_a_hook_after_sigterm_waits_for_the_same_quiet_period() -> None:
    drain = Drain()
    drain.terminated(0.0)
    assert drain.waited(0.4) == ()
    assert drain.next_deadline() == 30.0
    assert drain.on_deadline(30.0) == (RELEASE, CLOSE)


@pytest.mark.qp("QP-286")
def test_a_hook_before_sigterm_shares_its_quiet_period() -> None:
    drain = Drain()
    assert drain.waited(0.0) == (FAIL,)
    assert drain.terminated(0.9) == ()  # probes fail already
    assert drain.next_deadline() == 30.0
    assert drain.on_deadline(1.0) == ()  # the hook's second is over, and no longer matters
    assert drain.on_deadline(30.0) == (RELEASE, CLOSE)


@pytest.mark.qp("QP-287")
def test_a_hook_without_sigterm_is_released_after_one_second_and_probes_recover() -> None:
    drain = Drain()
    assert drain.waited(5.0) == (FAIL,)
    assert drain.draining
    assert drain.on_deadline(5.999) == ()
    assert drain.on_deadline(6.0) == (RECOVER, RELEASE)
    assert not drain.draining
    assert drain.next_deadline() is None


@pytest.mark.qp("QP-287")
def test_a_cancelled_hook_leaves_nothing_behind() -> None:
    drain = Drain()
    drain.waited(0.0)
    drain.request_arrived(0.5)
    drain.on_deadline(1.0)
    assert drain.waited(100.0) == (FAIL,)
    assert drain.on_deadline(101.0) == (RECOVER, RELEASE)
    assert drain.terminated(200.0) == (FAIL,)
    assert drain.next_deadline() == 230.0


@pytest.mark.qp("QP-287", "QP-288")
def test_more_callers_join_the_first_and_do_not_extend_its_second() -> None:
    drain = Drain()
    assert drain.waited(0.0) == (FAIL,)
    assert drain.waited(0.3) == ()
    assert drain.waited(0.9) == ()
    assert drain.next_deadline() == 1.0
    assert drain.on_deadline(1.0) == (RECOVER, RELEASE)


@pytest.mark.qp("QP-287")
def test_traffic_does_not_extend_the_second_of_a_hook() -> None:
    drain = Drain()
    drain.waited(0.0)
    drain.request_arrived(0.9)
    assert drain.on_deadline(1.0) == (RECOVER, RELEASE)


@pytest.mark.qp("QP-288")
def test_all_callers_of_a_real_drain_are_released_together() -> None:
    drain = Drain()
    drain.terminated(0.0)
    assert [drain.waited(t) for t in (0.1, 0.2, 15.0)] == [(), (), ()]
    assert drain.on_deadline(30.0).count(RELEASE) == 1


@pytest.mark.qp("QP-286", "QP-290")
@pytest.mark.parametrize("state", [State.CLOSING, State.HIJACKED, State.STOPPED], ids=lambda s: s.name)
def test_callers_after_the_quiet_period_are_released_at_once(state: State) -> None:
    assert in_state(state).waited(40.0) == (RELEASE,)


def test_a_quiet_period_below_a_second_may_pass_before_sigterm() -> None:
    drain = Drain(SHORT)
    drain.waited(0.0)
    assert drain.on_deadline(0.5) == (RELEASE,)
    assert drain.draining and drain.next_deadline() == 1.0
    assert drain.terminated(0.7) == (CLOSE,)


def test_a_request_after_such_a_quiet_period_starts_it_again() -> None:
    drain = Drain(SHORT)
    drain.waited(0.0)
    drain.on_deadline(0.5)
    drain.request_arrived(0.6)
    assert drain.terminated(0.7) == ()
    assert drain.next_deadline() == pytest.approx(1.1)


def test_a_late_timer_meets_every_deadline_it_missed() -> None:
    drain = Drain(SHORT)
    drain.waited(0.0)
    assert drain.on_deadline(7.0) == (RELEASE, RECOVER)
    assert drain.state is State.SERVING


def test_no_quiet_period_closes_at_the_next_turn() -> None:
    drain = Drain(Settings(quiet_for=0.0))
    drain.terminated(3.0)
    assert drain.next_deadline() == 3.0
    assert drain.on_deadline(3.0) == (RELEASE, CLOSE)


@pytest.mark.parametrize("seed", range(50))
def test_waiters_are_always_released_and_probes_fail_exactly_while_draining(seed: int) -> None:
    """Random walks: nobody waits for ever, probes and `draining` agree, the exit comes last."""
    rng = random.Random(seed)
    drain = Drain(Settings(quiet_for=rng.choice([0.3, 30.0])))
    now, waiting, failing, exits = 0.0, 0, False, 0

    def apply(effects: tuple[Effect, ...]) -> None:
        nonlocal waiting, failing, exits
        for effect in effects:
            if effect is RELEASE:
                waiting = 0
            elif effect in (FAIL, RECOVER):
                assert failing is (effect is RECOVER)
                failing = effect is FAIL
            elif effect.exit_code is not None:
                exits += 1

    for _ in range(200):
        now += rng.expovariate(1.0)
        event = rng.choices([*Event][:6], weights=[1, 20, 20, 20, 5, 20])[0]
        if event is Event.WAITED:
            waiting += 1
        apply(drain.on_deadline(now))
        apply(tell(drain, event, now))
        assert drain.draining is failing, f"seed {seed}: {drain!r}"
        deadline = drain.next_deadline()
        assert deadline is None or deadline >= now
    if drain.state in (State.SERVING, State.ASKED, State.QUIET):
        apply(drain.terminated(now))
    apply(drain.on_deadline(now + 100.0))
    apply(drain.emptied(now + 100.0))
    assert waiting == 0 or exits, f"seed {seed}: {drain!r} left {waiting} waiting"
    assert drain.state is State.STOPPED and exits >= 1
