"""Every way a control plane was seen to set logs, metrics, traces and profiling: what opens, what is told, to whom.

A captured Deployment has one setting; the parts of all of them (where metrics go, where traces go, profiling, request
log, log configuration, log level) combine freely. As captured, each distinct setting runs in `make test`; all 288
combinations, dealt over the captured environments, and each captured environment under each captured setting run in
`make test-long`. The collector has the captured name and ports, in the hosts file of the process alone.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support import captured
from tests.support.collector import Received, attributes, grpc_collector, http_collector
from tests.support.netns import network_namespace
from tests.support.rawhttp import Message
from tests.support.real_apps import http_app
from tests.support.sidecar import ADMIN, AUTOSCALER, USER_METRICS, Sidecar
from tests.support.tlspair import PORT as TLS
from tests.support.tlspair import Pair, made, mount

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("captured-observability")]

COLLECTOR = "collector.observability.svc.cluster.local"
PORTS = {"http/protobuf": 4318, "grpc": 4317}
PROFILING = 8008
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SERVER = {
    "http.request.method": "POST", "http.response.status_code": 200, "kn.route.tag": "kn:disabled",
    "network.protocol.name": "http", "network.protocol.version": "1.1", "server.address": "10.0.0.7",
    "url.scheme": "http",
}  # fmt: skip
# Lines of Go's that are about Go: its build, and the making of its logger.
OF_GO = ("Unable to read vcs.revision", "Successfully created the logger.", "Logging level set to: ")


@dataclass(frozen=True)
class Wanted:
    """What a setting asks for."""

    setting: captured.Setting
    metrics: str
    tracing: str
    profiling: bool
    template: str | None  # of the request log
    probes: bool

    @property
    def on_stdout(self) -> bool:
        """The process log; the captured zap configuration sends it there."""
        return bool(self.setting.logging_config)

    @property
    def id(self) -> str:
        lines = "" if self.template is None else "tls-line" if self.template.startswith("TLS") else "request-log"
        parts = [
            self.metrics if self.metrics != "none" else "", f"traces-{self.tracing}" if self.tracing != "none" else "",
            "profiling" if self.profiling else "", lines, "zap" if self.on_stdout else "", self.setting.level,
        ]  # fmt: skip
        return "+".join(part.replace("/", "-") for part in parts if part) or "nothing"


def wanted(setting: captured.Setting) -> Wanted:
    document = json.loads(setting.observability)
    return Wanted(
        setting,
        document["requestMetrics"]["protocol"],
        document["tracing"]["protocol"],
        document["runtime"]["profiling"] == "enabled",
        document["requestLogTemplate"] if document.get("enableRequestLog") else None,
        bool(document.get("enableProbeRequestLog")),
    )


def combinations() -> Iterator[captured.Setting]:
    """Each part of a captured setting with each part of the others."""
    seen = [(json.loads(setting.observability), setting) for setting in captured.settings()]

    def distinct(*keys: str) -> list[dict[str, Any]]:
        found = {
            json.dumps({key: document[key] for key in keys if key in document}, sort_keys=True) for document, _ in seen
        }
        return [json.loads(text) for text in sorted(found)]

    parts = [
        distinct("requestMetrics"), distinct("tracing"), distinct("runtime"),
        distinct("enableRequestLog", "requestLogTemplate", "enableProbeRequestLog"),
    ]  # fmt: skip
    logs = sorted({setting.logging_config for _, setting in seen}), sorted({setting.level for _, setting in seen})
    for *pieces, config, level in itertools.product(*parts, *logs):
        document: dict[str, Any] = {"metrics": {"protocol": "none"}}
        for piece in pieces:
            document |= piece
        yield captured.Setting(json.dumps(document, separators=(",", ":")), config, level)


# -- what is expected


class Pod:
    """One sidecar under a setting, the app it serves, and the collector it may know."""

    def __init__(self, case: captured.Case, wanted: Wanted, folder: Path, stack: ExitStack) -> None:
        self.case = case
        self.wanted = wanted
        self.env = {**case.env, **wanted.setting.variables}
        self.namespace = stack.enter_context(network_namespace())
        stack.enter_context(http_app(self.namespace, case.user_port))
        pair = made(folder, COLLECTOR)
        self.received = self._collectors(pair, stack)
        mounted = case.container.get("volumeMounts") or ()
        self.secure = any(mount["mountPath"] == "/var/lib/knative/certs" for mount in mounted)
        if self.secure:
            self.env["QUEUEPROXY_CERTIFICATES"] = str(mount(folder / "certs", made(folder)))
        (folder / "hosts").write_text(f"127.0.0.1 localhost {COLLECTOR}\n")
        (folder / "collector.crt").write_bytes(pair.certificate)
        # Not captured, and not waited for: the pace of the exporters. The certificate is the collector's own.
        self.env |= {
            "OTEL_METRIC_EXPORT_INTERVAL": "200", "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": f"{folder}/collector.crt",
        }  # fmt: skip
        hosts = ["unshare", "--mount", "sh", "-c", f'mount --bind {folder}/hosts /etc/hosts && exec "$@"', "sh"]
        self.sidecar = Sidecar(self.namespace, self.env, under=hosts)
        stack.callback(self.sidecar.stop)
        self.sidecar.started()
        if wanted.metrics == "prometheus":
            self.sidecar.heard(f"Starting http server user-metrics:{USER_METRICS}")

    def _collectors(self, pair: Pair, stack: ExitStack) -> dict[str, Received]:
        """By protocol. gRPC speaks TLS: an endpoint without a scheme is `https` (contract 5.5)."""
        asked = {self.wanted.metrics, self.wanted.tracing}
        found: dict[str, Received] = {}
        if "http/protobuf" in asked:
            found["http/protobuf"] = stack.enter_context(http_collector(self.namespace, port=PORTS["http/protobuf"]))
        if "grpc" in asked:
            keys = (pair.key, pair.certificate)
            found["grpc"] = stack.enter_context(grpc_collector(self.namespace, port=PORTS["grpc"], pair=keys))
        return found

    def listening(self) -> set[int]:
        """Every TCP port of the pod that is open, without those of the app and the collector."""
        found: set[int] = set()
        for family in ("tcp", "tcp6"):
            rows = Path(f"/proc/{self.sidecar.process.pid}/net/{family}").read_text().splitlines()[1:]
            found |= {int(row.split()[1].rpartition(":")[2], 16) for row in rows if row.split()[3] == "0A"}
        return found - {self.case.user_port, *PORTS.values()}

    def serve(self) -> dict[str, str]:
        """One ordinary request; the headers the app saw."""
        wire = self.sidecar.connect()
        wire.ask("POST", "/echo?x=1", f"traceparent: {CALLER}", "User-Agent: curl/8", body=b"hello", host="10.0.0.7")
        answer = wire.response()
        wire.close()
        assert answer.status == 200
        said = json.loads(answer.body)
        assert (said["method"], said["path"], said["body"]) == ("POST", "/echo", "hello")
        return dict(said["headers"])

    def probe(self) -> Message:
        return self.sidecar.get("/", "K-Network-Probe: probe", "K-Network-Hash: h", "User-Agent: prober")


def behaves(case: captured.Case, wanted: Wanted, folder: Path) -> Pod:
    with ExitStack() as stack:
        pod = Pod(case, wanted, folder, stack)
        try:
            does_what_is_wanted(pod, wanted)
        except BaseException as error:
            error.add_note(f"{pod.sidecar.lines}\n{pod.sidecar.output}")
            raise
    return pod


def does_what_is_wanted(pod: Pod, wanted: Wanted) -> None:
    opens_its_ports_and_no_others(pod)
    assert pod.probe().status == 200
    headers = pod.serve()
    continues_the_trace(headers, pod)
    if wanted.metrics == "prometheus":
        tells_prometheus(pod)
    if wanted.profiling:
        assert pod.sidecar.get("/debug/pprof/cmdline", port=PROFILING).status == 200
    if wanted.metrics in PORTS:
        tells_the_collector_figures(pod)
    if wanted.tracing in PORTS:
        tells_the_collector_spans(pod)
    writes_request_lines(pod)
    logs_as_configured(pod)


def opens_its_ports_and_no_others(pod: Pod) -> None:
    expected = {int(pod.env["QUEUE_SERVING_PORT"]), ADMIN, AUTOSCALER}
    expected |= {USER_METRICS} if pod.wanted.metrics == "prometheus" else set()
    expected |= {PROFILING} if pod.wanted.profiling else set()
    expected |= {TLS} if pod.secure else set()
    assert pod.listening() == expected


def continues_the_trace(headers: dict[str, str], pod: Pod) -> None:
    told = headers["traceparent"]
    assert (told == CALLER) is (pod.wanted.tracing == "none")
    assert (told[:36], told[52:]) == (CALLER[:36], CALLER[52:])  # parent-based: the caller's yes is ours


def tells_prometheus(pod: Pod) -> None:
    answer = pod.sidecar.get("/metrics", port=USER_METRICS)
    families = {family.name: family for family in text_string_to_metric_families(answer.body.decode())}

    def series(name: str) -> dict[str, str]:
        (one,) = [sample for sample in families[name].samples if sample.name.endswith("_count")]
        assert one.value == 1.0
        scope = ("otel_scope_name", "otel_scope_version", "otel_scope_schema_url")
        assert all(label in one.labels for label in scope)
        return {label: value for label, value in one.labels.items() if label not in scope}

    server = {name.replace(".", "_"): str(value) for name, value in SERVER.items()}
    for metric in ("request_duration_seconds", "request_body_size_bytes", "response_body_size_bytes"):
        assert series(f"http_server_{metric}") == server
    for metric in ("request_duration_seconds", "request_body_size_bytes"):
        client = server | {"server_address": "127.0.0.1", "server_port": str(pod.case.user_port)}
        assert series(f"http_client_{metric}") == client
    assert series("kn_serving_invocation_duration_seconds") == {"http_response_status_code": "200"}
    assert ("kn_serving_queue_depth" in families) is (int(pod.env["CONTAINER_CONCURRENCY"]) > 0)
    (target,) = families["target_info"].samples
    assert target.labels["service_name"] == pod.env["SERVING_SERVICE"]
    assert target.labels["kn_revision_name"] == pod.env["SERVING_REVISION"]


def tells_the_collector_figures(pod: Pod) -> None:
    received = pod.received[pod.wanted.metrics]
    received.until(lambda: received.points.get("http.server.request.duration"))
    if pod.wanted.metrics == "http/protobuf":
        assert "/v1/metrics" in received.paths
    for name in ("http.server.request.duration", "http.server.request.body.size", "http.server.response.body.size"):
        (point,) = received.points[name]
        assert (attributes(point), point.count) == (SERVER, 1)
    (point,) = received.points["http.client.request.duration"]
    assert attributes(point) == SERVER | {"server.address": "127.0.0.1", "server.port": pod.case.user_port}
    (point,) = received.points["kn.serving.invocation.duration"]
    assert (attributes(point), point.count) == ({"http.response.status_code": 200}, 1)
    assert ("kn.serving.queue.depth" in received.points) is (int(pod.env["CONTAINER_CONCURRENCY"]) > 0)
    assert_is_of(received.metrics[-1].resource_metrics[0].resource, pod)


def tells_the_collector_spans(pod: Pod) -> None:
    received = pod.received[pod.wanted.tracing]
    names = {"POST", "kn.queueproxy.proxy", "HTTP POST"}
    if int(pod.env["CONTAINER_CONCURRENCY"]) > 0:
        names |= {"kn.queueproxy.wait"}
    received.until(lambda: len(received.spans) >= len(names))
    assert {span.name for span in received.spans} == names
    assert {span.trace_id.hex() for span in received.spans} == {CALLER[3:35]}
    (top,) = [span for span in received.spans if span.name == "POST"]
    assert top.parent_span_id.hex() == CALLER[36:52]
    if pod.wanted.tracing == "http/protobuf":
        assert "/v1/traces" in received.paths
    assert_is_of(received.traces[-1].resource_spans[0].resource, pod)


def assert_is_of(resource: Any, pod: Pod) -> None:
    env = pod.env
    assert attributes(resource).items() >= {
        "service.name": env["SERVING_SERVICE"], "k8s.namespace.name": env["SERVING_NAMESPACE"],
        "container.name": "queue-proxy", "kn.service.name": env["SERVING_SERVICE"],
        "kn.configuration.name": env["SERVING_CONFIGURATION"], "kn.revision.name": env["SERVING_REVISION"],
    }.items()  # fmt: skip


def writes_request_lines(pod: Pod) -> None:
    def lines() -> list[str]:
        return [line for line in pod.sidecar.output if not line.startswith('{"severity"')]

    if pod.wanted.template is None:
        assert lines() == []
        return
    agents = ["prober"] * pod.wanted.probes + ["curl/8"]
    pod.sidecar.until(lambda: len(lines()) >= len(agents))
    if pod.wanted.template.startswith("TLS"):
        assert lines() == ["TLS: <nil>"] * len(agents)
        return
    told = [json.loads(line) for line in lines()]
    assert [line["httpRequest"]["userAgent"] for line in told] == agents
    theirs = next(json.loads(line) for line in captured.logged("19-request-log") if line.startswith('{"httpRequest"'))
    assert {(*line, *line["httpRequest"]) for line in told} == {(*theirs, *theirs["httpRequest"])}
    assert told[-1]["httpRequest"]["requestUrl"] == "/echo?x=1"
    assert told[-1]["httpRequest"]["serverIp"] == pod.env["SERVING_POD_IP"]
    assert told[-1]["traceId"] == CALLER[3:35]


def logs_as_configured(pod: Pod) -> None:
    """On its stream, with Go's keys, order, names of levels and shape of times."""
    ours, others = pod.sidecar.lines, pod.sidecar.output
    if pod.wanted.on_stdout:
        ours, others = [line for line in others if line.startswith('{"severity"')], ours
        assert others == []
    assert not [line for line in others if line.startswith('{"severity"')]
    go = captured.logged("29-system-internal-tls" if pod.wanted.on_stdout else "01-default")
    (theirs,) = [json.loads(line) for line in go if '"Starting queue-proxy"' in line]
    del theirs["caller"]
    serving = [json.loads(line) for line in ours]
    for line in serving:
        assert list(line)[: len(theirs)] == [*list(theirs)[:4], "knative.dev/key", "knative.dev/pod"]
        assert re.sub(r"\d+", "9", line["timestamp"]) == re.sub(r"\d+", "9", theirs["timestamp"])
        assert line["severity"] == theirs["severity"]  # nothing is wrong, so nobody complains
        assert line["logger"] == theirs["logger"]
        assert line["knative.dev/key"] == f"{pod.env['SERVING_NAMESPACE']}/{pod.env['SERVING_REVISION']}"
        assert line["knative.dev/pod"] == pod.env["SERVING_POD"]


