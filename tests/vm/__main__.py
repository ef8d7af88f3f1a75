"""`python -m tests.vm`: boots Debian's kernel with cgroup v2 alone in qemu and runs the driver's tests in there."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.vm.debian import Boot, Unavailable, boot_files, initramfs
from tests.vm.machine import FIRST_WORD_WITHIN, accelerators, command, watched
from tests.vm.verdict import MUST_PASS, Verdict, judge

PROVEN, NOT_PROVEN, NO_MACHINE = 0, 1, 2
CHECKOUT = Path(__file__).resolve().parents[2]
# The machine works with a copy of these: whoever edits meanwhile does not change what is being tested.
PARTS = ("queueproxy", "tests")
# Translated by qemu they take eight minutes of two busy cores.
WITHIN = 1200.0
TESTS = (
    "tests/freeze/node/test_throttle.py",
    "tests/freeze/node/test_cgroup.py",
    "tests/freeze/node/test_directory.py",
    "tests/freeze/node/test_hierarchy.py",
    "tests/vm/test_v2_only.py",
)
# Tests on trees of files need no machine of their own. Nothing here is about speed, so no wait is short.
PYTEST = (
    "-m", "pytest", "-m", "root and not long", "-v", "-rfE", "--no-header", "--color=no", "--tb=short",
    "-o", "cache_dir=/run/pytest", "-o", "timeout=240",
)  # fmt: skip
# Two hundred threads of one interpreter, each wanting a turn every 5 ms: translated, the last never gets its first.
TOO_SLOW = {
    "kvm": (),
    "tcg": (
        "--deselect",
        "tests/freeze/node/test_cgroup.py::TestRealV2::test_frozen_tasks_stop_and_thawed_tasks_all_go_on[200-ticking]",
    ),
}


def say(text: str) -> None:
    print(text, flush=True)


def prove(boot: Boot, tests: Sequence[str], accelerator: str, within: float, room: Path) -> Verdict:
    """Boot it in a room of its own, and judge what it reports."""
    snapshot, report, image = room / "snapshot", room / "report.xml", room / "initramfs"
    for part in PARTS:
        shutil.copytree(CHECKOUT / part, snapshot / part)
    guest = [sys.executable, str(snapshot / "tests/vm/guest.py"), "/dev/ttyS1", str(CHECKOUT), str(snapshot)]
    why = ""
    for way in accelerators() if accelerator == "auto" else [accelerator]:
        say(f"booting {boot.version} ({way})")
        image.write_bytes(initramfs(boot, [*guest, sys.executable, *PYTEST, *TOO_SLOW[way], *tests]))
        ended = watched(
            command(boot.kernel, image, report, way), say, within=within, first_word_within=FIRST_WORD_WITHIN[way]
        )
        why = ended.why
        if ended.spoke:
            break
        say(f"{way}: {why}")
    if not report.exists() or not report.stat().st_size:
        return Verdict(0, {}, [f"no report from the machine; {why or 'it ended by itself'}"])
    # Where everything is thirty times too slow, a freeze may miss its 200 ms as it is meant to: then a second try
    # counts, and is told. A machine that is as fast as any gets none.
    first, *again = report.read_text(errors="replace").split("\0")[:-1] or [""]
    return judge(first, again[0] if again and way == "tcg" else "", MUST_PASS if tests == TESTS else {})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.vm", description=__doc__)
    parser.add_argument("tests", nargs="*", default=TESTS, help="files and words for pytest, instead of the usual")
    parser.add_argument("--accel", choices=("auto", "kvm", "tcg"), default="auto", help="default: KVM if it works")
    parser.add_argument("--cache", type=Path, default=CHECKOUT / ".vm", help="for what is fetched (default: .vm)")
    parser.add_argument("--within", type=float, default=WITHIN, metavar="S", help="bound of a boot (default: 1200)")
    parser.add_argument(
        "--kernel", type=Path, action="append", default=[], metavar="DEB", help="instead of Debian's own"
    )
    flags = parser.parse_args()
    began_at = time.monotonic()
    try:
        boot = boot_files(flags.cache, say, flags.kernel)
    except Unavailable as reason:
        say(f"NOT PROVEN HERE: cgroup v2 with its cpu controller: {reason}")
        return NO_MACHINE
    os.nice(5)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # an end that tidies up
    with tempfile.TemporaryDirectory(prefix="run-", dir=flags.cache) as room:
        verdict = prove(boot, flags.tests, flags.accel, flags.within, Path(room).resolve())
    say(f"\n{verdict}\n{boot.version}, {time.monotonic() - began_at:.0f} s")
    return NOT_PROVEN if verdict.faults else PROVEN


if __name__ == "__main__":
    sys.exit(main())
