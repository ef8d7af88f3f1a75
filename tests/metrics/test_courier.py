"""The thread that carries telemetry: what waits, what is lost, what is said, and how it ends."""

import threading
from collections.abc import Callable

import pytest

from queueproxy.metrics.courier import Courier

PATIENCE = 10.0


class Said:
    """A log that can be waited for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.news = threading.Condition()

    def info(self, message: str, /, **fields: object) -> None:
        with self.news:
            self.lines.append(message)
            self.news.notify_all()

    warning = info

    def heard(self, count: int) -> list[str]:
        with self.news:
            assert self.news.wait_for(lambda: len(self.lines) >= count, PATIENCE), self.lines
            return self.lines


class Scripted:
    """An exporter in the test's hand. Each delivery waits for `go` where there is one."""

    def __init__(self, answer: Callable[[list[int]], str] = lambda batch: "", held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.answer = answer
        self.go = threading.Event()
        self.began = threading.Event()
        self.stopped = 0
        if not held:
            self.go.set()

    def deliver(self, batch: list[int]) -> str:
        self.began.set()
        assert self.go.wait(PATIENCE)
        self.batches.append(batch)
        return self.answer(batch)

    def stop(self) -> None:
        self.stopped += 1
        self.go.set()


def courier(exporter: Scripted, said: Said, *, limit: int = 100, batch: int = 1, gather: float = 0) -> Courier[int]:
    return Courier("traces", lambda: exporter, said, limit=limit, batch=batch, gather=gather)


def test_nothing_is_opened_before_something_is_to_be_carried() -> None:
    opened: list[int] = []
    carrier: Courier[int] = Courier("metrics", lambda: opened.append(1) or Scripted(), Said(), limit=1)  # type: ignore[func-returns-value]
    carrier.finish()
    assert carrier.join(0) and opened == []


@pytest.mark.qp("QP-244")
def test_the_end_delivers_what_waits_without_gathering() -> None:
    exporter = Scripted()
    carrier = courier(exporter, Said(), batch=100, gather=3600)
    for item in range(7):
        carrier.put(item)
    carrier.finish()
    assert carrier.join(PATIENCE)
    assert exporter.batches == [[0, 1, 2, 3, 4, 5, 6]] and exporter.stopped == 1
    assert carrier.delivered == 7


@pytest.mark.qp("QP-245")
def test_what_finds_no_room_is_lost_and_counted() -> None:
    exporter = Scripted(held=True)
    carrier = courier(exporter, Said(), limit=5, batch=2)
    carrier.put(0)
    assert exporter.began.wait(PATIENCE)  # item 0 is under way
    for item in range(1, 11):
        carrier.put(item)
    assert carrier.lost == 5 and "waiting=5" in repr(carrier)
    exporter.go.set()
    carrier.finish()
    assert carrier.join(PATIENCE)
    assert [item for batch in exporter.batches for item in batch] == [0, 1, 2, 3, 4, 5]


@pytest.mark.qp("QP-245")
def test_with_room_for_one_the_newest_stays() -> None:
    exporter = Scripted(held=True)
    carrier = courier(exporter, Said(), limit=1)
    carrier.put(0)
    assert exporter.began.wait(PATIENCE)
    for item in range(1, 1000):
        carrier.put(item)
    exporter.go.set()
    carrier.finish()
    assert carrier.join(PATIENCE) and exporter.batches == [[0], [999]]


@pytest.mark.qp("QP-245")
def test_an_outage_is_said_once_and_so_is_its_end() -> None:
    said = Said()
    exporter = Scripted(lambda batch: "refused" if batch[0] < 3 else "")
    carrier = courier(exporter, said)
    for item in range(5):
        carrier.put(item)
    carrier.finish()
    assert carrier.join(PATIENCE)
    assert said.lines == ["Failed to export traces; requests are not affected.", "Exporting traces works again."]
    assert (carrier.lost, carrier.delivered) == (3, 2)


@pytest.mark.qp("QP-245")
def test_an_exporter_that_raises_or_cannot_be_loaded_ends_nothing() -> None:
    said = Said()
    tries: list[int] = []

    def opened() -> Scripted:
        tries.append(1)
        if len(tries) == 1:
            raise ImportError("No module named 'opentelemetry'")
        return Scripted()

    carrier: Courier[int] = Courier("metrics", opened, said, limit=1)
    carrier.put(1)
    said.heard(1)
    carrier.put(2)
    assert said.heard(2)[1] == "Exporting metrics works again."
    carrier.finish()
    assert carrier.join(PATIENCE) and carrier.delivered == 1


@pytest.mark.qp("QP-244", "QP-245")
def test_a_delivery_that_does_not_end_is_called_off() -> None:
    exporter = Scripted(held=True)
    carrier = courier(exporter, Said(), limit=5)
    carrier.put(1)
    assert exporter.began.wait(PATIENCE)
    carrier.put(2)
    carrier.finish()
    assert not carrier.join(0.01)
    assert exporter.stopped >= 1


def test_exporters_are_opened_one_after_the_other() -> None:
    inside, most = 0, 0
    meeting = threading.Barrier(2)

    def opened() -> Scripted:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            meeting.wait(0.2)  # the other one would come in meanwhile
        except threading.BrokenBarrierError:
            pass
        inside -= 1
        return Scripted()

    couriers = [Courier[int](what, opened, Said(), limit=10) for what in ("metrics", "traces")]
    for one in couriers:
        one.put(1)
        one.finish()
    assert all(one.join(10) for one in couriers)
    assert most == 1 and [one.delivered for one in couriers] == [1, 1]
