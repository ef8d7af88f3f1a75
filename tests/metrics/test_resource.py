"""Who telemetry says it comes from."""

import pytest

from queueproxy.config import ServingInfo
from queueproxy.metrics.resource import resource

NAMES = ServingInfo("ns", "svc", "cfg", "rev", "pod", "10.0.0.1")


@pytest.mark.qp("QP-234")
def test_every_attribute_of_the_contract_is_there() -> None:
    assert resource(NAMES, service_name="svc", instance="pod", version="1.2") == {
        "container.name": "queue-proxy", "k8s.namespace.name": "ns", "k8s.pod.name": "pod", "service.name": "svc",
        "service.version": "1.2", "service.instance.id": "pod", "kn.service.name": "svc",
        "kn.configuration.name": "cfg", "kn.revision.name": "rev", "telemetry.sdk.language": "python",
        "telemetry.sdk.name": "queueproxy", "telemetry.sdk.version": "1.2",
    }  # fmt: skip


@pytest.mark.qp("QP-234")
def test_what_is_empty_is_left_out_and_the_sdk_has_its_name() -> None:
    found = resource(NAMES._replace(service=""), service_name="cfg", instance="", version="1", sdk="9.9")
    assert not {"kn.service.name", "k8s.pod.name", "service.instance.id"} & set(found)
    assert (found["telemetry.sdk.name"], found["telemetry.sdk.version"]) == ("opentelemetry", "9.9")


@pytest.mark.qp("QP-234")
def test_otel_resource_attributes_are_added_and_do_not_replace_ours() -> None:
    extra = "deployment.environment=a%2Cb, x = y ,service.name=other,broken,=1"
    found = resource(NAMES, service_name="svc", instance="pod", version="1", extra=extra)
    assert (found["deployment.environment"], found["x"], found["service.name"]) == ("a,b", "y", "svc")
    assert "broken" not in found and "" not in found


@pytest.mark.qp("QP-234")
def test_bytes_that_are_no_text_do_not_keep_anybody_from_writing() -> None:
    names = NAMES._replace(service="caf\udce9", revision="r\u00e9v")
    found = resource(names, service_name="caf\udce9", instance="pod", version="1", extra="a\udcff=b\udcff")
    assert (found["service.name"], found["kn.revision.name"], found["a\ufffd"]) == ("caf\ufffd", "r\u00e9v", "b\ufffd")
    assert "".join((*found, *found.values())).encode()
