"""Holds the kubepods directories of one mounted cgroup hierarchy, and walks them when no known path leads anywhere.

What it touches: one mount point, and directories beneath it, by descriptor. A kubepods directory may appear after us
(a node's first pod) and be replaced (a kubelet that starts with another cgroup driver), so `refresh` looks again.
"""

import os
from collections.abc import Iterator, Sequence

from queueproxy.freeze.node.beneath import NotACgroup, open_absolute, open_beneath
from queueproxy.freeze.node.directory import CGROUP_PROCS
from queueproxy.freeze.node.naming import driver_of, leaf_names, pod_names

__all__ = ["Kubepods", "directories"]

# The walk: directories read in all (a node of 250 pods of three containers has about 1,300), and levels below the
# kubepods directory (QoS, pod, container, and one that nobody has thought of).
MOST_DIRECTORIES = 4096
DEEPEST = 4


class Kubepods:
    """Of one hierarchy, `name` being its controller ("" is v2). `tops`: what is held, by path below the mount."""

    __slots__ = ("_fd", "mount", "name", "tops")

    def __init__(self, name: str, mount: str) -> None:
        self.name = name
        self.mount = mount
        self.tops: dict[str, int] = {}
        self._fd = open_absolute(mount)

    def refresh(self, roots: Sequence[str]) -> bool:
        """Open what has appeared and let go of what was removed; whether any came."""
        came = False
        for root in roots:
            held = self.tops.get(root)
            if held is not None:
                if _is_there(held):
                    continue
                os.close(self.tops.pop(root))
            try:
                self.tops[root] = os.dup(self._fd) if self._is(root) else open_beneath(self._fd, root)
                came = True
            except FileNotFoundError:
                continue
        return came

    def path_of(self, root: str) -> str:
        """Where a kubepods directory is, or would be."""
        return self.mount if self._is(root) else f"{self.mount}/{root}"

    def walk(self, root: str, uid: str, container_id: str) -> Iterator[str]:
        """Paths of the container beneath a kubepods directory that is laid out in no way we know: the pod's directory
        at any level, the container's at any level in it."""
        pods, names = pod_names(root, uid), leaf_names(driver_of(root), container_id)
        left = MOST_DIRECTORIES
        level = [("", False)]  # (path, whether it is the pod's own directory or in it)
        for _ in range(DEEPEST):
            below: list[tuple[str, bool]] = []
            for path, is_inside in level:
                left -= 1
                if left < 0:
                    return
                for name in self._directories_at(root, path):
                    deeper = f"{path}/{name}" if path else name
                    if is_inside and name in names:
                        yield deeper
                    else:
                        below.append((deeper, is_inside or name in pods))
            # Once the pod is found nothing beside it matters.
            level = [entry for entry in below if entry[1]] or below

    def close(self) -> None:
        while self.tops:
            os.close(self.tops.popitem()[1])
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is(self, root: str) -> bool:
        """Whether the mount is the kubepods directory: a container is given nothing else (FZ-121). Its mount point's
        name tells; what the mount shows is hidden by the container's cgroup namespace."""
        return self.mount.endswith(f"/{root}")

    def _directories_at(self, root: str, path: str) -> list[str]:
        try:
            fd = open_beneath(self.tops[root], path) if path else os.dup(self.tops[root])
        except (FileNotFoundError, NotACgroup):  # removed meanwhile, or a link
            return []
        try:
            return directories(fd)
        finally:
            os.close(fd)

    def __repr__(self) -> str:
        return f"<Kubepods {self.mount} {' '.join(self.tops) or 'none'}>"


def directories(fd: int) -> list[str]:
    """Names of the directories in an open one; links are not followed."""
    with os.scandir(fd) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def _is_there(fd: int) -> bool:
    """Whether a held cgroup directory still is one: a removed one has no files."""
    try:
        os.stat(CGROUP_PROCS, dir_fd=fd, follow_symlinks=False)
    except OSError:
        return False
    return True
