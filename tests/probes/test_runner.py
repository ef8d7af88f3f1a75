from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from queueproxy.clock import monotonic
from queueproxy.probes import verdict
from queueproxy.probes.runner import Prober
from queueproxy.probes.spec import decode
from tests.support.probed import App, both_loops, ok, refusing_port

pytestmark = pytest.mark.clock  # milliseconds of cadence and deadlines

Run = Callable[[Any], Any]
SECOND = {"periodSeconds": 1, "timeoutSeconds": 1}


def http(port: int, **more: Any) -> dict[str, Any]:
    return {"httpGet": {"port": port, "path": "/healthz"}, **more}


def tcp(port: int, **more: Any) -> dict[str, Any]:
    return {"tcpSocket": {"port": port}, **more}


class Checked:
    """A prober, what it said, and whether its app sleeps."""

    def __init__(self, *probes: dict[str, Any]) -> None:
        self.loop = asyncio.get_running_loop()
        self.asleep = False
        self.lines: list[str] = []
        self.results: list[bool] = []
        specs = decode(json.dumps(probes), multi=True)
        self.prober = Prober(specs, self.loop, lambda: self.asleep, self.lines.append)
        self.prober.on_result = self.results.append

    def ask(self) -> asyncio.Future[bool]:
        future: asyncio.Future[bool] = self.loop.create_future()
        self.prober.check(future.set_result)
        return future


@asynccontextmanager
async def checked(*probes: dict[str, Any]) -> Any:
    subject = Checked(*probes)
    try:
        yield subject
    finally:
        subject.prober.close()


@pytest.mark.qp("QP-250")
@both_loops
def test_without_probes_the_answer_is_yes_at_once(run: Run) -> None:
    async def main() -> None:
        async with checked() as it:
            answer = it.ask()
            assert answer.done() and answer.result() is True
            assert (it.results, it.prober.last_result, it.lines) == ([True], True, [])

    run(main())


@pytest.mark.qp("QP-253", "QP-254")
@both_loops
@pytest.mark.parametrize("more", [{}, SECOND], ids=["aggressive", "normal"])
def test_everyone_during_a_run_shares_it_and_the_next_check_runs_again(run: Run, more: dict[str, Any]) -> None:
    async def main() -> None:
        async with App() as app, checked(http(app.port, **more)) as it:
            answers = [it.ask() for _ in range(5)]
            assert it.prober.running
            assert await asyncio.gather(*answers) == [True] * 5
            assert (app.accepted, it.results) == (1, [True])
            assert await it.ask() is True
            assert (app.accepted, it.results) == (2, [True, True])

    run(main())


@pytest.mark.qp("QP-254")
@both_loops
def test_nothing_is_cached(run: Run) -> None:
    async def main() -> None:
        async with App(lambda n: ok() if n != 2 else ok(b"", "503 No")) as app, checked(http(app.port, **SECOND)) as it:
            assert [await it.ask() for _ in range(3)] == [True, False, True]
            assert it.prober.last_result is True

    run(main())


@pytest.mark.qp("QP-253")
@both_loops
def test_a_check_from_a_callback_begins_the_next_run(run: Run) -> None:
    async def main() -> None:
        async with App() as app, checked(http(app.port)) as it:
            second: asyncio.Future[bool] = it.loop.create_future()
            it.prober.check(lambda _ready: it.prober.check(second.set_result))
            assert await second is True
            assert app.accepted == 2

    run(main())


def _raise(_ready: bool) -> None:
    raise ZeroDivisionError


@both_loops
def test_a_callback_that_raises_is_reported_and_leaves_nobody_waiting(run: Run) -> None:
    async def main() -> None:
        async with App() as app, checked(http(app.port)) as it:
            reports: list[dict[str, Any]] = []
            it.loop.set_exception_handler(lambda _loop, context: reports.append(context))
            it.prober.check(_raise)
            assert await it.ask() is True
            assert [type(each["exception"]) for each in reports] == [ZeroDivisionError]

    run(main())


@pytest.mark.qp("QP-255")
@both_loops
def test_all_probes_of_a_run_are_out_at_the_same_time(run: Run) -> None:
    """Neither app answers before both were asked: one probe after the other would never end."""

    async def main() -> None:
        async with (
            App(lambda _n: None) as one,
            App(lambda _n: None) as two,
            checked(http(one.port, **SECOND), http(two.port, **SECOND)) as it,
        ):
            answer = it.ask()
            await one.until(lambda: one.accepted == 1 and one.heard[0] != b"")
            await two.until(lambda: two.accepted == 1 and two.heard[0] != b"")
            for app in (one, two):
                for transport in app.open:
                    transport.write(ok())
            assert await answer is True

    run(main())


