"""The exposition: every family is there from the first day, no label names a pod, the document lists them all."""

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from queueproxy.freeze.annotations import DEFAULTS
from queueproxy.freeze.node.actions import Event, Kind, Move
from queueproxy.freeze.node.book import Book
from queueproxy.freeze.node.cluster import Cluster
from queueproxy.freeze.node.events import Events
from queueproxy.freeze.node.inventory import Rules
from queueproxy.freeze.node.ledger import Ledger
from queueproxy.freeze.node.limits import Limits
from queueproxy.freeze.node.metrics import FreezerCollector, exposition
from queueproxy.freeze.node.moved import Moved
from queueproxy.freeze.node.pods import Pods
from queueproxy.freeze.node.port import Port
from queueproxy.freeze.node.review import Reviewer
from queueproxy.freeze.node.sessions import Sessions
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import Wanted
from queueproxy.log import LineWriter, Log
from tests.support.freezer_calls import ScriptedDesk, ScriptedDoor

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def parts() -> Iterator[tuple[Book, Port, FreezerCollector]]:
    loop, fd = asyncio.new_event_loop(), os.open(os.devnull, os.O_WRONLY)
    log = Log(LineWriter(fd))
    book, cluster = Book(Events("s"), log), Cluster()
    port = Port(loop, ScriptedDoor(), ScriptedDesk(), Sessions(lambda: "s"), log)
    pods = Pods(cluster, Rules("n"), DEFAULTS, log, known=lambda facts: None, gone=lambda uid: None)
    yield book, port, FreezerCollector(Ledger(), book, port, Limits(), Reviewer(cluster, "a", "n", log), pods)
    loop.close()
    os.close(fd)


def page(collector: FreezerCollector) -> dict[str, float]:
    lines = exposition(collector)().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


@pytest.mark.fz("FZ-100")
def test_a_fresh_freezer_shows_every_family(parts: tuple[Book, Port, FreezerCollector]) -> None:
    found = page(parts[2])
    for state in ("running", "throttled", "frozen"):
        assert found[f'freezer_pods{{state="{state}"}}'] == 0
    assert found['freezer_rate_limited_total{limit="unproven"}'] == 0
    assert found["freezer_watch_stale_seconds"] == float("inf") and found["process_resident_memory_bytes"] > 0


@pytest.mark.fz("FZ-100", "FZ-105")
def test_what_was_counted_is_shown(parts: tuple[Book, Port, FreezerCollector]) -> None:
    book, port, collector = parts
    book.moved(Move("uid", Rung.FROZEN, 1, False), Moved(Rung.FROZEN, "cgroup2", 0.0002, "", False))
    book.happened(0.0, Event("uid", Kind.THAWED, 1, "lease over"))
    book.timed(0.0, Wanted.ACTIVE, lambda *_: None)(None, None, "")
    port.answers["state", 200] += 3
    port.cut_off["slow"] += 1
    found = page(collector)
    assert found['freezer_moves_total{outcome="confirmed",to="frozen"}'] == 1
    assert found['freezer_move_duration_seconds_bucket{le="0.0001",to="frozen"}'] == 0
    assert found['freezer_move_duration_seconds_bucket{le="0.00025",to="frozen"}'] == 1
    assert found['freezer_thaws_total{cause="lease"}'] == 1 and found['freezer_events_total{kind="thawed"}'] == 1
    assert found['freezer_answer_duration_seconds_count{wanted="active"}'] == 1
    assert found['freezer_calls_total{call="state",status="200"}'] == 3
    assert found['freezer_cut_off_total{reason="slow"}'] == 1
    assert not any("uid" in name for name in found), "no label names a pod"


def test_the_document_lists_every_family(parts: tuple[Book, Port, FreezerCollector]) -> None:
    document = (ROOT / "docs/freezer.md").read_text()
    families = {metric.name for metric in parts[2].collect()}
    assert len(families) > 15
    listed = {re.sub(r"_total$", "", name) for name in re.findall(r"`(freezer_[a-z_]+)[`{]", document)}
    assert families == listed
