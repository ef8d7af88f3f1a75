"""Decodes where telemetry goes to, how often, and which traces are kept (contract 5.5, 5.6, QP-237, QP-241).

The collector's address comes from `OBSERVABILITY_CONFIG` unless OpenTelemetry's own variables name another one. A URL's
scheme decides about TLS, an empty path is OTLP's own, a given path is used as it is. Headers, certificates,
compression and time limits are left to the exporters, which read their variables themselves.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import urlsplit

from queueproxy.env import Environment, parse_float, quoted
from queueproxy.observability import OBSERVABILITY_CONFIG, Observability

__all__ = ["Export", "Sampling", "ScrapeTls", "Target", "endpoint", "interval", "load", "sampling"]

ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
SIGNAL_ENDPOINTS: Final = {
    "metrics": "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    "traces": "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
}
EXPORT_INTERVAL: Final = "OTEL_METRIC_EXPORT_INTERVAL"
SPAN_DELAY: Final = "OTEL_BSP_SCHEDULE_DELAY"
SAMPLER: Final = "OTEL_TRACES_SAMPLER"
SAMPLER_ARG: Final = "OTEL_TRACES_SAMPLER_ARG"
RESOURCE_ATTRIBUTES: Final = "OTEL_RESOURCE_ATTRIBUTES"
SCRAPE_TLS: Final = "METRICS_PROMETHEUS_TLS_"
DEFAULT_INTERVAL: Final = 60.0  # seconds; the SDK's
DEFAULT_SPAN_DELAY: Final = 5.0  # seconds; the SDK's
_PORTS: Final = {"grpc": 4317, "http/protobuf": 4318}
# name: share of the traces that begin here (None: the argument), whether a caller's decision is followed
_SAMPLERS: Final = {
    "always_on": (1.0, False),
    "always_off": (0.0, False),
    "traceidratio": (None, False),
    "parentbased_always_on": (1.0, True),
    "parentbased_always_off": (0.0, True),
    "parentbased_traceidratio": (None, True),
}


class Target(NamedTuple):
    """A collector. url: whole, with the path; for grpc the exporter uses its host and port alone."""

    protocol: str
    url: str
    secure: bool


class Sampling(NamedTuple):
    """ratio of the traces that begin here; parent_based: a caller's decision is ours."""

    ratio: float = 0.0
    parent_based: bool = False


class ScrapeTls(NamedTuple):
    """`METRICS_PROMETHEUS_TLS_*` as received; what they mean is for net/scrapetls.py."""

    cert: str = ""
    key: str = ""
    client_auth: str = ""
    client_ca_file: str = ""
    min_version: str = ""
    max_version: str = ""
    cipher_suites: str = ""
    curve_preferences: str = ""


class Export(NamedTuple):
    """metrics, traces: collectors, None where nothing is pushed. every: seconds between two pushes of metrics.

    gather: seconds that spans wait for company. opencensus: the page of 9091 has the names of control planes before
    1.19. scrape_tls: None for cleartext.
    """

    metrics: Target | None = None
    every: float = DEFAULT_INTERVAL
    traces: Target | None = None
    gather: float = DEFAULT_SPAN_DELAY
    sampling: Sampling = Sampling()
    resource_attributes: str = ""
    opencensus: bool = False
    scrape_tls: ScrapeTls | None = None


def load(env: Environment, seen: Observability, notes: list[str]) -> Export:
    """What becomes of the two protocols; complaints go to `env`, sentences to `notes`."""
    metrics, tracing = seen.request_metrics, seen.tracing
    made = Export(resource_attributes=env.text(RESOURCE_ATTRIBUTES))
    if metrics.protocol in _PORTS:
        made = made._replace(
            metrics=endpoint(env, "metrics", metrics.protocol, metrics.endpoint),
            every=interval(env, metrics.export_interval),
        )
    elif metrics.protocol == "prometheus":
        tls = ScrapeTls(*(env.text(SCRAPE_TLS + field.upper()) for field in ScrapeTls._fields))
        made = made._replace(opencensus=not env.text(OBSERVABILITY_CONFIG), scrape_tls=tls if any(tls) else None)
    if tracing.protocol in _PORTS:
        made = made._replace(traces=endpoint(env, "traces", tracing.protocol, tracing.endpoint))
    if tracing.protocol != "none":
        delay = _milliseconds(env.text(SPAN_DELAY))
        made = made._replace(
            gather=DEFAULT_SPAN_DELAY if delay is None else delay,
            sampling=sampling(env, tracing.protocol, tracing.sampling_rate, notes),
        )
    return made


def endpoint(env: Environment, signal: str, protocol: str, configured: str) -> Target:
    """signal: "metrics" or "traces". configured: the endpoint of OBSERVABILITY_CONFIG."""
    own = env.text(SIGNAL_ENDPOINTS[signal])
    common = env.text(ENDPOINT)
    url = own or common or configured or f"https://localhost:{_PORTS[protocol]}"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        env.wrong.append(f"failed to set up {signal} export: endpoint {quoted(url)}: {error}")
        return Target(protocol, url, True)
    if not parts.scheme or not host:
        if any(quoted(url) in said for said in env.wrong):
            return Target(protocol, url, True)  # said where the configuration was read
        env.wrong.append(f"failed to set up {signal} export: endpoint {quoted(url)} is not a URL")
        return Target(protocol, url, True)
    path = parts.path
    if common and not own:
        path = path.rstrip("/") + f"/v1/{signal}"  # the common variable is a base, the others are whole
    elif path in ("", "/"):
        path = f"/v1/{signal}"
    secure = parts.scheme.lower() == "https"
    return Target(protocol, parts._replace(scheme="https" if secure else "http", path=path).geturl(), secure)


def interval(env: Environment, configured: float) -> float:
    """Seconds between pushes: the variable, in milliseconds, before the configuration, before the SDK's minute."""
    return _milliseconds(env.text(EXPORT_INTERVAL)) or (configured if configured > 0 else DEFAULT_INTERVAL)


def _milliseconds(text: str) -> float | None:
    """Seconds; None for what is no whole number, which the SDK passes over as well."""
    return int(text) / 1000 if text.isascii() and text.isdigit() and len(text) < 12 else None


def sampling(env: Environment, protocol: str, rate: float, notes: list[str]) -> Sampling:
    """Upstream's rules in upstream's order."""
    name, argument = env.text(SAMPLER).strip().lower(), env.text(SAMPLER_ARG).strip()
    if name:
        if name not in _SAMPLERS:
            notes.append(f"{SAMPLER} {quoted(name)} is not known: every trace is kept unless its caller says otherwise")
        ratio, parent_based = _SAMPLERS.get(name, (1.0, True))
        return Sampling(_ratio(argument) if ratio is None else ratio, parent_based)
    if protocol == "stdout":
        return Sampling(1.0)
    wanted = rate
    if argument:
        try:
            wanted = parse_float(argument)
        except ValueError as error:
            env.wrong.append(f"Failed to setup trace provider: {SAMPLER_ARG}: {error}")
    if wanted >= 1:
        return Sampling(1.0)
    if not rate > 0:  # the configured rate, whatever the variable says; also what is not a number
        return Sampling(0.0)
    return Sampling(max(0.0, wanted), True)


def _ratio(argument: str) -> float:
    """What the SDK makes of its argument: 1 when there is none or it is not a ratio."""
    try:
        ratio = parse_float(argument)
    except ValueError:
        return 1.0
    return ratio if 0 <= ratio <= 1 else 1.0
