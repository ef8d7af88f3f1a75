"""Decides what of a pod may be put to sleep, from the pod as the API server gives it.

Theory of operation. Freezing is opt-in twice. The pod must carry Knative's revision label and run here, in an allowed
namespace, and be nothing the node lives on (T-11). A container must be one the revision declared: Knative writes
`K_REVISION` into the environment of those and of no other, so a container that a mesh or another webhook added is not
chosen, whatever its name (FZ-073, T-10). Of these only the running attempt counts: its id is read while the status
says `running`, so an older attempt can never be named.

An exec probe runs inside the container and cannot be answered while it is frozen: such a pod is throttled at most, and
says why (design D9). What is refused outright is in `refusal`, for operators; the network never sees it (T-20).

The dictionary is the API's, but nothing about its shape is believed: a part of the wrong type counts as absent, and
what is then missing makes the pod refused, never chosen.
"""

import re
from collections.abc import Iterator, Mapping
from signal import SIGTERM, Signals
from typing import NamedTuple

from queueproxy.freeze.annotations import Liveness, Mode, PodPolicy, parse

__all__ = ["REVISION_LABEL", "SIDECAR", "ContainerFacts", "PodFacts", "Rules", "pod_facts"]

REVISION_LABEL = "serving.knative.dev/revision"
SIDECAR = "queue-proxy"
# Never chosen, even where somebody gives them K_REVISION: what the pod's own traffic passes through (T-10).
_INFRASTRUCTURE = frozenset({SIDECAR, "istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane"})
_MIRROR = ("kubernetes.io/config.mirror", "kubernetes.io/config.source")  # the kubelet's marks on static pods
_POD_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTAINER_ID = re.compile(r"([a-z][a-z0-9-]*)://([0-9a-f]{64})")  # T-12: the id becomes a directory name
_SIGNAL = re.compile(r"(SIG[A-Z0-9]+)([+-][0-9]{1,2})?")
_RUNTIMES = frozenset({"containerd", "cri-o", "docker"})
_QOS = frozenset({"guaranteed", "burstable", "besteffort"})
_PROBES = (("livenessProbe", "liveness"), ("startupProbe", "startup"), ("readinessProbe", "readiness"))

Json = Mapping[str, object]


class ContainerFacts(NamedTuple):
    """One container that may be put to sleep."""

    name: str
    id: str  # 64 hex digits, without the runtime's prefix
    runtime: str  # containerd, cri-o, docker; empty when unknown
    stop_signal: int = SIGTERM


class PodFacts(NamedTuple):
    """What the freezer knows of a pod."""

    uid: str
    namespace: str
    name: str
    node: str
    ips: tuple[str, ...]
    revision: str
    qos: str  # guaranteed, burstable, besteffort
    policy: PodPolicy
    containers: tuple[ContainerFacts, ...]  # exactly those that may be frozen, running, newest attempt
    sidecar_id: str  # queue-proxy's container id, empty while it does not run
    terminating: bool
    refusal: str  # why nothing of it may be frozen; for operators, never sent to a sidecar
    warnings: tuple[str, ...] = ()  # annotations that were not understood (FZ-110)


class Rules(NamedTuple):
    """Where freezing is allowed at all. An empty `allow` allows every namespace that is not denied."""

    node: str
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset({"kube-system", "kube-public", "kube-node-lease", "knative-serving"})
    own_uid: str = ""  # the freezer's own pod


def pod_facts(pod: Json, defaults: PodPolicy, rules: Rules) -> PodFacts:
    """Never raises: what cannot be read is absent, and what is absent is refused."""
    meta, spec, status = (_part(pod, key) for key in ("metadata", "spec", "status"))
    revision = _text(_part(meta, "labels"), REVISION_LABEL)
    annotations = {key: value for key, value in _part(meta, "annotations").items() if isinstance(value, str)}
    policy, warnings = parse(annotations, defaults)
    ours = [container for container in _each(spec, "containers") if _declared(container, revision)]
    chosen = [container for container in ours if not policy.containers or _text(container, "name") in policy.containers]
    attempts = {_text(entry, "name"): entry for entry in _each(status, "containerStatuses")}
    running = [facts for container in chosen if (facts := _running(container, attempts))]
    terminating = "deletionTimestamp" in meta
    refusal = (
        _foreign(meta, spec, revision, rules)
        or _dangerous(spec, chosen)
        or ("is being deleted" if terminating else "")
        or _nothing_to_freeze(ours, chosen, running)
    )
    return PodFacts(
        uid=_text(meta, "uid"),
        namespace=_text(meta, "namespace"),
        name=_text(meta, "name"),
        node=_text(spec, "nodeName"),
        ips=_addresses(status),
        revision=revision,
        qos=_qos(status),
        policy=_eased(policy, chosen),
        containers=() if refusal else tuple(running),
        sidecar_id=_sidecar(status),
        terminating=terminating,
        refusal=refusal,
        warnings=tuple(warnings),
    )


