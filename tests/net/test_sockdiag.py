"""The accept queue as the kernel counts it, on real sockets; and answers no kernel should give, on a socket pair."""

import errno
import os
import secrets
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from queueproxy.net import sockdiag
from queueproxy.net.sockdiag import Listener, ListenWatch, SockDiagError, SocketWatch, accept_queue
from tests.support.cgroupfs import PATIENCE, until
from tests.support.netns import network_namespace

LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.create_server((LOOPBACK[request.param], 0), family=request.param, backlog=16) as listener:
        yield listener


def port_of(listener: socket.socket) -> int:
    return int(listener.getsockname()[1])


def test_a_listener_is_known_by_its_inodes(listener: socket.socket) -> None:
    """A restarted app listens at the same port with another socket (FZ-012)."""
    port = port_of(listener)
    with SocketWatch() as watch:
        assert watch.listeners()[port] == Listener(0, frozenset({os.fstat(listener.fileno()).st_ino}))
        listener.close()
        assert port not in watch.listeners()
        with socket.create_server(("127.0.0.1", port)) as again:
            assert watch.listeners()[port].inodes == {os.fstat(again.fileno()).st_ino}


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.fz("FZ-028")
def test_visitors_come_from_outside_the_namespace() -> None:
    """A kubelet's connection has its other end elsewhere; the proxy's own and the app's to itself do not count."""
    with network_namespace() as pod:
        peer = f"qp{secrets.token_hex(4)}"
        subprocess.run(
            ["ip", "link", "add", peer, "type", "veth", "peer", "name", "eth0", "netns", pod.name], check=True
        )
        try:
            subprocess.run(["ip", "addr", "add", "169.254.77.1/30", "dev", peer], check=True)
            subprocess.run(["ip", "link", "set", peer, "up"], check=True)
            pod.run(["ip", "addr", "add", "169.254.77.2/30", "dev", "eth0"], check=True)
            pod.run(["ip", "link", "set", "eth0", "up"], check=True)
            with pod.inside():
                server = socket.create_server(("0.0.0.0", 0))
                own = socket.create_connection(("127.0.0.1", port_of(server)), PATIENCE)
                watch = SocketWatch()
                watch.listeners()  # opens its socket in here
            with closing(server), closing(own), closing(watch):
                port = port_of(server)
                assert watch.visitors({port}) == {}
                with closing(socket.create_connection(("169.254.77.2", port), PATIENCE)):
                    assert watch.visitors({port}) == {port: 1} and watch.visitors({port + 1}) == {}
        finally:
            subprocess.run(["ip", "link", "del", peer], check=False)


def dial(listener: socket.socket) -> socket.socket:
    return socket.create_connection(listener.getsockname()[:2], timeout=PATIENCE)


def test_waiting_connections_are_counted_until_they_are_accepted(listener: socket.socket) -> None:
    port = port_of(listener)
    with ListenWatch([port]) as watch, ExitStack() as clients:
        assert watch.accept_queue() == {port: 0}
        for number in (1, 2, 3):
            clients.enter_context(dial(listener))
            # connect() returns on SYN-ACK; the queue grows when the kernel has seen our ACK
            until(lambda number=number: watch.accept_queue() == {port: number}, f"{number} connections to wait")
        clients.enter_context(listener.accept()[0])
        assert watch.accept_queue() == {port: 2}


def test_a_closed_connection_still_waits_to_be_accepted(listener: socket.socket) -> None:
    """A kubelet's TCP probe opens and closes: it counts, which is what wakes the app."""
    port = port_of(listener)
    dial(listener).close()
    until(lambda: accept_queue([port]) == {port: 1}, "the probe's connection to wait")