def messages(lines: list[str]) -> set[str]:
    """What was said, without what is Go's own; Go puts the watched directories into the sentence, we beside it."""
    said = {json.loads(line).get("message", "") for line in lines if line.startswith('{"severity"')}
    return {line.partition("{")[0] if "directories" in line else line for line in said if not line.startswith(OF_GO)}


# -- each captured setting in its own pod


def own(setting: captured.Setting) -> captured.Case:
    """A case that was captured with it."""
    name = next((name for name in setting.found_in if name[0].isdigit()), "02-cc1")
    return captured.case(name)


AS_CAPTURED = [wanted(setting) for setting in captured.settings()]
NOTHING = [pytest.param(None, marks=pytest.mark.skip(reason=captured.MISSING), id="absent")]


@pytest.mark.qp("QP-230", "QP-231", "QP-232", "QP-233", "QP-234", "QP-236", "QP-237", "QP-239", "QP-240")
@pytest.mark.qp("QP-029", "QP-040", "QP-045", "QP-300", "QP-301", "QP-303", "QP-304", "QP-306", "QP-307", "QP-308")
@pytest.mark.parametrize("wanted", [pytest.param(each, id=each.id) for each in AS_CAPTURED] or NOTHING)
def test_a_captured_setting_behaves_as_gos_log_and_the_contract_say(wanted: Wanted, tmp_path: Path) -> None:
    case = own(wanted.setting)
    pod = behaves(case, wanted, tmp_path)
    if case.name not in wanted.setting.found_in:
        return
    ours = messages(pod.sidecar.output if wanted.on_stdout else pod.sidecar.lines)
    assert ours - {f"Starting http server user-metrics:{USER_METRICS}"} == messages(captured.logged(case.name))


