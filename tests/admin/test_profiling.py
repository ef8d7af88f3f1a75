"""What port 8008 does with a request, without sockets: bounds, turns, threads that cannot be had, ends of the world."""

from __future__ import annotations

import json
import signal
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from queueproxy.admin.profiling import FORMATS, HEAD_TIMEOUT, LIMITS, PAGES, ROOT, BadQuery, Profiling, Query
from queueproxy.admin.routes import METHOD_NOT_ALLOWED, NOT_FOUND, Reply
from queueproxy.codec.http1 import RequestHead, RequestReader
from tests.support.wires import Clock, Loop

PATIENCE = 20.0
LASTING = ("profile", "wall", "heap", "lag")


class TwoThreads(Loop):
    """A loop that other threads may call as well. gone: it is closed."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.gone = False
        self.called = threading.Event()

    def call_soon_threadsafe(self, call: Callable[..., object], *args: object) -> object:
        self.called.set()
        if self.gone:
            raise RuntimeError("Event loop is closed")
        return self.call_soon(call, *args)


class Heads:
    """Keeps what the reader read."""

    def __init__(self) -> None:
        self.head: RequestHead | None = None

    def head_received(self, head: RequestHead) -> None:
        self.head = head

    def body_received(self, data: bytes) -> None: ...

    def body_ended(self, trailers: list[tuple[bytes, bytes]]) -> None: ...

    def raw_received(self, data: bytes) -> None: ...


def head(target: str, method: str) -> RequestHead:
    heads = Heads()
    RequestReader(heads).feed(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert heads.head is not None
    return heads.head


class Asked:
    """The handler and its loop."""

    def __init__(self) -> None:
        self.loop = TwoThreads()
        loop: Any = self.loop
        self.profiling = Profiling(loop)

    def begin(self, target: str, method: str = "GET") -> list[Reply]:
        """Where the reply will be."""
        replies: list[Reply] = []
        self.profiling(head(target if target.startswith("/") else ROOT + target, method), replies.append)
        return replies

    def written(self) -> None:
        """A thread has written its text, and the loop has sent it."""
        assert self.loop.called.wait(PATIENCE)
        self.loop.called.clear()
        for thread in threading.enumerate():
            if thread.name == "profiling":
                thread.join(PATIENCE)
        self.loop.settle()

    def reply(self, target: str, method: str = "GET") -> Reply:
        replies = self.begin(target, method)
        if not replies:
            self.loop.advance(LIMITS["seconds"].high)
            if not replies:
                self.written()
        (reply,) = replies
        return reply


@pytest.fixture
def asked() -> Iterator[Asked]:
    before = signal.getsignal(signal.SIGPROF)
    yield Asked()
    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0), "a profile was left running"
    assert not tracemalloc.is_tracing(), "memory is still traced"
    signal.signal(signal.SIGPROF, before)


@pytest.mark.qp("QP-046")
def test_the_heads_time_is_upstreams() -> None:
    assert HEAD_TIMEOUT == 15.0


@pytest.mark.slow
@pytest.mark.qp("QP-046")
def test_the_index_links_every_page_and_every_link_answers(asked: Asked) -> None:
    index = asked.reply("")
    assert (index.status, index.content_type) == (200, b"text/html; charset=utf-8")
    for name in PAGES:
        assert f'href="{ROOT}{name}"'.encode() in index.body
        if name not in ("threads",):  # asks asyncio for the tasks of a real loop: with the real process
            assert asked.reply(name).status == 200


@pytest.mark.parametrize(
    ("target", "method", "reply"),
    [
        ("/", "GET", NOT_FOUND),
        ("/debug/pprof", "GET", NOT_FOUND),
        ("/profile", "GET", NOT_FOUND),
        (ROOT + "trace", "GET", NOT_FOUND),
        (ROOT + "%70rofile", "GET", NOT_FOUND),
        (ROOT + "trace", "POST", NOT_FOUND),
        (ROOT + "profile", "POST", METHOD_NOT_ALLOWED),
        (ROOT, "DELETE", METHOD_NOT_ALLOWED),
    ],
)
def test_what_is_not_here(asked: Asked, target: str, method: str, reply: Reply) -> None:
    assert asked.reply(target, method) is reply


@pytest.mark.parametrize("name", LIMITS)
def test_each_number_has_a_default_and_its_bounds_are_inside(name: str) -> None:
    default, low, high = LIMITS[name]
    assert low <= default <= high
    assert Query(b"/x").number(name) == default
    for inside in (low, high):
        assert Query(f"/x?a=b&{name}={inside}".encode()).number(name) == inside
    for outside in (low - 1, high + 1, "", "-1", "1.5", " 1", "+1", "x", "\u0661", "1" * 5000):
        with pytest.raises(BadQuery, match=f"{name} must be a whole number from {low} to {high}"):
            Query(f"/x?{name}={outside}".encode()).number(name)


def test_formats() -> None:
    assert Query(b"/x").form() == "collapsed"
    assert [Query(f"/x?format={form}".encode()).form() for form in FORMATS] == list(FORMATS)
    with pytest.raises(BadQuery, match="collapsed, speedscope"):
        Query(b"/x?format=pprof").form()


@pytest.mark.parametrize(
    "target",
    [
        "profile?seconds=0",
        "profile?format=x",
        "wall?hz=501",
        "heap?depth=26",
        "heap?top=0",
        "objects?top=x",
        "lag?seconds=61",
    ],
)
def test_a_bad_query_is_refused_and_nothing_begins(asked: Asked, target: str) -> None:
    assert asked.reply(target).status == 400
    assert asked.loop.timers == 0
    assert asked.reply("lag?seconds=1").status == 200


@pytest.mark.parametrize("second", LASTING)
@pytest.mark.parametrize("first", LASTING)
def test_one_at_a_time_whatever_it_is(asked: Asked, first: str, second: str) -> None:
    replies = asked.begin(f"{first}?seconds=2")
    assert replies == []
    (refused,) = asked.begin(second)
    assert (refused.status, refused.body) == (409, f"{first} is running, ask again when it has ended\n".encode())
    asked.loop.advance(1.9)
    assert replies == []
    asked.loop.advance(0.2)
    if not replies:
        asked.written()
    assert replies[0].status == 200
    assert asked.reply(f"{second}?seconds=1").status == 200


@pytest.mark.parametrize("page", ["", "cmdline", "objects"])
def test_what_is_told_at_once_need_not_wait(asked: Asked, page: str) -> None:
    lasting = asked.begin("lag?seconds=60")
    replies = asked.begin(page)
    if not replies:
        asked.written()
    assert replies[0].status == 200
    assert lasting == []
    asked.loop.advance(60)
    assert lasting[0].status == 200


def test_a_profile_for_speedscope_is_json(asked: Asked) -> None:
    reply = asked.reply("wall?seconds=1&format=speedscope")
    assert reply.content_type == b"application/json"
    assert json.loads(reply.body)["name"] == "queueproxy wall"


@pytest.mark.parametrize("page", ["wall", "heap", "objects"])
def test_a_pod_without_threads_to_spare_is_told_so(asked: Asked, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        replies = asked.begin(page)
        asked.loop.advance(LIMITS["seconds"].high)
    assert [(reply.status, reply.body) for reply in replies] == [(503, b"can't start new thread\n")]
    assert asked.reply(f"{page}").status == 200, "it stayed busy"


def test_a_text_that_cannot_be_written_is_an_answer_too(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def take_snapshot() -> None:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(tracemalloc, "take_snapshot", take_snapshot)
        reply = asked.reply("heap")
    assert (reply.status, reply.body) == (500, b"MemoryError: no room\n")
    assert not tracemalloc.is_tracing()
    assert asked.reply("heap").status == 200


def test_a_loop_that_is_gone_is_nobodys_trouble(asked: Asked) -> None:
    asked.loop.gone = True
    replies = asked.begin("objects")
    asked.written()  # warnings of threads that died are errors here
    assert replies == []


def test_it_says_what_it_is_doing(asked: Asked) -> None:
    assert repr(asked.profiling) == "<Profiling busy=''>"
    asked.begin("lag")
    assert repr(asked.profiling) == "<Profiling busy='lag'>"
    asked.loop.advance(60)
