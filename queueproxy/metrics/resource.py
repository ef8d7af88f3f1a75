"""Decides what telemetry says about its sender: the attributes of OpenTelemetry's resource (contract 5.4, QP-234)."""

from __future__ import annotations

from typing import Final, Protocol
from urllib.parse import unquote

CONTAINER: Final = "queue-proxy"


class Serving(Protocol):
    """The names of the revision and its pod."""

    @property
    def namespace(self) -> str: ...
    @property
    def service(self) -> str: ...
    @property
    def configuration(self) -> str: ...
    @property
    def revision(self) -> str: ...


def resource(
    serving: Serving, *, service_name: str, instance: str, version: str, extra: str = "", sdk: str = ""
) -> dict[str, str]:
    """instance: the pod's name. extra: OTEL_RESOURCE_ATTRIBUTES. sdk: version of the SDK that sends, "" for none."""
    named = {
        "container.name": CONTAINER,
        "k8s.namespace.name": serving.namespace,
        "k8s.pod.name": instance,
        "service.name": service_name,
        "service.version": version,
        "service.instance.id": instance,
        "kn.service.name": serving.service,
        "kn.configuration.name": serving.configuration,
        "kn.revision.name": serving.revision,
        "telemetry.sdk.language": "python",
        # The specification keeps the name "opentelemetry" for those who use it; the text page is ours alone.
        "telemetry.sdk.name": "opentelemetry" if sdk else "queueproxy",
        "telemetry.sdk.version": sdk or version,
    }
    made = _listed(extra) | {key: value for key, value in named.items() if value}
    return {writable(key): writable(value) for key, value in made.items()}


def writable(text: str) -> str:
    """An environment may hold bytes that are no text. Every writer refuses those; a page must not fail for a name."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _listed(text: str) -> dict[str, str]:
    """`key=value,key=value`, percent-encoded; what is not of that form is left out, as the SDKs do."""
    pairs = (item.partition("=") for item in text.split(","))
    return {key.strip(): unquote(value.strip()) for key, equals, value in pairs if equals and key.strip()}
