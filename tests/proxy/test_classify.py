"""What a request is, by its headers alone."""

import pytest

from queueproxy.codec.headers import K_KUBELET_PROBE, K_NETWORK_HASH, K_NETWORK_PROBE, USER_AGENT
from queueproxy.proxy.classify import (
    HEALTH,
    MARKED,
    NETWORK_PROBE,
    TRAFFIC,
    Kind,
    classify,
    health_verdict,
    network_verdict,
)


@pytest.mark.qp("QP-100", "QP-108", "QP-109", "QP-130")
@pytest.mark.parametrize(
    ("special", "kind"),
    [
        pytest.param({}, TRAFFIC, id="nothing"),
        pytest.param({USER_AGENT: b"curl/8"}, TRAFFIC, id="ordinary"),
        pytest.param({USER_AGENT: b"kube-probe/1.30"}, HEALTH, id="kubelet"),
        pytest.param({USER_AGENT: b"kube-probe"}, TRAFFIC, id="kubelet without its slash"),
        pytest.param({USER_AGENT: b"Kube-Probe/1.30"}, TRAFFIC, id="case matters"),
        pytest.param({USER_AGENT: b"my kube-probe/1.30"}, TRAFFIC, id="prefix, not substring"),
        pytest.param({USER_AGENT: b"Knative-Activator-Probe"}, HEALTH, id="activator"),
        pytest.param({USER_AGENT: b"Knative-Autoscaling-Probe/x"}, HEALTH, id="autoscaler"),
        pytest.param({USER_AGENT: b"Knative-Ingress-Probe"}, TRAFFIC, id="ingress prober is not special"),
        pytest.param({USER_AGENT: b"Knative-Queue-Proxy-Probe"}, TRAFFIC, id="historic"),
        pytest.param({USER_AGENT: b"kube-probe/1", K_NETWORK_PROBE: b"probe"}, HEALTH, id="agent goes first"),
        pytest.param({K_NETWORK_PROBE: b"probe"}, NETWORK_PROBE, id="network probe"),
        pytest.param({K_NETWORK_PROBE: b"queue"}, TRAFFIC, id="queue without the agent is traffic"),
        pytest.param({K_NETWORK_PROBE: b"Probe"}, TRAFFIC, id="exactly probe"),
        pytest.param({K_NETWORK_PROBE: b"activator"}, TRAFFIC, id="activator without the agent"),
        pytest.param({K_KUBELET_PROBE: b"x"}, MARKED, id="marked"),
        pytest.param({K_KUBELET_PROBE: b""}, TRAFFIC, id="marked with nothing"),
        pytest.param({K_KUBELET_PROBE: b"x", K_NETWORK_PROBE: b"probe"}, NETWORK_PROBE, id="marked network probe"),
        pytest.param({K_KUBELET_PROBE: b"x", USER_AGENT: b"kube-probe/1"}, HEALTH, id="marked kubelet"),
    ],
)
def test_kinds(special: dict[int, bytes], kind: Kind) -> None:
    assert classify(special) is kind


@pytest.mark.qp("QP-103", "QP-104")
@pytest.mark.parametrize("value", [b"activator", b"probe", b"Queue", b"queue ", b""])
def test_only_the_value_queue_runs_the_check(value: bytes) -> None:
    assert health_verdict({K_NETWORK_PROBE: value}) == b"unexpected probe header value: " + value
    assert health_verdict({K_NETWORK_PROBE: b"queue"}) is None
    assert health_verdict({}) == b"unexpected probe header value: "


@pytest.mark.qp("QP-105", "QP-106")
def test_a_network_probe_needs_a_hash_to_echo() -> None:
    assert network_verdict({K_NETWORK_HASH: b"h"}) == (b"h", None)
    for special in ({}, {K_NETWORK_HASH: b""}):
        echo, text = network_verdict(special)
        assert (echo, text) == (b"", b'a probe request must contain a non-empty "K-Network-Hash" header')
