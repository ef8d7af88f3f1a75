"""How deep a pod may sleep, and what the sidecar is told about it."""

import pytest

from queueproxy.freeze.annotations import Mode
from queueproxy.freeze.node.actions import LedgerSettings
from queueproxy.freeze.node.permit import Permit, Terms
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import Problem
from tests.support import podfacts

RUNNING, THROTTLED, FROZEN = Rung.RUNNING, Rung.THROTTLED, Rung.FROZEN


def ids(*numbers: int) -> frozenset[str]:
    return frozenset(map(podfacts.container_id, numbers))


def permit(**facts: object) -> Permit:
    found = Permit(Terms(LedgerSettings()))
    found.known(podfacts.pod(**facts))  # type: ignore[arg-type]
    found.renew()
    return found


@pytest.mark.fz("FZ-080", "FZ-085", "FZ-113")
@pytest.mark.parametrize(
    ("mode", "cap"),
    [(Mode.OFF, RUNNING), (Mode.SHADOW, RUNNING), (Mode.THROTTLE, THROTTLED), (Mode.FREEZE, FROZEN)],
)
def test_the_mode_is_the_deepest_rung(mode: Mode, cap: Rung) -> None:
    assert permit(mode=mode).cap(0.0) == (cap, None)


def test_a_refused_pod_is_answered_running_and_told_no_reason() -> None:
    refused = permit(refusal="runs on another node")
    assert refused.cap(0.0) == (RUNNING, None)
    policy = refused.policy(0.0)
    assert policy is not None and policy.mode is Mode.OFF and "node" not in policy.reason
    assert refused.why(0.0) == "runs on another node"


def test_what_is_unknown_gone_or_outdated_is_not_put_to_sleep() -> None:
    unknown = Permit(Terms(LedgerSettings()))
    assert unknown.cap(0.0) == (RUNNING, Problem.NOT_READY) and unknown.policy(0.0) is None
    gone, outdated = permit(), permit()
    gone.is_gone = outdated.is_outdated = True
    assert gone.cap(0.0) == outdated.cap(0.0) == (RUNNING, Problem.NOT_READY)
    assert permit(containers=()).cap(0.0) == (RUNNING, None)


@pytest.mark.fz("FZ-064")
def test_not_being_known_yet_wakes_nobody_and_being_gone_does() -> None:
    unknown = Permit(Terms(LedgerSettings()))
    assert unknown.may_stay(0.0, FROZEN)
    unknown.is_gone = True
    assert not unknown.may_stay(0.0, FROZEN)
    outdated = permit()
    outdated.is_outdated = True
    assert not outdated.may_stay(0.0, FROZEN)


def test_what_sleeps_may_stay_as_deep_as_the_cap() -> None:
    throttle = permit(mode=Mode.THROTTLE)
    assert throttle.may_stay(0.0, THROTTLED) and not throttle.may_stay(0.0, FROZEN)


def test_a_drain_and_an_end_refuse_the_request_and_the_end_says_so_first() -> None:
    ending = permit()
    ending._terms.draining = True
    assert ending.cap(0.0) == (RUNNING, Problem.DRAINING)
    ending.end()
    assert ending.cap(0.0) == (RUNNING, Problem.TERMINAL)
    assert not ending.may_stay(0.0, THROTTLED) and ending.why(0.0) == "ending"


def test_a_hold_ends_by_itself() -> None:
    held = permit()
    held.hold_until = 10.0
    assert held.cap(9.9) == (RUNNING, None) and held.why(4.0) == "held by an operator for 6 s"
    assert held.cap(10.0) == (FROZEN, None) and held.why(10.0) == ""


@pytest.mark.fz("FZ-084")
def test_a_harmed_revision_is_throttled_for_a_while_and_the_sidecar_is_told_why() -> None:
    harmed = permit()
    harmed._terms.fallback.harmed(0.0, harmed.revision, "harmed: 1 of 2 processes died")
    assert harmed.cap(1.0) == (THROTTLED, None)
    policy = harmed.policy(1.0)
    assert policy is not None and (policy.mode, policy.reason) == (Mode.THROTTLE, "harmed: 1 of 2 processes died")
    assert harmed.why(1.0) == "harmed: 1 of 2 processes died"
    assert harmed.cap(3600.0) == (FROZEN, None)
    other = Permit(harmed._terms)
    other.known(podfacts.pod(2, revision="hello-00002"))
    assert other.cap(1.0) == (FROZEN, None)


@pytest.mark.fz("FZ-050")
def test_the_end_is_for_the_containers_of_the_moment() -> None:
    one = permit(containers=(1, 2))
    one.end()
    assert one.ended == ids(1, 2) and one.is_terminal
    one.known(podfacts.pod(containers=(2, 3)))
    one.renew()
    assert one.is_terminal, "one of them is still there"
    one.known(podfacts.pod(containers=(3, 4)))
    one.renew()
    assert not one.is_terminal and one.ended == ids()


@pytest.mark.fz("FZ-050")
def test_the_end_includes_containers_that_the_api_server_has_shown_and_nobody_holds_yet() -> None:
    one = permit(containers=(1,))
    assert one.known(podfacts.pod(containers=(2,)))
    one.end()
    one.renew()
    assert one.is_terminal and one.ids == ids(2)


@pytest.mark.fz("FZ-050")
def test_an_end_said_before_any_container_was_known_is_about_those_that_come() -> None:
    one = Permit(Terms(LedgerSettings()))
    one.end()
    one.known(podfacts.pod(containers=(1,)))
    one.renew()
    assert one.is_terminal and one.ended == ids(1)


def test_a_pod_that_is_being_deleted_ends_whatever_containers_it_has() -> None:
    ending = permit(terminating=True)
    assert ending.cap(0.0) == (RUNNING, Problem.TERMINAL)
    ending.known(podfacts.pod(terminating=True, refusal="is being deleted"))
    assert ending.is_terminal and ending.ids == ids(16), "a refused pod names no containers; what is held is kept"


def test_only_other_containers_are_news() -> None:
    one = permit(containers=(1,))
    assert not one.known(podfacts.pod(containers=(1,)))
    assert not one.known(podfacts.pod(containers=()))
    assert one.known(podfacts.pod(containers=(1, 2)))


def test_a_repr_names_what_is_in_the_way() -> None:
    ending = permit()
    assert repr(ending) == "<Permit plain>"
    ending.end()
    ending.is_gone = True
    assert repr(ending) == "<Permit terminal gone>"
    assert repr(ending._terms) == ("<Terms draining=False <Storm soon=0 calm=0 tokens=5.00> <Fallback 0 revisions>>")
