"""What is counted of each request, on strict wires: once, with the right figures, and only of what is no probe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest

from queueproxy.metrics.requests import Asked, HttpCounts, Series, Served
from queueproxy.proxy.deadline import Timeouts
from queueproxy.proxy.exchange import Exchange
from queueproxy.proxy.measured import MeasuredConnection, MeasuredExchange, measure
from tests.support.wires import GET, HELLO, POST, ClientWire, Wires


class Measured(Wires):
    """Wires whose requests are counted."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        for module in ("observed", "measured"):
            self._patches.enter_context(patch(f"queueproxy.proxy.{module}.monotonic", self.clock))
        self.counts = self.plane.http = HttpCounts()
        self._accept = measure(self.plane)

    def client(self) -> ClientWire:
        return ClientWire(self, self._accept())

    @property
    def served(self) -> tuple[Served, Series]:
        (found,) = self.counts.served.items()
        return found

    @property
    def asked(self) -> tuple[Asked, Series]:
        (found,) = self.counts.asked.items()
        return found


@contextmanager
def measured(**options: object) -> Iterator[Measured]:
    with Measured(**options) as wires:
        assert isinstance(wires, Measured)
        yield wires


def request(*lines: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.mark.qp("QP-232")
def test_both_sides_are_counted_with_their_own_times() -> None:
    with measured() as wires:
        wires.client().says(POST + b"hello")
        app = wires.dialled()
        wires.loop.advance(0.3)
        app.says(HELLO[:-3])
        wires.loop.advance(0.7)
        app.says(HELLO[-3:])
        labels, series = wires.served
        assert labels == Served("POST", 200, "http", "a", 0, "1.1", "kn:disabled")
        assert (series.took.sum, series.received.sum, series.sent.sum) == (pytest.approx(1.0), 5, 5)
        asked, series = wires.asked
        assert asked == Asked("POST", 200, "", "kn:disabled")
        assert (series.took.sum, series.sent.sum, series.took.count) == (pytest.approx(0.3), 5, 1)
        wires.at_rest()


@pytest.mark.qp("QP-232")
def test_waiting_for_a_slot_is_the_servers_time_and_not_the_apps() -> None:
    with measured(concurrency=1) as wires:
        first, second = wires.client(), wires.client()
        first.says(GET)
        app = wires.dialled()
        second.says(GET)
        wires.loop.advance(2.0)
        app.says(HELLO)
        app.says(HELLO)
        assert wires.served[1].took.sum == pytest.approx(4.0)
        assert wires.asked[1].took.sum == pytest.approx(2.0)


@pytest.mark.qp("QP-232")
def test_an_app_that_cannot_be_reached_is_an_error_type() -> None:
    with measured() as wires:
        wires.client().says(GET)
        wires.refused()
        assert (wires.served[0].status, wires.asked[0]) == (502, Asked("GET", 0, "net.OpError", "kn:disabled"))


@pytest.mark.qp("QP-232", "QP-243")
def test_a_timeout_is_504_at_the_server_and_the_deadline_at_the_client() -> None:
    with measured(timeouts=Timeouts(10)) as wires:
        wires.client().says(GET)
        wires.dialled()
        wires.loop.advance(10)
        assert wires.served[0].status == 504
        assert wires.asked[0] == Asked("GET", 0, "context.deadlineExceededError", "kn:disabled")


@pytest.mark.qp("QP-243")
def test_a_client_that_left_is_499_and_a_cancelled_request() -> None:
    with measured() as wires:
        client = wires.client()
        client.says(GET)
        wires.dialled()
        client.leaves()
        assert (wires.served[0].status, wires.asked[0].error) == (499, "errors.errorString")


@pytest.mark.qp("QP-236")
def test_a_full_queue_never_asked_the_app() -> None:
    with measured(concurrency=1) as wires:
        wires.client().says(GET)
        wires.dialled()
        for _ in range(10):
            wires.client().says(GET)
        wires.client().says(GET)
        assert wires.served[0].status == 503 and wires.counts.asked == {}


@pytest.mark.qp("QP-232")
def test_an_upgrade_is_200_to_the_server_and_101_to_the_client() -> None:
    with measured() as wires:
        client = wires.client()
        client.says(request(b"Connection: Upgrade", b"Upgrade: web"))
        app = wires.dialled()
        app.says(b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n")
        client.leaves()
        assert (wires.served[0].status, wires.asked[0].status) == (200, 101)


@pytest.mark.qp("QP-236")
@pytest.mark.parametrize(
    ("lines", "served", "asked", "invoked"),
    [
        ([b"K-Network-Probe: other"], 0, [""], 0),
        ([b"K-Kubelet-Probe: x"], 0, [""], 0),
        ([b"K-Network-Probe:"], 1, ["kn:disabled"], 1),
        ([b"User-Agent: curl"], 1, ["kn:disabled"], 1),
        ([b"User-Agent: kube-probe/1", b"K-Network-Probe: queue"], 0, [], 0),
        ([b"User-Agent: kube-probe/1"], 0, [], 0),
        ([b"User-Agent: Knative-Activator-Probe"], 1, [], 0),
        ([b"User-Agent: Knative-Autoscaling-Probe", b"K-Network-Probe: activator"], 0, [], 0),
        ([b"K-Network-Probe: probe", b"K-Network-Hash: h"], 0, [], 0),
        ([b"K-Network-Probe: probe"], 0, [], 0),
    ],
    ids=[
        "network-other", "kubelet-mark", "empty-mark", "ordinary", "kubelet", "kubelet-bare", "activator-bare",
        "autoscaler", "network", "network-bare",
    ],
)  # fmt: skip
def test_the_accounting_matrix(lines: list[bytes], served: int, asked: list[str], invoked: int) -> None:
    with measured() as wires:
        wires.client().says(request(*lines))
        if asked:
            wires.dialled().says(HELLO)
        assert sum(series.took.count for series in wires.counts.served.values()) == served
        assert [labels.tag for labels in wires.counts.asked] == asked
        assert sum(h.count for h in wires.recorder.invocations.values()) == invoked


@pytest.mark.qp("QP-235")
def test_the_tag_is_on_both_sides() -> None:
    with measured() as wires:
        wires.client().says(request(b"Knative-Serving-Tag: blue"))
        wires.dialled().says(HELLO)
        assert (wires.served[0].tag, wires.asked[0].tag) == ("blue", "blue")


def test_nobody_pays_where_nothing_is_counted() -> None:
    with Wires() as wires:
        assert wires.plane.exchange is Exchange and wires.plane.http is None
    assert MeasuredExchange.__dict__.get("__init__") is None
    assert MeasuredConnection.__slots__ == ()


def test_the_head_as_it_came_is_kept_only_for_an_observer() -> None:
    with measured() as wires:
        assert not hasattr(wires.client().protocol, "heads")
        wires.plane.observer = object()  # type: ignore[assignment]
        assert hasattr(wires.client().protocol, "heads")
