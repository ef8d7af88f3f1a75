"""Decodes the environment of a queue-proxy container into frozen groups, or says everything that is wrong with it.

Knative's controller is the only author of this environment (contract 2.2); what it sends is the interface, so names,
types, defaults and error lines are upstream's. `load` takes a mapping, touches nothing else, and raises one
`ConfigError` that carries every complaint. Rooms receive only their group. Where an unusable value costs a feature but
not the traffic, `load` falls back and leaves a sentence in `Config.notes` for the log.

Variables nobody knows are never an error: with service links enabled Kubernetes adds dozens (QP-023).
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from queueproxy import observability, otlp
from queueproxy.env import ConfigError, Environment
from queueproxy.observability import Observability
from queueproxy.proxy.deadline import Timeouts

__all__ = [
    "REQUIRED", "Config", "ConfigError", "LegacyFreezer", "Mounted", "Observability", "Ports", "ServingInfo",
    "Timeouts", "TlsSettings", "load",
]  # fmt: skip

# Who we serve. All but the service name are required; the configuration may be empty.
SERVING_NAMESPACE: Final = "SERVING_NAMESPACE"
SERVING_SERVICE: Final = "SERVING_SERVICE"
SERVING_CONFIGURATION: Final = "SERVING_CONFIGURATION"
SERVING_REVISION: Final = "SERVING_REVISION"
SERVING_POD: Final = "SERVING_POD"
SERVING_POD_IP: Final = "SERVING_POD_IP"  # IPv4 or IPv6; only ever printed
# Where we listen and where the app does.
QUEUE_SERVING_PORT: Final = "QUEUE_SERVING_PORT"  # 8012, or 8013 for h2c revisions
QUEUE_SERVING_TLS_PORT: Final = "QUEUE_SERVING_TLS_PORT"  # 8112
USER_PORT: Final = "USER_PORT"
# Limits. Whole seconds; 0 switches the second and third off.
CONTAINER_CONCURRENCY: Final = "CONTAINER_CONCURRENCY"
REVISION_TIMEOUT_SECONDS: Final = "REVISION_TIMEOUT_SECONDS"
REVISION_RESPONSE_START_TIMEOUT_SECONDS: Final = "REVISION_RESPONSE_START_TIMEOUT_SECONDS"
REVISION_IDLE_TIMEOUT_SECONDS: Final = "REVISION_IDLE_TIMEOUT_SECONDS"
# Probing and protocol switches.
SERVING_READINESS_PROBE: Final = "SERVING_READINESS_PROBE"  # JSON, decoded by probes/spec.py; empty: always ready
ENABLE_MULTI_CONTAINER_PROBES: Final = "ENABLE_MULTI_CONTAINER_PROBES"
ENABLE_HTTP2_AUTO_DETECTION: Final = "ENABLE_HTTP2_AUTO_DETECTION"
ENABLE_HTTP_FULL_DUPLEX: Final = "ENABLE_HTTP_FULL_DUPLEX"
# Logging, raw: bad values are never fatal (QP-309), so log.py reads them.
SERVING_LOGGING_CONFIG: Final = "SERVING_LOGGING_CONFIG"
SERVING_LOGGING_LEVEL: Final = "SERVING_LOGGING_LEVEL"
# Sent, and of no use to the proxy itself: the node's address leads to the freezer, ROOT_CA is for extensions.
HOST_IP: Final = "HOST_IP"
ROOT_CA: Final = "ROOT_CA"
# TLS, raw: bad values are fatal only when certificates are mounted (contract 1.4), so net/tlsterms.py reads them.
QUEUE_PROXY_TLS_MIN_VERSION: Final = "QUEUE_PROXY_TLS_MIN_VERSION"
QUEUE_PROXY_TLS_MAX_VERSION: Final = "QUEUE_PROXY_TLS_MAX_VERSION"
QUEUE_PROXY_TLS_CIPHER_SUITES: Final = "QUEUE_PROXY_TLS_CIPHER_SUITES"
QUEUE_PROXY_TLS_CURVE_PREFERENCES: Final = "QUEUE_PROXY_TLS_CURVE_PREFERENCES"
# Metrics, traces, profiling and the request log have their own file, observability.py. For telemetry, POD_NAME wins
# over HOSTNAME; operators may set a name for the service.
OTEL_SERVICE_NAME: Final = "OTEL_SERVICE_NAME"
POD_NAME: Final = "POD_NAME"
HOSTNAME: Final = "HOSTNAME"
# Where tokens, annotations and certificates are mounted: fixed by the platform, moved by tests and by hand-made pods.
QUEUEPROXY_TOKENS: Final = "QUEUEPROXY_TOKENS"
QUEUEPROXY_PODINFO: Final = "QUEUEPROXY_PODINFO"
QUEUEPROXY_CERTIFICATES: Final = "QUEUEPROXY_CERTIFICATES"
# Which of the installed extensions are used; entrypoints.py reads it. An image sets it, the platform cannot.
QUEUEPROXY_EXTENSIONS: Final = "QUEUEPROXY_EXTENSIONS"
# Up to 1.9: the freezer daemon of old.
CONCURRENCY_STATE_ENDPOINT: Final = "CONCURRENCY_STATE_ENDPOINT"
CONCURRENCY_STATE_TOKEN_PATH: Final = "CONCURRENCY_STATE_TOKEN_PATH"  # noqa: S105 - a path, not a secret

# Required means present (QP-020). The order is the order of the complaints.
REQUIRED: Final = (
    CONTAINER_CONCURRENCY, QUEUE_SERVING_PORT, QUEUE_SERVING_TLS_PORT, USER_PORT, REVISION_TIMEOUT_SECONDS,
    SERVING_LOGGING_CONFIG, SERVING_LOGGING_LEVEL, SERVING_NAMESPACE, SERVING_CONFIGURATION, SERVING_REVISION,
    SERVING_POD, SERVING_POD_IP,
)  # fmt: skip


class ServingInfo(NamedTuple):
    """The names under which this pod appears in logs, metrics and the autoscaler's report."""

    namespace: str
    service: str
    configuration: str
    revision: str
    pod: str
    pod_ip: str


