"""Builds service account tokens: what a kubelet would have projected into a pod, with any part wrong on request."""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.knative_pod import merged

AUDIENCE = "concurrency-state-hook"  # the one that stock Knative projects for queue-proxy


def claims_of(
    pod: Mapping[str, Any], audience: str = AUDIENCE, *, wall: float, valid_for: float = 3600.0, node: bool = True
) -> dict[str, Any]:
    """The payload of a projected token. `node`: bound to its node as well, as since Kubernetes 1.30."""
    meta, spec = pod["metadata"], pod["spec"]
    account = spec.get("serviceAccountName", "default")
    bound: dict[str, Any] = {
        "namespace": meta["namespace"],
        "pod": {"name": meta["name"], "uid": meta["uid"]},
        "serviceaccount": {"name": account, "uid": "8cf3a83b-0d8a-4d9f-9b6b-3d5dbd4f4d0e"},
    }
    if node:
        bound["node"] = {"name": spec["nodeName"], "uid": "f0d6c6b4-98f8-4a2f-8d4c-6d4f6e2c9b10"}
    return {
        "aud": [audience],
        "exp": int(wall + valid_for),
        "iat": int(wall),
        "iss": "https://kubernetes.default.svc.cluster.local",
        "jti": f"jti-{meta['name']}-{int(wall)}",
        "kubernetes.io": bound,
        "nbf": int(wall),
        "sub": f"system:serviceaccount:{meta['namespace']}:{account}",
    }


def token(
    payload: Mapping[str, Any],
    sign: Callable[[bytes], bytes] = lambda text: b"not a signature at all, only long enough",
    head: Mapping[str, Any] = {"alg": "RS256", "kid": "test"},
    **changes: Any,
) -> str:
    """Three parts. `changes` are merged into the payload; None removes."""
    text = f"{encoded(head)}.{encoded(merged(payload, changes))}"
    return f"{text}.{base64url(sign(text.encode()))}"


def encoded(value: object) -> str:
    return base64url(json.dumps(value, separators=(",", ":")).encode())


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
