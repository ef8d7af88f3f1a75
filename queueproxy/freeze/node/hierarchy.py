"""Decodes where the kernel has its cgroup hierarchies mounted and where a process sits in them.

Theory of operation. Text in, answer out: `/proc/<pid>/mountinfo` and `/proc/<pid>/cgroup` are read by the caller.
Three worlds occur: v2 only, v1 only, and hybrid, where v1 controllers and a v2 hierarchy are mounted side by side and
a process has a place in each. A mount may also show only a part of its hierarchy: a container sees its own cgroup
bind-mounted at the place of the root (the mount's `root` field), while `/proc/self/cgroup` still gives the path from
the real root. `Mounts.locate` joins the two.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Mounts", "parse_mounts", "parse_self"]

# Super-block options that are not controllers (kernel/cgroup/cgroup-v1.c, cgroup1_fs_parameters, and the VFS's own).
FLAGS = {"rw", "ro", "none", "all", "clone_children", "cpuset_v2_mode", "favordynmods", "noprefix", "xattr", "seclabel"}
UNIFIED = ""  # how /proc/<pid>/cgroup calls v2: hierarchy 0, no controllers
ESCAPE = re.compile(r"\\([0-7]{3})")


class Mounts(NamedTuple):
    """Mount points: of v2, and of v1 by controller ("cpu", "freezer", "name=systemd"). `roots`: what each of them
    shows."""

    v2: str | None
    v1: dict[str, str]
    roots: dict[str, str]

    def mount_of(self, controller: str) -> str | None:
        """Of a v1 controller, or of v2 for ""."""
        return self.v2 if controller == UNIFIED else self.v1.get(controller)

    def locate(self, controller: str, path: str) -> str | None:
        """The directory of a path from `parse_self`; None when not mounted or outside what the mount shows."""
        mount = self.mount_of(controller)
        if mount is None or not path.startswith("/") or "/../" in f"{path}/":
            return None  # "/../x" is a cgroup above our cgroup namespace: it has no name in here
        root = self.roots.get(mount, "/")
        inside = path if root == "/" else path.removeprefix(root)
        if root != "/" and (inside == path or inside[:1] not in ("", "/")):
            return None
        return mount + inside.rstrip("/")

    def place(self, controller: str, places: Mapping[str, str]) -> str | None:
        """The directory where the process of `places` (from `parse_self`) sits in this controller's hierarchy."""
        path = places.get(controller)
        return None if path is None else self.locate(controller, path)


def parse_mounts(mountinfo_text: str, *, under: str = "/") -> Mounts:
    """Of a mountinfo file. `under` narrows to mount points there: a node daemon sees the host's hierarchies beside its
    own.

    Mounted more than once, a hierarchy is taken where most of it shows: the shortest root, then the shortest mount
    point.
    """
    seen: dict[str, tuple[str, str]] = {}  # controller -> (root, mount point)
    shown: dict[str, tuple[str, str, str]] = {}  # mount point -> (type, root, options)
    for line in mountinfo_text.splitlines():
        # 36 35 98:0 /root /mount/point rw,noatime master:1 - cgroup2 source rw   (optional fields end at the dash)
        before, dash, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if not dash or len(left) < 6 or len(right) < 3:
            continue
        point = _unescape(left[4])
        if point == under or point.startswith(under.rstrip("/") + "/"):
            shown[point] = (right[0], _unescape(left[3]), right[2])  # a later mount covers an earlier one
    for point, (kind, root, options) in shown.items():
        for controller in _controllers(kind, options):
            best = seen.get(controller)
            if best is None or (len(root), len(point)) < (len(best[0]), len(best[1])):
                seen[controller] = (root, point)
    unified = seen.pop(UNIFIED, None)
    roots = {point: root for root, point in seen.values()}
    if unified is not None:
        roots[unified[1]] = unified[0]
    return Mounts(unified[1] if unified else None, {name: point for name, (_, point) in seen.items()}, roots)


def parse_self(cgroup_text: str) -> dict[str, str]:
    """Of a /proc/<pid>/cgroup file: path by controller, "" for v2. Paths may hold colons and spaces; the first two
    colons count."""
    places: dict[str, str] = {}
    for line in cgroup_text.splitlines():
        number, first, rest = line.partition(":")
        controllers, second, path = rest.partition(":")
        if not first or not second or not number.isdecimal():
            continue
        for controller in controllers.split(","):
            places[controller] = path
    return places


def _controllers(kind: str, options: str) -> list[str]:
    if kind == "cgroup2":
        return [UNIFIED]
    if kind != "cgroup":
        return []
    return [
        option
        for option in options.split(",")
        if option not in FLAGS and ("=" not in option or option.startswith("name="))
    ]


def _unescape(field: str) -> str:
    """The kernel writes space, tab, newline and backslash as octal."""
    return ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
