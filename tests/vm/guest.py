"""First process inside the machine: makes its world v2-only, runs the tests there, hands out the report, turns it off.

Run by init.sh as `python guest.py PORT CHECKOUT SNAPSHOT COMMAND...`: what lies in SNAPSHOT covers its namesakes in
CHECKOUT, where COMMAND (pytest) runs. Its JUnit report goes raw through the serial port, followed by that of a second
try of what failed; the console shows the rest. Only the standard library: whatever fails here must be able to say so.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
import traceback
import tty

REPORTS = ("/run/report-1.xml", "/run/report-2.xml")
MS_BIND = 0x1000
RB_POWER_OFF = 0x4321FEDC
SOME_FAILED = 1  # pytest's word for it
CGROUPS = "/sys/fs/cgroup"
MOUNTS = (
    ("cgroup2", CGROUPS, "nsdelegate,memory_recursiveprot"),  # as systemd mounts it
    ("devpts", "/dev/pts", "ptmxmode=666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/run", "mode=755"),
    ("tmpfs", "/tmp/.vm", "mode=1777"),
)


def say(text: str) -> None:
    print(f"vm: {text}", flush=True)


def mount(source: str, place: str, kind: str = "", options: str = "", flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(source.encode(), place.encode(), kind.encode(), flags, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {source} on {place}")


def prepare(checkout: str, snapshot: str) -> None:
    for part in os.listdir(snapshot):
        mount(f"{snapshot}/{part}", f"{checkout}/{part}", flags=MS_BIND)
    for kind, place, options in MOUNTS:
        os.makedirs(place, exist_ok=True)
        mount(kind, place, kind, options)
    with open(f"{CGROUPS}/cgroup.controllers", encoding="ascii") as file:
        controllers = file.read().split()
    with open(f"{CGROUPS}/cgroup.subtree_control", "w", encoding="ascii") as file:
        file.write(" ".join(f"+{name}" for name in controllers))
    say(f"cgroup v2 alone, handing down {' '.join(controllers)}")


def collect(child: "subprocess.Popen[bytes]") -> int:
    """Wait for the child, and for every orphan on the way, as the first process must: a zombie keeps its cgroup."""
    while True:
        pid, status = os.wait()
        if pid == child.pid:
            return os.waitstatus_to_exitcode(status)


def hand_out(port: str) -> None:
    """One report after the other, each with a NUL behind it: no XML has one."""
    report = b""
    for path in REPORTS:
        if os.path.exists(path):
            with open(path, "rb") as file:
                report += file.read() + b"\0"
    with open(port, "wb", buffering=0) as serial:
        tty.setraw(serial.fileno())
        sent = 0
        while sent < len(report):
            sent += serial.write(report[sent : sent + 4096]) or 0
    say(f"report of {len(report)} bytes handed out")


def run(port: str, checkout: str, snapshot: str, command: list[str]) -> None:
    prepare(checkout, snapshot)
    environ = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/run",
        "TMPDIR": "/tmp/.vm",
        "LANG": "C.UTF-8",
        "QP_TEST_PATIENCE": "60",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": "/run/hypothesis",
    }
    for path, again in zip(REPORTS, ((), ("--last-failed", "--last-failed-no-failures=none")), strict=True):
        began_at = time.monotonic()
        words = [*command, *again, f"--junitxml={path}"]
        status = collect(subprocess.Popen(words, cwd=checkout, env=environ, start_new_session=True))
        say(f"tests ended with {status} after {time.monotonic() - began_at:.0f} s")
        if status != SOME_FAILED:
            break
    hand_out(port)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os.sync()
        # Nothing here is worth an orderly end, and the machine's console is drained by the kernel.
        ctypes.CDLL(None).reboot(RB_POWER_OFF)


if __name__ == "__main__":
    main()
