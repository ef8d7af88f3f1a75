"""What the request path reports."""

import pytest

from queueproxy.errors import QUEUE_FULL, TIMED_OUT, Failure, dial_failed, malformed_response, not_awake, upstream_lost
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.window import Window


@pytest.mark.qp("QP-230")
def test_invocations_are_kept_by_status() -> None:
    recorder = Recorder(Window(0.0))
    for status, took in ((200, 0.1), (200, 0.3), (503, 2.0)):
        recorder.invoked(status, took)
    assert {status: (h.count, h.sum) for status, h in recorder.invocations.items()} == {
        200: (2, pytest.approx(0.4)), 503: (1, 2.0),
    }  # fmt: skip


@pytest.mark.qp("QP-132")
def test_arrivals_feed_the_window() -> None:
    recorder = Recorder(Window(0.0))
    recorder.arrived(0.0, True)
    assert (recorder.window.concurrency, recorder.window.proxied) == (1, 1)
    assert repr(recorder).startswith("<Recorder <Window concurrency=1")


def test_reasons_are_kinds_not_texts() -> None:
    recorder = Recorder(Window(0.0))
    failures: list[Failure] = [QUEUE_FULL, TIMED_OUT, upstream_lost(None), upstream_lost(OSError("x"))]
    failures += [make(f"detail {n}") for n in range(50) for make in (malformed_response, not_awake)]
    failures += [dial_failed("h", port, f"reason {port}") for port in range(50)]
    for failure in failures:
        recorder.refuse(failure.kind)
    assert recorder.refused == {
        "queue_full": 1, "timeout": 1, "upstream_eof": 1, "upstream_lost": 1,
        "upstream_protocol": 50, "thaw": 50, "dial": 50,
    }  # fmt: skip