@pytest.mark.qp("QP-255", "QP-269")
@both_loops
def test_one_failure_fails_the_run_but_only_at_its_end(run: Run) -> None:
    async def main() -> None:
        sock, port = refusing_port()
        with sock:
            async with App(lambda _n: None) as slow, checked(tcp(port, **SECOND), http(slow.port, **SECOND)) as it:
                answer = it.ask()
                await slow.until(lambda: slow.accepted == 1 and slow.heard[0] != b"")
                refused = await _refused(port)
                await asyncio.sleep(0)
                assert refused and not answer.done() and it.lines == []
                for transport in slow.open:
                    transport.write(ok())
                assert await answer is False
                assert it.lines == [f"dial tcp 127.0.0.1:{port}: connect: connection refused"]

    run(main())


async def _refused(port: int) -> bool:
    """A dial of our own, after which the prober's earlier one has been refused too."""
    try:
        await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.qp("QP-256", "QP-269")
@both_loops
def test_a_failed_normal_run_makes_one_attempt_and_says_why_once(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: ok(b"", "500 No")) as app, checked(http(app.port, **SECOND)) as it:
            assert not any(await asyncio.gather(it.ask(), it.ask()))
            assert app.accepted == 1
            assert it.lines == ["HTTP probe did not respond Ready, got status code: 500"]
            assert (it.results, it.prober.last_result) == ([False], False)

    run(main())


@pytest.mark.slow
@pytest.mark.qp("QP-256")
@both_loops
def test_a_normal_run_takes_its_own_timeout(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: None) as app, checked(http(app.port, **SECOND)) as it:
            started_at = monotonic()
            assert await it.ask() is False
            assert 0.95 < monotonic() - started_at < 2.0
            assert "context deadline exceeded" in it.lines[0]
            await app.until(lambda: not app.open)

    run(main())


@pytest.mark.qp("QP-257", "QP-269")
@both_loops
def test_an_exhausted_aggressive_run_sums_itself_up_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "RUN_FOR", 0.22)

    async def main() -> None:
        async with App(lambda _n: ok(b"", "500 No")) as app, checked(http(app.port)) as it:
            assert await it.ask() is False
            tries = app.accepted
            assert 3 <= tries <= 5  # 0, 50 … 200 ms; fewer when the machine is busy
            assert it.lines == [
                f"aggressive probe error (failed {tries} times): "
                "HTTP probe did not respond Ready, got status code: 500",
                "context deadline exceeded",
            ]

    run(main())


@pytest.mark.slow
@pytest.mark.qp("QP-257")
def test_an_aggressive_run_really_ends_after_ten_seconds() -> None:
    async def main() -> None:
        sock, port = refusing_port()
        with sock:
            async with checked(tcp(port)) as it:
                started_at = monotonic()
                assert await it.ask() is False
                assert 9.99 < monotonic() - started_at < 10.5
                tries = int(it.lines[0].split()[4])
                assert 150 <= tries <= 200  # 200 on a quiet machine

    asyncio.run(main())


@pytest.mark.qp("QP-258", "QP-269")
@both_loops
def test_failures_inside_a_run_that_succeeds_are_silent(run: Run) -> None:
    async def main() -> None:
        answers = [ok(), ok(b"", "503 No"), ok(), ok(), ok()]
        async with App(lambda n: answers[n - 1]) as app, checked(http(app.port, successThreshold=3)) as it:
            assert await it.ask() is True
            assert (app.accepted, it.lines, it.results) == (5, [], [True])

    run(main())


@pytest.mark.qp("QP-259")
@both_loops
def test_once_ready_the_next_run_takes_one_attempt(run: Run) -> None:
    async def main() -> None:
        async with App() as app, checked(http(app.port, successThreshold=3)) as it:
            assert await it.ask() is True
            assert app.accepted == 3
            assert await it.ask() is True
            assert app.accepted == 4

    run(main())


@pytest.mark.qp("QP-270", "QP-253")
@both_loops
@pytest.mark.parametrize("kind", [tcp, http], ids=["tcp", "http"])
def test_a_pending_check_is_answered_the_moment_the_app_comes_up(run: Run, kind: Callable[[int], Any]) -> None:
    async def main() -> None:
        gaps = []
        for late_for in (0.06, 0.08, 0.1):  # at different places of the 50 ms
            sock, port = refusing_port()
            async with checked(kind(port)) as it:
                answer = it.ask()
                await asyncio.sleep(late_for)
                assert not answer.done()
                async with App(sock=sock):
                    up_at = monotonic()
                    assert await answer is True
                    gaps.append(monotonic() - up_at)
                assert it.lines == []
        # 50 ms of cadence and what a busy machine adds; the best of three shows the cadence itself.
        assert min(gaps) < 0.055 and max(gaps) < 0.15, gaps

    run(main())


