"""Decodes what the operator wants to see: metrics, traces, profiling, the request log.

`OBSERVABILITY_CONFIG` is JSON laid over built-in defaults in which everything is off (contract 5.5). It is read as Go
reads it: keys in any case, unknown keys ignored, null and absent keep the default, durations in whole nanoseconds. A
document that is no JSON, a value of the wrong type, an unknown protocol or an impossible port stops the start, as
upstream (contract 1.4); the line begins with upstream's words.

Control planes before 1.19 send separate variables instead (Appendix B). They are read only when `OBSERVABILITY_CONFIG`
is absent or empty. Back ends of that era that are gone, OpenCensus and Zipkin, cost a note and not the start.
"""

import json
from typing import Final, NamedTuple

from queueproxy.env import Environment, parse_port, quoted

__all__ = ["DEFAULT_REQUEST_LOG_TEMPLATE", "Observability", "RequestLog", "RequestMetrics", "Tracing", "load"]

OBSERVABILITY_CONFIG: Final = "OBSERVABILITY_CONFIG"
# Not injected; operators set them.
METRICS_PROMETHEUS_HOST: Final = "METRICS_PROMETHEUS_HOST"
METRICS_PROMETHEUS_PORT: Final = "METRICS_PROMETHEUS_PORT"
PROFILING_PORT: Final = "PROFILING_PORT"
# Up to 1.18.
ENABLE_PROFILING: Final = "ENABLE_PROFILING"
SERVING_ENABLE_REQUEST_LOG: Final = "SERVING_ENABLE_REQUEST_LOG"
SERVING_REQUEST_LOG_TEMPLATE: Final = "SERVING_REQUEST_LOG_TEMPLATE"
SERVING_ENABLE_PROBE_REQUEST_LOG: Final = "SERVING_ENABLE_PROBE_REQUEST_LOG"
SERVING_REQUEST_METRICS_BACKEND: Final = "SERVING_REQUEST_METRICS_BACKEND"
SERVING_REQUEST_METRICS_REPORTING_PERIOD_SECONDS: Final = "SERVING_REQUEST_METRICS_REPORTING_PERIOD_SECONDS"
TRACING_CONFIG_BACKEND: Final = "TRACING_CONFIG_BACKEND"
TRACING_CONFIG_SAMPLE_RATE: Final = "TRACING_CONFIG_SAMPLE_RATE"
TRACING_CONFIG_DEBUG: Final = "TRACING_CONFIG_DEBUG"

# Knative's default, byte for byte (contract 8.1): dashboards parse the lines it makes.
DEFAULT_REQUEST_LOG_TEMPLATE: Final = (
    '{"httpRequest": {"requestMethod": "{{.Request.Method}}", "requestUrl": "{{js .Request.RequestURI}}", '
    '"requestSize": "{{.Request.ContentLength}}", "status": {{.Response.Code}}, "responseSize": "{{.Response.Size}}", '
    '"userAgent": "{{js .Request.UserAgent}}", "remoteIp": "{{js .Request.RemoteAddr}}", '
    '"serverIp": "{{.Revision.PodIP}}", "referer": "{{js .Request.Referer}}", "latency": "{{.Response.Latency}}s", '
    '"protocol": "{{.Request.Proto}}"}, "traceId": "{{.TraceID}}"}'
)
_METRICS_PROTOCOLS = frozenset({"none", "prometheus", "http/protobuf", "grpc"})
_TRACING_PROTOCOLS = frozenset({"none", "http/protobuf", "grpc", "stdout"})
_PROMETHEUS_PORTS = range(1024, 65536)  # upstream refuses privileged ports (contract 5.6)
_INT64 = range(-(1 << 63), 1 << 63)
_USER_METRICS_PORT = 9091
_PROFILING_PORT = 8008
_RUNTIME_INTERVAL = 15.0  # seconds (contract 5.5)


class RequestMetrics(NamedTuple):
    """Where request metrics go: `none`, `prometheus` (we serve), `grpc` or `http/protobuf` (we push)."""

    protocol: str = "none"
    endpoint: str = ""  # push only: a URL
    host: str = ""  # prometheus only: the address to bind, empty for all
    port: int = _USER_METRICS_PORT  # prometheus only
    export_interval: float = 0.0  # seconds, 0 for the exporter's default


