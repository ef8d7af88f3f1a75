"""A machine is listened to, bounded in time and never left behind; what it is started with."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.cgroupfs import until
from tests.vm.debian import QEMU
from tests.vm.machine import accelerators, command, watched

CHECKOUT = Path(__file__).resolve().parents[2]
KERNEL, INITRAMFS = Path("vmlinuz"), Path("initramfs")


def script(text: str) -> list[str]:
    return [sys.executable, "-u", "-c", text]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize(("status", "why"), [(0, ""), (3, "qemu ended with 3")])
def test_what_is_said_is_passed_on_line_by_line(status: int, why: str) -> None:
    heard: list[str] = []
    ended = watched(
        script(f"import sys; print('one\\r'); print('two', end=''); sys.exit({status})"),
        heard.append, within=30, first_word_within=30,
    )  # fmt: skip
    assert heard == ["one", "two"]
    assert ended == (status, why, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "silence", ["", f"print('{QEMU}: warning: of its own'); "], ids=["no word", "only its own words"]
)
def test_a_machine_that_never_speaks_is_ended_early(silence: str) -> None:
    heard: list[str] = []
    began_at = time.monotonic()
    ended = watched(script(f"{silence}import signal; signal.pause()"), heard.append, within=60, first_word_within=1.0)
    assert ended == (None, "silent for 1 s", False)
    assert time.monotonic() - began_at < 30


@pytest.mark.slow
def test_a_machine_that_does_not_end_is_ended() -> None:
    heard: list[str] = []
    ended = watched(
        script("import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(os.getpid()); signal.pause()"),
        heard.append, within=2.0, first_word_within=30,
    )  # fmt: skip
    assert ended == (None, "not over after 2 s", True)
    assert is_gone(int(heard[0]))


@pytest.mark.slow
def test_nothing_is_left_when_listening_fails() -> None:
    heard: list[str] = []

    def interrupted(line: str) -> None:
        heard.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watched(
            script("import os, signal; print(os.getpid()); signal.pause()"),
            interrupted, within=30, first_word_within=30,
        )  # fmt: skip
    assert is_gone(int(heard[0]))


@pytest.mark.long  # with the machine: beside a whole `make test` its ten seconds are too few
def test_a_machine_dies_with_whoever_listens() -> None:
    listening = (
        "import sys\n"
        "from tests.vm.machine import watched\n"
        "program = 'import os, signal; print(os.getpid()); signal.pause()'\n"
        "say = lambda line: print(line, flush=True)\n"
        "watched([sys.executable, '-u', '-c', program], say, within=60, first_word_within=60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", listening], cwd=CHECKOUT, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        pid = int(listener.stdout.readline())
        listener.kill()
    until(lambda: is_gone(pid), "the machine's end")


@pytest.mark.parametrize(
    ("flags", "device", "tried"),
    [
        pytest.param("fpu vmx sse", True, ["kvm", "tcg"], id="intel"),
        pytest.param("fpu svm sse", True, ["kvm", "tcg"], id="amd"),
        pytest.param("fpu vmx sse", False, ["tcg"], id="no device"),
        pytest.param("fpu sse", True, ["tcg"], id="a device that the processor cannot serve"),
    ],
)
def test_the_kernel_s_virtualisation_is_tried_first_where_it_can_work(
    tmp_path: Path, flags: str, device: bool, tried: list[str]
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name : vmx of sorts\nflags\t\t: {flags}\n")
    if device:
        (tmp_path / "kvm").touch()
    assert accelerators(str(tmp_path / "kvm"), str(tmp_path / "cpuinfo")) == tried


def test_the_host_s_files_are_read_only_and_there_is_no_network() -> None:
    words = command(KERNEL, INITRAMFS, Path("report.xml"), "tcg")
    assert "readonly=on" in words[words.index("-fsdev") + 1].split(",")
    assert words[words.index("-nic") + 1] == "none"
    assert "cgroup_no_v1=all" in words[words.index("-append") + 1].split()


def test_a_path_that_qemu_would_misread_is_refused() -> None:
    with pytest.raises(ValueError, match="comma"):
        command(KERNEL, INITRAMFS, Path("a,b.xml"), "tcg")
