"""What all connections share: what is in flight, and who is told when it is empty."""

import pytest

from tests.support.wires import GET, HELLO, Wires

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n"


@pytest.mark.qp("QP-283", "QP-285")
def test_shutdown_is_told_when_only_upgraded_connections_are_left_and_when_nothing_is() -> None:
    with Wires() as wires:
        plain, upgraded = wires.client(), wires.client()
        plain.says(GET)
        app = wires.dialled()
        upgraded.says(UPGRADE)
        other = wires.dialled()
        other.says(b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n")
        told: list[tuple[int, int]] = []
        wires.plane.idle_empty = lambda: told.append((wires.plane.in_flight, wires.plane.tunnels))
        wires.plane.close_idle()
        assert told == []
        app.says(HELLO)
        assert set(told) == {(1, 1)}
        upgraded.leaves()
        assert list(dict.fromkeys(told)) == [(1, 1), (0, 0)]
        assert wires.plane.connections == set()
        wires.at_rest()


@pytest.mark.qp("QP-143", "QP-155")
def test_a_probe_is_not_in_flight() -> None:
    with Wires() as wires:
        wires.health.verdict = None
        wires.client().says(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\n\r\n")
        assert wires.plane.in_flight == 0 and repr(wires.plane) == "<Plane in_flight=0 connections=1 closing=False>"


@pytest.mark.qp("QP-230")
def test_an_invocation_is_what_got_past_the_limiter() -> None:
    with Wires(concurrency=1) as wires:
        running, queued = wires.client(), wires.client()
        running.says(GET)
        app = wires.dialled()
        queued.says(GET)
        queued.leaves()
        assert wires.recorder.invocations == {}
        wires.loop.advance(2.0)
        app.says(HELLO)
        assert {status: h.sum for status, h in wires.recorder.invocations.items()} == {200: pytest.approx(2.0)}
        wires.at_rest()


@pytest.mark.fz("FZ-100")
@pytest.mark.parametrize(
    ("lines", "who"),
    [
        (b"User-Agent: kube-probe/1.31\r\nK-Network-Probe: queue\r\n", ["kubelet"]),
        (b"User-Agent: Knative-Activator-Probe\r\nK-Network-Probe: queue\r\n", ["activator"]),
        (b"User-Agent: Knative-Autoscaling-Probe\r\nK-Network-Probe: activator\r\n", ["autoscaler"]),
        (b"K-Network-Probe: probe\r\nK-Network-Hash: h\r\n", ["network"]),
        (b"User-Agent: curl\r\n", []),
    ],
    ids=["kubelet", "activator", "autoscaler", "network", "traffic"],
)
def test_who_probes_is_told(lines: bytes, who: list[str]) -> None:
    with Wires() as wires:
        asked: list[str] = []
        wires.plane.probe_asked = asked.append
        wires.client().says(b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
        assert asked == who


@pytest.mark.fz("FZ-084")
@pytest.mark.parametrize(
    ("answer", "what"),
    [
        pytest.param(b"", "EOF", id="hung up"),
        pytest.param(HELLO, None, id="answered"),
        pytest.param(b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n", None, id="an error of its own"),
        pytest.param(b"garbage\r\n\r\n", None, id="garbage"),
    ],
)
def test_who_asks_for_it_is_told_of_a_request_that_found_no_app(answer: bytes, what: str | None) -> None:
    with Wires() as wires:
        told: list[tuple[float, str]] = []
        wires.plane.let_down = lambda began_at, what: told.append((began_at, what))
        came_at = wires.clock.now
        wires.client().says(GET)
        app = wires.dialled()
        wires.loop.advance(1.0)
        if answer:
            app.says(answer)
        else:
            app.leaves()
        assert told == ([(came_at, what)] if what is not None else [])
