"""The books: what is counted, logged once, kept as history, and for how long."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.node.actions import Event, Kind, Move
from queueproxy.freeze.node.book import Book, cause_of
from queueproxy.freeze.node.events import Events
from queueproxy.freeze.node.inventory import ContainerFacts, PodFacts
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import Problem, Wanted
from queueproxy.log import Level, LineWriter, Log

FACTS = PodFacts(
    "uid", "shop", "cart-1", "n1", ("10.0.0.1",), "cart", "burstable", DEFAULTS._replace(throttle_after_s=0.5),
    (ContainerFacts("app", "a" * 64, "containerd"),), "b" * 64, False, "",
)  # fmt: skip


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    yield Book(Events("s"), Log(LineWriter(fd)))
    os.close(fd)


def lines(tmp_path: Path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]


@pytest.mark.fz("FZ-102", "FZ-104")
def test_a_change_is_logged_once_with_generation_and_reason_and_a_wish_only_for_debugging(
    book: Book, tmp_path: Path
) -> None:
    book.known(0.0, FACTS)
    for kind in (Kind.IDLE, Kind.FROZEN, Kind.ACTIVE, Kind.THAWED, Kind.FAILED):
        book.happened(1.0, Event("uid", kind, 7, "because"))
    said = lines(tmp_path)
    assert [line["message"] for line in said] == ["frozen", "thawed", "failed"]
    assert [line["severity"] for line in said] == ["INFO", "INFO", "WARNING"]
    assert {(line["pod"], line["namespace"], line["generation"], line["reason"]) for line in said} == {
        ("cart-1", "shop", 7, "because")
    }
    assert [event.kind for event in book.events.after(0, 9)[1]] == ["idle", "frozen", "active", "thawed", "failed"]


def test_wishes_are_logged_when_debugging(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    Book(Events("s"), Log(LineWriter(fd), level=Level.DEBUG)).happened(0.0, Event("u", Kind.ACTIVE, 1, "request"))
    os.close(fd)
    assert lines(tmp_path)[0]["severity"] == "DEBUG"


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("lease over", "lease"), ("operator", "operator"), ("stop signal", "stop_signal"), ("draining", "drain"),
        ("request", "sidecar"), ("whatever a sidecar writes", "sidecar"), ("freeze failed: x", "failure"),
    ],
)  # fmt: skip
def test_causes_are_a_handful_of_words(reason: str, cause: str) -> None:
    assert cause_of(reason) == cause


@pytest.mark.fz("FZ-100")
def test_moves_are_counted_by_outcome_and_timed_when_confirmed(book: Book) -> None:
    freeze = Move("uid", Rung.FROZEN, 1, False)
    book.moved(freeze, Moved(Rung.FROZEN, "cgroup2", 0.0002, "", False))
    book.moved(freeze, Moved(None, "cgroup2", 0.2, "timed out", False))
    book.moved(freeze, Moved(None, "", 0.0, "gone", True))
    assert book.moves == {("frozen", "confirmed"): 1, ("frozen", "failed"): 1, ("frozen", "gone"): 1}
    assert book.took[Rung.FROZEN].sum == 0.0002


def test_answers_are_timed_unless_they_are_refusals(book: Book) -> None:
    heard: list[object] = []
    timed = book.timed(0.0, Wanted.ACTIVE, lambda *said: heard.append(said))
    timed(None, None, "")
    timed(None, Problem.TERMINAL, "x")
    assert heard == [(None, None, ""), (None, Problem.TERMINAL, "x")]
    assert sum(book.answered[Wanted.ACTIVE].counts) == 1


def _unread() -> int:
    raise AssertionError("a counter that cannot have moved is not read")


def test_totals_outlive_their_pods(book: Book) -> None:
    book.known(0.0, FACTS)
    book.looked(9.8, "uid", 0)
    book.changed(10.0, "uid", Rung.FROZEN, lambda: 100_000, lambda: 0)
    book.changed(14.0, "uid", Rung.RUNNING, _unread, lambda: 4_000_000)
    before = (book.asleep(Rung.FROZEN), book.cpu(Rung.RUNNING), book.saved())
    assert before == (4.0, 0.1, pytest.approx(2.0)), "idle for half a second by its policy, so one sample counts"
    book.changed(15.0, "uid", Rung.FROZEN, lambda: 100_000, _unread)
    book.changed(15.0, "uid", Rung.RUNNING, _unread, lambda: 4_000_000)
    book.forget("uid")
    book.forget("uid")
    assert (book.asleep(Rung.FROZEN), book.cpu(Rung.RUNNING), book.saved()) == before and book.pages == {}
    book.changed(20.0, "uid", Rung.FROZEN, _unread, _unread)
    assert book.pages == {}, "nobody comes back by being counted"


def test_how_long_these_containers_are_known_starts_anew_with_new_ones(book: Book) -> None:
    assert book.known_for("uid", 5.0) == 0.0
    book.known(0.0, FACTS)
    book.known(3.0, FACTS)
    assert book.known_for("uid", 5.0) == 5.0
    book.known(6.0, FACTS._replace(containers=(ContainerFacts("app", "c" * 64, ""),)))
    assert book.known_for("uid", 7.0) == 1.0


def test_history_is_short(book: Book) -> None:
    book.known(0.0, FACTS)
    for number in range(20):
        book.happened(float(number), Event("uid", Kind.FROZEN, number, ""))
    assert [change.at for change in book.pages["uid"].changes] == [15.0, 16.0, 17.0, 18.0, 19.0]
