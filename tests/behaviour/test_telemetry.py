"""Metrics and traces of the real process, heard by real receivers; and what a bad receiver costs: nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from queueproxy.metrics.requests import SIZES
from queueproxy.net.tlsdoor import WAITING_MAX
from queueproxy.traces.context import parse
from tests.support import captured
from tests.support.authority import certificates
from tests.support.collector import Received, attributes, grpc_collector, http_collector
from tests.support.netns import NetworkNamespace, network_namespace
from tests.support.origin import Origin
from tests.support.rawhttp import PATIENCE
from tests.support.sidecar import USER_METRICS, Pod, Sidecar, environment
from tests.support.tlspair import made

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("telemetry")]

COLLECTORS = {"http/protobuf": http_collector, "grpc": grpc_collector}
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"


def config(port: int = 0, *, metrics: str = "none", tracing: str = "none", rate: float = 1, every: int = 0) -> str:
    url = f"http://127.0.0.1:{port}" if port else ""
    return json.dumps({
        "requestMetrics": {"protocol": metrics, "endpoint": url if metrics != "prometheus" else "",
                           "exportInterval": every},
        "tracing": {"protocol": tracing, "endpoint": url if tracing != "stdout" else "", "samplingRate": rate},
    })  # fmt: skip


@contextmanager
def pod_in(namespace: NetworkNamespace, **changes: str | None) -> Iterator[Pod]:
    env = environment(POD_NAME="hello-pod", **changes)
    with ExitStack() as stack:
        origin = Origin(namespace, int(env["USER_PORT"]))
        stack.callback(origin.close)
        sidecar = Sidecar(namespace, env)
        stack.callback(sidecar.stop)
        pod = Pod(namespace, origin, sidecar.started())
        stack.callback(pod.hang_up)
        yield pod


@contextmanager
def watched(
    protocol: str, *, every: float = 0.0, signals: str = "both", rate: float = 1, **changes: str | None
) -> Iterator[tuple[Pod, Received]]:
    with network_namespace() as namespace, COLLECTORS[protocol](namespace) as received:
        document = config(
            received.port,
            metrics=protocol if signals != "traces" else "none",
            tracing=protocol if signals != "metrics" else "none",
            rate=rate,
            every=int(every * 1e9),
        )
        with pod_in(namespace, OBSERVABILITY_CONFIG=document, **changes) as pod:
            yield pod, received


def serve(
    pod: Pod, target: str = "/", *lines: str, method: str = "GET", status: int = 200, body: bytes = b"hello"
) -> bytes:
    """One request through everything; the head the app saw."""
    client = pod.client()
    client.ask(method, target, *lines)
    asked = pod.origin.request()
    asked.wire.answer(status, body=body)
    assert client.response(to=method).status == status
    client.close()
    return asked.head


def header(head: bytes, name: str) -> list[str]:
    prefix = name.lower().encode() + b":"
    return [line.split(b":", 1)[1].strip().decode() for line in head.split(b"\r\n") if line.lower().startswith(prefix)]


def end(pod: Pod) -> int:
    """An orderly end without the quiet period: nothing is in flight and the app asks first."""
    pod.sidecar.signal(signal.SIGTERM)
    return pod.sidecar.ended(60)


# -- pushing metrics


@pytest.mark.qp("QP-230", "QP-231", "QP-232", "QP-234", "QP-237")
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_metrics_are_pushed_with_names_units_and_resource(protocol: str) -> None:
    with watched(
        protocol, every=0.2, signals="metrics", CONTAINER_CONCURRENCY="3",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
    ) as (pod, received):  # fmt: skip
        serve(pod, "/", "Knative-Serving-Default-Route: true")
        pod.sidecar.health()
        received.until(lambda: received.points.get("http.server.request.duration"))
        (point,) = received.points["http.server.request.duration"]
        assert attributes(point) == {
            "http.request.method": "GET", "http.response.status_code": 200, "kn.route.tag": "kn:default",
            "network.protocol.name": "http", "network.protocol.version": "1.1", "server.address": "a",
            "url.scheme": "http",
        } | {"server.address": attributes(point)["server.address"]}  # fmt: skip
        assert point.count == 1 and list(point.explicit_bounds)[:3] == [0.005, 0.01, 0.025]
        assert sum(point.bucket_counts) == 1 and point.start_time_unix_nano < point.time_unix_nano
        (size,) = received.points["http.server.response.body.size"]
        assert size.sum == 5 and list(size.explicit_bounds) == list(SIZES)
        (asked,) = received.points["http.client.request.duration"]
        assert attributes(asked)["server.port"] == 8080 and attributes(asked)["server.address"] == "127.0.0.1"
        (invoked,) = received.points["kn.serving.invocation.duration"]
        assert attributes(invoked) == {"http.response.status_code": 200} and invoked.count == 1
        assert [point.as_double for point in received.points["kn.serving.queue.depth"]] == [0] or [
            point.as_int for point in received.points["kn.serving.queue.depth"]
        ] == [0]
        units = received.units
        assert units["kn.serving.invocation.duration"] == ("s", "histogram", "knative.dev/serving/pkg/queue")
        assert units["kn.serving.queue.depth"] == ("{request}", "gauge", "knative.dev/serving/pkg/queue")
        assert units["http.client.request.body.size"][:2] == ("By", "histogram")
        assert units["kn.serving.pause.seconds"][:2] == ("", "sum")
        resource = attributes(received.metrics[-1].resource_metrics[0].resource)
        assert resource.items() >= {
            "service.name": "hello", "service.instance.id": "hello-pod", "k8s.namespace.name": "default",
            "container.name": "queue-proxy", "kn.revision.name": "hello-00001", "deployment.environment": "test",
            "telemetry.sdk.language": "python", "telemetry.sdk.name": "opentelemetry",
        }.items()  # fmt: skip


@pytest.mark.qp("QP-237", "QP-244")
def test_the_last_figures_and_spans_leave_at_the_end() -> None:
    with watched("http/protobuf", OTEL_EXPORTER_OTLP_HEADERS="x-tenant=blue") as (pod, received):
        for number in range(5):
            serve(pod, f"/{number}")
        assert received.metrics == []  # a minute is far away
        pod.sidecar.signal(signal.SIGTERM)
        assert pod.sidecar.ended(60) == 0
        received.until(lambda: received.metrics and len(received.spans) >= 15)
        (point,) = received.points["http.server.request.duration"]
        assert point.count == 5
        assert {head["x-tenant"] for head in received.heads} == {"blue"}
        assert set(received.paths) == {"/v1/metrics", "/v1/traces"}


# -- traces


@pytest.mark.qp("QP-239")
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("concurrency", ["0", "2"])
def test_spans_have_upstreams_names_kinds_and_parents(protocol: str, concurrency: str) -> None:
    with watched(protocol, signals="traces", CONTAINER_CONCURRENCY=concurrency) as (pod, received):
        head = serve(pod, "/a?b", f"traceparent: {PARENT}1", "tracestate: k=v", "User-Agent: curl")
        (seen,) = header(head, "traceparent")
        expected = 4 if concurrency == "2" else 3
        received.until(lambda: len(received.spans) >= expected)
        spans = {span.name: span for span in received.spans}
        caller = parse(PARENT.encode() + b"1")
        told = parse(seen.encode())
        assert caller is not None and told is not None and told.trace == caller.trace and told.sampled
        assert {span.trace_id for span in received.spans} == {bytes.fromhex(caller.trace.decode())}
        assert header(head, "tracestate") == ["k=v"]
        server, proxy, client = spans["GET"], spans["kn.queueproxy.proxy"], spans["HTTP GET"]
        assert (server.kind, proxy.kind, client.kind) == (2, 1, 3)
        assert server.parent_span_id == bytes.fromhex(caller.span.decode())
        assert proxy.parent_span_id == server.span_id
        assert client.span_id == bytes.fromhex(told.span.decode())
        inside = spans["kn.queueproxy.wait"] if concurrency == "2" else proxy
        assert client.parent_span_id == inside.span_id
        assert attributes(server)["url.path"] == "/a" and attributes(server)["http.response.status_code"] == 200
        assert attributes(client)["url.full"] == "http://127.0.0.1:8080/a?b"
        now = time.time_ns()
        assert now - 60e9 < server.start_time_unix_nano <= client.start_time_unix_nano < client.end_time_unix_nano < now


@pytest.mark.qp("QP-236", "QP-239")
def test_probes_leave_no_server_span_and_begin_a_trace() -> None:
    with watched("http/protobuf", signals="traces") as (pod, received):
        pod.sidecar.health()
        head = serve(pod, "/", "K-Network-Probe: other", f"traceparent: {PARENT}1")
        received.until(lambda: len(received.spans) >= 2)
        assert {span.name for span in received.spans} == {"kn.queueproxy.proxy", "HTTP GET"}
        (proxy,) = [span for span in received.spans if span.name == "kn.queueproxy.proxy"]
        assert proxy.parent_span_id == b"" and proxy.trace_id.hex() not in PARENT
        assert proxy.trace_id.hex() in header(head, "traceparent")[0]


@pytest.mark.qp("QP-239")
def test_the_sampler_follows_its_caller_and_keeps_a_share_of_the_rest() -> None:
    with watched("http/protobuf", signals="traces", rate=0.3) as (pod, received):
        assert header(serve(pod, "/", f"traceparent: {PARENT}0"), "traceparent")[0].endswith("-00")
        assert header(serve(pod, "/", f"traceparent: {PARENT}1"), "traceparent")[0].endswith("-01")
        heads = [serve(pod, "/root") for _ in range(60)]
        flags = [header(head, "traceparent")[0][-2:] for head in heads]
        assert len({header(head, "traceparent")[0][3:35] for head in heads}) == 60
        assert 5 <= flags.count("01") <= 35
        wanted = 1 + flags.count("01")
        received.until(lambda: len([s for s in received.spans if s.kind == 2]) >= wanted)
        assert len([s for s in received.spans if s.kind == 2]) == wanted


@pytest.mark.qp("QP-240")
def test_with_tracing_off_trace_headers_pass_untouched() -> None:
    with network_namespace() as namespace, pod_in(namespace, OBSERVABILITY_CONFIG=config(metrics="prometheus")) as pod:
        lines = ("Traceparent: rubbish", "tracestate: a=b", "baggage: c=d", "X-B3-TraceId: 1")
        head = serve(pod, "/", *lines)
        assert [header(head, line.partition(":")[0]) for line in lines] == [["rubbish"], ["a=b"], ["c=d"], ["1"]]
        assert header(serve(pod, "/"), "traceparent") == []


@pytest.mark.qp("QP-239", "QP-306")
def test_stdout_gets_a_line_for_each_span_and_the_request_log_the_traces_id() -> None:
    document = json.loads(config(tracing="stdout", rate=0)) | {"enableRequestLog": True}
    with network_namespace() as namespace, pod_in(namespace, OBSERVABILITY_CONFIG=json.dumps(document)) as pod:
        (told,) = header(serve(pod, "/"), "traceparent")
        pod.sidecar.until(lambda: len(pod.sidecar.output) >= 4)
        lines = [json.loads(line) for line in pod.sidecar.output]
        spans = {line["Name"]: line for line in lines if "Name" in line}
        assert set(spans) == {"GET", "kn.queueproxy.proxy", "HTTP GET"}
        assert {span["SpanContext"]["TraceID"] for span in spans.values()} == {told[3:35]}
        (logged,) = [line for line in lines if "httpRequest" in line]
        assert logged["traceId"] == told[3:35]


# -- bad receivers


def refusing(namespace: NetworkNamespace, stack: ExitStack) -> int:
    """Nobody listens."""
    with namespace.inside():
        sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    stack.callback(sock.close)
    return int(sock.getsockname()[1])


def silent(namespace: NetworkNamespace, stack: ExitStack) -> int:
    """Accepts and never says a word."""
    with namespace.inside():
        sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(100)
    stack.callback(sock.close)
    return int(sock.getsockname()[1])


def babbling(namespace: NetworkNamespace, stack: ExitStack) -> int:
    """Answers everybody with what is no HTTP and no HTTP/2."""
    with namespace.inside():
        sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(100)
    stack.callback(sock.close)

    def talk() -> None:
        while True:
            try:
                peer, _ = sock.accept()
                peer.sendall(os.urandom(2000) + b"\r\n\r\n")
                peer.close()
            except OSError:
                return

    threading.Thread(target=talk, daemon=True).start()
    stack.callback(sock.shutdown, socket.SHUT_RDWR)
    return int(sock.getsockname()[1])


@pytest.mark.qp("QP-245")
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("receiver", [refusing, silent, babbling], ids=["down", "silent", "garbage"])
def test_a_bad_collector_costs_no_request_and_no_memory(
    protocol: str, receiver: Callable[[NetworkNamespace, ExitStack], int]
) -> None:
    with network_namespace() as namespace, ExitStack() as stack:
        port = receiver(namespace, stack)
        document = config(port, metrics=protocol, tracing=protocol, every=int(0.2e9))
        # Short patience, so that several failures fit into the test; the real one is ten seconds.
        env = {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        with pod_in(namespace, OBSERVABILITY_CONFIG=document, **env) as pod:
            serve(pod)
            pod.sidecar.heard("Failed to export metrics")
            before, worst = pod.sidecar.rss, 0.0
            client = pod.client()
            for _ in range(600):
                began_at = time.monotonic()
                client.ask("GET", "/")
                pod.origin.request().wire.answer(body=b"well")
                assert client.response().status == 200
                worst = max(worst, time.monotonic() - began_at)
            pod.sidecar.heard("Failed to export traces")
            assert worst < 1.0  # far less than one attempt to export takes
            assert pod.sidecar.rss - before < 24 << 20
            assert len([e for e in pod.sidecar.log if e["message"].startswith("Failed to export")]) == 2


@pytest.mark.qp("QP-245")
def test_an_answer_without_end_is_not_kept() -> None:
    with network_namespace() as namespace, ExitStack() as stack:
        with namespace.inside():
            sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen(100)
        accepted: list[int] = []

        def pour() -> None:
            while True:
                try:
                    peer, _ = sock.accept()
                except OSError:
                    return
                accepted.append(1)
                try:
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
                    while True:
                        peer.sendall(b"x" * 65536)
                except OSError:
                    peer.close()

        thread = threading.Thread(target=pour, daemon=True)
        thread.start()
        stack.callback(thread.join, PATIENCE)
        stack.callback(sock.close)
        stack.callback(sock.shutdown, socket.SHUT_RDWR)
        document = config(sock.getsockname()[1], metrics="http/protobuf", every=int(0.1e9))
        with pod_in(namespace, OBSERVABILITY_CONFIG=document) as pod:
            deadline = time.monotonic() + PATIENCE
            while len(accepted) < 3:
                assert time.monotonic() < deadline, "a delivery does not end"
                serve(pod)
            before = pod.sidecar.rss
            while len(accepted) < 8:
                assert time.monotonic() < deadline, "a delivery does not end"
                serve(pod)
            assert pod.sidecar.rss - before < 4 << 20
            assert pod.sidecar.said("Failed to export metrics") is None  # it said 200


@pytest.mark.qp("QP-244", "QP-245")
def test_the_end_does_not_wait_longer_than_ten_seconds_for_a_silent_collector() -> None:
    with network_namespace() as namespace, ExitStack() as stack:
        port = silent(namespace, stack)
        with pod_in(namespace, OBSERVABILITY_CONFIG=config(port, metrics="grpc", tracing="http/protobuf")) as pod:
            serve(pod)
            pod.sidecar.signal(signal.SIGTERM)
            pod.sidecar.until(lambda: pod.sidecar.said("Shutting down server: metrics"), 60)
            began_at = time.monotonic()
            assert pod.sidecar.ended(30) == 0
            assert time.monotonic() - began_at < 12


@pytest.mark.qp("QP-245")
def test_a_collector_that_comes_back_is_used_again() -> None:
    with watched("http/protobuf", every=0.2, signals="metrics") as (pod, received):
        received.answer = lambda: (400, b"no")
        serve(pod)
        pod.sidecar.heard("Failed to export metrics")
        received.answer = lambda: (200, b"")
        pod.sidecar.heard("Exporting metrics works again")
        (point,) = received.points["http.server.request.duration"]
        assert point.count == 1  # nothing was lost: each push tells everything


# -- being scraped


def page(pod: Pod) -> dict[str, Any]:
    answer = pod.sidecar.get("/metrics", port=USER_METRICS)
    assert answer.status == 200
    return {family.name: family for family in text_string_to_metric_families(answer.body.decode())}


@pytest.mark.qp("QP-232", "QP-233", "QP-234", "QP-235", "QP-236")
def test_the_page_counts_traffic_and_no_probes() -> None:
    with network_namespace() as namespace, pod_in(namespace, OBSERVABILITY_CONFIG=config(metrics="prometheus")) as pod:
        serve(pod, "/", "Knative-Serving-Tag: blue", method="POST", body=b"x" * 30)
        serve(pod, "/", "K-Network-Probe: other")
        serve(pod, "/", "K-Kubelet-Probe: x")
        pod.sidecar.health()
        pod.sidecar.get("/", "K-Network-Probe: probe", "K-Network-Hash: h")
        pod.sidecar.get("/", "User-Agent: Knative-Activator-Probe")  # forgot its header: upstream counts it
        families = page(pod)
        served = [s for s in families["http_server_request_duration_seconds"].samples if s.name.endswith("_count")]
        labels = ("http_request_method", "http_response_status_code", "kn_route_tag")
        assert [(*(s.labels[label] for label in labels), s.value) for s in served] == [
            ("GET", "400", "kn:disabled", 1.0),
            ("POST", "200", "blue", 1.0),
        ]
        invoked = [s for s in families["kn_serving_invocation_duration_seconds"].samples if s.name.endswith("_count")]
        assert [s.value for s in invoked] == [1.0]
        asked = [s for s in families["http_client_request_duration_seconds"].samples if s.name.endswith("_count")]
        assert sorted((s.labels.get("kn_route_tag"), s.value) for s in asked if "kn_route_tag" in s.labels) == [
            ("blue", 1.0)
        ]
        assert [s.value for s in asked if "kn_route_tag" not in s.labels] == [2.0]
        answers = {(s.labels["kind"], s.labels["while"]): s.value for s in families["kn_serving_probe_answers"].samples}
        assert answers == {("kubelet", "awake"): 1.0, ("network", "awake"): 1.0, ("activator", "awake"): 1.0}
        (target,) = families["target_info"].samples
        assert target.labels["service_name"] == "hello" and target.labels["k8s_pod_name"] == "hello-pod"


@pytest.mark.qp("QP-029")
def test_an_older_control_plane_gets_its_names() -> None:
    old = {"OBSERVABILITY_CONFIG": None, "SERVING_REQUEST_METRICS_BACKEND": "prometheus"}
    with network_namespace() as namespace, pod_in(namespace, **old, CONTAINER_CONCURRENCY="1") as pod:
        serve(pod)
        families = page(pod)
        (count,) = families["revision_request_count"].samples
        assert count.value == 1.0 and count.labels["route_tag"] == "DISABLED"
        assert count.labels["revision_name"] == "hello-00001"
        assert [s.value for s in families["revision_queue_depth"].samples] == [0.0]
        assert "kn_serving_pause_state" in families and "http_server_request_duration_seconds" not in families


PROMETHEUS = shutil.which("prometheus")


@pytest.mark.qp("QP-233")
@pytest.mark.skipif(PROMETHEUS is None, reason="needs Debian's prometheus (apt-get install prometheus)")
def test_a_real_prometheus_scrapes_the_page(tmp_path: Path) -> None:
    assert PROMETHEUS is not None
    (tmp_path / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: qp, static_configs: [{{targets: ['127.0.0.1:{USER_METRICS}']}}]}}]\n"
    )
    with network_namespace() as namespace, pod_in(namespace, OBSERVABILITY_CONFIG=config(metrics="prometheus")) as pod:
        serve(pod)
        process = namespace.popen(
            [
                PROMETHEUS, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
                "--web.listen-address=127.0.0.1:9099", "--log.level=error",
            ],
            env={"PATH": os.environ["PATH"]}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            query = "http_server_request_duration_seconds_count"
            deadline = time.monotonic() + 60
            found: list[Any] = []
            while not found and time.monotonic() < deadline:
                threading.Event().wait(0.2)  # a scrape has no event to wait for
                try:
                    answer = pod.sidecar.get(f"/api/v1/query?query={query}", port=9099)
                except ConnectionRefusedError:
                    continue
                if answer.status == 200:
                    found = json.loads(answer.body)["data"]["result"]
            (series,) = found
            assert series["value"][1] == "1" and series["metric"]["kn_route_tag"] == "kn:disabled"
            up = json.loads(pod.sidecar.get("/api/v1/query?query=up", port=9099).body)["data"]["result"]
            assert up[0]["value"][1] == "1"
            metadata = json.loads(pod.sidecar.get("/api/v1/metadata", port=9099).body)["data"]
            assert metadata["http_server_request_duration_seconds"][0]["type"] == "histogram"
            assert metadata["kn_serving_pause_transitions_total"][0]["type"] == "counter"
        finally:
            process.terminate()
            process.wait(PATIENCE)


# -- what was captured


@pytest.mark.qp("QP-237", "QP-239")
@pytest.mark.parametrize(
    "name",
    [n for n in captured.names() if "o11y" in n]
    or [pytest.param("absent", marks=pytest.mark.skip(reason=captured.MISSING))],
)
def test_every_captured_observability_setting_serves(name: str) -> None:
    case = captured.case(name)
    with network_namespace() as namespace, ExitStack() as stack:
        origin = Origin(namespace, case.user_port)
        stack.callback(origin.close)
        sidecar = Sidecar(namespace, {**case.env, "SERVING_READINESS_PROBE": ""})
        stack.callback(sidecar.stop)
        pod = Pod(namespace, origin, sidecar.started())
        stack.callback(pod.hang_up)
        head = serve(pod)
        tracing = json.loads(case.env["OBSERVABILITY_CONFIG"])["tracing"]["protocol"]
        assert bool(header(head, "traceparent")) is (tracing != "none")
        assert sidecar.listens(USER_METRICS) is (name.endswith("prometheus"))


@pytest.mark.qp("QP-241")
def test_the_page_over_tls_wants_a_certificate_of_its_clients(tmp_path: Path) -> None:
    ca, certificate, key = certificates(tmp_path, ["127.0.0.1"])
    client = made(tmp_path, "prometheus")
    (tmp_path / "client.crt").write_bytes(client.certificate)
    (tmp_path / "client.key").write_bytes(client.key)
    prefix = "METRICS_PROMETHEUS_TLS_"
    tls = {
        f"{prefix}CERT": str(certificate), f"{prefix}KEY": str(key), f"{prefix}CLIENT_AUTH": "require",
        f"{prefix}CLIENT_CA_FILE": f"{tmp_path}/client.crt",
    }  # fmt: skip
    document = config(metrics="prometheus")
    with network_namespace() as namespace, pod_in(namespace, OBSERVABILITY_CONFIG=document, **tls):
        url = f"https://127.0.0.1:{USER_METRICS}/metrics"
        curl = ["curl", "-sS", "--max-time", "20", "--cacert", str(ca), url]
        with_one = namespace.popen(
            [*curl, "--cert", f"{tmp_path}/client.crt", "--key", f"{tmp_path}/client.key"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = with_one.communicate(timeout=PATIENCE)
        assert b"kn_serving_pause_state" in out, err
        without = namespace.popen(curl, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert without.communicate(timeout=PATIENCE)[0] == b"" and without.returncode != 0


@pytest.mark.qp("QP-241", "QP-353")
def test_the_page_over_tls_bounds_those_who_never_shake_hands(tmp_path: Path) -> None:
    ca, certificate, key = certificates(tmp_path, ["127.0.0.1"])
    tls = {"METRICS_PROMETHEUS_TLS_CERT": str(certificate), "METRICS_PROMETHEUS_TLS_KEY": str(key)}
    document = config(metrics="prometheus")
    with network_namespace() as namespace, pod_in(namespace, OBSERVABILITY_CONFIG=document, **tls) as pod:
        pod.sidecar.heard("Starting http server user-metrics")
        answer = pod.sidecar.connect(USER_METRICS)
        answer.send(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.sock.recv(200).endswith(b"Client sent an HTTP request to an HTTPS server.\n")
        answer.close()
        silent = [pod.sidecar.connect(USER_METRICS) for _ in range(WAITING_MAX + 20)]
        assert silent[0].sock.recv(1) == b""  # made room for those that came after it
        pod.sidecar.heard("http: TLS handshake error")
        url = f"https://127.0.0.1:{USER_METRICS}/metrics"
        curl = namespace.run(["curl", "-sS", "--max-time", "20", "--cacert", str(ca), url], capture_output=True)
        assert b"kn_serving_pause_state" in curl.stdout, curl.stderr
        for wire in silent:
            wire.close()


@pytest.mark.qp("QP-010", "QP-241")
def test_half_a_certificate_ends_the_start() -> None:
    with network_namespace() as namespace:
        half = {"METRICS_PROMETHEUS_TLS_CERT": "/nowhere"}
        sidecar = Sidecar(namespace, environment(OBSERVABILITY_CONFIG=config(metrics="prometheus"), **half))
        try:
            assert sidecar.ended(60) == 1
            assert "must be set together" in str(sidecar.said("Failed to setup meter provider"))
        finally:
            sidecar.stop()
