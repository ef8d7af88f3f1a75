"""Proves queueproxy.bench.load against real sockets: what is answered is counted, and so is what is not."""

import json

import pytest

from queueproxy.bench import load as load_module
from queueproxy.bench.load import MAX_ERRORS, request_bytes
from queueproxy.bench.origin import Origin
from tests.support.loaded import Server, loaded

pytestmark = pytest.mark.slow  # real time


def test_every_answer_is_counted_once_with_its_latency() -> None:
    served = 0

    class Counting(Origin):
        def on_message_complete(self) -> None:
            nonlocal served
            served += 1
            super().on_message_complete()

    load, took = loaded(lambda: Counting({}), body=100)
    assert load.histogram.total == served > 4
    assert load.errors == 0
    assert 0.2 <= took < 5
    assert 0 < load.histogram.percentile(50) <= load.histogram.percentile(99) < 5e6


def test_the_report_is_json_with_the_histogram() -> None:
    load, took = loaded(lambda: Origin({}), connections=1, seconds=0.05)
    report = json.loads(json.dumps(load.report(took)))
    assert report["requests"] == sum(report["histogram"].values()) > 0
    assert (report["errors"], report["seconds"]) == (0, took)


def test_a_connection_lost_before_its_answer_is_an_error() -> None:
    load, _ = loaded(lambda: Server(b"", close=True), connections=1)
    assert load.errors > 1
    assert load.histogram.total == 0


def test_nobody_listening_ends_the_run_early() -> None:
    load, took = loaded(None, seconds=20)
    assert MAX_ERRORS <= load.errors < MAX_ERRORS + 4
    assert took < 20


def test_an_answer_that_never_comes_is_an_error_after_a_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "GRACE_S", 0.1)
    load, took = loaded(lambda: Server(b""), connections=3, seconds=0.1)
    assert load.errors == 3
    assert 0.2 <= took < 5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (0, b"GET /x HTTP/1.1\r\nHost: h:1\r\n\r\n"),
        (3, b"POST /x HTTP/1.1\r\nHost: h:1\r\nContent-Length: 3\r\n\r\nxxx"),
    ],
    ids=["get", "post"],
)
def test_a_request_has_a_host_and_its_body(body: int, expected: bytes) -> None:
    assert request_bytes("/x", "h:1", body) == expected


def test_a_request_has_the_headers_it_is_given() -> None:
    assert request_bytes("/", "h", headers=("A: 1",)) == b"GET / HTTP/1.1\r\nHost: h\r\nA: 1\r\n\r\n"
    posted = b"POST / HTTP/1.1\r\nHost: h\r\nA: 1\r\nContent-Length: 2\r\n\r\nxx"
    assert request_bytes("/", "h", 2, ("A: 1",)) == posted