@pytest.fixture
def alone() -> Iterator[None]:
    """In a network namespace where nobody else listens."""
    with network_namespace() as namespace, namespace.inside():
        yield


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_an_answer_that_is_the_one_before_is_not_read_again() -> None:
    """What makes a look cheap; any byte that differs is a new answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener, SocketWatch() as watch:
        port = port_of(listener)
        quiet = watch.listeners()
        assert watch.listeners() is quiet and watch.visitors([port]) == {} and watch.listeners() is quiet
        with dial(listener):
            until(lambda: watch.listeners()[port].waiting == 1, "the connection to wait")
            assert watch.listeners() is watch.listeners() is not quiet
            listener.accept()[0].close()
            assert watch.listeners() == quiet and quiet[port].waiting == 0
        with socket.create_server(("127.0.0.1", 0)) as other:
            assert set(watch.listeners()) == {*quiet, port_of(other)}
        assert watch.listeners() == quiet
        watch.close()
        assert watch.listeners() == quiet, "another socket, another number, the same news"


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.usefixtures("alone")
def test_many_datagrams_are_compared_one_by_one() -> None:
    with ExitStack() as sockets:
        many = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(500)]
        watch = sockets.enter_context(SocketWatch())
        watch.listeners()  # the kernel fills the first datagrams less than those after
        before = watch.listeners()
        assert watch.listeners() is before
        for changed in (many[0], many[250], many[-1]):
            port = port_of(changed)
            with dial(changed):
                until(lambda port=port: watch.listeners()[port].waiting == 1, "one of 500 to wait")
                changed.accept()[0].close()
            assert watch.listeners() == before


def test_other_ports_and_ports_nobody_listens_on_are_absent(listener: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        with closing(socket.socket()) as bound:
            bound.bind(("127.0.0.1", 0))
            assert accept_queue([port_of(listener), port_of(bound)]) == {port_of(listener): 0}
            assert accept_queue([]) == {}
        assert set(accept_queue([port_of(listener), port_of(other)])) == {port_of(listener), port_of(other)}


def test_an_established_connection_on_the_port_is_no_listener(listener: socket.socket) -> None:
    port = port_of(listener)
    with dial(listener) as client, listener.accept()[0] as accepted:
        client.sendall(b"27 bytes nobody reads, yet.")
        listener.close()
        assert accepted.getsockname()[1] == port
        assert accept_queue([port]) == {}


def test_a_dual_stack_listener_counts_both_families() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("NOT PROVEN HERE: no dual-stack sockets")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        port = port_of(listener)
        with closing(socket.create_connection(("127.0.0.1", port))), closing(socket.create_connection(("::1", port))):
            until(lambda: accept_queue([port]) == {port: 2}, "both to wait")


def test_several_sockets_of_one_port_are_summed() -> None:
    with ExitStack() as sockets:
        first = sockets.enter_context(socket.create_server(("127.0.0.1", 0), reuse_port=True))
        port = port_of(first)
        sockets.enter_context(socket.create_server(("127.0.0.1", port), reuse_port=True))
        for _ in range(8):
            sockets.enter_context(dial(first))
        until(lambda: accept_queue([port]) == {port: 8}, "all eight to wait, on whichever socket")


def test_more_listeners_than_one_datagram_holds_are_all_seen() -> None:
    with ExitStack() as sockets:
        many = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(500)]
        ports = {port_of(one) for one in many}
        with dial(many[-1]):
            watch = sockets.enter_context(ListenWatch(ports))
            expected = dict.fromkeys(ports, 0) | {port_of(many[-1]): 1}
            until(lambda: watch.accept_queue() == expected, "one connection to wait on the last of 500")


def test_the_socket_is_kept_open_between_questions_and_reopened_after_close(listener: socket.socket) -> None:
    watch = ListenWatch([port_of(listener)])
    assert repr(watch) == f"<ListenWatch ports=[{port_of(listener)}] closed>"
    watch.accept_queue()
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(100):
        watch.accept_queue()
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert "open" in repr(watch)
    watch.close()
    watch.close()
    assert watch.accept_queue() == {port_of(listener): 0}
    watch.close()


@pytest.mark.root
@pytest.mark.slow
def test_no_privilege_is_needed() -> None:
    """uid 65532, no group, no capability: what the sidecar runs as."""
    if shutil.which("setpriv") is None:
        pytest.skip("NOT PROVEN HERE: no setpriv")
    script = (
        "import socket\n"
        "from queueproxy.net.sockdiag import accept_queue\n"
        "listener = socket.create_server(('127.0.0.1', 0)); port = listener.getsockname()[1]\n"
        "print(accept_queue([port]) == {port: 0})\n"
    )
    drop = ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    done = subprocess.run(
        [*drop, "--no-new-privs", sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "True\n", done.stderr


# --- answers no kernel should give: the same code, a socket pair in place of netlink ---


def message(kind: int, body: bytes = b"", sequence: int = 1, length: int | None = None) -> bytes:
    head = sockdiag.NLMSGHDR.pack(
        sockdiag.NLMSGHDR.size + len(body) if length is None else length, kind, 2, sequence, 0
    )
    return head + body + bytes(-len(body) % 4)


def listening(port: int, queue: int, state: int = 10) -> bytes:
    body = struct.pack("!BBBBH", 2, state, 0, 0, port) + bytes(50) + struct.pack("=I", queue) + bytes(12)
    return message(sockdiag.TCPDIAG_GETSOCK, body)


def answered(*datagrams: bytes) -> dict[int, int]:
    """What a watch makes of these datagrams: the queues at port 80."""
    watch = SocketWatch()
    watch._sequence = 1
    rows: list[tuple[int, int, int, int, int]] = []
    for datagram in datagrams:
        if watch._is_last(datagram, 1 << 10, rows):
            return {80: sum(queue for _, port, _, queue, _ in rows if port == 80)} if rows else {}
    raise AssertionError("no end")


DONE = message(sockdiag.NLMSG_DONE, bytes(4))


def test_messages_are_read_across_datagrams_until_done() -> None:
    assert answered(listening(80, 2) + listening(81, 9), listening(80, 3), DONE) == {80: 5}
    assert answered(listening(80, 2) + DONE + listening(80, 7)) == {80: 2}, "nothing counts after the end"


def test_answers_to_an_older_question_are_passed_over() -> None:
    stale = message(sockdiag.NLMSG_DONE, bytes(4), sequence=0)
    assert answered(stale + listening(80, 2), DONE) == {80: 2}


@pytest.mark.parametrize(
    "odd", [message(99), message(sockdiag.TCPDIAG_GETSOCK, b"short"), listening(80, 7, state=1), b"", b"tiny"]
)
def test_what_is_not_a_listener_is_passed_over(odd: bytes) -> None:
    assert answered(odd, DONE) == {}


@pytest.mark.parametrize(
    ("datagram", "code"),
    [
        pytest.param(message(sockdiag.NLMSG_ERROR, struct.pack("=i", -errno.EPERM)), errno.EPERM, id="kernel-error"),
        pytest.param(message(sockdiag.NLMSG_ERROR), errno.EBADMSG, id="error-without-a-code"),
        pytest.param(message(sockdiag.NLMSG_DONE, length=4000), errno.EBADMSG, id="longer-than-the-datagram"),
        pytest.param(message(sockdiag.NLMSG_DONE, length=3), errno.EBADMSG, id="shorter-than-a-header"),
    ],
)
def test_a_refusal_or_a_broken_answer_is_a_clear_error(datagram: bytes, code: int) -> None:
    with pytest.raises(SockDiagError, match="sock_diag") as caught:
        answered(datagram)
    assert caught.value.errno == code


def test_a_kernel_that_says_nothing_is_an_error_and_not_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """NETLINK_USERSOCK accepts the message and has nobody to answer it; the next question starts afresh."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        watch = ListenWatch([port_of(listener)])
        with monkeypatch.context() as patch:
            patch.setattr(sockdiag, "NETLINK_SOCK_DIAG", socket.NETLINK_USERSOCK)
            with pytest.raises(SockDiagError, match="sock_diag"):
                watch.accept_queue()
        assert "closed" in repr(watch)
        assert watch.accept_queue() == {port_of(listener): 0}
        watch.close()


def test_a_kernel_without_the_family_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockdiag, "NETLINK_SOCK_DIAG", 31)  # MAX_LINKS - 1, never assigned
    with pytest.raises(SockDiagError, match="sock_diag"):
        accept_queue([80])