class Ports(NamedTuple):
    """TCP ports. 8022 and 9090 are fixed by the platform; operators may move 9091 and 8008."""

    request: int
    tls: int
    user: int
    admin: int = 8022
    autoscaler: int = 9090
    user_metrics: int = 9091
    profiling: int = 8008


class TlsSettings(NamedTuple):
    """`QUEUE_PROXY_TLS_*` as received; empty means the default of contract 9."""

    min_version: str = ""
    max_version: str = ""
    cipher_suites: str = ""
    curve_preferences: str = ""


class LegacyFreezer(NamedTuple):
    """The daemon that Knative 1.0 to 1.9 knew: `POST endpoint` with the token in that file."""

    endpoint: str = ""
    token_path: str = ""


class Mounted(NamedTuple):
    """Directory of projected tokens, file of annotations."""

    tokens: str = "/var/run/secrets/tokens"
    podinfo: str = "/etc/podinfo/annotations"


_ALL_OFF: Final = Observability()


class Config(NamedTuple):
    """Everything the controller said."""

    serving: ServingInfo
    ports: Ports
    concurrency: int  # 0: no limit
    timeouts: Timeouts
    probe_json: str = ""
    multi_probes: bool = False
    h2_detection: bool = False
    full_duplex: bool = False
    logging_config: str = ""
    logging_level: str = ""
    host_ip: str = ""
    root_ca: str = ""
    tls: TlsSettings = TlsSettings()
    certificates: str = "/var/lib/knative/certs"  # the directory of tls.crt and tls.key
    observability: Observability = _ALL_OFF
    export: otlp.Export = otlp.Export()
    legacy_freezer: LegacyFreezer = LegacyFreezer()
    mounted: Mounted = Mounted()
    extensions: str = ""  # off, or names in order; empty: all
    notes: tuple[str, ...] = ()  # what was set and cannot be honoured, for the log


