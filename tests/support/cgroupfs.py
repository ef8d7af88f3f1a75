"""Makes cgroups for tests: real ones with real processes in them, and trees of ordinary files that look like one.

Real: `Lab` makes cgroups under our own place in a hierarchy and removes everything, frozen or not, whatever the test
did. Files: `tree_v2`, `tree_v1`, `tree_cpu` write the kernel's files into a directory. Nothing in them moves by
itself: they serve to prove parsing, order, refusals and hostile layouts, never the kernel's behaviour.
"""

import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Self

import pytest

from queueproxy.freeze.node.hierarchy import parse_mounts, parse_self

# Bounds every wait for something that must happen. A machine that is translated instruction by instruction needs more.
PATIENCE = float(os.environ.get("QP_TEST_PATIENCE", "10"))
# How long something must not happen before a test believes it: 20 beats of a ticking task.
SILENCE = 0.1


def place_of(controller: str) -> str | None:
    """The directory where this process sits in a hierarchy ("" is v2), None when it is not mounted."""
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    return mounts.place(controller, parse_self(Path("/proc/self/cgroup").read_text()))


def real_cgroups(controller: str) -> list[pytest.MarkDecorator]:
    """Marks for tests on a real hierarchy: they say why when they cannot run."""
    name = controller or "v2"
    writable = os.geteuid() == 0 and place_of(controller) is not None
    return [
        pytest.mark.root,
        pytest.mark.slow,
        pytest.mark.skipif(not writable, reason=f"NOT PROVEN HERE: needs root and a mounted {name} cgroup hierarchy"),
    ]


