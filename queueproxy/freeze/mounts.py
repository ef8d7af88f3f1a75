"""Opens what a sidecar finds mounted and decides from it whether there is anything to freeze with.

What it touches: the directory of projected tokens and the downward API's file of annotations, once, at the start.
What happens when that breaks: no token means that freezing is not wanted, and then no connection is ever tried
(FZ-002); no annotations means defaults.
"""

from __future__ import annotations

from typing import NamedTuple

from queueproxy.freeze.address import ANNOTATION, Address, where
from queueproxy.freeze.annotations import DEFAULTS, PodPolicy, parse, parse_podinfo
from queueproxy.freeze.credential import find

__all__ = ["Mounts", "Way", "look"]

_LONGEST = 1024 * 1024  # bytes; Kubernetes allows 256 KiB of annotations


class Mounts(NamedTuple):
    """Where to look, and what the environment adds."""

    host_ip: str
    tokens: str  # directory, one file per audience
    podinfo: str  # file; there with `queueproxy.mount-podinfo`
    endpoint: str = ""  # CONCURRENCY_STATE_ENDPOINT, Knative 1.0 to 1.9
    token_path: str = ""  # CONCURRENCY_STATE_TOKEN_PATH, set there whether or not there is an endpoint


class Way(NamedTuple):
    """To the freezer. `policy` holds until, and unless, the freezer names one."""

    address: Address
    token_path: str
    policy: PodPolicy


def look(mounts: Mounts) -> tuple[Way | None, list[str]]:
    """The way to the freezer, None without one; and what was found and cannot be used."""
    if mounts.token_path and not mounts.endpoint:
        return None, []  # a control plane of old with its freezer switched off
    token_path = find(mounts.tokens)
    if token_path is None:
        return None, []
    annotations = parse_podinfo(_read(mounts.podinfo))
    address, notes = where(
        mounts.host_ip,
        (f"annotation {ANNOTATION}", annotations.get(ANNOTATION, "")),
        ("CONCURRENCY_STATE_ENDPOINT", mounts.endpoint),
    )
    policy, warnings = parse(annotations, DEFAULTS)
    if address is None:
        return None, notes
    return Way(address, token_path, policy), notes + warnings


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(_LONGEST)
    except OSError:
        return ""
