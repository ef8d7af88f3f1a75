"""Requests past extensions: what those see, change and answer, and what is left of a request when one breaks."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from queueproxy.extensions import Answer, Extension, Outcome, Request, Response
from queueproxy.metrics.requests import HttpCounts
from queueproxy.proxy.chain import Link
from queueproxy.proxy.deadline import Timeouts
from queueproxy.proxy.exchange import Exchange
from queueproxy.proxy.extended import extend
from queueproxy.proxy.measured import measure
from queueproxy.proxy.server import acceptor
from tests.support import wires as support
from tests.support.wires import GET, HELLO, POST, ClientWire, Loop, Wires

FAILED = b"HTTP/1.1 500 Internal Server Error\r\n"


class TaskLoop(Loop):
    """Enough of a loop for a real task."""

    def call_soon(self, call: Callable[..., object], *args: object, context: object = None) -> Any:
        return super().call_soon(call, *args)

    def create_task(self, work: Any) -> asyncio.Task[Any]:
        return asyncio.Task(work, loop=self)  # type: ignore[arg-type]

    def get_debug(self) -> bool:
        return False


class Extended(Wires):
    """Wires whose requests go past extensions, the first one outermost."""

    def __init__(self, *extensions: object, counted: bool = False, **options: Any) -> None:
        with patch.object(support, "Loop", TaskLoop):
            super().__init__(**options)
        for module in ("observed", "measured", "extended"):
            self._patches.enter_context(patch(f"queueproxy.proxy.{module}.monotonic", self.clock))
        self.accept = acceptor(self.plane)
        if counted:
            self.plane.http = HttpCounts()
            self.accept = measure(self.plane)
        for extension in extensions:
            if isinstance(extension, Thinks):
                extension.loop = self.loop
        self.chain = extend(self.plane, [Link(f"e{at}", extension) for at, extension in enumerate(extensions)])

    def client(self) -> ClientWire:
        return ClientWire(self, self.accept())

    @property
    def blamed(self) -> dict[tuple[str, str], int]:
        return {where: count for where, count in self.recorder.extension_failures.items() if count}


@contextmanager
def extended(*extensions: object, **options: Any) -> Iterator[Extended]:
    with Extended(*extensions, **options) as wires:
        yield wires


class Says(Extension):
    """Answers, refuses or breaks as told; remembers what it saw."""

    def __init__(self, says: object = None, *, name: str = "x", diary: list[str] | None = None) -> None:
        self.says = says
        self.name = name
        self.diary = [] if diary is None else diary
        self.outcomes: list[Outcome] = []

    def request(self, request: Request) -> Answer | Awaitable[Answer | None] | None:
        self.diary.append(f"{self.name} request")
        if isinstance(self.says, BaseException):
            raise self.says
        return self.says  # type: ignore[return-value]

    def response(self, request: Request, response: Response) -> None:
        self.diary.append(f"{self.name} response {response.status}")

    def finished(self, request: Request, outcome: Outcome) -> None:
        self.diary.append(f"{self.name} finished {outcome.status}")
        self.outcomes.append(outcome)


class Breaks(Extension):
    """In the hooks that are named."""

    def __init__(self, *hooks: str, error: BaseException | None = None) -> None:
        def broken(*_: object) -> None:
            raise error or ZeroDivisionError("garbage")

        for hook in hooks:
            setattr(self, hook, broken)


class Hook(Extension):
    """One function as a hook."""

    def __init__(self, **hooks: Callable[..., object]) -> None:
        for hook, function in hooks.items():
            setattr(self, hook, function)


# -- what passes


@pytest.mark.slow
def test_without_extensions_requests_are_run_by_what_ran_them_before() -> None:
    with Wires() as wires:
        assert wires.plane.exchange is Exchange
    program = "import queueproxy.app, sys; print([m for m in sys.modules if 'extend' in m or 'extensions' in m])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"


def test_an_extension_that_changes_nothing_changes_nothing() -> None:
    def both(wires: Wires) -> tuple[bytes, bytes]:
        client = wires.client()
        client.says(POST.replace(b"Host: a", b"Host: a\r\nX-A: 1\r\nx-a: 2\r\nX-Forwarded-Proto: https") + b"hello")
        app = wires.dialled()
        asked = app.got()
        app.says(b"HTTP/1.1 201 x\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n")
        answered = client.got()
        client.leaves()
        wires.at_rest()
        return asked, answered

    with Wires() as plain, extended(Says()) as wires:
        expected = both(plain)
        assert b"Forwarded: proto=https\r\n" in expected[0]
        assert both(wires) == expected


def test_the_first_is_the_outermost() -> None:
    diary: list[str] = []
    with extended(Says(name="a", diary=diary), Says(name="b", diary=diary)) as wires:
        wires.client().says(GET)
        wires.dialled().says(HELLO)
        assert diary == [
            "a request",
            "b request",
            "b response 200",
            "a response 200",
            "b finished 200",
            "a finished 200",
        ]


def test_the_request_goes_out_as_it_was_changed() -> None:
    def change(request: Request) -> None:
        request.method = b"PUT"
        request.target = b"/new?q=%zz"
        request.host = b"other:1"
        request.headers.set(b"X-User", b"ann")
        request.headers.remove(b"Cookie")

    with extended(Hook(request=change)) as wires:
        client = wires.client()
        client.says(POST.replace(b"Host: a", b"Host: a\r\nCookie: c\r\nx-user: root\r\nX-User: root") + b"hello")
        app = wires.dialled()
        assert app.got() == (
            b"PUT /new?q=%zz HTTP/1.1\r\nHost: other:1\r\nX-User: ann\r\nContent-Length: 5\r\nX-Forwarded-For: "
            b"10.0.0.9\r\n\r\nhello"
        )


def test_the_answer_goes_out_as_it_was_changed_and_its_body_untouched() -> None:
    def change(request: Request, response: Response) -> None:
        response.status = 299
        response.headers.remove(b"server")
        response.headers.add(b"X-Request", request.target)
        response.headers.set(b"Date", b"today")

    with extended(Hook(response=change), counted=True) as wires:
        client = wires.client()
        client.says(GET)
        wires.dialled().says(b"HTTP/1.1 200 OK\r\nServer: secret\r\nContent-Length: 5\r\n\r\nhello")
        assert client.got() == (
            b"HTTP/1.1 299 status code 299\r\nX-Request: /\r\nDate: today\r\nContent-Length: 5\r\n\r\nhello"
        )
        assert wires.plane.http is not None
        assert [labels.status for labels in wires.plane.http.served] == [299]
        assert [labels.status for labels in wires.plane.http.asked] == [200], "the app said something else"


@pytest.mark.parametrize("early", [False, True], ids=["body later", "body with the head"])
def test_notes_lead_from_one_hook_to_the_next(early: bool) -> None:
    seen: list[object] = []

    def note(request: Request) -> None:
        request.notes["who"] = "ann"

    hook = Hook(request=note, finished=lambda request, outcome: seen.append((request.notes["who"], outcome.received)))
    with extended(hook) as wires:
        client = wires.client()
        client.says(POST + b"hello" if early else POST)
        if not early:
            client.says(b"hello")
        wires.dialled().says(HELLO)
        assert seen == [("ann", 5)]


def test_what_is_changed_too_late_is_an_error_and_not_half_true() -> None:
    def late(request: Request, response: Response) -> None:
        request.headers.set(b"X-Late", b"1")

    with extended(Hook(response=late)) as wires:
        client = wires.client()
        client.says(GET)
        wires.dialled().says(HELLO)
        assert client.got().startswith(FAILED)
        assert wires.blamed == {("e0", "response"): 1}


def test_an_answer_that_has_left_can_only_be_read() -> None:
    kept: list[Response] = []
    with extended(Hook(response=lambda request, response: kept.append(response))) as wires:
        wires.client().says(GET)
        wires.dialled().says(HELLO)
    (response,) = kept
    assert response.headers.get(b"content-length") == b"5"
    with pytest.raises(RuntimeError, match="has left"):
        response.headers.set(b"X-A", b"1")


@pytest.mark.qp("QP-157")
def test_probes_and_refused_requests_are_not_seen_and_marked_ones_are() -> None:
    spy = Says()
    with extended(spy, concurrency=1) as wires:
        client = wires.client()
        client.says(GET.replace(b"Host", b"User-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\nHost"))
        client.says(GET.replace(b"Host", b"K-Network-Probe: probe\r\nK-Network-Hash: h\r\nHost"))
        assert client.got().count(b"200 OK") == 2 and spy.diary == []
        for _ in range(11):
            wires.client().says(GET)
        assert spy.diary == ["x request"], "only one has a slot"
        refused = wires.client()
        refused.says(GET)
        assert b"503" in refused.got() and spy.diary == ["x request"]
        marked = wires.client()
        marked.says(GET.replace(b"Host", b"K-Kubelet-Probe: x\r\nHost"))
        assert spy.diary == ["x request"] * 2


@pytest.mark.fz("FZ-033")
def test_a_sleeping_app_is_awake_before_an_extension_is_asked_and_nothing_reaches_it_before() -> None:
    spy = Says()
    with extended(spy, freezing=True) as wires:
        wires.put_to_sleep()
        client = wires.client()
        client.says(GET)
        wires.loop.advance(0.25)
        assert spy.diary == [] and not wires.pool.waiting
        wires.mechanism.answer()
        wires.loop.settle()
        assert spy.diary == ["x request"]
        wires.dialled().says(HELLO)
        assert client.got().endswith(b"hello")
        assert (spy.outcomes[0].thaw_wait, spy.outcomes[0].took) == (0.25, 0.25)


def test_an_upgrade_is_seen_and_its_end_too() -> None:
    spy = Says()

    def add(request: Request, response: Response) -> None:
        response.headers.set(b"X-Seen", b"1")

    with extended(spy, Hook(response=add)) as wires:
        client = wires.client()
        client.says(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n")
        app = wires.dialled()
        assert b"Upgrade: web\r\n" in app.got()
        app.says(b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n")
        assert b"X-Seen: 1\r\n" in client.got()
        app.says(b"frame")
        assert client.got() == b"frame"
        app.ends()
        client.ends()
        assert spy.diary == ["x request", "x response 101", "x finished 101"]
        wires.at_rest()


def test_an_outcome_tells_times_sizes_and_whose_answer_it_was() -> None:
    spy = Says()
    with extended(spy) as wires:
        wires.client().says(POST)
        app = wires.dialled()
        wires.loop.advance(0.5)
        app.says(b"HTTP/1.1 404 x\r\nContent-Length: 5\r\n\r\nhe")
        wires.loop.advance(0.25)
        app.says(b"llo")
        (outcome,) = spy.outcomes
        assert outcome == Outcome(404, 404, 0, 5, 0.75, 0.0, 0.5, "")


@pytest.mark.parametrize("counted", [False, True])
def test_an_outcome_tells_what_the_proxy_had_to_say(counted: bool) -> None:
    spy = Says()
    with extended(spy, counted=counted, timeouts=Timeouts(10)) as wires:
        wires.client().says(GET)
        wires.refused()
        wires.client().says(GET)
        wires.dialled()
        wires.loop.advance(10)
        leaving = wires.client()
        leaving.says(GET)
        wires.dialled()
        leaving.leaves()
        assert [(o.status, o.app_status, o.app_took, o.error) for o in spy.outcomes] == [
            (502, 0, None, "dial"), (504, 0, None, "timeout"), (499, 0, None, ""),
        ]  # fmt: skip
        assert not [line for line in spy.diary if "response" in line], "the proxy's own answers are its own"


def test_a_stale_connection_is_replaced_without_asking_again() -> None:
    spy = Says()
    with extended(spy) as wires:
        stale = wires.pooled()
        client = wires.client()
        client.says(GET)
        stale.leaves()
        wires.dialled().says(HELLO)
        assert client.got().endswith(b"hello")
        assert spy.diary == ["x request", "x response 200", "x finished 200"]


# -- what is answered early


@pytest.mark.parametrize(
    ("request_bytes", "answer", "expected"),
    [
        pytest.param(
            GET, Answer(401, b"no\n", [(b"WWW-Authenticate", b"Bearer"), (b"Date", b"d")]),
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\nDate: d\r\nContent-Type: text/plain; "
            b"charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 3\r\n\r\nno\n", id="text",
        ),
        pytest.param(
            GET, Answer(200, b"{}", [(b"content-type", b"application/json"), (b"Date", b"d")]),
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nDate: d\r\nContent-Length: 2\r\n\r\n{}", id="json",
        ),
        pytest.param(
            GET.replace(b"GET", b"HEAD"), Answer(403, b"no\n", [(b"Content-Type", b"x"), (b"Date", b"d")]),
            b"HTTP/1.1 403 Forbidden\r\nContent-Type: x\r\nDate: d\r\nContent-Length: 3\r\n\r\n", id="HEAD",
        ),
        pytest.param(
            GET, Answer(204, headers=[(b"Date", b"d")]), b"HTTP/1.1 204 No Content\r\nDate: d\r\n\r\n", id="204"
        ),
        pytest.param(
            GET, Answer(302, headers=[(b"Location", b"/x"), (b"Date", b"d")]),
            b"HTTP/1.1 302 Found\r\nLocation: /x\r\nDate: d\r\nContent-Length: 0\r\n\r\n", id="redirect",
        ),
        pytest.param(
            GET.replace(b"1.1", b"1.0"), Answer(200, b"x", [(b"Content-Type", b"x"), (b"Date", b"d")]),
            b"HTTP/1.1 200 OK\r\nContent-Type: x\r\nDate: d\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
            id="HTTP/1.0",
        ),
    ],
)  # fmt: skip
def test_an_early_answer(request_bytes: bytes, answer: Answer, expected: bytes) -> None:
    with extended(Says(answer), concurrency=1) as wires:
        client = wires.client()
        client.says(request_bytes)
        assert client.got() == expected
        assert not wires.pool.waiting, "the app was not asked"
        assert client.open is (b"close" not in expected)
        wires.at_rest()
        assert list(wires.recorder.invocations) == [answer.status]


def test_an_answer_without_date_gets_ours() -> None:
    with extended(Says(Answer(200))) as wires:
        client = wires.client()
        client.says(GET)
        assert client.got().count(b"\r\nDate: ") == 1


def test_inner_extensions_do_not_see_what_an_outer_one_answered() -> None:
    diary: list[str] = []
    a, b, c = Says(name="a", diary=diary), Says(Answer(401, b"no"), name="b", diary=diary), Says(name="c", diary=diary)
    with extended(a, b, c) as wires:
        wires.client().says(GET)
        assert diary == ["a request", "b request", "a response 401", "b finished 401", "a finished 401"]
        assert a.outcomes == [Outcome(401, 0, 0, 2, 0.0, 0.0, None, "")]


def test_an_outer_extension_changes_the_answer_of_an_inner_one_and_not_the_next() -> None:
    def change(request: Request, response: Response) -> None:
        response.status = 418
        response.headers.set(b"X-Outer", b"1")

    answer = Answer(401, b"no")
    with extended(Hook(response=change), Says(answer)) as wires:
        client = wires.client()
        for _ in range(2):
            client.says(GET)
            got = client.got()
            assert got.startswith(b"HTTP/1.1 418 ") and got.count(b"X-Outer: 1\r\n") == 1
        assert answer.status == 401 and b"X-Outer" not in answer.lines


def test_pipelined_requests_are_answered_in_order_and_one_after_the_other() -> None:
    with extended(Hook(request=lambda r: Answer(200, r.target) if r.target.startswith(b"/own") else None)) as wires:
        client = wires.client()
        client.says(
            b"".join(GET.replace(b"/ ", b"/own%d " % n) for n in range(300)) + GET + GET.replace(b"/ ", b"/own ")
        )
        app = wires.dialled()
        got = client.got()
        places = [got.index(b"\r\n\r\n/own%d" % n) for n in range(300)]
        assert places == sorted(places) and got.count(b"HTTP/1.1 200 OK") == 300
        app.says(HELLO)
        assert client.got().endswith(b"\r\n\r\n/own")
        wires.at_rest()


def test_a_queue_full_of_requests_that_are_all_answered_early_does_not_recurse() -> None:
    answers: list[Answer | None] = [None]
    with extended(Hook(request=lambda request: answers[0]), concurrency=100, pool=200) as wires:
        first = [wires.client() for _ in range(100)]
        for client in first:
            client.says(GET)
        waiting = [wires.client() for _ in range(1000)]
        for client in waiting:
            client.says(GET)
        answers[0] = Answer(429)
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(200)
        try:
            wires.dialled().says(HELLO)
        finally:
            sys.setrecursionlimit(limit)
        assert all(b" 429 " in client.got() for client in waiting)
        assert not wires.loop.faults


def test_an_upload_that_was_not_asked_for_is_swallowed_and_the_connection_kept() -> None:
    with extended(Says(Answer(413))) as wires:
        client = wires.client()
        client.says(POST)
        assert client.got().startswith(b"HTTP/1.1 413 ")
        client.says(b"hello" + GET)
        assert client.got().startswith(b"HTTP/1.1 413 ")
        wires.at_rest()


def test_an_upload_that_may_or_may_not_follow_ends_the_connection() -> None:
    with extended(Says(Answer(413))) as wires:
        client = wires.client()
        client.says(POST.replace(b"Host", b"Expect: 100-continue\r\nHost"))
        assert b"Connection: close\r\n" in client.got()
        assert not client.open


# -- those that think


class Thinks(Extension):
    """Answers what the test says when the test says it."""

    loop: Any  # set by Extended
    stubborn = False

    def __init__(self) -> None:
        self.thoughts: list[asyncio.Future[Answer | None]] = []

    async def request(self, request: Request) -> Answer | None:
        self.thoughts.append(asyncio.Future(loop=self.loop))
        try:
            return await self.thoughts[-1]
        except asyncio.CancelledError:
            if self.stubborn:
                raise ValueError("no") from None
            raise


def test_a_request_waits_while_an_extension_thinks_and_then_goes_on_with_its_body() -> None:
    hook = Thinks()
    spy = Says()
    with extended(hook, spy) as wires:
        client = wires.client()
        client.says(POST + b"he")
        wires.loop.advance(0.5)
        client.says(b"llo")
        assert not wires.pool.waiting and spy.diary == []
        hook.thoughts[0].set_result(None)
        wires.loop.settle()
        app = wires.dialled()
        assert app.got().endswith(b"\r\n\r\nhello")
        app.says(HELLO)
        assert client.got().endswith(b"hello")
        assert spy.outcomes == [Outcome(200, 200, 5, 5, 0.5, 0.0, 0.0, "")]
        wires.at_rest()


def test_a_thought_may_be_an_answer() -> None:
    hook = Thinks()
    with extended(Says(), hook) as wires:
        client = wires.client()
        client.says(GET)
        hook.thoughts[0].set_result(Answer(403))
        wires.loop.settle()
        assert client.got().startswith(b"HTTP/1.1 403 ")
        client.says(GET)
        hook.thoughts[1].set_result(Answer(402))
        wires.loop.settle()
        assert client.got().startswith(b"HTTP/1.1 402 ")
        wires.at_rest()


@pytest.mark.parametrize("begun", [True, False])
def test_a_client_that_leaves_ends_the_thought(begun: bool) -> None:
    hook = Thinks()
    with extended(hook, concurrency=1) as wires:
        client = wires.client()
        if begun:
            client.says(GET)
        else:
            client.transport.deliver(GET)  # the task has not had its first turn
        client.leaves()
        assert [thought.cancelled() for thought in hook.thoughts] == [True] * begun
        wires.loop.settle()
        wires.at_rest()
        assert wires.blamed == {}


def test_a_thought_that_takes_too_long_is_a_504() -> None:
    hook = Thinks()
    with extended(hook, timeouts=Timeouts(10), concurrency=1) as wires:
        client = wires.client()
        client.says(GET)
        wires.loop.advance(10)
        assert client.got().startswith(b"HTTP/1.1 504 ") and hook.thoughts[0].cancelled()
        wires.at_rest()


def test_a_thought_that_outlives_its_request_changes_nothing() -> None:
    hook = Thinks()
    hook.stubborn = True
    with extended(hook) as wires:
        client = wires.client()
        client.says(GET)
        client.leaves()
        wires.at_rest()
        assert wires.blamed == {} and not wires.loop.faults


# -- those that break


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("x"), SystemExit(3), asyncio.CancelledError(), MemoryError()], ids=repr
)
def test_one_that_breaks_over_a_request_refuses_it(error: BaseException) -> None:
    with extended(Breaks("request", error=error), concurrency=1) as wires:
        client = wires.client()
        client.says(GET)
        got = client.got()
        assert got.startswith(FAILED) and got.endswith(b"\r\n\r\nextension failed\n")
        assert client.open and not wires.pool.waiting
        assert wires.blamed == {("e0", "request"): 1} and wires.recorder.refused == {"extension": 1}
        wires.at_rest()


@pytest.mark.parametrize("queued", [False, True], ids=["at once", "after waiting for a slot"])
def test_one_that_breaks_leaves_the_limiter_as_it_was(queued: bool) -> None:
    broken = False

    def request(request: Request) -> None:
        if broken:
            raise ValueError

    with extended(Hook(request=request), concurrency=1) as wires:
        client = wires.client()
        if queued:
            first = wires.client()
            first.says(GET)
            client.says(GET)
            broken = True
            wires.dialled().says(HELLO)
        else:
            broken = True
            client.says(GET)
        assert client.got().startswith(FAILED)
        wires.at_rest()


def test_one_that_breaks_after_the_thaw_leaves_the_gate_as_it_was() -> None:
    with extended(Breaks("request"), freezing=True) as wires:
        wires.put_to_sleep()
        client = wires.client()
        client.says(GET)
        wires.mechanism.answer()
        wires.loop.settle()
        assert client.got().startswith(FAILED)
        wires.at_rest()


@pytest.mark.parametrize(
    "garbage", [True, "401", b"401", 401, (401, b""), object()], ids=lambda value: type(value).__name__
)
def test_garbage_instead_of_an_answer_refuses_the_request(garbage: object) -> None:
    async def later(request: Request) -> object:
        return garbage

    for hook in (Says(garbage), Hook(request=later)):
        with extended(hook) as wires:
            client = wires.client()
            client.says(GET)
            assert client.got().startswith(FAILED)
            assert wires.blamed == {("e0", "request"): 1}
            wires.at_rest()


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), SystemExit(3), KeyboardInterrupt()], ids=repr)
def test_a_thought_that_breaks_refuses_its_request_and_the_loop_goes_on(error: BaseException) -> None:
    async def request(request: Request) -> None:
        raise error

    with extended(Hook(request=request)) as wires:
        client = wires.client()
        client.says(GET)
        assert client.got().startswith(FAILED)
        assert wires.blamed == {("e0", "request"): 1} and not wires.loop.faults
        wires.at_rest()


ANSWERS = {
    "sized": HELLO,
    "chunked": b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "no body": b"HTTP/1.1 204 x\r\n\r\n",
    "in two reads": b"HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\nhello",
    "until the end": b"HTTP/1.0 200 x\r\n\r\nhello",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_one_that_breaks_over_an_answer_hides_all_of_it(answer: bytes) -> None:
    spy = Says()
    with extended(spy, Breaks("response"), concurrency=1, counted=True) as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        app.says(answer)
        got = client.got()
        assert got.startswith(FAILED) and got.endswith(b"\r\n\r\nextension failed\n") and b"hello" not in got
        assert not app.open, "what is left of the answer must not be the next one's"
        assert wires.blamed == {("e1", "response"): 1}
        assert [(o.status, o.app_status, o.error) for o in spy.outcomes] == [(500, int(answer[9:12]), "extension")]
        client.says(GET)
        wires.dialled().says(answer)
        assert client.got().startswith(FAILED)
        wires.at_rest()
        assert not wires.log.lines[1:], "once in the log"


def test_one_that_breaks_over_an_upgrade_refuses_it() -> None:
    with extended(Breaks("response")) as wires:
        client = wires.client()
        client.says(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n")
        app = wires.dialled()
        app.says(b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\nframe")
        got = client.got()
        assert got.startswith(FAILED) and b"frame" not in got
        assert not app.open
        wires.at_rest()


def test_one_that_breaks_over_anothers_answer_hides_it() -> None:
    with extended(Breaks("response"), Says(Answer(200, b"secret"))) as wires:
        client = wires.client()
        client.says(GET)
        got = client.got()
        assert got.startswith(FAILED) and b"secret" not in got
        wires.at_rest()


def test_one_that_answers_with_an_answer_is_told_that_it_may_not() -> None:
    with extended(Hook(response=lambda request, response: Answer(200))) as wires:
        client = wires.client()
        client.says(GET)
        wires.dialled().says(HELLO)
        assert client.got().startswith(FAILED)


def test_one_that_breaks_over_an_outcome_changes_nothing_for_anybody() -> None:
    spy = Says()
    with extended(spy, Breaks("finished")) as wires:
        client = wires.client()
        for _ in range(3):
            client.says(GET)
            wires.app().says(HELLO)
            assert client.got().endswith(b"hello")
        assert wires.blamed == {("e1", "finished"): 3} and len(spy.outcomes) == 3
        assert len(wires.log.lines) == 1
        wires.at_rest()


HOSTILE: dict[str, Callable[[Request], None]] = {
    "CRLF in a value": lambda r: r.headers.set(b"X-A", b"1\r\nX-B: 2"),
    "LF in a value": lambda r: r.headers.add(b"X-A", b"1\nX-B: 2"),
    "NUL in a value": lambda r: r.headers.add(b"X-A", b"\0"),
    "CRLF in a name": lambda r: r.headers.set(b"X-A: 1\r\nX-B", b"2"),
    "blank in a name": lambda r: r.headers.set(b"X A", b"2"),
    "no name": lambda r: r.headers.add(b"", b"2"),
    "text": lambda r: r.headers.add("X-A", "2"),  # type: ignore[arg-type]
    "Content-Length": lambda r: r.headers.set(b"content-LENGTH", b"7"),
    "Transfer-Encoding": lambda r: r.headers.add(b"Transfer-Encoding", b"chunked"),
    "Connection": lambda r: r.headers.add(b"Connection", b"X-A"),
    "Upgrade": lambda r: r.headers.add(b"Upgrade", b"h2c"),
    "Host": lambda r: r.headers.add(b"Host", b"b"),
    "a probe": lambda r: r.headers.set(b"K-Network-Probe", b"queue"),
    "the activator's mark": lambda r: r.headers.set(b"K-Proxy-Request", b"activator"),
    "a revision": lambda r: r.headers.set(b"Knative-Serving-Revision", b"x"),
    "CRLF in the target": lambda r: setattr(r, "target", b"/ HTTP/1.1\r\nX: 1\r\n\r\nGET /"),
    "blank in the target": lambda r: setattr(r, "target", b"/a b"),
    "no path": lambda r: setattr(r, "target", b"http://b/"),
    "CRLF in the method": lambda r: setattr(r, "method", b"GET / HTTP/1.1\r\n\r\nGET"),
    "HEAD": lambda r: setattr(r, "method", b"HEAD"),
    "CONNECT": lambda r: setattr(r, "method", b"CONNECT"),
    "CRLF in the host": lambda r: setattr(r, "host", b"a\r\nX: 1"),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_nothing_is_smuggled_towards_the_app(hostile: Callable[[Request], None]) -> None:
    def tries(request: Request) -> None:
        with pytest.raises((TypeError, ValueError)):
            hostile(request)

    with extended(Hook(request=tries)) as wires, Wires() as plain:
        for each in (wires, plain):
            each.client().says(POST + b"hello")
        assert wires.dialled().got() == plain.dialled().got()
    with extended(Hook(request=hostile)) as wires:
        client = wires.client()
        client.says(GET)
        assert client.got().startswith(FAILED) and not wires.pool.waiting


HOSTILE_ANSWERS: dict[str, Callable[[Response], None]] = {
    "CRLF in a value": lambda r: r.headers.set(b"X-A", b"1\r\n\r\nHTTP/1.1 200 OK"),
    "Content-Length": lambda r: r.headers.set(b"Content-Length", b"7"),
    "no Content-Length": lambda r: r.headers.remove(b"Content-Length"),
    "Transfer-Encoding": lambda r: r.headers.add(b"Transfer-Encoding", b"chunked"),
    "Connection": lambda r: r.headers.set(b"Connection", b"Upgrade"),
    "a hash": lambda r: r.headers.set(b"K-Network-Hash", b"x"),
    "204": lambda r: setattr(r, "status", 204),
    "304": lambda r: setattr(r, "status", 304),
    "100": lambda r: setattr(r, "status", 100),
    "1000": lambda r: setattr(r, "status", 1000),
    "text": lambda r: setattr(r, "status", "200"),
}


@pytest.mark.parametrize("hostile", HOSTILE_ANSWERS.values(), ids=HOSTILE_ANSWERS)
def test_nothing_is_smuggled_towards_the_client(hostile: Callable[[Response], None]) -> None:
    def tries(request: Request, response: Response) -> None:
        with pytest.raises((TypeError, ValueError)):
            hostile(response)

    with extended(Hook(response=tries)) as wires, Wires() as plain:
        got = []
        for each in (wires, plain):
            client = each.client()
            client.says(GET)
            each.dialled().says(HELLO)
            got.append(client.got())
        assert got[0] == got[1]


# -- what others hear of it


def test_failures_are_told_once_for_each_hook_with_the_place_and_again_at_the_end() -> None:
    with extended(Breaks("request")) as wires:
        client = wires.client()
        for _ in range(50):
            client.says(GET)
        ((level, message, fields),) = wires.log.lines
        assert (level, message, fields["extension"], fields["hook"]) == ("error", "Extension failed", "e0", "request")
        assert fields["error"] == "ZeroDivisionError: garbage" and "in broken" in str(fields["stacktrace"])
        wires.chain.close()
        assert wires.log.lines[1:] == [
            ("warning", "Extension failed repeatedly", {"extension": "e0", "hook": "request", "times": 50})
        ]


def test_a_clients_own_traceparent_goes_on_untouched_where_nobody_traces() -> None:
    seen: list[bytes | None] = []
    with extended(Hook(request=lambda request: seen.append(request.headers.get(b"Traceparent")))) as wires:
        wires.client().says(GET.replace(b"Host", b"traceparent: 00-x\r\nHost"))
        assert b"traceparent: 00-x\r\n" in wires.dialled().got() and seen == [b"00-x"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "extension",
    [Says(), Says(Answer(401)), Breaks("request"), Breaks("response")],
    ids=["passes", "answers", "breaks over a request", "over an answer"],
)
def test_a_request_leaves_nothing_for_the_collector(extension: object) -> None:
    with extended(extension) as wires:
        client = wires.client()

        def request() -> None:
            client.says(GET)
            if wires.pool.waiting or any(app.protocol.exchange for app in wires._apps):
                wires.app().says(HELLO)
            assert client.got()

        for _ in range(3):
            request()
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                request()
            assert gc.collect() == 0
        finally:
            gc.enable()
