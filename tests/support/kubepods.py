"""Makes pods for tests, laid out as a kubelet would: on the real cgroup hierarchies with real processes in them.

A `Node` has a kubepods directory of one name in each hierarchy it uses; leaving it thaws, kills and removes whatever
the test left. Which hierarchies count as mounted is the test's choice, so the v2, the v1 and the hybrid world can all
be had on a hybrid machine.
"""

import os
import uuid
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple, Self

from queueproxy.freeze.node.hierarchy import Mounts, parse_mounts
from queueproxy.freeze.node.inventory import ContainerFacts
from queueproxy.freeze.node.locate import Tree
from queueproxy.freeze.node.naming import candidates, pod_path
from tests.support.cgroupfs import Lab, Workload, place_of, until

UNIFIED = ""


def descriptors(within: str = "/qp-test-") -> list[str]:
    """What this process holds open of certain places. Counting all would count what the collector has yet to close."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(path for path in found if within in path)


class NamedLab(Lab):
    """A lab whose directory has a name given: several hierarchies need the same."""

    def __init__(self, controller: str, name: str) -> None:
        place = place_of(controller)
        assert place is not None
        self.root = f"{place}/{name}"
        os.mkdir(self.root)
        self._workloads = []


class Pod(NamedTuple):
    """One pod of a node."""

    uid: str
    qos: str
    containers: tuple[ContainerFacts, ...]
    paths: tuple[str, ...]  # of the containers, beneath the kubepods directory


class Node:
    """Freezer in the first hierarchy named, processes in all of them."""

    def __init__(self, *controllers: str, top: str = "kubepods.slice") -> None:
        self._stack = ExitStack()
        name = f"qp-test-{uuid.uuid4().hex[:12]}"
        self._labs: dict[str, NamedLab] = {}
        mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
        place, mount = place_of(controllers[0]), mounts.mount_of(controllers[0])
        assert place is not None
        assert mount is not None
        self.root = f"{place.removeprefix(mount)}/{name}/{top}".lstrip("/")
        try:
            # The processes belong to the first: it is left last in, first out.
            for controller in reversed(controllers):
                self._labs[controller] = self._stack.enter_context(NamedLab(controller, name))
                self._labs[controller].make(top)
        except BaseException:
            self._stack.close()
            raise
        self.first = self._labs[controllers[0]]
        self.mounts = Mounts(
            mounts.v2 if UNIFIED in controllers else None,
            {controller: mounts.v1[controller] for controller in controllers if controller},
            mounts.roots,
        )
        self._top = top

    def tree(self) -> Tree:
        """As the freezer would open it."""
        tree = Tree(self.mounts, {}, roots=[self.root])
        self._stack.callback(tree.close)
        return tree

    def pod(self, names: Sequence[str] = ("app",), *, qos: str = "burstable", runtime: str = "containerd") -> Pod:
        """Directories of a pod in every hierarchy."""
        uid = str(uuid.uuid4())
        facts = tuple(ContainerFacts(name, uuid.uuid4().hex * 2, runtime) for name in names)
        paths = tuple(next(candidates(self.root, uid, qos, one.id, runtime)) for one in facts)
        for controller in self._labs:
            for path in paths:
                os.makedirs(self.at(path, controller))
        return Pod(uid, qos, facts, paths)

    def run(self, path: str, mode: str = "ticking", tasks: int = 1) -> Workload:
        """Real processes in a container, in all hierarchies."""
        first = self.at(path)
        work = self.first.run(first, mode, tasks)
        for controller, lab in self._labs.items():
            if lab is not self.first:
                for pid in Path(first, "cgroup.procs").read_text().split():
                    lab.write(self.at(path, controller), "cgroup.procs", pid)
        return work

    def at(self, path: str, controller: str | None = None) -> str:
        """The absolute path of a directory beneath the kubepods directory; of the first hierarchy unless named."""
        lab = self.first if controller is None else self._labs[controller]
        return f"{lab.root}/{self._top}/{path}"

    @property
    def controllers(self) -> tuple[str, ...]:
        return tuple(self._labs)

    def remove(self, path: str, controller: str) -> None:
        """Remove a container's directory once its last process has left it."""
        where = self.at(path, controller)
        until(lambda: not Path(where, "cgroup.procs").read_text(), f"{where} empty")
        os.rmdir(where)

    def pod_at(self, pod: Pod, controller: str | None = None) -> str:
        return self.at(pod_path(self.root, pod.uid, pod.qos), controller)

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
