"""Builds pods as a cluster's API server gives them: a revision's own containers beside queue-proxy, all running.

The shape is that of `captured/14-multi-container`, without what nobody here reads. Everything can be overwritten:
`overrides` is merged into the result, dictionary by dictionary, and a value of None removes the key.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

REVISION_LABEL = "serving.knative.dev/revision"


def container_id(pod_uid: str, name: str, attempt: int = 0) -> str:
    """64 hex digits, the same each time for one attempt of one container."""
    return hashlib.sha256(f"{pod_uid}/{name}/{attempt}".encode()).hexdigest()


def knative_pod(
    name: str = "hello-00001-deployment-6c5d9-abcde",
    *,
    namespace: str = "default",
    node: str = "node1",
    uid: str = "",
    ip: str = "10.244.0.39",
    containers: Sequence[str] = ("user-container",),
    ids: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    runtime: str = "containerd",
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """`ids`: container ids by name, where real containers stand behind the pod; the sidecar is `queue-proxy`."""
    uid = uid or str(uuid.uuid5(uuid.NAMESPACE_URL, f"{namespace}/{name}"))
    revision = name.partition("-deployment-")[0]
    ids = ids or {}
    everyone = (*containers, "queue-proxy")
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid,
            "labels": {"app": revision, REVISION_LABEL: revision},
            "annotations": dict(annotations or {}),
        },
        "spec": {
            "nodeName": node,
            "containers": [_container(each, revision) for each in everyone],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 300,
            "serviceAccountName": "default",
        },
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "hostIP": "10.200.0.1",
            "qosClass": "Burstable",
            "containerStatuses": [
                {
                    "name": each,
                    "containerID": f"{runtime}://{ids.get(each) or container_id(uid, each)}",
                    "image": f"ko.local/{each}:v1",
                    "imageID": "sha256:8dea63d7dfef405765913fae4c6ce25e0d057daea1dcebbc045d786ee9bf0d4a",
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": "2026-11-22T06:04:35Z"}},
                    "lastState": {},
                }
                for each in sorted(everyone)
            ],
        },
    }
    return merged(pod, overrides or {})


def merged(onto: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`onto` with `changes`, which descend into dictionaries; None removes."""
    result = dict(onto)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def _container(name: str, revision: str) -> dict[str, Any]:
    if name == "queue-proxy":
        env = [{"name": "SERVING_REVISION", "value": revision}]
    else:
        env = [{"name": "PORT", "value": "8080"}, {"name": "K_REVISION", "value": revision}]
    return {"name": name, "image": f"ko.local/{name}:v1", "env": env, "resources": {}}
