"""Proves queueproxy.bench.namespace on the kernel: fixed ports are free in there, and only loopback exists."""

import subprocess
import sys

import pytest

PROGRAM = """
import socket
taken = socket.create_server(("127.0.0.1", 0))
port = taken.getsockname()[1]
from queueproxy.bench.namespace import enter_private_network
enter_private_network()
again = socket.create_server(("127.0.0.1", port))
with socket.create_connection(("127.0.0.1", port), timeout=5):
    print([name for _, name in socket.if_nameindex()])
"""


@pytest.mark.root
@pytest.mark.slow
def test_a_port_taken_outside_is_free_inside_and_loopback_is_up() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "lo" in ran.stdout
    assert "eth0" not in ran.stdout
