"""Stages are compared, so their order is what they mean."""

from queueproxy.proxy.stage import ANSWERED, ASLEEP, DIALLING, DONE, NEW, QUEUED, SENT, TUNNELLED, Stage


def test_stages_are_in_the_order_of_a_requests_life() -> None:
    life = [NEW, QUEUED, ASLEEP, DIALLING, SENT, ANSWERED, TUNNELLED, DONE]
    assert life == sorted(life) == list(Stage)


def test_the_borders_that_the_request_path_compares_with() -> None:
    assert QUEUED < ASLEEP, "from ASLEEP on a request counts as an invocation"
    assert DIALLING < SENT, "before SENT the body is held"
    assert SENT < ANSWERED, "before ANSWERED an error answer may be written"