class Tracing(NamedTuple):
    """Where spans go: `none`, `stdout`, `grpc` or `http/protobuf`; how many is a rate between 0 and 1."""

    protocol: str = "none"
    endpoint: str = ""
    sampling_rate: float = 0.0


class RequestLog(NamedTuple):
    """One line per request on stdout, if `enabled`. `probes` alone does nothing (contract 8.1)."""

    enabled: bool = False
    template: str = DEFAULT_REQUEST_LOG_TEMPLATE
    probes: bool = False


class Observability(NamedTuple):
    """`OBSERVABILITY_CONFIG` over Knative's defaults: everything off."""

    request_metrics: RequestMetrics = RequestMetrics()
    tracing: Tracing = Tracing()
    request_log: RequestLog = RequestLog()
    profiling: bool = False
    profiling_port: int = _PROFILING_PORT
    runtime_interval: float = _RUNTIME_INTERVAL  # seconds between runtime metrics
    service_name: str = ""  # OTel service.name
    instance: str = ""  # OTel service.instance.id


def load(env: Environment, notes: list[str]) -> Observability:
    """Reads everything above; complaints go to `env`, sentences about what cannot be honoured to `notes`."""
    text = env.text(OBSERVABILITY_CONFIG)
    seen = _from_json(env, text) if text else _before_1_19(env, notes)
    if seen.request_metrics.protocol == "prometheus":
        seen = seen._replace(request_metrics=_prometheus_listener(env, seen.request_metrics))
    if seen.profiling:
        seen = seen._replace(profiling_port=env.port(PROFILING_PORT, default=_PROFILING_PORT))
    return seen


def _prometheus_listener(env: Environment, metrics: RequestMetrics) -> RequestMetrics:
    """`host:port` from the endpoint, either part overridden by its variable; an empty endpoint is `:9091`."""
    host, colon, port = metrics.endpoint.rpartition(":")
    if metrics.endpoint and (not colon or (":" in host and not (host[0] == "[" and host[-1] == "]"))):
        env.wrong.append(f"Failed to setup meter provider: invalid prometheus endpoint {quoted(metrics.endpoint)}")
        return metrics
    host = env.text(METRICS_PROMETHEUS_HOST) or host.strip("[]")
    port = env.text(METRICS_PROMETHEUS_PORT) or port or str(_USER_METRICS_PORT)
    try:
        number = parse_port(port)
    except ValueError as error:
        env.wrong.append(f"Failed to setup meter provider: prometheus port {error}")
        return metrics
    if number not in _PROMETHEUS_PORTS:
        env.wrong.append(
            f"Failed to setup meter provider: prometheus port {number}, should be between "
            f"{_PROMETHEUS_PORTS[0]} and {_PROMETHEUS_PORTS[-1]}"
        )
    return metrics._replace(endpoint="", host=host, port=number)


class _WrongShape(Exception):
    """JSON that is well formed but not what the key asks for."""


