"""The request log of the real process: what is written, for whom, and what a slow or absent reader costs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.support.captured import CAPTURED, MISSING
from tests.support.netns import NetworkNamespace, network_namespace
from tests.support.origin import Origin
from tests.support.rawhttp import PATIENCE, Wire
from tests.support.sidecar import REQUEST, USER_METRICS, Pod, environment, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("request-log")]


def logging(**more: object) -> str:
    return json.dumps({"enableRequestLog": True, **more})


@contextmanager
def logged(**more: object) -> Iterator[Pod]:
    with one_pod(OBSERVABILITY_CONFIG=logging(**more)) as pod:
        yield pod


def serve(pod: Pod, target: str = "/", *lines: str, method: str = "GET", body: bytes = b"hello") -> None:
    client = pod.client()
    client.ask(method, target, *lines)
    pod.origin.request().wire.answer(body=body)
    client.response(to=method)


def lines(pod: Pod, count: int) -> list[str]:
    """The first lines of stdout, waiting for them."""
    pod.sidecar.until(lambda: len(pod.sidecar.output) >= count)
    return pod.sidecar.output[:count]


def end_now(pod: Pod) -> None:
    """A second signal does not wait for the drain."""
    pod.sidecar.signal(signal.SIGTERM)
    pod.sidecar.heard("Received TERM signal")
    pod.sidecar.signal(signal.SIGTERM)
    pod.sidecar.ended()


@pytest.mark.qp("QP-300", "QP-301", "QP-306")
def test_the_default_line_is_json_on_stdout() -> None:
    with logged() as pod:
        trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        serve(pod, "/a?b='c'&d=<e>", "User-Agent: curl/8", "Referer: http://r/", trace)
        (line,) = lines(pod, 1)
        event = json.loads(line)
        request = event["httpRequest"]
        address, _, port = request.pop("remoteIp").rpartition(":")
        assert float(request.pop("latency").removesuffix("s")) > 0 and address == "127.0.0.1" and int(port) > 0
        assert event == {
            "httpRequest": {
                "requestMethod": "GET", "requestUrl": "/a?b='c'&d=<e>", "requestSize": "0", "status": 200,
                "responseSize": "5", "userAgent": "curl/8", "serverIp": "10.1.2.3", "referer": "http://r/",
                "protocol": "HTTP/1.1",
            },
            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
        }  # fmt: skip


@pytest.mark.qp("QP-300", "QP-301")
def test_a_line_has_the_shape_of_one_that_knative_wrote() -> None:
    captured = CAPTURED / "19-request-log" / "queue-proxy.log"
    if not captured.exists():
        pytest.skip(MISSING)
    theirs = [line for line in captured.read_text().splitlines() if line.startswith('{"httpRequest"')]
    assert theirs
    with logged() as pod:
        serve(pod)
        (ours,) = lines(pod, 1)

    def shape(line: str) -> Any:
        event = json.loads(line)
        return [*event, *event["httpRequest"]], [type(value) for value in event["httpRequest"].values()]

    assert {str(shape(line)) for line in theirs} == {str(shape(ours))}


@pytest.mark.qp("QP-300", "QP-304")
def test_probes_are_logged_only_where_that_is_asked_for() -> None:
    template = "{{.Request.UserAgent}} {{.Response.Code}} {{.Response.Size}}"
    for probes in (False, True):
        with logged(requestLogTemplate=template, enableProbeRequestLog=probes) as pod:
            assert pod.sidecar.health().status == 200
            assert pod.sidecar.get("/", "K-Network-Probe: probe", "K-Network-Hash: h").status == 200
            assert pod.sidecar.get("/", "User-Agent: Knative-Activator-Probe").status == 400
            serve(pod, "/", "User-Agent: somebody")
            served = ["Knative-Activator-Probe 400 " + str(len("unexpected probe header value: \n")), "somebody 200 5"]
            answered = ["kube-probe/1.31 200 5", " 200 0"]
            expected = [*answered, *served] if probes else served
            assert lines(pod, len(expected)) == expected


@pytest.mark.qp("QP-300", "QP-304")
@pytest.mark.parametrize("config", ["", json.dumps({"enableProbeRequestLog": True})], ids=["nothing", "probes alone"])
def test_without_its_switch_nothing_is_written(config: str) -> None:
    with one_pod(OBSERVABILITY_CONFIG=config) as pod:
        serve(pod)
        pod.sidecar.health()
        end_now(pod)
        assert pod.sidecar.output == []


@pytest.mark.qp("QP-300")
def test_what_is_not_200_is_logged_as_what_it_was() -> None:
    with logged(requestLogTemplate="{{.Request.RequestURI}} {{.Response.Code}} {{.Response.Size}}") as pod:
        client = pod.client()
        client.ask("GET", "/teapot")
        pod.origin.request().wire.answer(418, body=b"short and stout")
        client.response()
        client.ask("GET", "/gone")
        pod.origin.request()
        client.close()
        assert lines(pod, 2) == ["/teapot 418 15", "/gone 499 0"]
        pod.origin.close()
        refused = pod.sidecar.get("/refused")
        assert lines(pod, 3)[2] == f"/refused 502 {len(refused.body)}"


@pytest.mark.qp("QP-302", "QP-303")
def test_a_template_of_ones_own() -> None:
    template = (
        "{{/* for the e2e suite */}}TLS: {{.Request.TLS}}{{range .Request.Header.Values `X-A`}} <{{.}}>{{end}}"
        "{{if ge .Response.Code 500}} BAD{{else}} {{printf `%03d` .Response.Code}}{{end}} {{.ThawWait}}"
    )
    with logged(requestLogTemplate=template) as pod:
        serve(pod, "/", "X-A: 1", "x-a: 2")
        assert lines(pod, 1) == ["TLS: <nil> <1> <2> 200 0"]


@pytest.mark.qp("QP-305")
def test_a_template_that_does_not_parse_costs_the_log_and_nothing_else() -> None:
    with logged(requestLogTemplate="{{.Request.Method}} {{nope}}") as pod:
        serve(pod)
        said = pod.sidecar.heard("Error setting up request logger. Request logs will be unavailable.")
        assert (said["severity"], said["error"]) == ("ERROR", 'template: requestLog:1: function "nope" not defined')
        assert pod.sidecar.output == []


@pytest.mark.qp("QP-305")
def test_a_template_that_does_not_fit_gives_the_fallback_line() -> None:
    with logged(requestLogTemplate="{{.Request.Nope}}") as pod:
        serve(pod, "/x", method="PUT")
        (line,) = lines(pod, 1)
        assert line.startswith("Invalid request log template: method: PUT, response code: 200, latency: 0.")
        assert line.endswith(", url: /x")
        pod.sidecar.heard("The request log template cannot be applied to a request.")


@pytest.mark.qp("QP-300")
def test_the_variables_of_control_planes_before_1_19() -> None:
    with one_pod(
        OBSERVABILITY_CONFIG=None,
        SERVING_ENABLE_REQUEST_LOG="true",
        SERVING_REQUEST_LOG_TEMPLATE='{{.Request.Method}} {{index .Request.Header "X-B3-Traceid"}}',
        SERVING_ENABLE_PROBE_REQUEST_LOG="false",
    ) as pod:
        serve(pod)
        serve(pod, "/", "X-B3-TraceId: 80f198ee56343ba8")
        pod.sidecar.health()
        assert lines(pod, 2) == ["GET []", "GET [80f198ee56343ba8]"]


@pytest.mark.qp("QP-300", "QP-308")
def test_both_logs_on_stdout_keep_out_of_each_others_lines() -> None:
    with one_pod(
        OBSERVABILITY_CONFIG=logging(requestLogTemplate="{{.Request.RequestURI}}"),
        SERVING_LOGGING_CONFIG=json.dumps({"outputPaths": ["stdout"], "encoding": "json"}),
    ) as pod:
        long = "/" + "x" * 30_000
        for target in ("/a", long, "/b"):
            serve(pod, target)
        pod.sidecar.until(lambda: [line for line in pod.sidecar.output if line[0] == "/"] == ["/a", long, "/b"])
        others = [json.loads(line) for line in pod.sidecar.output if line[0] != "/"]
        assert others[-1]["message"] == "Starting queue-proxy" and pod.sidecar.lines == []


@pytest.mark.qp("QP-300")
def test_the_last_line_is_written_before_the_process_ends() -> None:
    with logged(requestLogTemplate="{{.Request.RequestURI}}") as pod:
        serve(pod, "/last")
        end_now(pod)
        assert pod.sidecar.output == ["/last"]


# -- readers


class Unread:
    """A sidecar whose stdout is a pipe that nobody reads until `read`."""

    def __init__(self, namespace: NetworkNamespace, env: dict[str, str], stack: ExitStack) -> None:
        self.namespace = namespace
        self.reader, writer = os.pipe()
        self._open = True
        stack.callback(self.leave)
        self.lines: list[str] = []
        self._news = threading.Condition()
        self.process = namespace.popen(
            [sys.executable, "-m", "queueproxy", "serve"], env={"PATH": os.environ["PATH"], **env},
            stdout=writer, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(writer)
        stack.callback(self.process.wait, PATIENCE)
        stack.callback(self.process.kill)
        threading.Thread(target=self._read_stderr, daemon=True).start()

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()

    def heard(self, text: str) -> None:
        with self._news:
            assert self._news.wait_for(lambda: any(text in line for line in self.lines), 30), self.lines

    def leave(self) -> None:
        """The reader goes."""
        if self._open:
            self._open = False
            os.close(self.reader)

    def read(self) -> bytes:
        """Everything until the other end closes."""
        data = b""
        while piece := os.read(self.reader, 1 << 16):
            data += piece
        return data


@contextmanager
def unread(**more: object) -> Iterator[tuple[Unread, Origin, Wire]]:
    with network_namespace() as namespace, ExitStack() as stack:
        origin = Origin(namespace, 8080)
        stack.callback(origin.close)
        env = environment(OBSERVABILITY_CONFIG=logging(**more))
        sidecar = Unread(namespace, env, stack)
        sidecar.heard("Starting queue-proxy")
        client = Wire(_connected(namespace, REQUEST))
        stack.callback(client.close)
        yield sidecar, origin, client


def _connected(namespace: NetworkNamespace, port: int) -> socket.socket:
    with namespace.inside():
        sock = socket.socket()
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", port))
    return sock


def _exchange(origin: Origin, client: Wire, target: str) -> None:
    client.ask("GET", target)
    origin.request().wire.answer(body=b"x")
    assert client.response().status == 200


METRICS = {"requestMetrics": {"protocol": "prometheus"}}


@pytest.mark.qp("QP-354", "QP-350")
def test_a_stdout_nobody_reads_costs_lines_and_never_a_request() -> None:
    template = "{{.Request.RequestURI}}" + "x" * 8000
    with unread(requestLogTemplate=template, **METRICS) as (sidecar, origin, client):
        for n in range(200):  # 1.6 MB: 64 KiB are in the pipe, 1 MiB waits, the rest is dropped
            _exchange(origin, client, f"/{n}")
        sidecar.heard("Request log lines are dropped")
        scrape = Wire(_connected(sidecar.namespace, USER_METRICS))
        scrape.ask("GET", "/metrics")
        page = scrape.response().body.decode()
        scrape.close()
        counts = dict(line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
        dropped = float(counts["kn_serving_request_log_dropped_total"])
        assert 30 < dropped < 120
        sidecar.process.send_signal(signal.SIGTERM)
        sidecar.heard("Received TERM signal")
        sidecar.process.send_signal(signal.SIGTERM)
        kept = sidecar.read().split(b"\n")[:-1]
        assert sidecar.process.wait(PATIENCE) == 1
        assert [len(line) > 8000 for line in kept] == [True] * len(kept), "no line is cut"
        assert kept[0].startswith(b"/0x") and len(kept) == 200 - dropped


@pytest.mark.qp("QP-354")
def test_a_stdout_that_was_closed_costs_nothing() -> None:
    with unread(requestLogTemplate="x") as (sidecar, origin, client):
        sidecar.leave()
        for n in range(3):
            _exchange(origin, client, f"/{n}")
        sidecar.heard("Request log lines are dropped")