# -- all of them everywhere


def cases() -> list[str]:
    """Captured pods whose environments differ in more than names and what this file changes."""
    names = {"SERVING_NAMESPACE", "SERVING_SERVICE", "SERVING_CONFIGURATION", "SERVING_REVISION", "SERVING_POD"}
    names |= {"SERVING_POD_IP", "HOST_IP", "OBSERVABILITY_CONFIG", "SERVING_LOGGING_CONFIG", "SERVING_LOGGING_LEVEL"}
    found: dict[tuple[tuple[str, str], ...], str] = {}
    for name in captured.names():
        env = captured.case(name).env
        found.setdefault(tuple(sorted((k, v) for k, v in env.items() if k not in names)), name)
    return list(found.values())


def everywhere() -> list[Any]:
    where = cases()
    dealt = [(where[n % len(where)], wanted(setting)) for n, setting in enumerate(combinations())] if where else []
    crossed = list(itertools.product(where, AS_CAPTURED))
    return [pytest.param(name, each, id=f"{name[:2]}-{each.id}") for name, each in crossed + dealt] or [
        pytest.param("absent", None, marks=pytest.mark.skip(reason=captured.MISSING))
    ]


@pytest.mark.long
@pytest.mark.parametrize(("name", "wanted"), everywhere())
def test_every_captured_pod_and_every_combination_behaves(name: str, wanted: Wanted, tmp_path: Path) -> None:
    behaves(captured.case(name), wanted, tmp_path)