@both_loops
def test_never_two_attempts_of_a_probe_at_once(run: Run) -> None:
    async def main() -> None:
        most = 0

        def answer(n: int) -> bytes | None:
            nonlocal most
            most = max(most, len(app.open))
            return None if n < 4 else ok()  # three attempts that take their 100 ms

        async with App(answer) as app, checked(http(app.port)) as it:
            started_at = monotonic()
            assert await it.ask() is True
            assert monotonic() - started_at >= 0.3 - 0.005
            assert (app.accepted, most) == (4, 1)

    run(main())


@both_loops
def test_a_lingering_connection_makes_way_for_the_next_attempt(run: Run) -> None:
    async def main() -> None:
        async with (
            App(lambda _n: b"HTTP/1.1 200 OK\r\n\r\nstreaming", stay=True) as app,
            checked(http(app.port, successThreshold=4)) as it,
        ):
            assert await it.ask() is True
            started_at = monotonic()
            await app.until(lambda: app.accepted == 4 and len(app.lost) == 3)
            assert monotonic() - started_at < 0.5  # half of what lingering is allowed

    run(main())


@pytest.mark.qp("QP-267")
@both_loops
@pytest.mark.parametrize(
    "probe, text", [({"exec": {}}, "exec probe not supported"), ({}, "no probe found")], ids=["exec", "none"]
)
def test_what_cannot_be_probed_is_not_ready(
    run: Run, probe: dict[str, Any], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "RUN_FOR", 0.12)

    async def main() -> None:
        async with checked(probe | SECOND) as it:
            assert await it.ask() is False
            assert it.lines == [text]
        async with checked(probe) as it:
            assert await it.ask() is False
            assert len(it.lines) == 2 and it.lines[0].endswith(f"times): {text}")

    run(main())


# --- asleep ---


@pytest.mark.fz("FZ-040", "FZ-041")
@both_loops
@pytest.mark.parametrize("healthy", [True, False])
def test_while_asleep_the_last_real_result_stands_and_the_app_is_left_alone(run: Run, healthy: bool) -> None:
    async def main() -> None:
        async with (
            App(lambda _n: ok(b"", "200 OK" if healthy else "500 No")) as app,
            checked(http(app.port, **SECOND)) as it,
        ):
            assert await it.ask() is healthy
            it.asleep = True
            it.prober.slept()
            answers = [it.ask() for _ in range(3600)]  # an hour of 1 s probes
            assert all(answer.done() and answer.result() is healthy for answer in answers)
            await _refused_or_not(app)
            assert (app.accepted, it.results) == (2, [healthy])  # the second one is our own
            it.asleep = False
            assert await it.ask() is healthy
            assert (app.accepted, it.results) == (3, [healthy, healthy])

    run(main())


async def _refused_or_not(app: App) -> None:
    """A connection of our own: whatever the prober had dialled before would have been accepted before it."""
    with socket.create_connection(("127.0.0.1", app.port)):
        before = app.accepted
        await app.until(lambda: app.accepted > before)


@pytest.mark.fz("FZ-040")
@both_loops
def test_asleep_before_any_result_is_not_ready(run: Run) -> None:
    async def main() -> None:
        async with App() as app, checked(http(app.port)) as it:
            it.asleep = True
            answer = it.ask()
            assert answer.done() and answer.result() is False
            assert (it.prober.last_result, it.results, it.lines) == (None, [], [])

    run(main())


@pytest.mark.fz("FZ-041")
@both_loops
@pytest.mark.parametrize("more", [{}, SECOND], ids=["aggressive", "normal"])
def test_a_run_caught_by_the_sleep_is_dropped_and_answered_from_the_last_result(run: Run, more: dict[str, Any]) -> None:
    async def main() -> None:
        async with App(lambda n: ok() if n == 1 else None) as app, checked(http(app.port, **more)) as it:
            assert await it.ask() is True
            await app.until(lambda: not app.open)
            answer = it.ask()
            await app.until(lambda: app.accepted == 2 and app.heard[1] != b"")
            it.asleep = True
            it.prober.slept()
            assert answer.done() and answer.result() is True
            await app.until(lambda: not app.open)  # let go at once, before any timeout
            await asyncio.sleep(0.2)  # four periods, two timeouts
            assert app.accepted == 2
            assert (it.lines, it.results, it.prober.last_result) == ([], [True], True)

    run(main())


