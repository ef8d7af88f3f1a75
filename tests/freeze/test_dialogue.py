"""The numbers between a session and its door, with what they have to satisfy together."""

import pytest

from queueproxy.freeze.dialogue import Fault, Patience
from queueproxy.freeze.settings import IdleSettings


@pytest.mark.fz("FZ-063", "FZ-051", "FZ-090")
def test_the_deadlines_are_the_requirements_and_fit_the_policys() -> None:
    patience, settings = Patience(), IdleSettings()
    assert (patience.connect, patience.attempt, patience.total) == (0.1, 0.3, 1.0)
    assert (patience.terminate, patience.lease) == (2.0, 30.0)
    assert patience.total <= settings.freeze_deadline, "the policy gives a freeze no less than the session needs"
    assert patience.attempt <= settings.thaw_deadline
    assert patience.urgent_cap < patience.lease / 3, "a lost renewal is repeated before the lease is over"


@pytest.mark.fz("FZ-100")
def test_faults_are_labels() -> None:
    assert {fault.value for fault in Fault} == {"connect", "timeout", "closed", "garbage", "refused"}
