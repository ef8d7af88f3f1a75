"""`queueproxy run` keeps its promises when things go wrong: each fault on real processes, and nothing left behind."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from queueproxy.local import placement, procfs
from tests.support.local_run import LocalRun

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("runs"), pytest.mark.timeout(90)]

WAYS = [pytest.param("v2", marks=pytest.mark.root), pytest.param("v1", marks=pytest.mark.root), "signal"]
QUICK = ("--freeze-after", "200ms")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def state_of(pid: int) -> str:
    stat = procfs.read_stat(pid)
    return "gone" if stat is None or stat.dead else stat.state


# -- the promise itself


@pytest.mark.fz("FZ-020", "FZ-031", "FZ-142")
def test_it_sleeps_between_requests_and_wakes_for_them(way: str) -> None:
    with LocalRun("--cgroup", way, *QUICK) as run:
        run.ready()
        for times in (1, 2, 3):
            run.asleep(times)
            assert run.get()[0] == 200
        run.asleep(4)
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 0
        naps, ticks = run.naps(), run.ticks()
        assert len(naps) == 4
        assert [tick for tick in ticks if any(began < tick < ended for began, ended in naps)] == []
        assert any(naps[0][1] < tick < naps[1][0] for tick in ticks), "it never ticked while awake"
        summary = run.event("summary")
        assert (summary["wakes"], summary["slept"], summary["requests"]) == (4, 4, 3)
        assert run.left_behind() == []


@pytest.mark.fz("FZ-085")
@pytest.mark.parametrize(
    "way", [pytest.param("v2", marks=pytest.mark.root), pytest.param("v1", marks=pytest.mark.root)]
)
def test_throttle_mode_leaves_it_a_hundredth_and_lifts_that_for_a_request(way: str) -> None:
    with LocalRun("--cgroup", way, "--mode", "throttle", *QUICK) as run:
        run.ready()
        run.asleep(1, rung="throttled")
        assert run.get()[0] == 200
        run.until(lambda: run.states("running"))
        run.asleep(2, rung="throttled")
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 0
        assert run.states("frozen") == []
        assert run.left_behind() == []


@pytest.mark.fz("FZ-113")
def test_shadow_mode_only_says_what_it_would_do() -> None:
    with LocalRun("--mode", "shadow", *QUICK) as run:
        run.ready()
        assert run.event("would")["rung"] == "frozen"
        before = len(run.ticks())
        run.until(lambda: len(run.ticks()) > before + 5)
        assert run.get()[0] == 200
        assert run.states() == []


@pytest.mark.root
def test_a_signal_for_the_app_wakes_it_and_arrives() -> None:
    with LocalRun("--cgroup", "v2", *QUICK) as run:
        run.ready()
        run.asleep()
        run.process.send_signal(signal.SIGUSR1)
        run.until(lambda: [line for line in run.output if line.startswith("usr1")])
        run.asleep(2)


def test_metrics_carry_the_names_of_the_contract() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with LocalRun("--metrics-port", str(port), *QUICK) as run:
        run.ready()
        run.asleep()
        assert run.get()[0] == 200
        # What a wake was is told a moment after the request has left.
        run.until(lambda: 'kn_serving_pause_state{state="running"} 1.0' in run.get("/metrics", port=port)[1])
        page = run.get("/metrics", port=port)[1]
        for name in (
            'kn_serving_pause_state{state="running"} 1.0',
            "kn_serving_pause_transitions_total{",
            'kn_serving_pause_duration_seconds_count{op="thaw"} 1.0',
            'kn_serving_thaw_wait_seconds_count{phase="kernel"} 1.0',
            'kn_serving_pause_seconds_total{state="frozen"}',
            "kn_serving_idle_cpu_seconds_total",
        ):
            assert name in page


def test_while_the_app_sleeps_we_and_the_guardian_sleep_as_well(way: str) -> None:
    """No timer, no poll: the kernel has not had a reason to run either of us."""

    def turns(pid: int) -> int:
        with open(f"/proc/{pid}/status", encoding="ascii") as file:
            return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)

    with LocalRun("--cgroup", way, *QUICK) as run:
        run.ready()
        run.asleep()
        assert run.get()[0] == 200
        run.asleep(2)
        both = (run.process.pid, run.started["guardian"])
        # What is left of the last request (a closed connection, a line on its way) may still be seen to.
        threading.Event().wait(0.5)
        before = [turns(pid) for pid in both]
        threading.Event().wait(2.0)
        assert [turns(pid) for pid in both] == before


# -- faults before it serves


def test_a_port_that_is_taken_is_said_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with LocalRun("--port", str(taken.getsockname()[1])) as run:
            assert run.ended() == 1
            assert "address already in use" in run.event("fatal")["message"]
            assert run._find("started", {}) is None
            assert run.left_behind() == []


def test_two_runs_on_one_port_the_second_gives_way_and_the_first_serves_on() -> None:
    with LocalRun() as first, LocalRun("--port", str(first.ready().port)) as second:
        assert second.ended() == 1
        assert "a different --port" in second.event("fatal")["message"]
        assert first.get()[0] == 200


@pytest.mark.parametrize(
    ("command", "status"),
    [(["no-such-command-at-all"], 127), (["/etc/passwd"], 126)],
    ids=["not found", "not executable"],
)
def test_a_command_that_cannot_start_ends_the_run_with_the_shells_status(command: list[str], status: int) -> None:
    with LocalRun(command=command) as run:
        assert run.ended() == status
        assert command[0] in run.event("fatal")["message"]
        assert run.left_behind() == []


def test_a_command_that_exits_at_once_ends_the_run_with_its_status(way: str) -> None:
    with LocalRun("--cgroup", way, command=["sh", "-c", "exit 7"]) as run:
        assert run.ended() == 7
        assert "exited with status 7" in run.event("problem")["message"]
        assert run.left_behind() == []


def test_an_app_that_never_listens_is_refused_clearly_and_never_frozen() -> None:
    with LocalRun("--start-timeout", "300ms", *QUICK, environ={"QP_TEST": "deaf"}) as run:
        status, body, headers = run.get()
        assert (status, headers["retry-after"]) == (503, "1")
        assert body == f"the app is not ready yet: nothing answers on 127.0.0.1:{run.started['app_port']}\n"
        assert "Does it listen on $PORT?" in run.event("problem")["message"]
        assert run.states() == []
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 0
        assert run.left_behind() == []


@pytest.mark.root
@pytest.mark.parametrize(
    "hide",
    [
        pytest.param("mount -t tmpfs -o ro none /sys/fs/cgroup", id="covered by an empty read-only directory"),
        pytest.param("umount --recursive --lazy /sys/fs/cgroup", id="not mounted"),
    ],
)
def test_nowhere_to_write_a_cgroup_means_signals_and_says_so(hide: str) -> None:
    """The run itself finds out and goes on."""
    with LocalRun(*QUICK, around=["unshare", "--mount", "sh", "-c", f'{hide} && exec "$@"', "sh"]) as run:
        run.ready()
        problem = run.event("problem")["message"]
        assert "no cgroup is writable" in problem and "SIGSTOP" in problem
        assert run.started["mechanism"] == "signal"
        run.asleep()
        assert run.get()[0] == 200
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 0
        assert run.left_behind() == []


def test_throttling_by_signals_is_refused_before_anything_starts() -> None:
    with LocalRun("--cgroup", "signal", "--mode", "throttle") as run:
        assert run.ended() == 1
        assert "throttling needs a cgroup" in run.event("fatal")["message"]
        assert run.left_behind() == []


# -- faults while it serves


@pytest.mark.parametrize("way", [pytest.param("v2", marks=pytest.mark.root), "signal"])
def test_an_app_killed_while_asleep_ends_the_run_with_its_status(way: str) -> None:
    with LocalRun("--cgroup", way, *QUICK) as run:
        run.ready()
        run.asleep()
        os.kill(run.started["pid"], signal.SIGKILL)
        assert run.ended() == 128 + signal.SIGKILL
        assert "killed by SIGKILL while frozen" in run.event("problem")["message"]
        assert run.left_behind() == []


@pytest.mark.root
@pytest.mark.fz("FZ-077")
def test_on_v1_a_kill_takes_effect_with_the_next_request_which_fails() -> None:
    with LocalRun("--cgroup", "v1", *QUICK) as run:
        run.ready()
        run.asleep()
        os.kill(run.started["pid"], signal.SIGKILL)
        assert state_of(run.started["pid"]) == "D"  # the v1 freezer holds it: the kernel kills it at the thaw
        assert run.get()[0] == 502
        assert run.ended() == 128 + signal.SIGKILL
        assert run.left_behind() == []


def test_requests_in_flight_when_the_app_dies_get_a_502(way: str) -> None:
    with LocalRun("--cgroup", way) as run:
        run.ready()
        assert run.get("/crash")[0] == 502
        assert run.ended() == 128 + signal.SIGKILL
        assert run.left_behind() == []


@pytest.mark.root
@pytest.mark.parametrize("way", ["v2", "v1"])
def test_a_cgroup_removed_under_us_leaves_the_app_awake_and_served(way: str) -> None:
    with LocalRun("--cgroup", way, "--freeze-after", "1s") as run:
        run.ready()
        cgroup = run.started["cgroup"]
        with open(f"{os.path.dirname(cgroup)}/cgroup.procs", "w", encoding="ascii") as file:
            file.write(str(run.started["pid"]))
        assert placement.remove_cgroup(cgroup)
        assert "the app's cgroup was removed" in run.event("problem")["message"]
        assert [run.get()[0] for _ in range(3)] == [200, 200, 200]
        assert run.states("frozen") == []
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 0
        assert run.left_behind() == []


@pytest.mark.fz("FZ-026")
def test_a_client_that_leaves_while_it_waits_leaves_nothing_behind(way: str) -> None:
    with LocalRun("--cgroup", way, *QUICK) as run:
        run.ready()
        for times in range(1, 6):
            run.asleep(times)
            with socket.create_connection(("127.0.0.1", run.port)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        run.asleep(6)  # it was counted out each time, or it would stay awake
        assert run.get()[0] == 200


def test_the_app_that_goes_takes_its_family_with_it(way: str) -> None:
    with LocalRun("--cgroup", way, environ={"QP_TEST": "family"}) as run:
        run.ready()
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError, AssertionError)):
            assert run.get("/exit")[0] == 200
        assert run.ended() == 3
        assert run.left_behind() == []


# -- our own end


@pytest.mark.fz("FZ-050", "FZ-054")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda s: s.name)
def test_a_signal_to_us_while_it_sleeps_wakes_it_first_and_is_passed_on(way: str, signum: signal.Signals) -> None:
    with LocalRun("--cgroup", way, *QUICK) as run:
        run.ready()
        run.asleep()
        run.process.send_signal(signum)
        assert run.ended() == 0
        assert run.states()[-1]["reason"] == "terminating"
        assert [line for line in run.output if line.startswith("terminated ")], "the handler of the app never ran"
        assert run.left_behind() == []


@pytest.mark.fz("FZ-053")
def test_requests_in_flight_finish_before_the_app_is_told() -> None:
    with LocalRun() as run:
        run.ready()
        answers: list[int] = []
        client = threading.Thread(target=lambda: answers.append(run.get("/slow")[0]))
        client.start()
        run.until(lambda: [line for line in run.output if line.endswith("/slow")])
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 0
        client.join(10)
        assert answers == [200]
        assert run.left_behind() == []


def test_an_app_that_ignores_the_signal_is_killed_after_the_grace(way: str) -> None:
    with LocalRun("--cgroup", way, "--grace", "300ms", *QUICK, environ={"QP_TEST": "stubborn"}) as run:
        run.ready()
        run.asleep()
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 128 + signal.SIGKILL
        assert run.left_behind() == []


def test_a_second_signal_ends_at_once() -> None:
    with LocalRun("--grace", "60s", environ={"QP_TEST": "stubborn"}) as run:
        run.ready()
        run.process.send_signal(signal.SIGTERM)  # which this app ignores
        run.event("signal")
        run.process.send_signal(signal.SIGINT)
        assert run.ended() == 128 + signal.SIGINT
        assert run.left_behind() == []


@pytest.mark.fz("FZ-148")
def test_sigkill_of_us_while_it_sleeps_leaves_nothing_frozen_and_nothing_behind(way: str) -> None:
    with LocalRun("--cgroup", way, *QUICK) as run:
        run.ready()
        run.asleep()
        run.process.kill()
        run.process.wait()
        # The guardian thaws it, so its own handler runs, and it ends as if we had asked it.
        run.until(lambda: [line for line in run.output if line.startswith("terminated ")])
        assert run.left_behind() == []


class Orphan(NamedTuple):
    """An app without a run. `around` and `environ` reach the journal that knows of it."""

    run: LocalRun
    app: int
    around: tuple[str, ...]
    environ: dict[str, str]

    def thaw_all(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.around, sys.executable, "-m", "queueproxy", "thaw-all", *flags],
            env={**os.environ, **self.environ},
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
def journal_of_our_own(tmp_path: Path) -> Iterator[tuple[tuple[str, ...], dict[str, str]]]:
    """An orphan is anybody's to mend: a `thaw-all --stop` beside us on this machine would end ours (a second suite's
    did). For root the journal has one fixed place: what others must leave alone lives in a mount namespace."""
    if os.geteuid() != 0:
        yield (), {"XDG_RUNTIME_DIR": str(tmp_path)}
        return
    cover = "mkdir -p /run/queueproxy && mount -t tmpfs -o mode=700 none /run/queueproxy && echo covered && exec cat"
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", cover], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"covered\n"
        yield ("nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", f"--wd={os.getcwd()}"), {}


@pytest.fixture
def orphan(way: str, journal_of_our_own: tuple[tuple[str, ...], dict[str, str]]) -> Iterator[Orphan]:
    """A run killed together with its guardian while the app slept: the worst the kernel does not tell anybody."""
    around, environ = journal_of_our_own
    with LocalRun("--cgroup", way, *QUICK, around=around, environ=environ) as run:
        run.ready()
        run.asleep()
        app = run.started["pid"]
        # Stopped first, or it would notice the death of its guardian and wake the app.
        os.kill(run.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, run.process.pid, os.WSTOPPED | os.WNOWAIT)
        os.kill(run.started["guardian"], signal.SIGKILL)
        run.process.kill()
        run.process.wait()
        assert state_of(app) != "gone"
        found = Orphan(run, app, around, environ)
        yield found
        found.thaw_all("--stop")


def test_thaw_all_mends_what_even_the_guardian_could_not(orphan: Orphan) -> None:
    run = orphan.run
    ticks = len(run.ticks())
    done = orphan.thaw_all()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is left frozen" in done.stdout
    assert f"pid {orphan.app}" in done.stdout
    run.until(lambda: len(run.ticks()) > ticks + 3)
    stopped = orphan.thaw_all("--json", "--stop")
    assert stopped.returncode == 0
    assert run.left_behind() == []


def test_the_next_start_mends_it_as_well(orphan: Orphan) -> None:
    run = orphan.run
    ticks = len(run.ticks())
    with LocalRun(*QUICK, around=orphan.around, environ=orphan.environ) as following:
        following.ready()
        told = [event["message"] for event in following.events if event["event"] == "problem"]
        assert [line for line in told if "an older run was not ended properly" in line and f"pid {orphan.app};" in line]
        run.until(lambda: len(run.ticks()) > ticks + 3)
        assert following.get()[0] == 200


def test_without_its_guardian_a_run_stays_awake(way: str) -> None:
    with LocalRun("--cgroup", way, *QUICK) as run:
        run.ready()
        run.asleep()
        os.kill(run.started["guardian"], signal.SIGKILL)
        run.until(
            lambda: [e for e in run.events if e["event"] == "problem" and "was killed by SIGKILL" in e["message"]]
        )
        run.event("state", to="running")
        assert run.get()[0] == 200
        assert run.states()[-1]["to"] == "running"
        run.process.send_signal(signal.SIGTERM)
        assert run.ended() == 0
        assert run.left_behind() == []
