"""Runs a virtual machine: starts qemu, passes its console on, ends it when it must, and never leaves it behind."""

import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.vm.debian import QEMU

__all__ = ["FIRST_WORD_WITHIN", "Ended", "accelerators", "command", "watched"]

CPUS, MEMORY = 2, "1536M"
CMDLINE = "console=ttyS0 quiet loglevel=4 panic=-1 cgroup_no_v1=all random.trust_cpu=on"
# init's first word takes a second under KVM and five without. Some nested KVMs start, and never say one.
FIRST_WORD_WITHIN = {"kvm": 10.0, "tcg": 90.0}
KVM = "/dev/kvm"
_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


class Ended(NamedTuple):
    """How it ended: qemu's status, or why we ended it."""

    status: int | None
    why: str = ""
    spoke: bool = True


def accelerators(device: str = KVM, cpuinfo: str = "/proc/cpuinfo") -> list[str]:
    """What to try: the kernel's virtualisation where the processor has it and we may use it, then translation."""
    with open(cpuinfo, encoding="utf-8", errors="replace") as file:
        able = any(not {"vmx", "svm"}.isdisjoint(line.split()) for line in file if line.startswith("flags"))
    return ["kvm", "tcg"] if able and os.access(device, os.R_OK | os.W_OK) else ["tcg"]


def command(kernel: Path, initramfs: Path, report: Path, accelerator: str) -> list[str]:
    """The smallest machine that has two serial ports and the host's files; no network, no disk, no display."""
    if any("," in str(path) for path in (kernel, initramfs, report)):
        raise ValueError("qemu takes no comma in a path")
    # Nested KVMs refuse to set the registers behind arch-capabilities.
    model = "host,-arch-capabilities" if accelerator == "kvm" else "max"
    # With a thread for each CPU, a kernel that patches its own code (as it does when the first limit is set) may trap
    # on a breakpoint that is gone already, and panic: seen with qemu 7.2 and Linux 7.3.
    way = "tcg,thread=single" if accelerator == "tcg" else accelerator
    return [
        QEMU, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none",
        "-accel", way, "-cpu", model, "-smp", str(CPUS), "-m", MEMORY,
        "-kernel", str(kernel), "-initrd", str(initramfs), "-append", CMDLINE,
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        "-chardev", f"file,id=report,path={report}", "-serial", "chardev:report",
        "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
    ]  # fmt: skip


def watched(words: Sequence[str], heard: Callable[[str], None], *, within: float, first_word_within: float) -> Ended:
    """Run to the end, line by line; ended by us when it is silent from the start or takes too long."""
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=_die_with_us
    )
    assert process.stdout is not None
    began_at = time.monotonic()
    spoke, pending = False, b""
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                left = (within if spoke else min(within, first_word_within)) - (time.monotonic() - began_at)
                if left <= 0:
                    why = f"not over after {within:.0f} s" if spoke else f"silent for {first_word_within:.0f} s"
                    return Ended(None, why, spoke)
                if not selector.select(left):
                    continue
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    break
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    spoke = spoke or not line.startswith(QEMU.encode())  # its own remarks are not the guest's
                    heard(line.decode(errors="replace").rstrip("\r"))
        status = process.wait(10)
        return Ended(status, f"qemu ended with {status}" if status else "", spoke)
    finally:
        if pending:
            heard(pending.decode(errors="replace").rstrip("\r"))
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def _die_with_us() -> None:
    """However we end."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
