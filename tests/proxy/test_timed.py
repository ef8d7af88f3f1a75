"""Answers that say how long the app had to be woken for, where its owner wants that."""

import pytest

from queueproxy.proxy.exchange import Exchange
from queueproxy.proxy.observed import observe
from queueproxy.proxy.timed import TimedExchange, timed
from tests.support.wires import GET, HELLO, Wires

pytestmark = pytest.mark.fz("FZ-101")
OWN = b"HTTP/1.1 200 OK\r\nDate: d\r\nServer-Timing: db;dur=7\r\nContent-Length: 5\r\n\r\nhello"


class Ears:
    def close(self) -> None: ...
    def finished(self, *_: object) -> None: ...


def told(said: bytes) -> list[bytes]:
    head = said.partition(b"\r\n\r\n")[0]
    return [line for line in head.split(b"\r\n") if line.lower().startswith(b"server-timing")]


@pytest.mark.parametrize("is_observed", [False, True], ids=["plain", "with a request log"])
def test_only_the_request_that_waited_says_so(is_observed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with Wires(freezing=True) as wires:
        monkeypatch.setattr("queueproxy.proxy.timed.monotonic", wires.clock)
        if is_observed:
            wires._accept = observe(wires.plane, Ears())
        wires.plane.tell_waits(on=True)
        wires.put_to_sleep()
        client = wires.client()
        client.says(GET)
        wires.loop.advance(0.0125)
        wires.mechanism.answer()
        wires.loop.settle()
        wires.app().says(HELLO)
        said = client.got()
        assert told(said) == [b"Server-Timing: thaw;dur=12.50"] and said.endswith(b"\r\n\r\nhello")
        client.says(GET)
        wires.app().says(HELLO)
        assert told(client.got()) == []
        wires.at_rest()


def test_an_apps_own_entries_stay_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with Wires(freezing=True) as wires:
        monkeypatch.setattr("queueproxy.proxy.timed.monotonic", wires.clock)
        wires.plane.tell_waits(on=True)
        wires.put_to_sleep()
        client = wires.client()
        client.says(GET)
        wires.loop.advance(0.001)
        wires.mechanism.answer()
        wires.loop.settle()
        wires.app().says(OWN)
        assert told(client.got()) == [b"Server-Timing: db;dur=7", b"Server-Timing: thaw;dur=1.00"]


def test_it_can_be_switched_on_and_off_while_the_process_runs_and_costs_nothing_when_off() -> None:
    with Wires() as wires:
        plane = wires.plane
        plane.tell_waits(on=False)
        assert plane.exchange is Exchange
        plane.tell_waits(on=True)
        plane.tell_waits(on=True)
        assert issubclass(plane.exchange, TimedExchange) and timed(plane.exchange) is plane.exchange
        plane.tell_waits(on=False)
        assert plane.exchange is Exchange