def load(environ: Mapping[str, str]) -> Config:
    """Reads the whole configuration; raises `ConfigError` with one line per mistake."""
    env = Environment(environ)
    notes: list[str] = []
    # The required ones first and in upstream's order: their complaints come out in that order.
    concurrency = max(0, env.integer(CONTAINER_CONCURRENCY, required=True))  # QP-028
    request = env.port(QUEUE_SERVING_PORT, required=True)
    tls = env.port(QUEUE_SERVING_TLS_PORT, required=True)
    user = env.port(USER_PORT, required=True)
    timeouts = _timeouts(env)
    logging_config = env.text(SERVING_LOGGING_CONFIG, required=True)
    logging_level = env.text(SERVING_LOGGING_LEVEL, required=True)
    serving = ServingInfo(
        namespace=env.text(SERVING_NAMESPACE, required=True),
        configuration=env.text(SERVING_CONFIGURATION, required=True),
        revision=env.text(SERVING_REVISION, required=True),
        pod=env.text(SERVING_POD, required=True),
        pod_ip=env.text(SERVING_POD_IP, required=True),
        service=env.text(SERVING_SERVICE),
    )
    multi_probes = env.boolean(ENABLE_MULTI_CONTAINER_PROBES)
    h2_detection = env.boolean(ENABLE_HTTP2_AUTO_DETECTION)
    full_duplex = env.boolean(ENABLE_HTTP_FULL_DUPLEX)
    seen = observability.load(env, notes)
    export = otlp.load(env, seen, notes)
    instance = env.text(POD_NAME) or env.text(HOSTNAME)
    service_name = (  # upstream's order of preference
        env.text(OTEL_SERVICE_NAME) or serving.service or serving.configuration or serving.revision or instance
    )
    env.finish()
    return Config(
        serving=serving,
        ports=Ports(request, tls, user, user_metrics=seen.request_metrics.port, profiling=seen.profiling_port),
        concurrency=concurrency,
        timeouts=timeouts,
        probe_json=env.text(SERVING_READINESS_PROBE),
        multi_probes=multi_probes,
        h2_detection=h2_detection,
        full_duplex=full_duplex,
        logging_config=logging_config,
        logging_level=logging_level,
        host_ip=env.text(HOST_IP),
        root_ca=env.text(ROOT_CA),
        tls=TlsSettings(
            min_version=env.text(QUEUE_PROXY_TLS_MIN_VERSION),
            max_version=env.text(QUEUE_PROXY_TLS_MAX_VERSION),
            cipher_suites=env.text(QUEUE_PROXY_TLS_CIPHER_SUITES),
            curve_preferences=env.text(QUEUE_PROXY_TLS_CURVE_PREFERENCES),
        ),
        certificates=env.text(QUEUEPROXY_CERTIFICATES) or Config._field_defaults["certificates"],
        observability=seen._replace(service_name=service_name, instance=instance),
        export=export,
        legacy_freezer=LegacyFreezer(env.text(CONCURRENCY_STATE_ENDPOINT), env.text(CONCURRENCY_STATE_TOKEN_PATH)),
        mounted=Mounted(
            env.text(QUEUEPROXY_TOKENS) or Mounted().tokens, env.text(QUEUEPROXY_PODINFO) or Mounted().podinfo
        ),
        extensions=env.text(QUEUEPROXY_EXTENSIONS),
        notes=tuple(notes),
    )


def _timeouts(env: Environment) -> Timeouts:
    complaints = len(env.wrong)
    longest = env.integer(REVISION_TIMEOUT_SECONDS, required=True)
    if longest <= 0 and len(env.wrong) == complaints:
        # Upstream starts and then answers 504 to every request (D16, QP-027).
        env.wrong.append(
            f"{REVISION_TIMEOUT_SECONDS} must be greater than 0, got {longest}: no request could ever be answered"
        )
    return Timeouts(
        max_duration=float(longest),
        response_start=float(max(0, env.integer(REVISION_RESPONSE_START_TIMEOUT_SECONDS))),
        idle=float(max(0, env.integer(REVISION_IDLE_TIMEOUT_SECONDS))),
    )
