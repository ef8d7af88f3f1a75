"""The event buffer: resume, loss, readers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queueproxy.freeze.node.events import Events


def add(events: Events, count: int) -> None:
    for _ in range(count):
        events.add(1.5, "uid", "ns", "pod", "rev", "frozen", 7, "idle")


def test_an_event_says_what_happened_to_whom() -> None:
    events = Events("s")
    add(events, 1)
    assert events.after(0, 10) == (0, [(1, 1.5, "uid", "ns", "pod", "rev", "frozen", 7, "idle")])


@pytest.mark.fz("FZ-104")
@given(st.integers(0, 40), st.integers(0, 50), st.integers(1, 50))
def test_a_reader_gets_everything_after_what_it_has_seen_or_is_told_how_much_it_missed(
    happened: int, seen: int, most: int
) -> None:
    events = Events("s", kept=10)
    add(events, happened)
    lost, found = events.after(seen, most)
    numbers = [event.number for event in found]
    seen = min(seen, happened)  # a number that was never given out
    assert lost == max(0, happened - 10 - seen)
    assert numbers == list(range(seen + lost + 1, happened + 1))[:most]


@pytest.mark.fz("FZ-104")
def test_asking_again_gives_the_same_again() -> None:
    events = Events("s")
    add(events, 3)
    assert events.after(1, 10) == events.after(1, 10)


def test_readers_are_woken_until_they_leave() -> None:
    events, woken = Events("s"), []
    leave = events.listen(lambda: woken.append(events.number))
    add(events, 2)
    leave()
    leave()
    add(events, 1)
    assert woken == [1, 2] and repr(events) == "<Events s 3 kept, 3 in all, 0 readers>"
