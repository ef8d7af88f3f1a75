"""Cleans up after a node of the e2e suite, whatever happened to the suite: a process of its own that outlives it.

Everything a node starts sits beneath one cgroup name in every hierarchy, its network namespaces begin with that name,
and its files are in one directory of that name. The guardian waits until its standard input ends, which is when the
suite says so, is killed or crashes; then it thaws, kills, unmounts and removes all of it. `sweep_stale` does the same
for nodes whose guardian was killed too.

    python -m tests.support.e2e_guardian NAME
"""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

__all__ = ["PREFIX", "cgroup_mounts", "clean_up", "home", "sweep_stale"]

PREFIX = "qpnode-"
RUN = "/run"
ALL_GONE_WITHIN = 15.0


def home(name: str) -> str:
    """Where a node keeps its files. Short: socket paths end at 107 bytes."""
    return f"{RUN}/{name}"


def cgroup_mounts() -> dict[str, str]:
    """Mount point by hierarchy: "" for v2, the controllers for v1."""
    found = {}
    with open("/proc/self/mountinfo") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split()[:3]
            if kind == "cgroup2":
                found.setdefault("", before.split()[4])
            elif kind == "cgroup":
                for option in options.split(","):
                    if option not in ("rw", "ro"):
                        found.setdefault(option, before.split()[4])
    return found


def clean_up(name: str) -> list[str]:
    """Thaw, kill and remove all of it; what would not go."""
    assert name.startswith(PREFIX) and "/" not in name
    trees = [f"{mount}/{name}" for mount in dict.fromkeys(cgroup_mounts().values())]
    left = _kill_all([tree for tree in trees if os.path.isdir(tree)])
    for path in glob.glob(f"/run/netns/{name}*"):
        subprocess.run(["ip", "netns", "del", os.path.basename(path)], check=False, timeout=10, capture_output=True)
    for tree in trees:
        for folder, _, _ in os.walk(tree, topdown=False):
            with suppress(FileNotFoundError):
                _remove_cgroup(folder, left)
    with open("/proc/self/mountinfo") as table:
        mounted = [point for line in table if (point := line.split()[4]).startswith(f"{home(name)}/")]
    for point in reversed(mounted):
        subprocess.run(["umount", "--lazy", point], check=False, timeout=10, capture_output=True)
    shutil.rmtree(home(name), ignore_errors=True)
    if os.path.exists(home(name)):
        left.append(home(name))
    return left


def sweep_stale() -> None:
    """Remove what nodes left whose suite and guardian were both killed."""
    for path in glob.glob(f"{RUN}/{PREFIX}*"):
        with suppress(OSError), open(f"{path}/lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            clean_up(os.path.basename(path))


def _kill_all(trees: list[str]) -> list[str]:
    """A task frozen by v1 does not even die before it is thawed, so thaw in every round."""
    until = time.monotonic() + ALL_GONE_WITHIN
    pids: set[int] = set()
    while time.monotonic() < until:
        pids = set()
        for tree in trees:
            for folder, _, files in os.walk(tree):
                for file, text in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                    if file in files:
                        _write(f"{folder}/{file}", text)
                with suppress(OSError), open(f"{folder}/cgroup.procs") as procs:
                    pids.update(int(line) for line in procs)
        pids -= {0, os.getpid()}
        if not pids:
            return []
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    return [f"pid {pid}" for pid in pids]


def _write(path: str, text: str) -> None:
    with suppress(OSError), open(path, "w") as file:
        file.write(text)


def _remove_cgroup(folder: str, left: list[str]) -> None:
    for _ in range(100):  # a dying process keeps its cgroup busy for a moment
        try:
            os.rmdir(folder)
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.02)
    left.append(folder)


def main() -> int:
    name = sys.argv[1]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the input is the only order
    with open(f"{home(name)}/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("watching", flush=True)
        sys.stdin.buffer.read()
        left = clean_up(name)
    for what in left:
        print(f"left behind: {what}", flush=True)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
