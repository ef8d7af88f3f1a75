"""Drives the whole request path through random interleavings; after each step everybody's counts must agree.

Real: connections, exchanges, pool, limiter, recorder, sleep gate and idle policy. In the machine's hand: every byte and
end from clients and apps, dials, thaws, timers, probes, back-pressure, shutdown. See docs/fuzzing.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from queueproxy.errors import dial_failed
from queueproxy.freeze.policy import Rung
from queueproxy.proxy.classify import MARKED
from queueproxy.proxy.deadline import Timeouts
from queueproxy.proxy.exchange import Exchange
from queueproxy.proxy.server import ClientConnection
from queueproxy.proxy.stage import ASLEEP, DONE, QUEUED, TUNNELLED
from queueproxy.proxy.upstream import UpstreamConnection
from tests.simulation.far_ends import ANSWERS, SHAPES, Answer, App, Asked, Client, ask, script
from tests.support.wires import Wires, unmade

HELD_BODY = 100  # instead of 64 KiB, so that a short body fills it
HIGH_WATER = 150
RUNS = int(os.environ.get("QUEUEPROXY_SIM_RUNS", "100"))
STEPS = int(os.environ.get("QUEUEPROXY_SIM_STEPS", "60"))
LONG_RUNS = 4000

LONG = Timeouts(300.0)
TIMEOUTS = (LONG, LONG, LONG, Timeouts(5.0, 2.0, 1.0), Timeouts(5.0, 0.0, 1.0), Timeouts(5.0, 2.0))
ENDS = st.sampled_from([None, "end", ConnectionResetError("Connection reset by peer")])
SHARES = st.sampled_from([4, 4, 1, 2, 3])
SIZES = st.sampled_from([1, 30, 400])
INDEX = st.integers(0, 7)
USUAL = ("plain", "plain", "sized", "chunked", "repeatable", "upgrade", "old kept", "proxied")

exchanges: list[Exchange] = []


class Noted(Exchange):
    """An exchange that is known from outside."""

    __slots__ = ()

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        exchanges.append(self)


class RequestPath(RuleBasedStateMachine):
    """Rules are what the world may do next; invariants are what nobody may ever see."""

    def __init__(self) -> None:
        super().__init__()
        self.patches: list[Any] = [
            patch("queueproxy.proxy.plane.Exchange", Noted),
            patch("queueproxy.proxy.exchange.HELD_BODY", HELD_BODY),
            patch("tests.support.wires.HIGH_WATER", HIGH_WATER),
        ]
        for each in self.patches:
            each.start()
        exchanges.clear()
        self.clients: list[Client] = []
        self.apps: list[App] = []
        self.asked: dict[bytes, Asked] = {}
        self.answers: dict[bytes, Answer] = {}
        self.confirmed: set[int] = set()
        self.wires: Wires | None = None

    @initialize(
        concurrency=st.integers(0, 3),
        freezing=st.booleans(),
        timeouts=st.sampled_from(TIMEOUTS),
        pool=st.sampled_from([1, 10]),
        patient=st.booleans(),
        clients=st.integers(1, 4),
    )
    def begin(
        self, concurrency: int, freezing: bool, timeouts: Timeouts, pool: int, patient: bool, clients: int
    ) -> None:
        self.wires = wires = Wires(concurrency=concurrency, timeouts=timeouts, freezing=freezing, pool=pool)
        if not patient:
            wires.health.verdict = None
        wires.mechanism.silent = True
        wires.gate.ready()
        for _ in range(clients):
            self.a_client_connects()

    # === Clients. ===

    @precondition(lambda self: sum(not client.transport.over for client in self.clients) < 4)
    @rule()
    def a_client_connects(self) -> None:
        wires = self.of_world()
        client = Client(wires.loop, ClientConnection(wires.plane), self.answers)
        wires.transports.append(client.transport)
        self.clients.append(client)

    @precondition(lambda self: self.some_client(lambda c: c.may_ask))
    @rule(index=INDEX, shape=st.sampled_from(USUAL), size=SIZES)
    def a_client_asks_in_one_read(self, index: int, shape: str, size: int) -> None:
        self.a_client_asks(index, shape, size, 4, True)

    @precondition(lambda self: self.some_client(lambda c: c.may_ask))
    @rule(index=INDEX, shape=st.sampled_from(SHAPES), size=SIZES, share=SHARES, at_once=st.booleans())
    def a_client_asks(self, index: int, shape: str, size: int, share: int, at_once: bool) -> None:
        client = self.pick(self.clients, index, lambda c: c.may_ask)
        if client is None:
            return
        asked = ask(b"t%d" % len(self.asked), shape, size)
        self.asked[asked.tag] = asked
        client.ask(asked)
        if at_once and client.transport.hears:
            client.deliver(share)

    @precondition(lambda self: self.some_client(lambda c: c.outbox and c.transport.hears))
    @rule(index=INDEX, share=SHARES)
    def a_client_is_read(self, index: int, share: int) -> None:
        client = self.pick(self.clients, index, lambda c: bool(c.outbox) and c.transport.hears)
        if client is not None:
            client.deliver(share)

    @precondition(lambda self: self.some_client(self.may_go_on))
    @rule(index=INDEX)
    def a_client_goes_on(self, index: int) -> None:
        client = self.pick(self.clients, index, self.may_go_on)
        if client is not None:
            client.goes_on()

    @rule(index=INDEX, how=ENDS)
    def a_client_leaves(self, index: int, how: Exception | str | None) -> None:
        client = self.pick(self.clients, index, lambda c: not c.transport.lost)
        if client is None:
            return
        if how == "end":
            if client.transport.hears and not client.outbox:
                client.transport.said_all = True
                client.transport.deliver_eof()
        else:
            client.outbox = b""
            client.transport.said_all = True
            client.transport.lose(how if isinstance(how, Exception) else None)

    @rule(index=INDEX, app=st.booleans(), taking=st.booleans())
    def somebody_reads_or_not(self, index: int, app: bool, taking: bool) -> None:
        ends: list[Any] = [*(self.apps if app else self.clients)]
        end = self.pick(ends, index, lambda e: not e.transport.lost and e.transport.taking is not taking)
        if end is None:
            return
        if taking:
            end.transport.take_all()
        else:
            end.transport.taking = False

    # === The app. ===

    @precondition(lambda self: self.of_world().pool.waiting)
    @rule(index=INDEX, well=st.sampled_from([True] * 7 + [False]))
    def a_dial_is_answered(self, index: int, well: bool) -> None:
        wires = self.of_world()
        if wires.pool.waiting:  # the kernel accepts for an app that sleeps, too
            connected, failed = wires.pool.waiting.pop(index % len(wires.pool.waiting))
            if not well:
                failed(dial_failed("127.0.0.1", 8080, "connection refused"))
                return
            connection = UpstreamConnection(wires.pool, unmade())
            app = App(wires.loop, connection, self.answers, self.asked, self.app_runs)
            wires.transports.append(app.transport)
            self.apps.append(app)
            connected(connection)

    @precondition(lambda self: self.some_app(self.may_answer))
    @rule(index=INDEX, shape=st.sampled_from(("sized", "chunked", "empty", "switch")), size=SIZES)
    def the_app_answers_in_one_read(self, index: int, shape: str, size: int) -> None:
        self.the_app_answers(index, shape, size, 4, True)

    @precondition(lambda self: self.some_app(self.may_answer))
    @rule(index=INDEX, shape=st.sampled_from(ANSWERS), size=SIZES, share=SHARES, at_once=st.booleans())
    def the_app_answers(self, index: int, shape: str, size: int, share: int, at_once: bool) -> None:
        app = self.pick(self.apps, index, self.may_answer)
        if app is None or app.tag is None:
            return
        if shape == "switch" and self.asked[app.tag].shape == "upgrade":
            assert app.complete
        app.answer(script(app.tag, shape, size, head_only=app.head_only))
        if at_once:
            self.hear(app, share)

    @precondition(lambda self: self.some_app(lambda a: a.transport.hears and (a.outbox or a.answering)))
    @rule(index=INDEX, share=SHARES)
    def the_app_is_read(self, index: int, share: int) -> None:
        app = self.pick(self.apps, index, lambda a: a.transport.hears and (a.outbox or a.answering))
        if app is not None:
            self.hear(app, share)

    def hear(self, app: App, share: int) -> None:
        if app.outbox:
            app.deliver(share)
        if app.answering is not None and app.answering.ends and not app.outbox and app.transport.hears:
            app.end()

    @precondition(lambda self: self.some_app(lambda a: a.transport.hears))
    @rule(index=INDEX, how=ENDS, unseen=st.booleans())
    def the_app_ends_a_connection(self, index: int, how: Exception | str | None, unseen: bool) -> None:
        app = self.pick(self.apps, index, lambda a: a.transport.hears and not (a.answering and a.answering.by_end))
        if app is None:
            return
        if unseen and app.tag is None:
            app.dirty = app.gone = True
            app.transport.make_stale()
        else:
            app.end(how if isinstance(how, Exception) else None)

    @precondition(lambda self: self.some_app(lambda a: a.tag is None and a.transport.hears))
    @rule(index=INDEX)
    def an_idle_app_connection_talks(self, index: int) -> None:
        app = self.pick(self.apps, index, lambda a: a.tag is None and a.transport.hears and not a.raw and not a.gone)
        if app is not None:
            app.dirty = True
            app.transport.deliver(b"HTTP/1.1 408 Request Timeout\r\nX-Tag: evil\r\nContent-Length: 0\r\n\r\n")

    @precondition(lambda self: self.some_client(lambda c: c.raw_at is not None and not c.transport.over))
    @rule(index=INDEX, from_app=st.booleans(), size=SIZES)
    def a_tunnel_is_used(self, index: int, from_app: bool, size: int) -> None:
        raw = b"~" * size
        if from_app:
            app = self.pick(self.apps, index, lambda a: a.raw and a.transport.hears)
            if app is not None and self.app_runs():
                app.raw_said += raw
                app.outbox += raw
        else:
            client = self.pick(self.clients, index, lambda c: c.raw_at is not None and c.transport.hears)
            if client is not None:
                client.raw_said += raw
                client.put(raw)

    # === Sleep. ===

    @precondition(lambda self: not self.of_world().policy.settled)
    @rule()
    def the_mechanism_obeys(self) -> None:
        asked = self.of_world().mechanism.asked
        self.confirm(asked[-1][1], asked[-1][0])

    @precondition(lambda self: self.of_world().mechanism.asked)
    @rule(says=st.sampled_from([Rung.RUNNING, Rung.FROZEN, "as asked", None]), old=st.booleans(), index=INDEX)
    def the_mechanism_answers(self, says: Rung | str | None, old: bool, index: int) -> None:
        mechanism = self.of_world().mechanism
        if mechanism.asked:
            rung, generation = mechanism.asked[index % len(mechanism.asked)] if old else mechanism.asked[-1]
            self.confirm(generation, rung if says == "as asked" else says)

    def confirm(self, generation: int, rung: Any) -> None:
        mechanism = self.of_world().mechanism
        if rung is Rung.RUNNING and generation == mechanism.asked[-1][1]:
            self.confirmed.add(generation)
        assert mechanism._answered is not None
        mechanism._answered(generation, rung, "script")

    @rule(ready=st.booleans())
    def readiness_changes(self, ready: bool) -> None:
        gate = self.of_world().gate
        if ready:
            gate.ready()
        else:
            gate.unready()

    # === Time, probes, shutdown. ===

    @rule(seconds=st.sampled_from([0.01, 0.01, 0.3, 0.3, 1.0, 1.0, 2.0, 6.0, 61.0, 91.0]))
    def time_passes(self, seconds: float) -> None:
        self.of_world().loop.advance(seconds)

    @rule()
    def the_loop_turns(self) -> None:
        self.of_world().loop.settle()

    @precondition(lambda self: self.of_world().health.waiting)
    @rule(verdict=st.booleans())
    def the_prober_decides(self, verdict: bool) -> None:
        self.of_world().health.decide(verdict)

    @precondition(lambda self: len(self.asked) > 8)
    @rule(how=st.sampled_from(["drain", "terminate", "close"]))
    def shutdown_goes_on(self, how: str) -> None:
        wires = self.of_world()
        if how == "drain":
            wires.drain.draining = True
        elif how == "terminate":
            wires.gate.terminate()
        else:
            wires.plane.close_idle()

    # === What must hold. ===

    @invariant()
    def all_counts_agree(self) -> None:
        if self.wires is None:
            return
        wires = self.wires
        assert not wires.loop.faults, wires.loop.faults
        open_ones = [e for e in exchanges if e.stage is not DONE]
        counted = [e for e in open_ones if e.kind is not MARKED]
        assert wires.plane.in_flight == wires.policy.busy == len(open_ones)
        assert wires.window.concurrency == len(counted)
        assert wires.window.proxied == sum(e.proxied for e in counted)
        assert wires.plane.tunnels == sum(e.stage is TUNNELLED for e in open_ones)
        assert wires.gate.waiting == sum(e.stage is ASLEEP for e in open_ones)
        assert wires.policy.half_read == sum(c.connection._reading for c in self.clients)
        if wires.limit is not None:
            breaker = wires.limit.breaker
            assert breaker.running == sum(e.slotted for e in open_ones) <= breaker.capacity
            assert breaker.in_flight - breaker.running == sum(e.stage is QUEUED for e in open_ones)
            assert breaker.running in (breaker.capacity, breaker.in_flight), "waits beside a free slot"
        for exchange in open_ones:
            assert not cast(Any, exchange.client.transport).lost, "an exchange without a client"
            assert exchange.client._exchange is exchange

    @invariant()
    def nobody_hears_what_is_not_for_him(self) -> None:
        for client in self.clients:
            client.listen()
            for app in self.apps:
                if client.raw_at is not None and app.raw and app.tag == client.asked[client.finals - 1].tag:
                    assert app.raw_said.startswith(client.wire[client.raw_at :])
                    assert client.raw_said.startswith(app.raw_heard)

    @invariant()
    def nothing_grows_and_nothing_is_forgotten(self) -> None:
        if self.wires is None:
            return
        for client in self.clients:
            connection, transport = client.connection, client.transport
            if transport.is_closing():
                continue
            exchange = connection._exchange
            waits = connection._reader.backlog or connection._probing
            if exchange is None and not waits:
                assert transport.reading, f"deaf for no reason: {connection!r}"
            if exchange is not None and exchange._held is not None and len(exchange._held) > HELD_BODY:
                assert not transport.reading, "holds ever more of a body"
            if connection._reader.backlog:
                assert not transport.reading, "holds ever more pipelined requests"
        asked = self.wires.mechanism.asked
        for pooled in self.wires.pool._idle:
            assert pooled.closed or not asked or asked[-1][0] is Rung.RUNNING, "pooled while the app sleeps"
            if pooled.closed:
                continue  # dropped; the loop's next turn takes it out, and until then nobody is given it
            assert pooled.exchange is None and not pooled.paused
            assert cast(Any, pooled.transport).reading, "a pooled connection nobody listens to"
            assert pooled.reader.clean and not pooled.reader.in_body
        assert len(self.wires.pool._idle) <= self.wires.pool.limit

    # === The end: first everything that can end well does, then everybody leaves. ===

    def teardown(self) -> None:
        try:
            if self.wires is not None and sys.exc_info()[0] is None:
                self.end_well()
                self.end_all()
        finally:
            for each in self.patches:
                each.stop()
            if self.wires is not None:
                self.wires.__exit__()

    def end_well(self) -> None:
        wires = self.of_world()
        for _ in range(400):
            before = self.progress()
            for end in self.ends():
                if not end.transport.taking and not end.transport.lost:
                    end.transport.take_all()
            mechanism = wires.mechanism
            if mechanism.asked and not wires.policy.settled:
                self.confirm(mechanism.asked[-1][1], mechanism.asked[-1][0])
            self.the_prober_decides(True)
            while wires.pool.waiting:
                self.a_dial_is_answered(0, True)
            for app in self.apps:
                if app.transport.hears and app.dirty and app.tag is None:
                    app.end()
                elif app.transport.hears and app.tag is not None and app.answering is None and not app.raw:
                    app.answer(script(app.tag, "sized", 9, head_only=app.head_only))
                if app.transport.hears and (not app.raw or app.outbox):
                    self.hear(app, 4)
                elif app.transport.hears:
                    app.end()  # a tunnel holds its slot for as long as it lasts
            for client in self.clients:
                if self.may_go_on(client):
                    client.goes_on()
                if client.outbox and client.transport.hears:
                    client.deliver(4)
                elif client.transport.hears and client.transport.eof and client.raw_at is not None:
                    client.transport.said_all = True
                    client.transport.deliver_eof()
            wires.loop.settle()
            self.check()
            if self.progress() == before:
                break
        else:
            raise AssertionError("never comes to rest")
        for client in self.clients:
            answered = client.transport.over or client.raw_at is not None or not client.owed
            assert answered, f"no answer: {client!r} {client.connection!r} {self.apps} {wires.pool!r} {wires.gate!r}"

    def end_all(self) -> None:
        wires = self.of_world()
        for end in self.ends():
            if not end.transport.lost:
                end.transport.lose(None)
        wires.loop.settle()
        self.check()
        assert not [e for e in exchanges if e.stage is not DONE]
        while wires.pool.waiting:  # dialled for a request that is gone: kept, and closed with the others
            _, failed = wires.pool.waiting.pop()
            failed(dial_failed("127.0.0.1", 8080, "connection refused"))
        wires.at_rest()
        wires.gate.close()
        wires.pool.close()
        assert wires.loop.timers == 0, "a timer outlives everything"
        assert not wires.plane.connections and not wires.pool._idle

    def check(self) -> None:
        self.all_counts_agree()
        self.nobody_hears_what_is_not_for_him()
        self.nothing_grows_and_nothing_is_forgotten()

    def progress(self) -> object:
        return (
            [(len(c.outbox), len(c.wire), c.transport.lost) for c in self.clients],
            [(len(a.outbox), a.tag, a.transport.lost) for a in self.apps],
            len(self.of_world().pool.waiting),
        )

    # === Parts. ===

    def of_world(self) -> Wires:
        assert self.wires is not None
        return self.wires

    def ends(self) -> list[Any]:
        return [*self.clients, *self.apps]

    def app_runs(self) -> bool:
        """The kernel certainly runs the app: never asked to sleep, or the newest wish to run was confirmed."""
        asked = self.of_world().mechanism.asked
        return not asked or (asked[-1][0] is Rung.RUNNING and asked[-1][1] in self.confirmed)

    @staticmethod
    def may_go_on(client: Client) -> bool:
        return bool(client.asked and client.asked[-1].withheld) and not client.transport.over

    def may_answer(self, app: App) -> bool:
        return app.tag is not None and app.answering is None and app.transport.hears and self.app_runs()

    def some_client(self, fits: Callable[[Client], object]) -> bool:
        return any(fits(client) for client in self.clients)

    def some_app(self, fits: Callable[[App], object]) -> bool:
        return any(fits(app) for app in self.apps)

    @staticmethod
    def pick(ends: list[Any], index: int, fits: Callable[[Any], bool]) -> Any:
        found = [end for end in ends if fits(end)]
        return found[index % len(found)] if found else None


PROFILE = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    deadline=None,
    derandomize="QUEUEPROXY_SIM_RUNS" not in os.environ,
    database=None,
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.qp("QP-084", "QP-086", "QP-132", "QP-150", "QP-153", "QP-202")
@pytest.mark.fz("FZ-026", "FZ-030", "FZ-031", "FZ-033")
def test_whatever_happens_in_whatever_order_all_is_given_back_and_nobody_hears_anothers_answer() -> None:
    run_state_machine_as_test(RequestPath, settings=PROFILE)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_whatever_happens_for_longer() -> None:
    run_state_machine_as_test(
        RequestPath, settings=settings(PROFILE, max_examples=LONG_RUNS, stateful_step_count=100, derandomize=False)
    )


def test_a_client_is_not_read_while_a_request_of_its_waits() -> None:
    """Found by the machine: each answer let another read in, so that a flood of pipelined requests grew without end."""
    with Wires() as wires:
        client = wires.client()
        client.says(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(4)))
        app = wires.dialled()
        for waiting in (3, 2, 1):
            assert (client.protocol._reader.held.count(b"GET"), client.transport.reading) == (waiting, False)
            app.says(b"HTTP/1.1 204 x\r\n\r\n")
        assert (client.protocol._reader.held, client.transport.reading) == (b"", True)
