"""The sidecar on kernels that are not quite Linux: gVisor, Kata's guests, old nodes (QP-358)."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.odd_kernel import MISSING
from tests.support.sidecar import BOTH_LOOPS, Pod, one_pod

UNDER = (sys.executable, "-m", "tests.support.odd_kernel")
TRY = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
for number in NUMBERS:
    ctypes.set_errno(0)
    print(libc.syscall(number, 0, 0, 0, 0, 0, 0), os.strerror(ctypes.get_errno()))
sock = socket.socket()
sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
for attempt in (
    lambda: sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, 1),
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 4),
):
    try:
        print("possible", attempt())
    except OSError as error:
        print(os.strerror(error.errno))
socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0).close()
"""


@pytest.mark.slow
def test_the_odd_kernel_is_as_odd_as_it_says() -> None:
    program = TRY.replace("NUMBERS", str(list(MISSING.values())))
    ran = subprocess.run([*UNDER, sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    *calls, option, netlink = ran.stdout.splitlines()
    assert calls == ["-1 Function not implemented"] * len(MISSING)
    assert (option, netlink) == ("Protocol not available", "Address family not supported by protocol")


@pytest.fixture
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop, under=UNDER, CONTAINER_CONCURRENCY="2") as pod:
        yield pod


@pytest.mark.root
@pytest.mark.slow
@BOTH_LOOPS
@pytest.mark.qp("QP-358")
def test_everything_a_request_needs_is_there(pod: Pod) -> None:
    pod.served()
    assert pod.sidecar.health().body == b"queue"
    client = pod.client()
    client.ask("POST", "/large", body=b"x" * 300_000)
    asked = pod.origin.request()
    assert asked.message.body == b"x" * 300_000
    asked.wire.answer(body=b"y" * 300_000)
    assert client.response().body == b"y" * 300_000
    client.ask("GET", "/ws", "Connection: Upgrade", "Upgrade: web")
    app = pod.origin.request().wire
    app.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n")
    assert client.head().status == 101
    client.send(b"ping")
    assert app.exactly(4) == b"ping"
    assert pod.sidecar.stat()["pod_name"] == "hello-00001-deployment-abc"
    client.close()
    assert app.gone()
    pod.sidecar.signal()
    pod.sidecar.heard("Received TERM signal")
    pod.sidecar.signal()
    assert pod.sidecar.ended() == 1
    assert not [line for line in pod.sidecar.lines if "Traceback" in line]
