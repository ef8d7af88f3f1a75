"""What counts as awake and idle, and what does not."""

import asyncio

import pytest

from queueproxy.local.idlecpu import IdleCpu


class Rig:
    """An app whose counter and requests the test sets, and a loop whose timers never fire by themselves."""

    def __init__(self) -> None:
        self.used: int | None = 0
        self.in_flight = self.begun = 0
        self.idled: list[float] = []
        self.loop = asyncio.new_event_loop()
        self.cpu = IdleCpu(
            self.loop,
            lambda: self.used,
            lambda: (self.in_flight, self.begun),
            lambda cpu, _for: self.idled.append(cpu),
            every=3600.0,
        )

    def look(self) -> None:
        self.cpu._measure()


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture(autouse=True)
def closing(rig: Rig) -> object:
    yield
    rig.cpu.stop()
    rig.loop.close()


@pytest.mark.fz("FZ-105")
def test_a_stretch_without_any_request_counts(rig: Rig) -> None:
    rig.cpu.start()
    rig.look()
    rig.used = 20_000
    rig.look()
    rig.used = 50_000
    rig.cpu.stop()
    assert rig.idled == pytest.approx([0.02, 0.03])


def test_a_stretch_with_a_request_in_it_does_not_count(rig: Rig) -> None:
    rig.cpu.start()
    rig.look()
    rig.used, rig.begun = 900_000, 1  # came and went between two looks
    rig.look()
    rig.used, rig.begun, rig.in_flight = 1_800_000, 2, 1
    rig.look()
    rig.used, rig.in_flight = 2_700_000, 0  # it ended: what it used up to here is not idle
    rig.look()
    assert rig.idled == []
    rig.used = 2_710_000
    rig.look()
    assert rig.idled == pytest.approx([0.01])


def test_time_asleep_is_never_part_of_a_stretch(rig: Rig) -> None:
    rig.cpu.start()
    rig.look()
    rig.cpu.stop()
    rig.used = 500_000
    rig.cpu.start()
    rig.look()
    rig.used = 510_000
    rig.cpu.stop()
    assert rig.idled == pytest.approx([0.0, 0.01])


def test_an_unknown_counter_counts_nothing(rig: Rig) -> None:
    rig.used = None
    rig.cpu.start()
    rig.look()
    rig.used = 10
    rig.look()
    assert rig.idled == []
