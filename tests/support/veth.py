"""A network namespace with one cable to ours: what a pod is to its node. Root."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.netns import NetworkNamespace, network_namespace

__all__ = ["INSIDE", "OUTSIDE", "pod_network"]

OUTSIDE, INSIDE = "169.254.77.1", "169.254.77.2"


@contextmanager
def pod_network() -> Iterator[NetworkNamespace]:
    """Its end has the address INSIDE, ours OUTSIDE."""
    with network_namespace() as pod:
        peer = f"qp{secrets.token_hex(4)}"
        subprocess.run(
            ["ip", "link", "add", peer, "type", "veth", "peer", "name", "eth0", "netns", pod.name], check=True
        )
        try:
            subprocess.run(["ip", "addr", "add", f"{OUTSIDE}/30", "dev", peer], check=True)
            subprocess.run(["ip", "link", "set", peer, "up"], check=True)
            pod.run(["ip", "addr", "add", f"{INSIDE}/30", "dev", "eth0"], check=True)
            pod.run(["ip", "link", "set", "eth0", "up"], check=True)
            yield pod
        finally:
            subprocess.run(["ip", "link", "del", peer], check=False)