def _declared(container: Json, revision: str) -> bool:
    if not revision or _text(container, "name") in _INFRASTRUCTURE:
        return False
    return any(_text(var, "name") == "K_REVISION" and var.get("value") == revision for var in _each(container, "env"))


def _running(container: Json, attempts: Mapping[str, Json]) -> ContainerFacts | None:
    name = _text(container, "name")
    status = attempts.get(name)
    if status is None or not isinstance(_part(status, "state").get("running"), Mapping):
        return None
    match = _CONTAINER_ID.fullmatch(_text(status, "containerID"))
    if match is None:
        return None
    runtime = match[1] if match[1] in _RUNTIMES else ""
    # The status has the effective one, image's included, where the cluster reports it (Kubernetes 1.33).
    stop = _text(status, "stopSignal") or _text(_part(container, "lifecycle"), "stopSignal")
    return ContainerFacts(name, match[2], runtime, _signal(stop))


def _signal(name: str) -> int:
    """SIGTERM, SIGRTMIN+3, SIGRTMAX-1: as Kubernetes writes them. What is not understood is the usual one."""
    match = _SIGNAL.fullmatch(name)
    number = Signals.__members__.get(match[1]) if match else None
    if match is None or number is None:
        return SIGTERM
    shifted = number + int(match[2] or 0)
    in_between = number >= Signals.SIGRTMIN and Signals.SIGRTMIN <= shifted <= Signals.SIGRTMAX
    return shifted if in_between or not match[2] else SIGTERM


def _foreign(meta: Json, spec: Json, revision: str, rules: Rules) -> str:
    """Whose pod is it, and where (T-11)?"""
    uid, namespace = _text(meta, "uid"), _text(meta, "namespace")
    if any(mark in _part(meta, "annotations") for mark in _MIRROR):
        return "is a static pod"
    if _POD_UID.fullmatch(uid) is None or not namespace or not _text(meta, "name"):
        return "has no proper identity"
    if uid == rules.own_uid:
        return "is the freezer itself"
    if _text(spec, "nodeName") != rules.node:
        return "runs on another node"
    if not revision:
        return "belongs to no Knative revision"
    if namespace in rules.deny or (rules.allow and namespace not in rules.allow):
        return f"is in namespace {namespace}, where freezing is not allowed"
    return ""


def _dangerous(spec: Json, chosen: list[Json]) -> str:
    """Pods that share too much with the node, or with their own infrastructure."""
    for key in ("hostNetwork", "hostPID", "hostIPC"):  # hostNetwork: its address proves nothing (FZ-128)
        if spec.get(key):
            return f"uses {key}"
    if spec.get("shareProcessNamespace"):
        # Its pid 1 is the sandbox's, which is never frozen, and the containers' own cannot be told apart (FZ-055).
        return "shares one process namespace"
    for container in chosen:
        if _part(container, "securityContext").get("privileged"):
            return f"has the privileged container {_text(container, 'name')}"
    return ""


def _nothing_to_freeze(ours: list[Json], chosen: list[Json], running: list[ContainerFacts]) -> str:
    if not ours:
        return "has no container with its revision in K_REVISION"
    if not chosen:
        return "has none of the containers its annotation names"
    return "" if running else "has no running container"


def _eased(policy: PodPolicy, chosen: list[Json]) -> PodPolicy:
    """Not frozen, only throttled, where a probe could not be answered asleep (design D9)."""
    if policy.mode is not Mode.FREEZE:
        return policy
    for container in chosen:
        for key, word in _PROBES:
            if isinstance(_part(container, key).get("exec"), Mapping):
                reason = f"exec {word} probe of container {_text(container, 'name')}"
                return policy._replace(mode=Mode.THROTTLE, reason=reason)
    if policy.liveness is Liveness.THROTTLE:
        return policy._replace(mode=Mode.THROTTLE, reason="liveness: throttle")
    return policy


def _addresses(status: Json) -> tuple[str, ...]:
    several = tuple(ip for entry in _each(status, "podIPs") if (ip := _text(entry, "ip")))
    one = _text(status, "podIP")
    return several or ((one,) if one else ())


def _qos(status: Json) -> str:
    qos = _text(status, "qosClass").lower()
    return qos if qos in _QOS else "burstable"  # what a pod with queue-proxy's CPU request is


def _sidecar(status: Json) -> str:
    for entry in _each(status, "containerStatuses"):
        if _text(entry, "name") == SIDECAR and isinstance(_part(entry, "state").get("running"), Mapping):
            match = _CONTAINER_ID.fullmatch(_text(entry, "containerID"))
            return match[2] if match else ""
    return ""


def _part(parent: Json, key: str) -> Json:
    value = parent.get(key)
    return value if isinstance(value, Mapping) else {}


def _each(parent: Json, key: str) -> Iterator[Json]:
    values = parent.get(key)
    if isinstance(values, list):
        yield from (value for value in values if isinstance(value, Mapping))


def _text(parent: Json, key: str) -> str:
    value = parent.get(key)
    return value if isinstance(value, str) else ""
