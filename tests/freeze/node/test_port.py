"""Who may connect to the sidecars' port, and who has to make room. `test_server.py` does the same over sockets."""

import asyncio
from collections.abc import Iterator

import pytest

from queueproxy.freeze.node.port import Port
from queueproxy.freeze.node.sessions import Sessions
from queueproxy.log import LineWriter, Log
from tests.support.freezer_calls import ScriptedDesk, ScriptedDoor


class Somebody:
    """A connection that leaves when it is dropped."""

    def __init__(self, port: Port, peer: str = "10.0.0.1") -> None:
        self.port = port
        self.peer = peer
        self.uid = ""
        self.dropped = False

    def drop(self) -> None:
        self.dropped = True
        self.port.left(self)


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def port(loop: asyncio.AbstractEventLoop, **options: int) -> Port:
    return Port(loop, ScriptedDoor(), ScriptedDesk(), Sessions(lambda: "s"), Log(LineWriter(2)), **options)


def test_a_full_house_drops_the_stranger_that_has_been_there_longest(loop: asyncio.AbstractEventLoop) -> None:
    house = port(loop, most=2)
    first, second, third = (Somebody(house) for _ in range(3))
    assert house.arrived(first) and house.arrived(second) and house.arrived(third)
    assert (first.dropped, second.dropped, house.cut_off["full"]) == (True, False, 1)


def test_a_house_full_of_sidecars_takes_nobody(loop: asyncio.AbstractEventLoop) -> None:
    house = port(loop, most=1)
    sidecar, stranger = Somebody(house), Somebody(house)
    assert house.arrived(sidecar)
    house.proved(sidecar)
    assert not house.arrived(stranger) and not sidecar.dropped


def test_a_source_is_counted_until_its_connections_are_closed(loop: asyncio.AbstractEventLoop) -> None:
    house = port(loop, per_source=1)
    first = Somebody(house)
    assert house.arrived(first) and not house.arrived(Somebody(house)) and house.arrived(Somebody(house, "10.0.0.2"))
    house.left(first)
    house.left(first)
    assert house.arrived(Somebody(house))


def test_a_pod_that_is_gone_takes_its_connections_with_it(loop: asyncio.AbstractEventLoop) -> None:
    house = port(loop)
    one, other = Somebody(house), Somebody(house)
    for caller, uid in ((one, "a"), (other, "b")):
        house.arrived(caller)
        caller.uid = uid
        house.proved(caller)
    house.gone("a")
    assert (one.dropped, other.dropped) == (True, False)
    house.close()
    assert other.dropped and repr(house) == "<Port known=0 strangers=0 errors=0>"
