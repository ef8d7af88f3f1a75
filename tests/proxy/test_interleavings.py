"""Random lives of connections, each from a seed: whatever the order, nothing is lost, doubled or answered twice."""

import random

import pytest

from queueproxy.proxy.deadline import Timeouts
from tests.support.wires import GET, HELLO, POST, AppWire, ClientWire, Wires

REQUESTS = [
    GET, GET, GET * 2, POST + b"hello", POST + b"he", GET.replace(b"GET", b"HEAD"),
    POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"),
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.0\r\n\r\n", b"GET / HT", b"nonsense\r\n\r\n",
    GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
    GET.replace(b"\r\n\r\n", b"\r\nK-Proxy-Request: activator\r\n\r\n"),
    GET.replace(b"\r\n\r\n", b"\r\nK-Kubelet-Probe: x\r\n\r\n"),
    GET.replace(b"\r\n\r\n", b"\r\nUser-Agent: kube-probe/1\r\nK-Network-Probe: queue\r\n\r\n"),
    b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n",
]  # fmt: skip
ANSWERS = [
    HELLO, HELLO, HELLO[:20], HELLO[:-2], HELLO + b"surplus", b"nonsense\r\n",
    b"HTTP/1.1 103 x\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end", HELLO.replace(b"Date", b"Connection: close\r\nDate"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", b"0\r\n\r\n",
    b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n",
]  # fmt: skip


class Life:
    """Clients, apps, time and the freezer in random order; checks what must hold between any two steps."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.concurrency = self.dice.choice([0, 1, 2])
        timeouts = Timeouts(30.0, self.dice.choice([0.0, 5.0]), self.dice.choice([0.0, 3.0]))
        self.wires = Wires(concurrency=self.concurrency, freezing=self.dice.random() < 0.5, timeouts=timeouts)
        self.wires.gate.ready()
        self.clients: list[ClientWire] = []
        self.story: list[str] = []

    def step(self) -> None:
        dice, wires = self.dice, self.wires
        clients = [c for c in self.clients if not c.transport.is_closing()]
        apps = [a for a in wires._apps if not a.transport.is_closing()]
        moves = ["time"]
        moves += ["connect"] * (len(clients) < 4)
        moves += ["request", "request", "client ends", "client leaves", "read"] * bool(clients)
        moves += ["answer", "answer", "answer", "app ends", "app leaves"] * bool(apps)
        moves += ["dialled", "dialled", "refused"] * bool(wires.pool.waiting)
        moves += ["thaw", "thaw", "freezer breaks"] * bool(wires.mechanism.asked)
        move = dice.choice(moves)
        self.story.append(move)
        if move == "connect":
            self.clients.append(wires.client())
            self.clients[-1].transport.taking = dice.random() < 0.8
        elif move == "request":
            client = dice.choice(clients)
            if client.transport.reading:
                client.says(dice.choice(REQUESTS))
        elif move == "read":
            dice.choice(clients).transport.take_all()
        elif move == "answer":
            app = dice.choice(apps)
            if app.transport.reading:
                app.says(dice.choice(ANSWERS))
        elif move == "dialled":
            wires.dialled(dice.randrange(len(wires.pool.waiting)))
        elif move == "refused":
            wires.refused()
        elif move == "thaw":
            wires.mechanism.fails = False
            wires.mechanism.silent = dice.random() < 0.5
            wires.mechanism.answer()
        elif move == "freezer breaks":
            wires.mechanism.fails, wires.mechanism.silent = True, dice.random() < 0.5
        elif move == "time":
            wires.loop.advance(dice.choice([0.0, 0.1, 1.0, 3.0, 10.0]))
        else:
            wire: ClientWire | AppWire = dice.choice(clients) if move.startswith("client") else dice.choice(apps)
            wire.ends() if move.endswith("ends") else wire.leaves(dice.choice([None, ConnectionResetError("reset")]))
        wires.loop.settle()
        self.check()

    def check(self) -> None:
        wires = self.wires
        in_flight, concurrency, running, waiting, busy = wires.levels
        exchanges = [c.protocol._exchange for c in self.clients if c.protocol._exchange is not None]
        assert in_flight == busy == len(exchanges), self.story
        assert concurrency == sum(not exchange.kind for exchange in exchanges)
        assert wires.window.proxied == sum(exchange.proxied for exchange in exchanges)
        assert wires.plane.tunnels == sum(exchange.tunnel is not None for exchange in exchanges)
        if self.concurrency:
            assert running == sum(exchange.slotted for exchange in exchanges) <= self.concurrency
            assert waiting <= 10 * self.concurrency
            assert not waiting or running == self.concurrency, "somebody waits for a free slot"
        in_use = [app.protocol.exchange for app in wires._apps if app.protocol.exchange is not None]
        assert len(in_use) == len(set(map(id, in_use))), "one connection, one request"
        assert not wires.loop.faults

    def end(self) -> None:
        """Everybody leaves; nothing may be left."""
        wires = self.wires
        for client in self.clients:
            if not client.transport.lost:
                client.leaves()
        while wires.pool.waiting:
            wires.dialled()
        wires.mechanism.fails = wires.mechanism.silent = False
        if wires.mechanism.asked:
            wires.mechanism.answer()
        wires.loop.advance(100.0)
        wires.at_rest()
        assert not wires.plane.connections


@pytest.mark.qp("QP-132", "QP-150", "QP-154", "QP-086", "QP-357")
@pytest.mark.fz("FZ-026", "FZ-031")
@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_order_nothing_is_lost_or_doubled(seed: int) -> None:
    life = Life(seed)
    with life.wires:
        for _ in range(250):
            life.step()
        life.end()
