"""What each failure means to the client."""

import pytest

from queueproxy.errors import (
    QUEUE_FULL,
    TIMED_OUT,
    Failure,
    dial_failed,
    dial_timed_out,
    malformed_body,
    malformed_response,
    not_awake,
    not_ready,
    upgrade_mismatch,
    upstream_lost,
)


@pytest.mark.qp("QP-107", "QP-151", "QP-170", "QP-200", "QP-201", "QP-081")
@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [
        (QUEUE_FULL, 503, "pending request queue full"),
        (TIMED_OUT, 504, "request timeout"),
        (upstream_lost(None), 502, "EOF"),
        (upstream_lost(ConnectionResetError()), 502, "connection reset by peer"),
        (dial_failed("127.0.0.1", 8081, "connection refused"), 502,
         "dial tcp 127.0.0.1:8081: connect: connection refused"),
        (dial_timed_out("127.0.0.1", 8081, 12.345), 502, "timed out dialing 127.0.0.1:8081 after 12.35s"),
        (upgrade_mismatch(b"X", b"Y"), 502, 'backend tried to switch protocol "X" when "Y" was requested'),
        (malformed_body("invalid byte in chunk length"), 502, "invalid byte in chunk length"),
        (not_ready("starting"), 503, "starting"),
        (not_awake("stuck"), 503, "stuck"),
    ],
    ids=lambda value: value.kind if isinstance(value, Failure) else "",
)  # fmt: skip
def test_statuses_and_texts(failure: Failure, status: int, text: str) -> None:
    assert (failure.status, failure.text) == (status, text) and "\n" not in failure.text


@pytest.mark.qp("QP-170", "QP-205")
def test_only_the_timeout_is_bare_and_only_waiting_for_the_app_says_when_to_come_back() -> None:
    others = [QUEUE_FULL, upstream_lost(None), malformed_response("x")]
    assert TIMED_OUT.bare and not any(failure.bare for failure in others)
    assert len(TIMED_OUT.text) == 15
    assert not_awake("x").retry_after == not_ready("x").retry_after == 1
    assert all(failure.retry_after is None for failure in [*others, TIMED_OUT])
