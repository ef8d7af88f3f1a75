"""Decides what a request is: a health check, a network probe, or somebody's traffic (contract 3.3, 3.4, QP-100…109).

Health checks go by User-Agent prefix first, network probes by K-Network-Probe second; path and method do not matter.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from queueproxy.codec.headers import K_KUBELET_PROBE, K_NETWORK_HASH, K_NETWORK_PROBE, USER_AGENT


class Kind(IntEnum):
    """TRAFFIC and MARKED go to the app; the others are answered here and count nowhere."""

    TRAFFIC = 0
    MARKED = 1  # K-Kubelet-Probe: to the app, but past stats, limiter and Host restoration (QP-157, D11)
    HEALTH = 2
    NETWORK_PROBE = 3


TRAFFIC, MARKED, HEALTH, NETWORK_PROBE = Kind

PROBE_AGENTS: Final = (b"kube-probe/", b"Knative-Activator-Probe", b"Knative-Autoscaling-Probe")


def classify(special: dict[int, bytes]) -> Kind:
    """special: remembered headers by kind, see codec.headers."""
    agent = special.get(USER_AGENT)
    if agent is not None and agent.startswith(PROBE_AGENTS):
        return HEALTH
    if K_NETWORK_PROBE in special and special[K_NETWORK_PROBE] == b"probe":
        return NETWORK_PROBE
    if special.get(K_KUBELET_PROBE):
        return MARKED
    return TRAFFIC


def health_verdict(special: dict[int, bytes]) -> bytes | None:
    """None when the health check may be run; else the 400 body's first line (QP-103, QP-104)."""
    value = special.get(K_NETWORK_PROBE, b"")
    if value == b"queue":
        return None
    return b"unexpected probe header value: " + value


def network_verdict(special: dict[int, bytes]) -> tuple[bytes, bytes | None]:
    """(hash to echo, 400 text or None) of a network probe (QP-105, QP-106)."""
    value = special.get(K_NETWORK_HASH, b"")
    if value:
        return value, None
    return b"", b'a probe request must contain a non-empty "K-Network-Hash" header'
