"""What the DaemonSet leaves the freezer is enough: no capabilities, a read-only root, kubepods alone of the cgroups."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kubepods import Node

ROOT = Path(__file__).resolve().parents[2]
# As a runtime would set the container up: its own mounts, then its own rights, then its program.
ENTER = """
set -e
mount --make-rprivate /
mount --bind "$1" "$1"
mount -t tmpfs none "$1"
mkdir -p "$1/cgroup/kubepods.slice"
mount --bind "$2" "$1/cgroup/kubepods.slice"
umount -l -R /sys/fs/cgroup
mount -o remount,bind,ro "$1"
mount -o remount,bind,ro /
shift 2
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""
ACT = """
import json, os, sys
from queueproxy.freeze.node.fitness import capabilities
from queueproxy.freeze.node.locate import Tree
from queueproxy.freeze.node.mover import PodMover
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.node.inventory import ContainerFacts
import asyncio
under, uid, container = sys.argv[1:]
said = {"uid": os.geteuid(), "capabilities": capabilities()}

async def move():
    tree = Tree.open(under=under)
    said["found"] = tree.found()
    containers = [ContainerFacts("app", container, "containerd")]
    mover = PodMover(asyncio.get_running_loop(), tree, containers, uid, "burstable", adopt=None)
    for rung in (Rung.FROZEN, Rung.RUNNING):
        moved = asyncio.get_running_loop().create_future()
        mover.move(rung, moved.set_result)
        said[rung.name] = (await moved).rung == rung and mover.seen() == rung
    mover.close()
    tree.close()

asyncio.run(move())
for place in (f"{under}/cgroup.freeze", f"{under}/made", "/made", "/sys/fs/cgroup/cgroup.procs"):
    try:
        open(place, "w")
        said[place] = "written"
    except OSError as error:
        said[place] = error.strerror
print(json.dumps(said))
"""


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.fz("FZ-120", "FZ-121")
@pytest.mark.skipif(shutil.which("setpriv") is None or shutil.which("unshare") is None, reason="needs util-linux")
def test_a_pod_is_frozen_and_thawed_with_no_more_than_the_daemonset_gives(tmp_path: Path) -> None:
    with Node("") as node:
        pod = node.pod()
        top = Path(node.first.root) / "kubepods.slice"
        host = tmp_path / "host"
        host.mkdir()
        run = subprocess.run(
            ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(host), str(top),
             sys.executable, "-c", ACT, str(host / "cgroup"), pod.uid, pod.containers[0].id],
            capture_output=True, text=True, timeout=60, cwd=ROOT, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        said = json.loads(run.stdout)
    assert (said.pop("uid"), said.pop("capabilities")) == (0, [])
    assert said.pop("found") == [str(host / "cgroup/kubepods.slice")]
    assert said.pop("FROZEN") is True and said.pop("RUNNING") is True
    assert "written" not in said.values() and len(said) == 4
