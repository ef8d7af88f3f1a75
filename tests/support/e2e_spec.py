"""Decides what a CRI plugin would write into the specs of a pod's containers; the image is the host's own files.

There is no registry, so the "image" is an empty directory into which the host's /usr, the Python that runs the suite
with its environment, and a copy of the package are bind-mounted read-only, each at its own path. Everything else is
what containerd's default spec and Kubernetes' restricted security context give: uid 65532, default seccomp profile,
no capability for the sidecar.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["CODE", "IMAGE_PATHS", "USER", "container_spec", "make_rootfs"]

USER = 65532
CODE = "/srv"  # where the package and the suite's own apps are inside
TMP = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]}
_LINKS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def _image_paths() -> tuple[str, ...]:
    """Host directories that make up the image; a path beneath another one is there already."""
    chosen: list[str] = []
    for path in sorted({"/usr", os.path.realpath(sys.base_prefix), os.path.realpath(sys.prefix)}, key=len):
        if not any(path.startswith(f"{other}/") for other in chosen):
            chosen.append(path)
    return tuple(chosen)


IMAGE_PATHS = _image_paths()


def make_rootfs(path: str) -> None:
    """Mount points and the links of a merged /usr."""
    for folder in ("etc", "dev", "proc", "sys", "tmp", "var/run/secrets/tokens", "etc/podinfo", CODE[1:]):
        os.makedirs(f"{path}/{folder}", exist_ok=True)
    for folder in IMAGE_PATHS:
        os.makedirs(path + folder, exist_ok=True)
    for link in _LINKS:
        if os.path.islink(f"/{link}"):
            os.symlink(os.readlink(f"/{link}"), f"{path}/{link}")
        elif os.path.isdir(f"/{link}"):
            os.makedirs(f"{path}/{link}")
    with open(f"{path}/etc/passwd", "w") as file:
        file.write(f"root:x:0:0::/:\nnonroot:x:{USER}:{USER}::/:\n")


def container_spec(
    model: Mapping[str, Any],
    *,
    args: Sequence[str],
    env: Mapping[str, str],
    rootfs: str,
    code: str,
    cgroup: str,
    namespaces: Mapping[str, str],
    hostname: str,
    is_sidecar: bool,
    mounts: Mapping[str, str],
    cpu_shares: int = 2,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """`model`: containerd's default spec. `namespaces`: paths to join by type. `mounts`: what to mount read-only, by
    its place inside."""
    spec = copy.deepcopy(dict(model))
    spec["root"] = {"path": rootfs, "readonly": True}
    spec["hostname"] = hostname
    spec["annotations"] = dict(annotations or {})
    process = spec["process"]
    process.update(
        args=list(args),
        cwd="/",
        env=[f"{name}={value}" for name, value in env.items()],
        user={"uid": USER, "gid": USER, "additionalGids": [USER]},
        noNewPrivileges=is_sidecar,
    )
    process.pop("rlimits", None)  # CRI sets none
    kept = [] if is_sidecar else process["capabilities"]["bounding"]
    process["capabilities"] = {kind: list(kept) for kind in ("bounding", "effective", "permitted")}
    folders = {path: path for path in (*IMAGE_PATHS, *_real_links())} | {CODE: code} | dict(mounts)
    spec["mounts"] = [
        *(mount for mount in spec["mounts"] if mount["destination"] != "/run"),  # CRI has none
        *([] if is_sidecar else [TMP]),  # before what may lie in it
        *(_read_only(source, inside) for inside, source in folders.items()),
    ]
    linux = spec["linux"]
    linux["cgroupsPath"] = cgroup
    linux["resources"]["cpu"] = {"shares": cpu_shares}
    linux["namespaces"] = [
        {"type": kind["type"], **({"path": namespaces[kind["type"]]} if kind["type"] in namespaces else {})}
        for kind in linux["namespaces"]
    ]
    return spec


def _real_links() -> list[str]:
    """Top-level directories of a host without merged /usr."""
    return [f"/{link}" for link in _LINKS if os.path.isdir(f"/{link}") and not os.path.islink(f"/{link}")]


def _read_only(source: str, inside: str) -> dict[str, Any]:
    return {"destination": inside, "source": source, "type": "bind", "options": ["rbind", "ro", "nosuid", "nodev"]}
