"""Listening sockets: every address, both families, and a failure in Go's words."""

import socket

import pytest

from queueproxy.net import listen as listening
from queueproxy.net.listen import UNSENT, ListenFailed, listen


def connects(host: str, port: int) -> bool:
    with socket.create_connection((host, port), timeout=5):
        return True


@pytest.mark.qp("QP-040")
def test_the_wildcard_takes_ipv4_and_ipv6() -> None:
    with listen(0) as sock:
        port = sock.getsockname()[1]
        assert sock.family == socket.AF_INET6 and not sock.getblocking()
        assert connects("127.0.0.1", port) and connects("::1", port)


def test_the_kernel_takes_little_for_a_client_that_reads_nothing() -> None:
    """Set once, on the listening socket: every accepted connection has it."""
    with listen(0) as sock, socket.create_connection(("127.0.0.1", sock.getsockname()[1]), timeout=5):
        sock.setblocking(True)
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT


@pytest.mark.qp("QP-045")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_host_binds_that_address_alone(host: str) -> None:
    with listen(0, host) as sock:
        assert sock.getsockname()[0] == host and connects(host, sock.getsockname()[1])


@pytest.mark.qp("QP-011")
def test_a_taken_port_is_an_error_in_gos_words() -> None:
    with listen(0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ListenFailed, match=rf"^listen tcp :{port}: bind: address already in use$"):
            listen(port)


@pytest.mark.qp("QP-040")
def test_without_ipv6_it_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    class NoIPv6(socket.socket):
        def __init__(self, family: int = -1, *args: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            real.__init__(self, family, *args)

    monkeypatch.setattr(listening.socket, "socket", NoIPv6)
    with listen(0) as sock:
        assert sock.family == socket.AF_INET and sock.getsockname()[0] == "0.0.0.0"
