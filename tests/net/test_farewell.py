"""Ends and arrivals of connections as the kernel tells them, in a namespace like a pod's."""

import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from queueproxy.net import farewell
from queueproxy.net.farewell import Farewells, arrivals
from queueproxy.net.sockdiag import NLMSGHDR
from tests.support.cgroupfs import PATIENCE, until
from tests.support.netns import NetworkNamespace
from tests.support.veth import INSIDE, pod_network

pytestmark = pytest.mark.xdist_group("veth")  # all of them have the same address
namespaces = pytest.mark.skipif(os.geteuid() != 0, reason="NOT PROVEN HERE: needs root for a network namespace")


@pytest.fixture
def pod() -> Iterator[NetworkNamespace]:
    with pod_network() as namespace:
        yield namespace


class Heard:
    """Adds up what it has heard: the kernel tells of an end a moment later."""

    def __init__(self, farewells: Farewells, port: int) -> None:
        self.farewells, self.port, self.count = farewells, port, 0

    def reaches(self, count: int) -> bool:
        more = self.farewells.count({self.port})
        assert more is not None
        self.count += more
        return self.count == count


@pytest.mark.root
@pytest.mark.slow
@namespaces
@pytest.mark.parametrize("first", ["app", "visitor"], ids=["the app hangs up", "the visitor hangs up"])
def test_a_visitor_is_heard_to_leave_and_nobody_else_is_counted(pod: NetworkNamespace, first: str) -> None:
    farewells = Farewells()
    with pod.inside():
        server = socket.create_server(("0.0.0.0", 0))
        other = socket.create_server(("0.0.0.0", 0))
        assert farewells.listen()
        before = arrivals()
        own = socket.create_connection(("127.0.0.1", server.getsockname()[1]), PATIENCE)
        own_too = socket.create_connection((INSIDE, server.getsockname()[1]), PATIENCE)
    heard = Heard(farewells, server.getsockname()[1])
    with closing(server), closing(other), closing(farewells):
        for sock in (own, own_too):
            server.accept()[0].close()
            sock.close()
        for port in (other.getsockname()[1], heard.port):
            visitor = socket.create_connection((INSIDE, port), PATIENCE)
            accepted, _ = (other if port != heard.port else server).accept()
            for sock in (accepted, visitor) if first == "app" else (visitor, accepted):
                sock.close()
        until(lambda: heard.reaches(1), "the farewell of the visitor at the port that was asked about")
        with pod.inside():
            after = arrivals()
        assert before is not None and after == before + 4, "everybody counts as an arrival"
        with closing(socket.create_connection((INSIDE, heard.port), PATIENCE)), closing(server.accept()[0]):
            assert heard.reaches(1), "who still talks has not left"


@pytest.mark.root
@pytest.mark.slow
@namespaces
def test_more_than_the_buffer_holds_is_not_known(pod: NetworkNamespace) -> None:
    farewells = Farewells()
    with pod.inside():
        server = socket.create_server(("0.0.0.0", 0), backlog=300)
        assert farewells.listen()
    with closing(server), closing(farewells):
        for _ in range(300):
            with closing(socket.create_connection((INSIDE, server.getsockname()[1]), PATIENCE)):
                server.accept()[0].close()
        assert farewells.count({server.getsockname()[1]}) is None


@pytest.mark.root
@pytest.mark.slow
def test_no_privilege_is_needed() -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("NOT PROVEN HERE: no setpriv")
    script = (
        "from queueproxy.net.farewell import Farewells, arrivals\n"
        "farewells = Farewells()\n"
        "print(farewells.listen(), farewells.count([1]), arrivals() is not None)\n"
    )
    drop = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    done = subprocess.run(
        [*drop, "--no-new-privs", sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "True 0 True\n", done.stderr


def test_a_closed_one_knows_nothing() -> None:
    farewells = Farewells()
    assert farewells.count({80}) is None and "closed" in repr(farewells)
    assert farewells.listen() and "open" in repr(farewells)
    farewells.close()
    farewells.close()
    assert farewells.count({80}) is None


def test_a_kernel_without_it_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "NETLINK_SOCK_DIAG", 31)  # MAX_LINKS - 1, never assigned
    farewells = Farewells()
    assert not farewells.listen() and farewells.count({80}) is None
    monkeypatch.setattr(farewell, "_COUNTS", "/proc/self/net/there-is-no-such-file")
    assert arrivals() is None
    monkeypatch.setattr(farewell, "_COUNTS", "/proc/self/status")
    assert arrivals() is None


def said(family: int, here: bytes, there: bytes, port: int = 80) -> bytes:
    body = struct.pack("!BBBBHH", family, 7, 0, 0, port, 4711) + here.ljust(16, b"\0") + there.ljust(16, b"\0")
    return NLMSGHDR.pack(NLMSGHDR.size + len(body), 20, 0, 0, 0) + body


V4, V6 = socket.AF_INET, socket.AF_INET6
A, B = socket.inet_pton(V6, "fd00::1"), socket.inet_pton(V6, "fd00::2")
MAPPED = bytes(10) + b"\xff\xff"


@pytest.mark.parametrize(
    ("datagram", "count"),
    [
        pytest.param(said(V4, b"\x0a\0\0\2", b"\x0a\0\0\1"), 1, id="from elsewhere"),
        pytest.param(said(V4, b"\x0a\0\0\2", b"\x0a\0\0\2"), 0, id="its own address"),
        pytest.param(said(V4, b"\x0a\0\0\2", b"\x7f\0\0\2"), 0, id="loopback"),
        pytest.param(said(V4, b"\x0a\0\0\2", b"\x0a\0\0\1", 81), 0, id="another port"),
        pytest.param(said(V6, A, B), 1, id="ipv6"),
        pytest.param(said(V6, A, A), 0, id="ipv6, its own"),
        pytest.param(said(V6, A, bytes(15) + b"\1"), 0, id="ipv6 loopback"),
        pytest.param(said(V6, MAPPED + b"\x0a\0\0\2", MAPPED + b"\x0a\0\0\1"), 1, id="a dual-stack socket"),
        pytest.param(said(V6, MAPPED + b"\x0a\0\0\2", MAPPED + b"\x7f\0\0\1"), 0, id="a dual-stack socket, loopback"),
        pytest.param(said(V4, b"\x0a\0\0\2", b"\x0a\0\0\1") * 2, 2, id="two in one"),
        pytest.param(said(V4, b"", b"")[:40], 0, id="cut short"),
        pytest.param(NLMSGHDR.pack(3, 20, 0, 0, 0) + said(V4, b"\x0a\0\0\2", b"\x0a\0\0\1"), 0, id="no length"),
    ],
)
def test_who_left_from_where(datagram: bytes, count: int) -> None:
    assert sum(farewell._is_farewell(message, {80}) for message in farewell._messages(datagram)) == count
