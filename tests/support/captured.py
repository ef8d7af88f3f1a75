"""Opens what a real cluster produced: for each captured Service the environment its queue-proxy container received.

The captures are large and live beside the repository (`../shared/captured`, or `$QUEUEPROXY_SHARED/captured`). Where
they are missing, tests that ask for them are skipped with that reason.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

_ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("QUEUEPROXY_SHARED", _ROOT.parent / "shared"))
CAPTURED = SHARED / "captured"
MISSING = "the captured Deployments are not on this machine (set QUEUEPROXY_SHARED)"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times quicker where it exists


@dataclass(frozen=True, slots=True)
class Case:
    """One captured Service."""

    name: str
    env: Mapping[str, str]  # as the process sees it: fieldRefs resolved, absent values empty
    kubelet_probe: Mapping[str, Any] | None  # the readiness probe the kubelet runs against queue-proxy
    user_port: int
    container: Mapping[str, Any]  # the queue-proxy container as the controller wrote it
    pod: Mapping[str, Any]


def names() -> tuple[str, ...]:
    """All captured Services that were admitted, in order."""
    return tuple(sorted(path.parent.name for path in CAPTURED.glob("[0-9]*/deployment.yaml")))


def each_name() -> list[Any]:
    """Parameters for `pytest.mark.parametrize`; one skipped case where nothing was captured."""
    return list(names()) or [pytest.param("absent", marks=pytest.mark.skip(reason=MISSING))]


@cache
def case(name: str) -> Case:
    """One case by its directory name; skips the calling test where it is missing."""
    folder = CAPTURED / name
    if not (folder / "deployment.yaml").exists():
        pytest.skip(MISSING)
    deployment = _load(folder / "deployment.yaml")
    pods = _load(folder / "pods.yaml")
    pod = pods["items"][0] if "items" in pods else pods
    container = _named(deployment["spec"]["template"]["spec"]["containers"], "queue-proxy")
    env = {variable["name"]: _value(variable, pod) for variable in container["env"]}
    return Case(
        name=name,
        env=env,
        kubelet_probe=container.get("readinessProbe"),
        user_port=int(env["USER_PORT"]),
        container=container,
        pod=pod,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """How a control plane wants one queue-proxy observed; `found_in`: the captures that have it."""

    observability: str  # JSON
    logging_config: str  # JSON, or nothing
    level: str
    found_in: tuple[str, ...] = ()

    @property
    def variables(self) -> dict[str, str]:
        return {
            "OBSERVABILITY_CONFIG": self.observability,
            "SERVING_LOGGING_CONFIG": self.logging_config,
            "SERVING_LOGGING_LEVEL": self.level,
        }


@cache
def settings() -> tuple[Setting, ...]:
    """The distinct ones of all captured pods, in order of their first appearance."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for path in sorted(CAPTURED.glob("[0-9]*/deployment.yaml")) + sorted(CAPTURED.glob("_wire/*-pod.yaml")):
        spec = _load(path)["spec"]
        container = _named(spec.get("template", {"spec": spec})["spec"]["containers"], "queue-proxy")
        env = {variable["name"]: variable.get("value", "") for variable in container["env"]}
        key = (env["OBSERVABILITY_CONFIG"], env["SERVING_LOGGING_CONFIG"], env["SERVING_LOGGING_LEVEL"])
        name = path.parent.name if path.stem == "deployment" else path.stem.removesuffix("-pod")
        found.setdefault(key, []).append(name)
    return tuple(Setting(*key, tuple(names)) for key, names in found.items())


def logged(name: str) -> list[str]:
    """The lines of Knative's own queue-proxy in that case."""
    path = CAPTURED / name / "queue-proxy.log"
    return path.read_text().splitlines() if path.exists() else (CAPTURED / "_wire" / name).read_text().splitlines()


def _load(path: Path) -> Any:
    return yaml.load(path.read_bytes(), Loader=_LOADER)


def _named(containers: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(container for container in containers if container["name"] == name)


def _value(variable: Mapping[str, Any], pod: Mapping[str, Any]) -> str:
    reference = variable.get("valueFrom")
    if reference is None:
        return str(variable.get("value", ""))
    value: Any = pod
    for step in reference["fieldRef"]["fieldPath"].split("."):
        value = value[step]
    return str(value)
