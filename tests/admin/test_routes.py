"""What the side ports answer, by target and method."""

import pytest

from queueproxy.admin.routes import METHOD_NOT_ALLOWED, NOT_FOUND, Reply, autoscaler, is_drain, user_metrics

NOT_METRICS = [b"/", b"/metrics/", b"/Metrics", b"/metricsx", b"", b"*", b"/x?/metrics"]


@pytest.mark.qp("QP-138")
@pytest.mark.parametrize("target", [b"/metrics", b"/metrics?x=y", b"/metrics?"])
def test_the_autoscalers_page_is_protobuf_and_nothing_else(target: bytes) -> None:
    assert autoscaler(target, b"stat") == Reply(200, b"stat", b"application/protobuf")


@pytest.mark.qp("QP-052")
@pytest.mark.parametrize("target", NOT_METRICS)
def test_other_paths_are_not_found(target: bytes) -> None:
    assert autoscaler(target, b"stat") is NOT_FOUND
    assert user_metrics(b"GET", target) is NOT_FOUND
    assert not is_drain(target)


@pytest.mark.qp("QP-052")
@pytest.mark.parametrize(
    ("method", "reply"),
    [(b"GET", None), (b"HEAD", None), (b"POST", METHOD_NOT_ALLOWED), (b"get", METHOD_NOT_ALLOWED)],
)
def test_user_metrics_are_for_reading(method: bytes, reply: Reply | None) -> None:
    assert user_metrics(method, b"/metrics?name=x") is reply


@pytest.mark.qp("QP-052")
def test_the_texts_are_gos() -> None:
    assert NOT_FOUND[:3] == (404, b"404 page not found\n", b"text/plain; charset=utf-8")
    assert METHOD_NOT_ALLOWED[:2] == (405, b"Method Not Allowed\n")
    assert b"Allow: GET, HEAD\r\n" in METHOD_NOT_ALLOWED.extra
    assert all(b"nosniff" in reply.extra for reply in (NOT_FOUND, METHOD_NOT_ALLOWED))


@pytest.mark.qp("QP-286")
@pytest.mark.parametrize("target", [b"/wait-for-drain", b"/wait-for-drain?x"])
def test_the_drain_path(target: bytes) -> None:
    assert is_drain(target)
