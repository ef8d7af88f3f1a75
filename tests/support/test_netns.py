"""The network namespace the root tests run in: private, both families, gone afterwards whatever happened."""

import os
import socket
from pathlib import Path

import pytest

from tests.support.netns import network_namespace

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_loopback_is_up_in_both_families_and_the_world_is_not_there() -> None:
    with network_namespace() as namespace:
        run = namespace.run(["ip", "-brief", "address"], capture_output=True, text=True, check=True)
        (line,) = run.stdout.splitlines()
        assert line.startswith("lo ") and "127.0.0.1/8" in line and "::1/128" in line


def test_sockets_opened_inside_stay_inside() -> None:
    with network_namespace() as namespace:
        home = os.readlink("/proc/thread-self/ns/net")
        with namespace.inside():
            assert os.readlink("/proc/thread-self/ns/net") != home
            server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
            port = server.getsockname()[1]
            for address in ("127.0.0.1", "::1"):
                socket.create_connection((address, port), timeout=5).close()
        assert os.readlink("/proc/thread-self/ns/net") == home
        listening = namespace.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True)
        assert f":{port}" in listening.stdout
        server.close()


def test_the_cgroup_trees_stay_visible_to_processes_inside() -> None:
    with network_namespace() as namespace:
        run = namespace.run(["ls", "/sys/fs/cgroup"], capture_output=True, text=True, check=True)
        assert run.stdout.split() == sorted(os.listdir("/sys/fs/cgroup"))


def test_everything_is_gone_after_a_failure() -> None:
    with pytest.raises(RuntimeError, match="the test failed"), network_namespace() as namespace:
        process = namespace.popen(["sleep", "600"])
        raise RuntimeError("the test failed")
    assert process.returncode is not None
    assert not Path(namespace.path).exists()
