"""Decides what control planes before 1.19 see on 9091: Knative's OpenCensus names (contract 5.7).

The same counts under the names, labels and milliseconds of that time. Their buckets are other ones, so the counts are
kept with `LATENCIES` from the start where these names are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from queueproxy.metrics.families import OURS, Attributes, Family, Kind, Sources, ours
from queueproxy.metrics.histogram import Histogram
from queueproxy.metrics.resource import writable

_MILLISECONDS: Final = (
    5, 10, 20, 40, 60, 80, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 800, 900, 1000, 2000, 5000, 10000,
    20000, 50000, 100000,
)  # fmt: skip
LATENCIES: Final = tuple(bound / 1000 for bound in _MILLISECONDS)  # seconds, as everything is counted
_TAGS: Final = {"kn:disabled": "DISABLED", "kn:default": "DEFAULT", "kn:undefined": "UNDEFINED"}


def families(sources: Sources, names: dict[str, str]) -> Iterator[Family]:
    """names: the labels that say who we are, see `labels`."""
    app: list[tuple[Attributes, Histogram]] = [
        (names | _response(status), histogram) for status, histogram in sorted(sources.recorder.invocations.items())
    ]
    whole: dict[tuple[int, str], Histogram] = {}
    for served, series in sources.http.served.items() if sources.http is not None else ():
        key = (served.status, _TAGS.get(served.tag, served.tag))
        whole.setdefault(key, Histogram(LATENCIES)).merge(series.took)
    requests: list[tuple[Attributes, Histogram]] = [
        (names | _response(status) | {"route_tag": tag}, histogram)
        for (status, tag), histogram in sorted(whole.items())
    ]
    yield from _pair("request", "The number of requests that are routed to queue-proxy", requests)
    yield from _pair("app_request", "The number of requests that are routed to user-container", app)
    if sources.depth is not None:
        yield Family(
            "revision_queue_depth", Kind.GAUGE, "", "The current number of items in the serving and waiting queue",
            OURS, [(names, sources.depth)],
        )  # fmt: skip
    yield from ours(sources)


def labels(namespace: str, service: str, configuration: str, revision: str, pod: str) -> dict[str, str]:
    """Who we are, in that time's words."""
    named = {
        "namespace_name": namespace, "service_name": service, "configuration_name": configuration,
        "revision_name": revision, "pod_name": pod, "container_name": "queue-proxy",
    }  # fmt: skip
    return {key: writable(value) for key, value in named.items()}


def _response(status: int) -> dict[str, str]:
    return {"response_code": str(status), "response_code_class": f"{status // 100}xx"}


def _pair(stem: str, description: str, points: list[tuple[Attributes, Histogram]]) -> Iterator[Family]:
    yield Family(
        f"revision_{stem}_count", Kind.OLD_COUNTER, "", description, OURS, [(who, h.count) for who, h in points]
    )
    latencies: list[tuple[Attributes, float | Histogram]] = [(who, _in_milliseconds(h)) for who, h in points]
    yield Family(f"revision_{stem}_latencies", Kind.HISTOGRAM, "", "The response time in millisecond", OURS, latencies)


def _in_milliseconds(histogram: Histogram) -> Histogram:
    made = Histogram(tuple(float(bound) for bound in _MILLISECONDS))
    made.merge(histogram, 1000.0)
    return made
