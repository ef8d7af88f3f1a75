"""A collector in miniature: real OTLP receivers over HTTP and gRPC that keep the protobufs they were sent.

`http_collector` is stdlib's server, `grpc_collector` is grpcio's; both decode with opentelemetry-proto and live in the
network namespace they are given. What the first one answers is for the test to say.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.support.netns import NetworkNamespace

PATIENCE = 30.0


class Received:
    """What arrived so far. answer: status, body and headers of HTTP answers; called in the server's threads."""

    def __init__(self) -> None:
        self.metrics: list[Any] = []
        self.traces: list[Any] = []
        self.heads: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answer: Callable[[], tuple[int, bytes]] = lambda: (200, b"")
        self.keep = True  # False: only for the sake of being there
        self.port = 0
        self._news = threading.Condition()

    def take(self, message: Any, kind: str, head: dict[str, str], path: str) -> None:
        if not self.keep:
            return
        with self._news:
            (self.metrics if kind == "metrics" else self.traces).append(message)
            self.heads.append(head)
            self.paths.append(path)
            self._news.notify_all()

    def until(self, what: Callable[[], Any], within: float = PATIENCE) -> Any:
        """Waits for arrivals until `what` is true; its value."""
        with self._news:
            found = self._news.wait_for(what, within)
        assert found, f"not within {within} s: {len(self.metrics)} metrics, {len(self.traces)} traces"
        return found

    # -- reading

    @property
    def points(self) -> dict[str, list[Any]]:
        """Data points of the last push by metric name."""
        found: dict[str, list[Any]] = {}
        for resource in self.metrics[-1].resource_metrics if self.metrics else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = list(getattr(metric, metric.WhichOneof("data")).data_points)
        return found

    @property
    def units(self) -> dict[str, tuple[str, str, str]]:
        """Unit, kind and scope of each metric of the last push."""
        return {
            metric.name: (metric.unit, metric.WhichOneof("data"), scope.scope.name)
            for resource in self.metrics[-1].resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    @property
    def spans(self) -> list[Any]:
        """Every span so far."""
        return [
            span
            for request in self.traces
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def attributes(of: Any) -> dict[str, Any]:
    """KeyValues as a dict."""
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in of.attributes}


@contextmanager
def http_collector(namespace: NetworkNamespace | None = None, *, port: int = 0) -> Iterator[Received]:
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            kind = "traces" if "traces" in self.path else "metrics"
            message: Any = (
                metrics_service_pb2.ExportMetricsServiceRequest()
                if kind == "metrics"
                else trace_service_pb2.ExportTraceServiceRequest()
            )
            message.ParseFromString(data)
            received.take(message, kind, {k.lower(): v for k, v in self.headers.items()}, self.path)
            try:
                status, body = received.answer()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing on stderr."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A sidecar that ended is no news."""

    with namespace.inside() if namespace is not None else nullcontext():
        server = Server(("127.0.0.1", port), Handler)
    received.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


@contextmanager
def grpc_collector(
    namespace: NetworkNamespace | None = None, *, port: int = 0, pair: tuple[bytes, bytes] | None = None
) -> Iterator[Received]:
    """pair: key and certificate, PEM; without them it speaks cleartext."""
    received = Received()

    class Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
        def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
            received.take(request, "metrics", {k: str(v) for k, v in context.invocation_metadata()}, "Metrics/Export")
            return metrics_service_pb2.ExportMetricsServiceResponse()

    class Traces(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
            received.take(request, "traces", {k: str(v) for k, v in context.invocation_metadata()}, "Trace/Export")
            return trace_service_pb2.ExportTraceServiceResponse()

    inside = namespace.inside() if namespace is not None else nullcontext()
    with ThreadPoolExecutor(2) as threads, inside:
        server = grpc.server(threads)
        metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(Metrics(), server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(), server)
        where = f"127.0.0.1:{port}"
        if pair is None:
            received.port = server.add_insecure_port(where)
        else:
            received.port = server.add_secure_port(where, grpc.ssl_server_credentials([pair]))
        server.start()
        try:
            yield received
        finally:
            server.stop(None).wait(PATIENCE)
