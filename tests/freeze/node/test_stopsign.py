"""A frozen container that was told to stop shows it: real processes, real signals, real freezers."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from queueproxy.freeze.node import stopsign
from queueproxy.freeze.node.cgroup import Outcome, open_freezer, run
from queueproxy.freeze.node.directory import Cgroup
from queueproxy.freeze.node.stopsign import StopSign, pending
from tests.support.cgroupfs import PATIENCE, Lab, real_cgroups, tree_v2, until
from tests.support.kubepods import descriptors

# Blocks every signal but SIGKILL and lives on: what a frozen process looks like from outside, without a freezer.
DEAF = "import signal; signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 65)); print(flush=True); input()"


@contextmanager
def process(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """One that has said that it is up; its end is the end of its input."""
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert started.stdout is not None
        assert started.stdout.readline() == b"\n"
        yield started
    finally:
        with suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
        started.communicate(timeout=PATIENCE)


@contextmanager
def deaf() -> Iterator[subprocess.Popen[bytes]]:
    with process(sys.executable, "-S", "-E", "-c", DEAF) as started:
        yield started


@contextmanager
def sign_of(tmp_path: Path, *pids: int, stop_signal: int = signal.SIGTERM) -> Iterator[StopSign]:
    """Of a container with these processes; the processes are real, the cgroup is a file."""
    tree_v2(tmp_path / "app", procs="".join(f"{pid}\n" for pid in pids))
    with Cgroup.open(str(tmp_path / "app"), require_cgroupfs=False) as cgroup:
        sign = StopSign(cgroup, stop_signal)
        yield sign
        sign.close()
    assert not [path for path in descriptors("/status") if path.startswith("/proc/")]


@pytest.mark.slow
@pytest.mark.fz("FZ-055")
@pytest.mark.parametrize(
    ("sent", "stop_signal", "is_stop"),
    [
        pytest.param(signal.SIGTERM, signal.SIGTERM, True, id="term"),
        pytest.param(signal.SIGQUIT, signal.SIGTERM, True, id="nginx-asks-for-quit"),
        pytest.param(signal.SIGINT, signal.SIGTERM, True, id="a-database-asks-for-int"),
        pytest.param(signal.SIGRTMIN + 3, signal.SIGRTMIN + 3, True, id="declared-realtime"),
        pytest.param(signal.SIGRTMIN + 3, signal.SIGTERM, False, id="undeclared-realtime"),
        pytest.param(64, 64, True, id="the-highest"),
        pytest.param(signal.SIGUSR1, signal.SIGUSR1, True, id="declared-usr1"),
        pytest.param(signal.SIGUSR1, signal.SIGTERM, False, id="usr1"),
        pytest.param(signal.SIGALRM, signal.SIGTERM, False, id="its-own-timer"),
        pytest.param(signal.SIGCHLD, signal.SIGTERM, False, id="its-children"),
        pytest.param(signal.SIGWINCH, signal.SIGTERM, False, id="a-window"),
    ],
)
def test_a_stop_signal_that_pends_is_seen_and_no_other(
    tmp_path: Path, sent: int, stop_signal: int, is_stop: bool
) -> None:
    with deaf() as app, sign_of(tmp_path, app.pid, stop_signal=stop_signal) as sign:
        assert not sign.is_pending()
        os.kill(app.pid, sent)
        assert sign.is_pending() is is_stop
        assert sign.pid == app.pid
        os.kill(app.pid, signal.SIGUSR2)
        assert sign.is_pending() is is_stop, "another signal beside it changes nothing"


@pytest.mark.slow
def test_without_a_namespace_of_its_own_the_oldest_process_is_init(tmp_path: Path) -> None:
    with deaf() as first, deaf() as second, sign_of(tmp_path, second.pid, first.pid) as sign:
        os.kill(second.pid, signal.SIGTERM)
        assert not sign.is_pending(), "a child was told to end: that is the app's own affair"
        assert sign.pid == first.pid
        os.kill(first.pid, signal.SIGTERM)
        assert sign.is_pending()


@pytest.mark.slow
def test_when_init_is_replaced_the_new_one_counts(tmp_path: Path) -> None:
    with deaf() as second, deaf() as first, sign_of(tmp_path, first.pid) as sign:
        os.kill(first.pid, signal.SIGTERM)
        assert sign.is_pending()
        first.kill()
        first.wait(PATIENCE)
        assert not sign.is_pending(), "it is gone, and nobody else is there"
        assert sign.pid == 0
        (tmp_path / "app/cgroup.procs").write_text(f"{second.pid}\n")
        assert not sign.is_pending()
        assert sign.pid == second.pid
        os.kill(second.pid, signal.SIGTERM)
        assert sign.is_pending()


class Leaving(Cgroup):
    """A cgroup whose process is gone from it when it is asked for the second time."""

    def pids(self) -> tuple[int, ...]:
        found = super().pids()
        self.write("cgroup.procs", "")
        return found


@pytest.mark.slow
def test_a_process_that_has_left_when_it_is_held_is_not_init(tmp_path: Path) -> None:
    """Its number may have come to mean another one between the list and the look."""
    tree_v2(tmp_path / "app")
    with deaf() as stranger, Leaving.open(str(tmp_path / "app"), require_cgroupfs=False) as cgroup:
        os.kill(stranger.pid, signal.SIGTERM)
        for _ in range(3):
            cgroup.write("cgroup.procs", f"{stranger.pid}\n")
            sign = StopSign(cgroup)
            assert not sign.is_pending()
            assert sign.pid == 0
    assert not descriptors(f"/proc/{stranger.pid}/status")


def test_no_processes_are_no_stop_signal(tmp_path: Path) -> None:
    with sign_of(tmp_path) as sign:
        assert not sign.is_pending()
        assert not sign.blind


def test_processes_that_cannot_be_seen_make_it_blind(tmp_path: Path) -> None:
    with sign_of(tmp_path, 0, 0) as sign:
        assert not sign.is_pending()
        assert sign.blind
        assert repr(sign).endswith("pid=0 blind>")


@pytest.mark.parametrize(
    ("status", "mask"),
    [
        pytest.param(
            b"Name:\tx\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004200\nSigBlk:\t0\n", 0x4200, id="shared"
        ),
        pytest.param(b"Name:\tx\nSigPnd:\t8000000000000000\nShdPnd:\t0000000000000001\n", 1 << 63 | 1, id="both"),
        pytest.param(b"Name:\tShdPnd:\\n4000\nSigPnd:\t0000000000000000\n", 0, id="a-name-that-pretends"),
        pytest.param(b"", 0, id="nothing"),
    ],
)
def test_pending_signals_are_read_from_both_masks(status: bytes, mask: int) -> None:
    assert pending(status) == mask


# Real pid namespaces: number 1 in there is init, however many came before it.
NAMESPACED = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, "-S", "-E", "-c"]


def child_of(pid: int) -> int:
    until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text(), "the child")
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


@pytest.mark.root
@pytest.mark.slow
def test_number_one_of_the_container_s_namespace_is_init_and_not_that_of_a_sandbox_in_it(tmp_path: Path) -> None:
    sandbox = f"import subprocess; subprocess.run([*{NAMESPACED!r}, {DEAF!r}])"
    with process(*NAMESPACED, sandbox) as outer, deaf() as older:
        init = child_of(outer.pid)
        unshare = child_of(init)
        inner = child_of(unshare)
        for order in ([inner, unshare, init], [init, unshare, inner], [unshare, init]):
            with sign_of(tmp_path, *order) as sign:
                sign.is_pending()
                assert sign.pid == init, order
        with sign_of(tmp_path, inner, init, older.pid) as sign:
            sign.is_pending()
            assert sign.pid == older.pid, "the container has no namespace of its own: what is below are sandboxes"


@pytest.mark.root
@pytest.mark.slow
def test_many_processes_are_not_all_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = stopsign._read
    monkeypatch.setattr(stopsign, "_read", lambda path: asked.append(path) or read(path))
    with process(*NAMESPACED, DEAF) as outer:
        init = child_of(outer.pid)
        with sign_of(tmp_path, init, *range(2_000_000, 2_000_500)) as sign:
            sign.is_pending()
            assert sign.pid == init
            assert asked == [f"/proc/{init}/status", f"/proc/{init}/stat"]
    asked.clear()
    with deaf() as app, sign_of(tmp_path / "other", *range(2_000_000, 2_000_500), app.pid) as sign:
        assert not sign.is_pending()
        assert len(asked) == stopsign.MOST_ASKED


@pytest.mark.fz("FZ-055")
@pytest.mark.parametrize(
    ("controller", "sent"),
    [
        pytest.param("", signal.SIGTERM, id="v2-term", marks=real_cgroups("")),
        pytest.param("freezer", signal.SIGTERM, id="v1-term", marks=real_cgroups("freezer")),
        pytest.param("freezer", signal.SIGKILL, id="v1-kill", marks=real_cgroups("freezer")),
    ],
)
def test_a_frozen_container_told_to_stop_shows_it_and_stops_when_thawed(controller: str, sent: int) -> None:
    with Lab(controller) as lab:
        path = lab.make("app")
        work = lab.run(path, "handling")
        freezer = open_freezer(path)
        sign = StopSign(freezer.cgroup)
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        assert not sign.is_pending()
        os.kill(work.pid, sent)
        assert sign.is_pending()
        assert run(freezer.thaw()) is Outcome.THAWED
        assert work.process.wait(PATIENCE) == (7 if sent == signal.SIGTERM else -signal.SIGKILL)
        assert not sign.is_pending()
        sign.close()
        freezer.close()


@pytest.mark.parametrize("controller", [pytest.param("", id="v2", marks=real_cgroups(""))])
def test_a_removed_container_has_nothing_pending(controller: str) -> None:
    with Lab(controller) as lab:
        path = lab.make("app")
        work = lab.run(path, "sleeping")
        with Cgroup.open(path) as cgroup:
            sign = StopSign(cgroup)
            assert not sign.is_pending()
            assert sign.pid == work.pid
            work.close()
            until(lambda: not cgroup.pids(), "the cgroup to empty")
            os.rmdir(path)
            assert not sign.is_pending()
            sign.close()