@pytest.mark.fz("FZ-041")
@both_loops
@pytest.mark.parametrize("more", [{}, SECOND], ids=["aggressive", "normal"])
def test_a_sleep_nobody_announced_is_noticed_before_a_failure_is_believed(run: Run, more: dict[str, Any]) -> None:
    async def main() -> None:
        async with App(lambda n: ok() if n == 1 else None) as app, checked(http(app.port, **more)) as it:
            assert await it.ask() is True
            answer = it.ask()
            await app.until(lambda: app.accepted == 2 and app.heard[1] != b"")
            it.asleep = True
            for transport in app.open:
                transport.abort()
            assert await answer is True
            assert (app.accepted, it.lines, it.results) == (2, [], [True])

    run(main())


@pytest.mark.fz("FZ-041")
@both_loops
def test_a_sleep_nobody_announced_is_noticed_before_the_next_dial_at_once(run: Run) -> None:
    """A slow success that is not the last one needed: the next attempt is overdue and would start right away."""

    async def main() -> None:
        async with App(lambda _n: None) as app, checked(http(app.port, successThreshold=2)) as it:
            answer = it.ask()
            await app.until(lambda: app.accepted == 1 and app.heard[0] != b"")
            await asyncio.sleep(0.06)
            it.asleep = True
            for transport in app.open:
                transport.write(ok())
            assert await answer is False  # never ready so far
            await _refused_or_not(app)
            assert (app.accepted, it.lines, it.results) == (2, [], [])  # the second one is our own

    run(main())


@pytest.mark.fz("FZ-041")
@both_loops
def test_a_sleep_nobody_announced_is_noticed_before_the_next_dial_in_turn(run: Run) -> None:
    async def main() -> None:
        async with App(lambda n: ok(b"", "503 No") if n == 2 else ok()) as app, checked(http(app.port)) as it:
            assert await it.ask() is True
            answer = it.ask()
            await app.until(lambda: app.accepted == 2 and len(app.lost) == 2)  # answered; 50 ms to the next one
            it.asleep = True
            assert await answer is True
            assert (app.accepted, it.lines, it.results) == (2, [], [True])

    run(main())


@pytest.mark.fz("FZ-041")
@both_loops
def test_a_sleep_nobody_announced_is_noticed_when_the_run_is_out_of_time(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "RUN_FOR", 0.08)  # before the attempt's own 100 ms

    async def main() -> None:
        async with App(lambda n: ok() if n == 1 else None) as app, checked(http(app.port)) as it:
            assert await it.ask() is True
            answer = it.ask()
            await app.until(lambda: app.accepted == 2 and app.heard[1] != b"")
            it.asleep = True
            assert await answer is True
            assert (app.accepted, it.lines, it.results) == (2, [], [True])

    run(main())


@pytest.mark.fz("FZ-041")
@both_loops
def test_a_check_that_finds_the_app_asleep_ends_the_run_it_finds(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: None) as app, checked(http(app.port, **SECOND)) as it:
            first = it.ask()
            await app.until(lambda: app.accepted == 1)
            it.asleep = True
            second = it.ask()
            assert first.done() and second.done() and not it.prober.running
            assert (first.result(), second.result()) == (False, False)  # never ready so far
            await app.until(lambda: not app.open)

    run(main())


@pytest.mark.fz("FZ-041")
@both_loops
def test_going_to_sleep_lets_go_of_a_connection_that_lingers(run: Run) -> None:
    async def main() -> None:
        async with (
            App(lambda _n: b"HTTP/1.1 200 OK\r\n\r\nstreaming", stay=True) as app,
            checked(http(app.port, **SECOND)) as it,
        ):
            assert await it.ask() is True
            assert app.open
            it.prober.slept()
            started_at = monotonic()
            await app.until(lambda: not app.open)
            assert monotonic() - started_at < 0.5  # half of what lingering is allowed

    run(main())


@both_loops
def test_a_closed_prober_answers_no_and_dials_nothing(run: Run) -> None:
    async def main() -> None:
        async with App(lambda _n: None) as app, checked(http(app.port, **SECOND)) as it:
            pending = it.ask()
            await app.until(lambda: app.accepted == 1)
            it.prober.close()
            late = it.ask()
            assert (pending.result(), late.result()) == (False, False)
            await app.until(lambda: not app.open)
            assert (app.accepted, it.lines) == (1, [])
            assert "closed" in repr(it.prober)

    run(main())


def test_the_repr_tells_what_is_going_on() -> None:
    async def main() -> None:
        async with App(lambda _n: None) as app, checked(http(app.port)) as it:
            assert repr(it.prober) == "<Prober idle, last None, [<Verdict IDLE aggressive 0/1 in a row, 0 failed>]>"
            it.ask()
            assert repr(it.prober).startswith("<Prober running, 1 waiting, last None, [<Verdict TRYING")
            await app.until(lambda: app.accepted == 1)

    asyncio.run(main())
