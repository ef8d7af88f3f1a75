"""Finds and opens the cgroups of one container beneath the node's kubepods directories, and nothing else.

What it touches: the hierarchies mounted under one place, each kubepods directory in them held by descriptor. A
container is looked for at the paths `naming` decides, likeliest first, which is one call of openat2 on an ordinary
node; only when no such path exists are the kubepods directories walked, within bounds, for a directory of the pod's
name and in it one of the container's. Nothing follows a symlink, leaves the held directory or crosses a mount, and
only the kernel's own filesystems count (FZ-132, T-12). What is opened is a container's cgroup, never a pod's, and never
one that we live in (T-10). Cgroups the container makes inside its own are not looked at (T-25); the one exception is
the leaf `container` that crun makes under its scope and puts every process into.

Three worlds (FZ-078): v2 alone; v1 alone, with freezer, cpu and cpuacct hierarchies; and hybrid, where the v2 freezer
and the v1 cpu limit serve the same container. In the hybrid one v2 is taken only where it holds the processes.

A container that is not there is a FileNotFoundError, a place that is not for us NotACgroup.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Self

from queueproxy.freeze.node.cgroup import Freezer, FreezerV2, freezer_of
from queueproxy.freeze.node.directory import (
    CGROUP_FREEZE,
    CPU_MAX,
    CPU_QUOTA,
    CPU_STAT,
    CPUACCT_USAGE,
    FREEZER_STATE,
    Cgroup,
    NotACgroup,
    Version,
)
from queueproxy.freeze.node.held import HeldContainer, Spot
from queueproxy.freeze.node.hierarchy import UNIFIED, Mounts, parse_mounts, parse_self
from queueproxy.freeze.node.kubepods import Kubepods, directories
from queueproxy.freeze.node.naming import NESTED, ROOTS, candidates, check
from queueproxy.freeze.node.throttle import CpuThrottle, cpu_usage_usec

__all__ = ["Leaf", "Tree"]

FREEZERS = (UNIFIED, "freezer")
CPU, ACCOUNT = "cpu", "cpuacct"

_Place = tuple[Kubepods, str, str]  # hierarchy, kubepods directory, path beneath it


class Leaf:
    """The cgroups held of one container. `spot` and `cpu_spot` are how a journal names them."""

    __slots__ = ("_usage", "cpu_spot", "freezer", "spot", "throttle")

    def __init__(
        self, spot: Spot, freezer: Freezer, cpu_spot: Spot | None, throttle: CpuThrottle | None, usage: Cgroup | None
    ) -> None:
        self.spot = spot
        self.freezer = freezer
        self.cpu_spot = cpu_spot
        self.throttle = throttle
        self._usage = usage
        if usage is not None:
            usage.keep(CPUACCT_USAGE if usage.version is Version.V1 else CPU_STAT)

    def cpu_usec(self) -> int | None:
        """CPU time the container has used, None when gone or not counted."""
        return None if self._usage is None else cpu_usage_usec(self._usage)

    def close(self) -> None:
        self.freezer.close()
        for cgroup in (self.throttle and self.throttle.cgroup, self._usage):
            if cgroup is not None:
                cgroup.close()

    def __repr__(self) -> str:
        return f"<Leaf {self.spot.hierarchy or 'v2'}:{self.spot.root}/{self.spot.path} cpu={self.cpu_spot is not None}>"


class Tree:
    """The node's cgroups as far as pods are concerned. Open one and keep it."""

    def __init__(
        self,
        mounts: Mounts,
        places: dict[str, str],
        *,
        roots: Sequence[str] = ROOTS,
        proc: str = "/proc",
        require_cgroupfs: bool = True,
    ) -> None:
        self.roots = tuple(roots)
        self.proc = proc
        self._require_cgroupfs = require_cgroupfs
        self._own = frozenset(_own_places(mounts, places))
        self._hierarchies: dict[str, Kubepods] = {}
        self._mounted: list[Kubepods] = []
        try:
            for name in (*FREEZERS, CPU, ACCOUNT):
                mount = mounts.mount_of(name)
                if mount is not None:
                    self._hierarchies[name] = self._at_mount(name, mount)
            self._refresh()
        except BaseException:
            self.close()
            raise

    @classmethod
    def open(cls, *, under: str = "/sys/fs/cgroup", roots: Sequence[str] = ROOTS, proc: str = "/proc") -> Self:
        """Of the hierarchies mounted at or below `under`; `roots` are the kubepods directories, relative to each."""
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            mounts = parse_mounts(file.read(), under=under)
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
            return cls(mounts, parse_self(file.read()), roots=roots, proc=proc)

    def find(self, uid: str, qos: str, container_id: str, runtime: str = "") -> Leaf:
        """Open what there is of a container. BadName, FileNotFoundError, NotACgroup or another OSError otherwise."""
        check(uid, container_id)
        leaf = self._first(self._likely(uid, qos, container_id, runtime))
        if leaf is None and self._refresh():
            leaf = self._first(self._likely(uid, qos, container_id, runtime))
        if leaf is None:
            leaf = self._first(self._anywhere(uid, container_id))
        if leaf is None:
            raise FileNotFoundError(errno.ENOENT, "no cgroup of this container", container_id)
        return leaf

    def adopt(self, held: HeldContainer) -> Leaf:
        """Open what a journal remembers; FileNotFoundError when it is gone, a namesake in its place included."""
        with ExitStack() as opened:
            cgroup = opened.enter_context(self._reopen(held.freezer))
            self._refuse_own(cgroup)
            freezer, throttle = freezer_of(cgroup), None
            if held.cpu is not None:
                # Without its limit the container can still be thawed, which matters more.
                with suppress(FileNotFoundError, NotACgroup):
                    limited = cgroup if held.cpu == held.freezer else opened.enter_context(self._reopen(held.cpu))
                    throttle = CpuThrottle(limited, previous=held.previous, squeezed=held.squeezed)
            usage = self._usage(held.freezer, freezer, throttle)
            opened.pop_all()
        return Leaf(held.freezer, freezer, held.cpu if throttle else None, throttle, usage)

    def found(self) -> tuple[str, ...]:
        """The kubepods directories there are now, as absolute paths."""
        self._refresh()
        return tuple(hierarchy.path_of(root) for hierarchy in self._mounted for root in hierarchy.tops)

    def close(self) -> None:
        self._hierarchies.clear()
        while self._mounted:
            self._mounted.pop().close()

    def _at_mount(self, name: str, mount: str) -> Kubepods:
        for hierarchy in self._mounted:
            if hierarchy.mount == mount:  # cpu and cpuacct are usually one
                return hierarchy
        hierarchy = Kubepods(name, mount)
        self._mounted.append(hierarchy)
        return hierarchy

    def _refresh(self) -> bool:
        came = [hierarchy.refresh(self.roots) for hierarchy in self._mounted]
        return any(came)

    def _freezers(self) -> list[Kubepods]:
        return [self._hierarchies[name] for name in FREEZERS if name in self._hierarchies]

    def _likely(self, uid: str, qos: str, container_id: str, runtime: str) -> Iterator[_Place]:
        for hierarchy in self._freezers():
            for root in hierarchy.tops:
                for path in candidates(root, uid, qos, container_id, runtime):
                    yield hierarchy, root, path

    def _anywhere(self, uid: str, container_id: str) -> Iterator[_Place]:
        for hierarchy in self._freezers():
            for root in hierarchy.tops:
                for path in hierarchy.walk(root, uid, container_id):
                    yield hierarchy, root, path

    def _first(self, places: Iterable[_Place]) -> Leaf | None:
        """The first that can be opened; in the hybrid world one that holds processes goes before one that does not."""
        has_choice = len(self._freezers()) > 1
        empty: Leaf | None = None
        for place in places:
            leaf = self._try(*place)
            if leaf is None:
                continue
            if not has_choice or leaf.freezer.observe().populated:
                if empty is not None:
                    empty.close()
                return leaf
            if empty is None:
                empty = leaf
            else:
                leaf.close()
        return empty

    def _try(self, hierarchy: Kubepods, root: str, path: str) -> Leaf | None:
        """The leaf at one path, None when there is no cgroup, or none that can be frozen."""
        try:
            with ExitStack() as opened:
                scope = cgroup = opened.enter_context(self._open(hierarchy, root, path))
                self._refuse_own(scope)
                if _is_hollow(scope):
                    path = f"{path}/{NESTED}"
                    cgroup = opened.enter_context(self._open(hierarchy, root, path))
                    self._refuse_own(cgroup)
                if not (cgroup.has(CGROUP_FREEZE) or cgroup.has(FREEZER_STATE)):
                    return None  # v2 before 5.2: the v1 freezer then is the one
                freezer = freezer_of(cgroup)
                spot = Spot(hierarchy.name, root, path, cgroup.inode)
                cpu_spot, throttle = self._cpu(spot, cgroup, scope)
                if throttle is not None:
                    opened.enter_context(throttle.cgroup)
                usage = self._usage(spot, freezer, throttle)
                opened.pop_all()
        except FileNotFoundError:  # never there, or removed while we looked
            return None
        if scope is not cgroup and (throttle is None or throttle.cgroup is not scope):
            scope.close()
        return Leaf(spot, freezer, cpu_spot, throttle, usage)

    def _cpu(self, spot: Spot, cgroup: Cgroup, scope: Cgroup) -> tuple[Spot | None, CpuThrottle | None]:
        above = spot.path.removesuffix(f"/{NESTED}")
        for held, path in ((cgroup, spot.path), (scope, above)):
            if held.has(CPU_MAX):
                return Spot(spot.hierarchy, spot.root, path, held.inode), CpuThrottle(held)
        limited = self._counterpart(CPU, spot)
        if limited is None:
            return None, None
        if not limited.has(CPU_QUOTA):  # a kernel without CFS bandwidth
            limited.close()
            return None, None
        return Spot(self._hierarchies[CPU].name, spot.root, above, limited.inode), CpuThrottle(limited)

    def _usage(self, spot: Spot, freezer: Freezer, throttle: CpuThrottle | None) -> Cgroup | None:
        if isinstance(freezer, FreezerV2):
            return freezer.cgroup
        if throttle is not None and self._hierarchies.get(ACCOUNT) is self._hierarchies.get(CPU):
            return throttle.cgroup
        return self._counterpart(ACCOUNT, spot)

    def _counterpart(self, name: str, spot: Spot) -> Cgroup | None:
        """The same container in a v1 hierarchy: runtimes use one path in all of them, without the nested leaf."""
        hierarchy = self._hierarchies.get(name)
        if hierarchy is None:
            return None
        try:
            return self._open(hierarchy, spot.root, spot.path.removesuffix(f"/{NESTED}"))
        except FileNotFoundError:
            return None

    def _reopen(self, spot: Spot) -> Cgroup:
        hierarchy = self._hierarchies.get(spot.hierarchy)
        if hierarchy is None or spot.root not in self.roots:
            raise NotACgroup(f"{spot.root!r} in {spot.hierarchy or 'v2'!r} is none of our kubepods directories")
        return self._open(hierarchy, spot.root, spot.path, spot.inode)

    def _open(self, hierarchy: Kubepods, root: str, path: str, inode: int | None = None) -> Cgroup:
        top = hierarchy.tops.get(root)
        if top is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), hierarchy.path_of(root))
        return Cgroup.open((top, path), require_cgroupfs=self._require_cgroupfs, inode=inode)

    def _refuse_own(self, cgroup: Cgroup) -> None:
        """Nobody would be left to thaw us (T-10). By inode, and by pid where our cgroup namespace hides our path."""
        if (cgroup.device, cgroup.inode) in self._own or os.getpid() in cgroup.pids():
            raise NotACgroup(f"{cgroup.name!r}: we live there")

    def __repr__(self) -> str:
        return f"<Tree {' '.join(map(repr, self._mounted))}>"


def _is_hollow(scope: Cgroup) -> bool:
    """Whether this is a scope as crun makes it: no process of its own and nothing below but `container`."""
    try:
        os.stat(NESTED, dir_fd=scope.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return scope.version is not Version.V1 and directories(scope.fd) == [NESTED] and not scope.pids()


def _own_places(mounts: Mounts, places: dict[str, str]) -> Iterator[tuple[int, int]]:
    """Device and inode of every cgroup we live in, from our place up to the top of each hierarchy."""
    for name in (*FREEZERS, CPU, ACCOUNT):
        mount, place = mounts.mount_of(name), mounts.place(name, places)
        while mount and place and place.startswith(f"{mount}/"):
            try:
                status = os.stat(place)
            except OSError:
                break
            yield status.st_dev, status.st_ino
            place = place.rpartition("/")[0]