class _Object:
    """A JSON object read as Go reads one: keys in any case, the last twin wins, null and absent keep the default."""

    __slots__ = ("_fields", "_path")

    def __init__(self, value: object, path: str = "") -> None:
        if not isinstance(value, dict):
            raise _WrongShape(f"{path or 'the document'} must be an object")
        self._fields = {str(key).lower(): item for key, item in value.items()}
        self._path = path

    def object(self, key: str) -> "_Object":
        value = self._fields.get(key.lower())
        return _Object({} if value is None else value, f"{self._path}{key}")

    def text(self, key: str, default: str) -> str:
        value = self._fields.get(key.lower())
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        # Half a surrogate pair, which JSON can spell and nothing can write, is U+FFFD to Go.
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def boolean(self, key: str, default: bool) -> bool:
        value = self._fields.get(key.lower())
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def number(self, key: str, default: float) -> float:
        value = self._fields.get(key.lower())
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self._wrong(key, "a number")
        return float(value)

    def nanoseconds(self, key: str, default: float) -> float:
        """Go durations travel as whole nanoseconds; seconds come out."""
        value = self._fields.get(key.lower())
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value not in _INT64:
            raise self._wrong(key, "a whole number of nanoseconds")
        return value / 1e9

    def _wrong(self, key: str, wanted: str) -> _WrongShape:
        return _WrongShape(f"{self._path}{'.' if self._path else ''}{key} must be {wanted}")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _from_json(env: Environment, text: str) -> Observability:
    try:
        root = _Object(json.loads(text, parse_constant=_no_constant))
        metrics, tracing, runtime = root.object("requestMetrics"), root.object("tracing"), root.object("runtime")
        seen = Observability(
            request_metrics=RequestMetrics(
                protocol=metrics.text("protocol", "none"),
                endpoint=metrics.text("endpoint", ""),
                export_interval=metrics.nanoseconds("exportInterval", 0.0),
            ),
            tracing=Tracing(
                protocol=tracing.text("protocol", "none"),
                endpoint=tracing.text("endpoint", ""),
                sampling_rate=tracing.number("samplingRate", 0.0),
            ),
            request_log=RequestLog(
                enabled=root.boolean("enableRequestLog", False),
                template=root.text("requestLogTemplate", DEFAULT_REQUEST_LOG_TEMPLATE),
                probes=root.boolean("enableProbeRequestLog", False),
            ),
            runtime_interval=runtime.nanoseconds("exportInterval", _RUNTIME_INTERVAL),
        )
        profiling = runtime.text("profiling", "disabled")
    except (ValueError, RecursionError, OverflowError, _WrongShape) as error:
        env.wrong.append(f"failed to parse {OBSERVABILITY_CONFIG}: {error}")
        return Observability()
    if seen.request_metrics.protocol not in _METRICS_PROTOCOLS:
        env.wrong.append(
            f"Failed to setup meter provider: unsupported protocol {quoted(seen.request_metrics.protocol)}"
        )
    if seen.tracing.protocol not in _TRACING_PROTOCOLS:
        env.wrong.append(f"Failed to setup trace provider: unsupported protocol {quoted(seen.tracing.protocol)}")
    pushed, traced = seen.request_metrics, seen.tracing
    return seen._replace(
        request_metrics=pushed._replace(endpoint=_endpoint(env, pushed.protocol, pushed.endpoint)),
        tracing=traced._replace(endpoint=_endpoint(env, traced.protocol, traced.endpoint)),
        profiling=profiling == "enabled",
    )


def _endpoint(env: Environment, protocol: str, endpoint: str) -> str:
    """The URL to push to. `otel:4317` reads as scheme and rest in Go, and upstream puts `https://` in front of it."""
    if protocol not in ("grpc", "http/protobuf") or not endpoint or "://" in endpoint:
        return endpoint
    scheme, colon, _ = endpoint.partition(":")
    if colon and scheme[:1].isalpha() and all(c.isascii() and (c.isalnum() or c in "+-.") for c in scheme):
        return f"https://{endpoint}"
    if colon:  # `10.0.0.1:4317`: no scheme starts with a digit, so Go cannot parse it either
        env.wrong.append(f"{OBSERVABILITY_CONFIG}: {protocol} endpoint {quoted(endpoint)} is not a URL")
    return endpoint


def _before_1_19(env: Environment, notes: list[str]) -> Observability:
    backend = env.text(SERVING_REQUEST_METRICS_BACKEND)
    if backend not in ("", "none", "prometheus"):
        notes.append(f"{SERVING_REQUEST_METRICS_BACKEND} {quoted(backend)} is not available: no request metrics")
    tracing = env.text(TRACING_CONFIG_BACKEND)
    if tracing not in ("", "none"):
        notes.append(f"{TRACING_CONFIG_BACKEND} {quoted(tracing)} is not available: trace headers are passed on only")
    env.boolean(TRACING_CONFIG_DEBUG)  # read for their complaints: upstream refuses to start on them
    env.fraction(TRACING_CONFIG_SAMPLE_RATE)
    return Observability(
        request_metrics=RequestMetrics(
            protocol="prometheus" if backend == "prometheus" else "none",
            export_interval=float(max(0, env.integer(SERVING_REQUEST_METRICS_REPORTING_PERIOD_SECONDS))),
        ),
        request_log=RequestLog(
            enabled=env.boolean(SERVING_ENABLE_REQUEST_LOG),
            template=env.text(SERVING_REQUEST_LOG_TEMPLATE, default=DEFAULT_REQUEST_LOG_TEMPLATE),
            probes=env.boolean(SERVING_ENABLE_PROBE_REQUEST_LOG),
        ),
        profiling=env.boolean(ENABLE_PROFILING),
    )
