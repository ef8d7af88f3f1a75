"""Looks at what this node offers to a freezer, without changing anything, and says what each finding means.

What it touches: mount tables, the kubepods directories, names and permissions of the kernel's files in them, our own
capabilities. Each look stands alone; one that fails says that it could not look, and nothing is concluded from that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import IntEnum
from typing import Final, NamedTuple

from queueproxy.freeze.node.directory import (
    CGROUP_EVENTS,
    CGROUP_FREEZE,
    CGROUP_KILL,
    CGROUP_PROCS,
    CGROUP_STAT_LOCAL,
    CPU_MAX,
    CPU_QUOTA,
    FREEZER_STATE,
)
from queueproxy.freeze.node.hierarchy import Mounts, parse_mounts
from queueproxy.freeze.node.naming import ROOTS

__all__ = ["Finding", "Node", "Verdict", "capabilities", "examine"]

_DEEPEST: Final = 4  # kubepods, QoS class, pod, container
_MOST: Final = 2000  # directories looked at
_RUNTIMES: Final = (("cri-containerd-", "containerd"), ("crio-", "CRI-O"), ("docker-", "Docker"))
_NAMES: Final = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip


class Verdict(IntEnum):
    """GOOD and POOR: freezing works, the latter with less. BAD: it does not. UNKNOWN: we could not look."""

    GOOD = 0
    POOR = 1
    BAD = 2
    UNKNOWN = 3


class Finding(NamedTuple):
    """One thing looked at. `todo` is empty when nothing need be done."""

    what: str
    verdict: Verdict
    found: str
    means: str
    todo: str = ""


class Node(NamedTuple):
    """Where to look."""

    cgroups: str = "/sys/fs/cgroup"
    kubepods: tuple[str, ...] = ROOTS
    journal: str = "/run/queueproxy-freezer"
    mountinfo: str = "/proc/self/mountinfo"
    status: str = "/proc/self/status"
    clocksource: str = "/sys/devices/system/clocksource/clocksource0/current_clocksource"


def examine(node: Node) -> list[Finding]:
    """Everything, in the order in which it matters."""
    try:
        with open(node.mountinfo, encoding="utf-8", errors="replace") as file:
            mounts = parse_mounts(file.read(), under=node.cgroups)
    except OSError as error:
        return [Finding("cgroups", Verdict.UNKNOWN, str(error), "the mount table cannot be read")]
    tops = list(_kubepods(node, mounts))
    looks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("cgroups", lambda: _cgroups(node, mounts)),
        ("kubepods", lambda: _found(node, tops)),
        ("freezer", lambda: _freezer(tops)),
        ("permission", lambda: _permission(tops)),
        ("cpu controller", lambda: _cpu(tops)),
        ("runtimes", lambda: _runtimes(tops)),
        ("stop signals", lambda: _stop_signals(tops)),
        ("frozen time", lambda: _file(
            tops, CGROUP_STAT_LOCAL, "frozen time", "the kernel counts frozen time to the microsecond",
            "frozen time is counted by our own clock, within 1 %", "nothing; kernels from 6.18 on count it")),
        ("cgroup.kill", lambda: _file(
            tops, CGROUP_KILL, "cgroup.kill", "frozen containers die at once when they are killed",
            "killing a frozen container takes signals one by one", "nothing; kernels from 5.14 on have it")),
        ("privileges", lambda: _privileges(node)),
        ("journal", lambda: _journal(node)),
        ("clock", lambda: _clock(node)),
    )  # fmt: skip
    findings = []
    for what, look in looks:
        try:
            findings.append(look())
        except OSError as error:
            findings.append(Finding(what, Verdict.UNKNOWN, str(error), "could not look"))
    return findings


def capabilities(status: str = "/proc/self/status") -> list[str]:
    """Names of the capabilities this process has in effect."""
    with open(status, encoding="ascii", errors="replace") as file:
        line = next((line for line in file if line.startswith("CapEff:")), "CapEff: 0")
    bits = int(line.split()[1], 16)
    return [_NAMES[bit] if bit < len(_NAMES) else str(bit) for bit in range(64) if bits >> bit & 1]


# === Each look. ===


def _cgroups(node: Node, mounts: Mounts) -> Finding:
    v1 = sorted(name for name in mounts.v1 if "=" not in name)
    if mounts.v2 is not None and not v1:
        return Finding("cgroups", Verdict.GOOD, f"v2 at {mounts.v2}", "freezing by cgroup.freeze")
    if mounts.v2 is not None:
        found = f"hybrid: v2 at {mounts.v2}, v1 with {', '.join(v1)}"
        return Finding("cgroups", Verdict.GOOD, found, "each container is frozen where its processes are")
    if "freezer" in mounts.v1:
        means = "freezing by freezer.state; a frozen container ignores even SIGKILL until it is thawed"
        return Finding("cgroups", Verdict.POOR, f"v1 with {', '.join(v1)}", means, "move the node to cgroup v2")
    return Finding(
        "cgroups", Verdict.BAD, "no cgroup hierarchy with a freezer", "nothing can be frozen",
        f"mount the host's cgroups below {node.cgroups}",
    )  # fmt: skip


def _found(node: Node, tops: list[str]) -> Finding:
    if tops:
        drivers = sorted({"systemd" if top.endswith(".slice") else "cgroupfs" for top in tops})
        found = f"{', '.join(tops)} ({' and '.join(drivers)} driver)"
        return Finding("kubepods", Verdict.GOOD, found, "the kubelet's pods are here")
    return Finding(
        "kubepods", Verdict.BAD, f"no kubepods directory below {node.cgroups}", "no pod can be found",
        "run this on a node with a kubelet and mount its kubepods directory; looked for " + ", ".join(node.kubepods),
    )  # fmt: skip


def _freezer(tops: list[str]) -> Finding:
    for top in tops:
        for name in (CGROUP_FREEZE, FREEZER_STATE):
            if os.path.exists(f"{top}/{name}"):
                return Finding("freezer", Verdict.GOOD, f"{top}/{name}", "containers can be frozen")
    return Finding(
        "freezer", Verdict.BAD, "neither cgroup.freeze nor freezer.state", "nothing can be frozen",
        "use a kernel from 5.2 on with cgroup v2, or mount the v1 freezer hierarchy",
    )  # fmt: skip


def _permission(tops: list[str]) -> Finding:
    places = [f"{top}/{name}" for top in tops for name in (CGROUP_FREEZE, FREEZER_STATE)]
    there = [place for place in places if os.path.exists(place)]
    writable = [place for place in there if os.access(place, os.W_OK, effective_ids=True)]
    if writable:
        return Finding("permission", Verdict.GOOD, f"may write {writable[0]}", "containers can be frozen and thawed")
    found = f"may not write {there[0]}" if there else "nothing to write to"
    return Finding(
        "permission", Verdict.BAD, found, "the kernel will refuse to freeze",
        "run as uid 0 and mount the kubepods directory read-write",
    )  # fmt: skip


def _cpu(tops: list[str]) -> Finding:
    for top in tops:
        for name in (CPU_MAX, CPU_QUOTA):
            if os.path.exists(f"{top}/{name}"):
                return Finding("cpu controller", Verdict.GOOD, f"{top}/{name}", "containers can be throttled")
    return Finding(
        "cpu controller", Verdict.POOR, "no cpu.max and no cpu.cfs_quota_us",
        "pods that must not be frozen stay awake instead of being throttled", "enable the cpu controller for kubepods",
    )  # fmt: skip


def _runtimes(tops: list[str]) -> Finding:
    seen: set[str] = set()
    pods = 0
    for path in _walk(tops):
        name = path.rpartition("/")[2]
        pods += "pod" in name and not name.startswith("kubepods.")
        seen.update(runtime for prefix, runtime in _RUNTIMES if name.startswith(prefix))
        if len(name) == 64 and not name.strip("0123456789abcdef"):
            seen.add("a cgroupfs driver's (containerd or Docker)")
    if seen:
        return Finding("runtimes", Verdict.GOOD, f"containers of {', '.join(sorted(seen))}", "they are found by id")
    return Finding("runtimes", Verdict.UNKNOWN, "no container is running", "nothing can be said about their names")


def _stop_signals(tops: list[str]) -> Finding:
    what = "stop signals"
    for path in _walk(tops):
        with suppress(OSError), open(f"{path}/{CGROUP_PROCS}", encoding="ascii") as file:
            pids = file.read().split()
            if "0" in pids:
                return Finding(
                    what, Verdict.POOR, "processes of containers show as 0",
                    "a SIGTERM for a frozen container is noticed through the pod watch only, not within half a second",
                    "give the freezer hostPID, or the host's /proc read-only",
                )  # fmt: skip
            if pids:
                means = "a container that is told to stop while frozen is thawed within half a second"
                return Finding(what, Verdict.GOOD, "processes of containers can be seen", means)
    return Finding(what, Verdict.UNKNOWN, "no container is running", "cannot tell whether processes can be seen")


def _file(tops: list[str], name: str, what: str, means: str, without: str, todo: str) -> Finding:
    v2 = [top for top in tops if os.path.exists(f"{top}/{CGROUP_EVENTS}")]
    if not v2:
        return Finding(what, Verdict.POOR, "no cgroup v2 below kubepods", without, todo)
    if any(os.path.exists(f"{top}/{name}") for top in v2):
        return Finding(what, Verdict.GOOD, f"{v2[0]}/{name}", means)
    return Finding(what, Verdict.POOR, f"no {name}", without, todo)


def _privileges(node: Node) -> Finding:
    uid, held = os.geteuid(), capabilities(node.status)
    found = f"uid {uid}, " + (f"{len(held)} capabilities ({', '.join(held[:4])}…)" if held else "no capabilities")
    if uid != 0:
        return Finding("privileges", Verdict.BAD, found, "cgroup files belong to root", "run as uid 0")
    if held:
        means = "works, but a stolen freezer could do more than freeze"
        return Finding("privileges", Verdict.POOR, found, means, "drop all capabilities")
    return Finding("privileges", Verdict.GOOD, found, "exactly what is needed")


def _journal(node: Node) -> Finding:
    place = node.journal
    while not os.path.isdir(place) and place != "/":
        place = os.path.dirname(place)
    if not os.access(place, os.W_OK, effective_ids=True):
        return Finding(
            "journal", Verdict.BAD, f"may not write {place}", "without a journal nothing is frozen",
            f"mount a writable host directory at {node.journal}",
        )  # fmt: skip
    return Finding("journal", Verdict.GOOD, f"{node.journal} can be written", "a restart forgets nothing")


def _clock(node: Node) -> Finding:
    with open(node.clocksource, encoding="ascii", errors="replace") as file:
        source = file.read().strip()
    asleep = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    if asleep > 1.0:
        means = "leases do not run while the machine is suspended"
        return Finding("clock", Verdict.POOR, f"{source}, suspended for {asleep:.0f} s since boot", means)
    if source in ("hpet", "acpi_pm"):
        means = "each look at the clock costs microseconds"
        return Finding("clock", Verdict.POOR, source, means, "boot with a working tsc or a paravirtual clock")
    return Finding("clock", Verdict.GOOD, source, "leases are exact")


# === Small parts. ===


def _kubepods(node: Node, mounts: Mounts) -> Iterator[str]:
    points = [mounts.v2, *(mounts.v1.get(name) for name in ("freezer", "cpu", "cpuacct"))]
    for point in dict.fromkeys(filter(None, points)):
        for root in node.kubepods:
            # A container may be given the kubepods directory alone (FZ-121).
            top = point if point.endswith(f"/{root}") else f"{point}/{root}"
            if os.path.isdir(top):
                yield top


def _walk(tops: list[str]) -> Iterator[str]:
    """Directories below the kubepods directories, within bounds."""
    left = _MOST
    level = list(tops)
    for _ in range(_DEEPEST):
        below: list[str] = []
        for path in level:
            with suppress(OSError), os.scandir(path) as entries:
                below += sorted(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
        for path in below:
            left -= 1
            if left < 0:
                return
            yield path
        level = below
