"""What the autoscaler reads on 9090, second by second (contract 5.1 to 5.3)."""

from collections.abc import Iterator

import pytest

from tests.support.netns import network_namespace
from tests.support.sidecar import AUTOSCALER, ONE_LOOP, Pod, Sidecar, environment, one_pod, read_stat

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("stat"), ONE_LOOP]

NAME = "hello-00001-deployment-abc"


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop, CONTAINER_CONCURRENCY="2") as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


@pytest.mark.qp("QP-044", "QP-138")
@pytest.mark.parametrize("accept", ["application/protobuf", "text/plain", "*/*;q=0"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_the_type_is_exactly_protobuf_whatever_is_asked(pod: Pod, accept: str, method: str) -> None:
    answer = pod.sidecar.get("/metrics", f"Accept: {accept}", port=AUTOSCALER, method=method)
    assert answer.status == 200
    assert answer.all("content-type") == [b"application/protobuf"]
    assert read_stat(answer.body)["pod_name"] == NAME


@pytest.mark.qp("QP-138")
def test_head_has_the_length_and_no_body(pod: Pod) -> None:
    wire = pod.sidecar.connect(AUTOSCALER)
    wire.ask("HEAD", "/metrics")
    head = wire.response(to="HEAD")
    assert int(head.get("content-length") or 0) > len(NAME)
    wire.ask("GET", "/metrics")
    assert read_stat(wire.response().body)["pod_name"] == NAME
    wire.close()


@pytest.mark.qp("QP-052")
@pytest.mark.parametrize("target", ["/", "/metrics/", "/metric", "//metrics", "/debug"])
def test_other_paths_are_not_found(pod: Pod, target: str) -> None:
    answer = pod.sidecar.get(target, port=AUTOSCALER)
    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer.get("content-type") == b"text/plain; charset=utf-8"
    assert answer.get("x-content-type-options") == b"nosniff"


@pytest.mark.qp("QP-136", "QP-139")
def test_before_the_first_report_there_is_only_the_name_and_never_more_than_336_bytes(loop: str) -> None:
    longest = "p" * 253
    with network_namespace() as namespace:
        sidecar = Sidecar(namespace, environment(SERVING_POD=longest), loop=loop).started()
        first = sidecar.get("/metrics", port=AUTOSCALER)
        stat = read_stat(first.body)
        assert stat["pod_name"] == longest
        if "process_uptime" not in stat:  # a slow machine may be past the first second already
            assert stat == {"pod_name": longest}
        later = sidecar.next_stat()
        assert later["process_uptime"] > 0
        assert len(sidecar.get("/metrics", port=AUTOSCALER).body) <= 336
        sidecar.stop()


@pytest.mark.qp("QP-135", "QP-141", "QP-145")
def test_an_idle_revision_reports_exact_zeros_and_a_growing_uptime(pod: Pod) -> None:
    pod.sidecar.whole_stat()
    first, second = pod.sidecar.next_stat(), pod.sidecar.next_stat()
    assert set(first) == set(second) == {"pod_name", "process_uptime"}
    assert second["process_uptime"] - first["process_uptime"] == pytest.approx(1.0, abs=0.25)


@pytest.mark.qp("QP-134", "QP-135", "QP-140")
def test_a_request_through_a_whole_window_is_one_on_average_and_counted_once(pod: Pod) -> None:
    pod.sidecar.next_stat()
    client = pod.client()
    client.ask()
    asked = pod.origin.request()
    arrival = pod.sidecar.next_stat()
    assert arrival["request_count"] == 1.0
    assert 0 < arrival["average_concurrent_requests"] <= 1
    running = pod.sidecar.next_stat()
    assert "request_count" not in running
    assert running["average_concurrent_requests"] == pytest.approx(1.0)
    assert "average_proxied_concurrent_requests" not in running
    asked.wire.answer()
    client.response()
    assert pod.sidecar.all_zero()


@pytest.mark.qp("QP-130", "QP-131")
@pytest.mark.parametrize(
    ("value", "proxied"), [("activator", True), ("Activator", False), ("other", False), ("", False)]
)
def test_only_what_passed_the_activator_is_proxied(pod: Pod, value: str, proxied: bool) -> None:
    pod.sidecar.next_stat()
    clients = [pod.client(), pod.client()]
    for client in clients:
        client.ask("GET", "/", f"K-Proxy-Request: {value}")
    asked = pod.origin.requests(2)
    arrival = pod.sidecar.next_stat()
    assert arrival["request_count"] == 2
    assert arrival.get("proxied_request_count") == (2 if proxied else None)
    running = pod.sidecar.next_stat()
    assert running["average_concurrent_requests"] == pytest.approx(2.0)
    assert running.get("average_proxied_concurrent_requests") == (pytest.approx(2.0) if proxied else None)
    for one in asked:
        one.wire.answer()
    for client in clients:
        client.response()
    assert pod.sidecar.all_zero()


@pytest.mark.qp("QP-133")
def test_waiting_requests_count_like_running_ones(pod: Pod) -> None:
    clients = [pod.client() for _ in range(7)]
    for client in clients:
        client.ask()
    pod.origin.requests(2)
    stat = pod.sidecar.whole_stat()
    assert stat["average_concurrent_requests"] == pytest.approx(7.0)
    for client in clients:
        client.reset()
    assert pod.sidecar.all_zero()


@pytest.mark.qp("QP-132", "QP-151")
def test_refused_requests_are_counted_and_leave_nothing_behind(pod: Pod) -> None:
    clients = [pod.client() for _ in range(22)]
    for client in clients:
        client.ask()
    pod.origin.requests(2)
    pod.sidecar.whole_stat()
    for _ in range(10):
        over = pod.client()
        over.ask()
        assert over.response().status == 503
    assert pod.sidecar.next_stat()["request_count"] >= 1
    for client in clients:
        client.reset()
    assert pod.sidecar.all_zero()


@pytest.mark.qp("QP-142")
def test_a_scrape_is_answered_promptly_while_requests_pour_in(pod: Pod) -> None:
    client = pod.client()
    client.send(b"GET /pour HTTP/1.1\r\nHost: a\r\n\r\n" * 500)
    scraper = pod.sidecar.connect(AUTOSCALER)
    for _ in range(500):
        pod.origin.request().wire.answer()
        scraper.ask("GET", "/metrics")
        assert scraper.response().status == 200
    for _ in range(500):
        assert client.response().status == 200
    scraper.close()