def v2_has_cpu() -> bool:
    """Whether cgroups made where this process sits get `cpu.max`."""
    place = place_of("")
    return place is not None and "cpu" in Path(place, "cgroup.subtree_control").read_text().split()


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a fact of the kernel that has no event to wait on."""
    deadline_at = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline_at, f"still waiting after {PATIENCE} s: {what}"
        pause.wait(0.002)


def remains(condition: Callable[[], object], what: str, for_: float = SILENCE) -> None:
    """Require that a fact holds all the time for a while."""
    deadline_at = time.monotonic() + for_
    pause = threading.Event()
    while time.monotonic() < deadline_at:
        assert condition(), f"did not last: {what}"
        pause.wait(0.005)


class Lab:
    """Makes real cgroups in one hierarchy; leaving it thaws, kills and removes all of them."""

    def __init__(self, controller: str) -> None:
        place = place_of(controller)
        assert place is not None
        self.root = f"{place}/qp-test-{uuid.uuid4().hex[:12]}"
        os.mkdir(self.root)
        self._workloads: list[Workload] = []

    def make(self, name: str) -> str:
        path = f"{self.root}/{name}"
        os.mkdir(path)
        return path

    def run(self, path: str, mode: str, tasks: int = 1) -> "Workload":
        workload = Workload(path, mode, tasks)
        self._workloads.append(workload)
        return workload

    def read(self, path: str, name: str) -> str:
        return Path(path, name).read_text().strip()

    def write(self, path: str, name: str, text: str) -> None:
        Path(path, name).write_text(text)

    def close(self) -> None:
        below = [top for top, _, _ in os.walk(self.root)]
        for path in below:
            _thaw_raw(path)
        for workload in self._workloads:
            workload.close()
        for path in reversed(below):
            until(lambda path=path: _removed(path), f"{path} empty")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _thaw_raw(path: str) -> None:
    for name, text in (("cgroup.freeze", "0"), ("freezer.state", "THAWED")):
        if Path(path, name).exists():
            Path(path, name).write_text(text)


def _removed(path: str) -> bool:
    """Remove a cgroup, ending whatever still lives in it."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError:
        for pid in Path(path, "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):  # it has ended since the listing
                os.kill(int(pid), signal.SIGKILL)
        return False
    return True


# The child joins its cgroup before it does anything, so its children are born there. Each task counts in shared memory.
CHILD = r"""
import ctypes, fcntl, mmap, os, signal, struct, sys, threading
procs, mode, tasks, shared = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with open(procs, "w") as file:
    file.write("0")
counts = mmap.mmap(shared, 8 * tasks)

def count(slot):
    struct.pack_into("=Q", counts, 8 * slot, struct.unpack_from("=Q", counts, 8 * slot)[0] + 1)

def busy(slot):
    while True:
        count(slot)

def ticking(slot):
    pause = threading.Event()
    while True:
        count(slot)
        pause.wait(0.005 * max(1, tasks / 8))  # at most 1,600 beats a second in all

def sleeping(slot):
    count(slot)
    while True:
        signal.pause()

def handling(slot):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
    sleeping(slot)

def forking(slot):
    while True:
        count(slot)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

def stuck(slot):
    # A system call copies from a page that userfaultfd promised and nobody delivers: state D for real.
    # A vforking parent would not do: both freezers count it as frozen.
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    fd = libc.syscall(userfaultfd, os.O_CLOEXEC)
    fcntl.ioctl(fd, 0xC018AA3F, bytearray(struct.pack("=QQQ", 0xAA, 0, 0)))
    page = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x22, -1, ctypes.c_size_t(0))
    fcntl.ioctl(fd, 0xC020AA00, bytearray(struct.pack("=QQQQ", page, 4096, 1, 0)))
    target = ctypes.create_string_buffer(16)
    here = (ctypes.c_size_t * 2)(ctypes.addressof(target), 16)
    there = (ctypes.c_size_t * 2)(page, 16)
    count(slot)
    libc.syscall(process_vm_readv, os.getpid(), here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), ctypes.c_ulong(0))
    os._exit(3)

userfaultfd, process_vm_readv = {"x86_64": (323, 310), "aarch64": (282, 270)}.get(os.uname().machine, (0, 0))
run = globals()[mode]
for slot in range(1, tasks):
    if os.fork() == 0:
        run(slot)
run(0)
"""


class Workload:
    """Real processes in one cgroup that count while they run. Modes: the functions of CHILD."""

    def __init__(self, path: str, mode: str, tasks: int = 1) -> None:
        shared = os.memfd_create("qp-workload")
        os.truncate(shared, 8 * tasks)
        self._counts = mmap.mmap(shared, 8 * tasks)
        self._tasks = tasks
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", CHILD, f"{path}/cgroup.procs", mode, str(tasks), str(shared)],
            pass_fds=[shared],
            start_new_session=True,
        )
        os.close(shared)
        try:
            until(lambda: self.process.poll() is not None or all(self.counts()), f"{tasks} {mode} tasks at work")
            assert self.process.poll() is None, f"workload died: {self.process.returncode}"
            if mode == "stuck":
                until(lambda: self.state() == "D", "the system call to block")
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self.process.pid

    def counts(self) -> tuple[int, ...]:
        return struct.unpack(f"={self._tasks}Q", self._counts)

    def state(self) -> str:
        """The letter ps shows."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def stands_still(self) -> None:
        before = self.counts()
        remains(lambda: self.counts() == before, "no task makes progress")

    def goes_on(self) -> None:
        """Every single task counts further."""
        before = self.counts()
        until(lambda: all(now > then for now, then in zip(self.counts(), before, strict=True)), "every task to go on")

    def ends_with(self, signum: int) -> None:
        assert self.process.wait(PATIENCE) == -signum

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """The whole session: it is ours alone."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait(PATIENCE)


def tree_v2(path: Path, *, freeze: str = "0", frozen: str = "0", populated: str = "1", procs: str = "") -> Path:
    """The freezer files of a v2 cgroup as ordinary files."""
    return _files(
        path,
        {
            "cgroup.procs": procs,
            "cgroup.freeze": f"{freeze}\n",
            "cgroup.events": f"populated {populated}\nfrozen {frozen}\n",
        },
    )


def tree_v1(path: Path, *, state: str = "THAWED", own: str = "0", above: str = "0", procs: str = "") -> Path:
    """The freezer files of a v1 cgroup as ordinary files."""
    return _files(
        path,
        {
            "cgroup.procs": procs,
            "freezer.state": f"{state}\n",
            "freezer.self_freezing": f"{own}\n",
            "freezer.parent_freezing": f"{above}\n",
        },
    )


def tree_cpu(path: Path, **files: str) -> Path:
    """CPU files; names with dots replaced by two underscores: cpu__max="max 100000"."""
    return _files(path, {"cgroup.procs": ""} | {name.replace("__", "."): f"{text}\n" for name, text in files.items()})


def _files(path: Path, files: dict[str, str]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (path / name).write_text(text)
    return path
