"""Decides what a request is: a health check, a network probe, or somebody's traffic (contract 3.3, 3.4, QP-100…109).

Health checks go by User-Agent prefix first, network probes by K-Network-Probe second; path and method do not matter.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from queueproxy.codec.headers import K_KUBELET_PROBE, K_NETWORK_HASH, K_NETWORK_PROBE, USER_AGENT
from queueproxy.codec.response import NOSNIFF


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


class OwnAnswer(NamedTuple):
    """An answer that does not come from the app. extra: header lines beside the usual ones, each with its CRLF."""

    status: int
    body: bytes
    extra: bytes = b""


def probe_answer(kind: Kind, special: dict[int, bytes], draining: bool) -> OwnAnswer | None:
    """What a HEALTH or NETWORK_PROBE request is told; None when the readiness prober has to be asked (contract 3.4)."""
    if draining:
        return OwnAnswer(503, b"shutting down\n", NOSNIFF)  # QP-107
    if kind is HEALTH:
        wrong = health_verdict(special)
        return None if wrong is None else OwnAnswer(400, wrong + b"\n", NOSNIFF)
    echo, wrong = network_verdict(special)
    if wrong is not None:
        return OwnAnswer(400, wrong + b"\n", NOSNIFF)
    return OwnAnswer(200, b"", b"K-Network-Hash: " + echo + b"\r\n")


def health_answer(ready: bool) -> OwnAnswer:
    """What the prober's verdict says to whoever asked (QP-101, QP-102)."""
    return OwnAnswer(200, b"queue") if ready else OwnAnswer(503, b"")


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
