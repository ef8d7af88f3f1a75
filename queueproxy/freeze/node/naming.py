"""Decides where a container's cgroup should be: pod uid and container id to paths beneath a kubepods directory.

Theory of operation. Names in, relative paths out, likeliest first; nothing is opened here. Three facts make a path:

    kubepods directory   its name tells the kubelet's cgroup driver: `….slice` is systemd, anything else cgroupfs
    pod                  its QoS class is a level of its own, except for guaranteed; systemd repeats all levels in each
                         name, from the kubepods directory's own name on, and cannot have dashes in the uid
    container            the runtime's prefix, and `.scope` under systemd

    kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice/cri-containerd-<id>.scope
    kubepods/burstable/pod<uid>/<id>

Every path ends in a name that holds the whole container id, so none of them can mean a pod, a QoS class or all pods
(T-10), and ids and uids of any other shape are refused before they become part of a path (T-12, FZ-132).
"""

import re
from collections.abc import Iterator
from enum import IntEnum

__all__ = [
    "NESTED", "QOS", "ROOTS", "BadName", "Driver",
    "candidates", "check", "driver_of", "is_leaf", "leaf_names", "pod_names", "pod_path", "roots_below",
]  # fmt: skip

# Where kubelets put pods: by default, and with a cgroup root of their own as kind and k3d give them.
ROOTS = ("kubepods.slice", "kubepods", "kubelet.slice/kubelet-kubepods.slice", "kubelet/kubepods")
QOS = ("burstable", "besteffort", "guaranteed")
# crun, CRI-O's usual runtime, puts the processes one level below the scope on v2.
NESTED = "container"

_ID = re.compile(r"[0-9a-f]{64}")
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class BadName(ValueError):
    """An id, uid or QoS class of a shape that no kubelet and no runtime produces."""


class Driver(IntEnum):
    """Who makes the kubelet's cgroups."""

    SYSTEMD = 0
    CGROUPFS = 1


# By driver: runtime -> names of a container. cri-conmon scopes beside them hold monitors, never the app.
_LEAVES: dict[Driver, dict[str, str]] = {
    Driver.SYSTEMD: {
        "containerd": "cri-containerd-{}.scope",
        "cri-o": "crio-{}.scope",
        "docker": "docker-{}.scope",
    },
    Driver.CGROUPFS: {"containerd": "{}", "cri-o": "crio-{}", "docker": "{}"},
}


def check(uid: str, container_id: str) -> None:
    """Refuse what is not the uid of a pod or the id of a container."""
    if not _UID.fullmatch(uid):
        raise BadName(f"{uid[:80]!r} is no pod uid")
    if not _ID.fullmatch(container_id):
        raise BadName(f"{container_id[:80]!r} is no container id")


def driver_of(root: str) -> Driver:
    """Of a kubepods directory."""
    return Driver.SYSTEMD if root.endswith(".slice") else Driver.CGROUPFS


def roots_below(cgroup_root: str) -> tuple[str, ...]:
    """Where a kubelet with this `--cgroup-root` puts pods, by driver. systemd's slices repeat the names above them and
    cannot have dashes of their own, so the kubelet writes those as underscores."""
    parts = [part for part in cgroup_root.split("/") if part]
    names = [part.replace("-", "_") for part in parts] + ["kubepods"]
    slices = ["-".join(names[: end + 1]) + ".slice" for end in range(len(names))]
    return "/".join(slices), "/".join([*parts, "kubepods"])


def pod_path(root: str, uid: str, qos: str) -> str:
    """A pod's directory, relative to the kubepods directory."""
    if qos not in QOS:
        raise BadName(f"{qos[:80]!r} is no QoS class")
    if driver_of(root) is Driver.CGROUPFS:
        return f"pod{uid}" if qos == "guaranteed" else f"{qos}/pod{uid}"
    stem, name = _stem(root), uid.replace("-", "_")
    if qos == "guaranteed":
        return f"{stem}-pod{name}.slice"
    return f"{stem}-{qos}.slice/{stem}-{qos}-pod{name}.slice"


def pod_names(root: str, uid: str) -> frozenset[str]:
    """Every name the pod's own directory may have, whatever directory it is in."""
    return frozenset(pod_path(root, uid, qos).rpartition("/")[2] for qos in QOS)


def leaf_names(driver: Driver, container_id: str, runtime: str = "") -> tuple[str, ...]:
    """A container's own directory: its runtime's way first, then the others', because `runtime` is only a hint."""
    forms = _LEAVES[driver]
    likely = [forms[runtime]] if runtime in forms else []
    return tuple(dict.fromkeys(form.format(container_id) for form in (*likely, *forms.values())))


def candidates(root: str, uid: str, qos: str, container_id: str, runtime: str = "") -> Iterator[str]:
    """Paths relative to the kubepods directory, likeliest first; the first is right on every node set up as usual."""
    check(uid, container_id)
    names = leaf_names(driver_of(root), container_id, runtime)
    for level in dict.fromkeys((qos, *QOS)):
        pod = pod_path(root, uid, level)
        for name in names:
            yield f"{pod}/{name}"


def is_leaf(root: str, path: str, uid: str, container_id: str) -> bool:
    """Whether a path beneath the kubepods directory can be this container's: what a journal says is only a claim."""
    check(uid, container_id)
    *above, name = path.removesuffix(f"/{NESTED}").split("/")
    if not {"", ".", ".."}.isdisjoint(above):
        return False
    return name in leaf_names(driver_of(root), container_id) and not pod_names(root, uid).isdisjoint(above)


def _stem(root: str) -> str:
    return root.rpartition("/")[2].removesuffix(".slice")
