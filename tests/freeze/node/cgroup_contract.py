"""What both freezers of the real kernel must do. Imported by test_cgroup.py, run once per cgroup version.

Real processes, real cgroups. The uninterruptible task is one whose system call copies from a page that userfaultfd
never delivers. (A vforking parent, though shown as D, counts as frozen in both freezers and so proves nothing.)
"""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys

import pytest

from queueproxy.clock import monotonic
from queueproxy.freeze.node.cgroup import (
    Cgroup,
    NotACgroup,
    Observation,
    Outcome,
    Version,
    open_freezer,
    run,
)
from tests.support.cgroupfs import PATIENCE, SILENCE, Lab, place_of, remains, until

RUNNING = Observation(wanted_frozen=False, frozen=False, populated=True, foreign=False, gone=False)
FROZEN = Observation(wanted_frozen=True, frozen=True, populated=True, foreign=False, gone=False)


class Recording(Cgroup):
    """A real cgroup that also keeps what was written to it."""

    def __init__(self, fd: int, name: str, version: Version) -> None:
        super().__init__(fd, name, version)
        self.writes: list[tuple[str, str]] = []

    def write(self, name: str, text: str) -> bool:
        self.writes.append((name, text))
        return super().write(name, text)


class FreezerContract:
    """Subclasses provide the `lab` fixture, WISH_FILE and the texts for on and off."""

    wish_file: str
    on: str
    off: str
    wish_is_repeated: bool

    @pytest.mark.fz("FZ-070")
    @pytest.mark.parametrize(
        ("mode", "tasks"),
        [
            pytest.param("busy", 1, id="1-busy"),
            pytest.param("ticking", 16, id="16-ticking"),
            pytest.param("ticking", 200, id="200-ticking"),
        ],
    )
    def test_frozen_tasks_stop_and_thawed_tasks_all_go_on(self, lab: Lab, mode: str, tasks: int) -> None:
        path = lab.make("app")
        work = lab.run(path, mode, tasks)
        freezer = open_freezer(path)
        assert len(freezer.pids()) == tasks
        for _ in range(3):
            assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
            assert freezer.observe() == FROZEN
            assert freezer.owned
            work.stands_still()
            assert run(freezer.thaw()) is Outcome.THAWED
            assert freezer.observe() == RUNNING
            assert not freezer.owned
            work.goes_on()

    def test_freezing_twice_and_thawing_twice_is_once(self, lab: Lab) -> None:
        path = lab.make("app")
        lab.run(path, "sleeping")
        freezer = open_freezer(path)
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        again = freezer.freeze()
        assert again.step(monotonic()) is None
        assert (again.outcome, again.detail) == (Outcome.FROZEN, "already frozen")
        assert run(freezer.thaw()) is Outcome.THAWED
        again = freezer.thaw()
        assert again.step(monotonic()) is None
        assert (again.outcome, again.detail) == (Outcome.THAWED, "already running")

    def test_a_handled_sigterm_waits_for_the_thaw_and_is_delivered_then(self, lab: Lab) -> None:
        path = lab.make("app")
        work = lab.run(path, "handling")
        freezer = open_freezer(path)
        run(freezer.freeze(deadline_for=PATIENCE))
        os.kill(work.pid, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            work.process.wait(SILENCE)
        assert run(freezer.thaw()) is Outcome.THAWED
        assert work.process.wait(PATIENCE) == 7, "the exit code of the app's own handler"

    @pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
    def test_kill_ends_all_processes(self, lab: Lab, frozen: bool) -> None:
        path = lab.make("app")
        work = lab.run(path, "ticking", 16)
        freezer = open_freezer(path)
        if frozen:
            assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        assert freezer.kill() == 16
        work.ends_with(signal.SIGKILL)
        until(lambda: not freezer.observe().populated, "the cgroup to empty")
        assert freezer.kill() == 0

    @pytest.mark.fz("FZ-077")
    def test_a_forking_process_freezes_every_time(self, lab: Lab) -> None:
        path = lab.make("app")
        work = lab.run(path, "forking")
        freezer = open_freezer(path)
        for _ in range(20):
            assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
            before = work.counts()
            assert freezer.observe() == FROZEN
            assert work.counts() == before
            assert run(freezer.thaw()) is Outcome.THAWED
            work.goes_on()
        run(freezer.freeze(deadline_for=PATIENCE))
        work.stands_still()

    def test_killing_a_forking_process_leaves_nobody(self, lab: Lab) -> None:
        path = lab.make("app")
        work = lab.run(path, "forking")
        freezer = open_freezer(path)
        assert freezer.kill() >= 1
        work.ends_with(signal.SIGKILL)
        until(lambda: not freezer.observe().populated, "the cgroup to empty")

    @pytest.mark.fz("FZ-076")
    def test_a_cgroup_frozen_by_someone_else_is_refused_both_ways(self, lab: Lab) -> None:
        path = lab.make("app")
        work = lab.run(path, "ticking")
        lab.write(path, self.wish_file, self.on)
        freezer = open_freezer(path)
        until(lambda: freezer.observe().frozen, "the foreign freeze to take")
        for start in (freezer.freeze, freezer.thaw):
            attempt = start()
            assert run(attempt) is Outcome.FOREIGN
            assert attempt.detail == "frozen by someone else"
            assert freezer.observe() == FROZEN._replace(foreign=True)
            work.stands_still()
        assert run(freezer.thaw(force=True)) is Outcome.THAWED
        work.goes_on()

    @pytest.mark.fz("FZ-076")
    def test_an_adopted_freeze_is_thawed_like_our_own(self, lab: Lab) -> None:
        path = lab.make("app")
        work = lab.run(path, "ticking")
        dead = open_freezer(path)
        assert run(dead.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        inode = dead.cgroup.inode
        dead.close()
        freezer = open_freezer(path, inode=inode)
        assert freezer.observe().foreign
        assert freezer.adopt()
        assert freezer.observe() == FROZEN
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        assert run(freezer.thaw()) is Outcome.THAWED
        work.goes_on()
        assert not freezer.adopt(), "nothing is frozen: nothing to adopt"

    def test_a_namesake_is_not_the_cgroup_a_journal_remembers(self, lab: Lab) -> None:
        path = lab.make("app")
        inode = open_freezer(path).cgroup.inode
        os.rmdir(path)
        lab.make("app")
        with pytest.raises(FileNotFoundError, match="namesake"):
            open_freezer(path, inode=inode)

    @pytest.mark.fz("FZ-075")
    def test_a_parent_frozen_before_our_freeze_is_foreign_and_nothing_is_written(self, lab: Lab) -> None:
        path = lab.make("pod") + "/app"
        os.mkdir(path)
        lab.run(path, "ticking")
        freezer = open_freezer(path)
        lab.write(f"{lab.root}/pod", self.wish_file, self.on)
        until(lambda: freezer.observe().frozen, "the parent's freeze to reach the child")
        assert freezer.observe() == FROZEN._replace(wanted_frozen=False, foreign=True)
        for start in (freezer.freeze, freezer.thaw):
            attempt = start()
            assert run(attempt) is Outcome.FOREIGN
            assert attempt.detail == "an ancestor is frozen"
            assert not freezer.observe().wanted_frozen
            assert not freezer.owned

    @pytest.mark.fz("FZ-075")
    def test_a_parent_frozen_after_our_freeze_is_reported_at_the_thaw_and_not_fought(self, lab: Lab) -> None:
        path = lab.make("pod") + "/app"
        os.mkdir(path)
        work = lab.run(path, "ticking")
        freezer = open_freezer(path)
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        lab.write(f"{lab.root}/pod", self.wish_file, self.on)
        thaw = freezer.thaw()
        assert run(thaw) is Outcome.FOREIGN
        assert thaw.detail == "an ancestor is frozen"
        assert freezer.observe() == FROZEN._replace(wanted_frozen=False, foreign=True)
        work.stands_still()
        lab.write(f"{lab.root}/pod", self.wish_file, self.off)
        until(lambda: freezer.observe() == RUNNING, "the parent to thaw")
        work.goes_on()

    @pytest.mark.fz("FZ-075")
    def test_a_thaw_by_someone_else_is_seen_and_ends_our_claim(self, lab: Lab) -> None:
        path = lab.make("app")
        lab.run(path, "ticking")
        freezer = open_freezer(path)
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        lab.write(path, self.wish_file, self.off)
        until(lambda: freezer.observe() == RUNNING, "the foreign thaw")
        assert run(freezer.thaw()) is Outcome.THAWED
        lab.write(path, self.wish_file, self.on)
        assert run(freezer.thaw()) is Outcome.FOREIGN, "this freeze is not ours"

    @pytest.mark.fz("FZ-033", "FZ-071")
    def test_a_freeze_of_ours_is_thawed_at_once(self, lab: Lab) -> None:
        path = lab.make("app")
        work = lab.run(path, "ticking", 16)
        freezer = open_freezer(path)
        for _ in range(3):
            assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
            assert freezer.thaw_at_once()
            assert freezer.observe() == RUNNING
            assert not freezer.owned
            work.goes_on()

    @pytest.mark.fz("FZ-075", "FZ-076")
    def test_nothing_but_a_freeze_of_ours_alone_is_thawed_at_once(self, lab: Lab) -> None:
        path = lab.make("pod") + "/app"
        os.mkdir(path)
        work = lab.run(path, "ticking")
        freezer = open_freezer(path)
        assert not freezer.thaw_at_once(), "nothing is frozen: the long way says so"
        lab.write(path, self.wish_file, self.on)
        until(lambda: freezer.observe().frozen, "somebody else's freeze")
        assert not freezer.thaw_at_once(), "not ours"
        assert freezer.observe().wanted_frozen
        lab.write(path, self.wish_file, self.off)
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        lab.write(f"{lab.root}/pod", self.wish_file, self.on)
        assert not freezer.thaw_at_once(), "an ancestor holds it"
        assert run(freezer.thaw()) is Outcome.FOREIGN
        work.stands_still()
        lab.write(f"{lab.root}/pod", self.wish_file, self.off)
        work.goes_on()

    def test_a_freeze_under_way_and_a_removed_cgroup_take_the_long_way(self, lab: Lab) -> None:
        path = lab.make("app")
        freezer = open_freezer(path)
        freezer.freeze()
        assert not freezer.thaw_at_once()
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        os.rmdir(path)
        assert not freezer.thaw_at_once()
        assert run(freezer.thaw()) is Outcome.GONE

    def test_a_removed_cgroup_answers_gone_to_everything(self, lab: Lab) -> None:
        path = lab.make("app")
        freezer = open_freezer(path)
        os.rmdir(path)
        gone = Observation(False, False, False, False, True)
        assert freezer.observe() == gone
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.GONE
        assert run(freezer.thaw()) is Outcome.GONE
        assert run(freezer.thaw(force=True)) is Outcome.GONE
        assert freezer.kill() == 0
        assert freezer.pids() == ()
        assert freezer.frozen_usec() is None
        assert not freezer.adopt()
        assert freezer.cgroup.is_gone
        os.mkdir(path)  # a namesake does not bring it back
        assert freezer.observe() == gone

    def test_a_cgroup_removed_while_frozen_is_gone(self, lab: Lab) -> None:
        path = lab.make("app")
        freezer = open_freezer(path)
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN, "an empty cgroup freezes at once"
        os.rmdir(path)
        assert run(freezer.thaw()) is Outcome.GONE
        assert not freezer.owned

    def test_removing_cgroups_under_our_hands_never_raises(self, lab: Lab) -> None:
        seen = set()
        for steps in range(6):
            path = lab.make(f"app{steps}")
            freezer = open_freezer(path)
            doings = [freezer.freeze, freezer.observe, freezer.thaw, freezer.observe, freezer.freeze]
            for number, do in enumerate(doings):
                if number == steps:
                    os.rmdir(path)
                answer = do()
                if not isinstance(answer, Observation):
                    seen.add(run(answer))
            if steps < len(doings):
                assert freezer.observe().gone
            freezer.close()
        assert seen == {Outcome.FROZEN, Outcome.THAWED, Outcome.GONE}

    @pytest.mark.fz("FZ-072")
    def test_an_uninterruptible_task_runs_into_the_deadline_and_the_rest_goes_on(self, lab: Lab) -> None:
        path = lab.make("app")
        lab.run(path, "stuck")
        ticking = lab.run(path, "ticking")
        freezer = open_freezer(path)
        freeze = freezer.freeze()
        assert run(freeze) is Outcome.TIMED_OUT
        took_for = freeze.took(monotonic())
        assert 0.2 <= took_for < 1.0
        assert freeze.detail == "not confirmed within 200 ms"
        assert freeze.rolled_back
        assert not freezer.owned
        assert freezer.observe() == RUNNING
        ticking.goes_on()

    @pytest.mark.fz("FZ-071", "FZ-077")
    def test_the_wish_is_written_as_often_as_the_version_needs(self, lab: Lab) -> None:
        path = lab.make("app")
        lab.run(path, "stuck")
        freezer = type(open_freezer(path))(Recording.open(path))
        freeze = freezer.freeze()
        looks = 0
        while freeze.step(looks * 0.00003) == 0.0:  # the spin, in a time of our own
            looks += 1
        assert looks == 4
        expected = [(self.wish_file, self.on)] * (looks + 1 if self.wish_is_repeated else 1)
        assert freezer.cgroup.writes == expected
        run(freezer.thaw())
        assert freezer.cgroup.writes == [*expected, (self.wish_file, self.off)]

    @pytest.mark.fz("FZ-072")
    def test_a_thaw_supersedes_a_freeze_under_way_at_once(self, lab: Lab) -> None:
        path = lab.make("app")
        lab.run(path, "stuck")
        ticking = lab.run(path, "ticking")
        freezer = open_freezer(path)
        freeze = freezer.freeze()
        assert freeze.step(monotonic()) is not None
        assert freezer.observe().wanted_frozen
        thaw = freezer.thaw()
        assert freeze.outcome is Outcome.ABANDONED
        assert freeze.step(monotonic()) is None, "an abandoned transition does nothing more"
        assert run(thaw) is Outcome.THAWED
        assert thaw.took(monotonic()) < 0.2
        assert freezer.observe() == RUNNING
        ticking.goes_on()

    def test_a_freeze_supersedes_a_thaw_that_never_began(self, lab: Lab) -> None:
        path = lab.make("app")
        lab.run(path, "ticking")
        freezer = open_freezer(path)
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        thaw = freezer.thaw()
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        assert thaw.outcome is Outcome.ABANDONED
        assert freezer.observe() == FROZEN

    def test_kill_ends_even_an_uninterruptible_task_in_a_half_frozen_cgroup(self, lab: Lab) -> None:
        path = lab.make("app")
        stuck = lab.run(path, "stuck")  # killable, as most waits of today's kernels are
        freezer = open_freezer(path)
        freezer.freeze().step(monotonic())
        assert freezer.kill() == 1
        stuck.ends_with(signal.SIGKILL)

    def test_without_permission_nothing_is_claimed(self, lab: Lab) -> None:
        """Reading is allowed to everybody, writing is not."""
        if shutil.which("setpriv") is None:
            pytest.skip("NOT PROVEN HERE: no setpriv")
        path = lab.make("app")
        script = (
            "import sys\n"
            "from queueproxy.freeze.node.cgroup import open_freezer, run\n"
            "freezer = open_freezer(sys.argv[1])\n"
            "freeze = freezer.freeze()\n"
            "print(run(freeze).name, freeze.errno, freeze.rolled_back, freezer.owned, *freezer.observe())\n"
        )
        done = subprocess.run(
            ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups", sys.executable, "-c", script, path],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.stdout == f"FAILED {errno.EACCES} False False False False False False False\n", done.stderr

    def test_we_do_not_freeze_ourselves(self, lab: Lab) -> None:
        path = lab.make("app")
        script = (
            "import os, sys\n"
            "from queueproxy.freeze.node.cgroup import open_freezer, run\n"
            "open(sys.argv[1] + '/cgroup.procs', 'w').write('0')\n"
            "freeze = open_freezer(sys.argv[1]).freeze()\n"
            "print(run(freeze).name, os.strerror(freeze.errno), freeze.detail, sep='|')\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, path], capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        outcome, number, detail = done.stdout.strip().split("|")
        assert (outcome, number) == ("FAILED", "Resource deadlock avoided")
        assert detail.startswith("would freeze ourselves")

    def test_a_process_born_into_a_frozen_cgroup_is_frozen_and_thaws_with_it(self, lab: Lab) -> None:
        path = lab.make("app")
        outside = lab.run(lab.make("outside"), "ticking")
        freezer = open_freezer(path)
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        lab.write(path, "cgroup.procs", str(outside.pid))
        until(lambda: freezer.observe() == FROZEN, "the newcomer to freeze")
        outside.stands_still()
        assert run(freezer.thaw()) is Outcome.THAWED
        outside.goes_on()

    @pytest.mark.fz("FZ-075", "FZ-076")
    @pytest.mark.parametrize("seed", range(4), ids="seed-{}".format)
    def test_whatever_happens_in_whatever_order_a_forced_thaw_sets_everything_running(
        self, lab: Lab, seed: int
    ) -> None:
        """We, a second freezer and an administrator of the parent, at random; each finished move told the truth."""
        pod = lab.make("pod")
        path = f"{pod}/app"
        os.mkdir(path)
        work = lab.run(path, "ticking", 4)
        ours, theirs = open_freezer(path), open_freezer(path)
        above = open_freezer(pod)
        chance = random.Random(seed)
        under_way = {freezer: freezer.thaw() for freezer in (ours, theirs, above)}
        for _ in range(150):
            freezer = chance.choice([ours, ours, theirs, above])
            doing = chance.choice(["freeze", "thaw", "step", "step", "run"])
            if doing == "freeze":
                under_way[freezer] = freezer.freeze(deadline_for=PATIENCE)
            elif doing == "thaw":
                under_way[freezer] = freezer.thaw()
            elif doing == "step":
                under_way[freezer].step(monotonic())
            else:
                is_news = not under_way[freezer].is_finished
                outcome = run(under_way[freezer])
                if is_news:
                    seen = freezer.observe()
                    assert outcome in (Outcome.FROZEN, Outcome.THAWED, Outcome.FOREIGN), under_way[freezer]
                    if outcome is not Outcome.FOREIGN:
                        assert seen.frozen == seen.wanted_frozen == (outcome is Outcome.FROZEN), under_way[freezer]
                    assert freezer.owned == (outcome is Outcome.FROZEN), under_way[freezer]
        for freezer in (above, ours):
            assert run(freezer.thaw(force=True)) is Outcome.THAWED
        assert ours.observe() == theirs.observe() == RUNNING
        work.goes_on()

    def test_a_stopped_process_counts_as_frozen_and_stays_stopped_after_the_thaw(self, lab: Lab) -> None:
        path = lab.make("app")
        work = lab.run(path, "ticking")
        os.kill(work.pid, signal.SIGSTOP)
        until(lambda: work.state() == "T", "the process to stop")
        freezer = open_freezer(path)
        assert run(freezer.freeze(deadline_for=PATIENCE)) is Outcome.FROZEN
        assert run(freezer.thaw()) is Outcome.THAWED
        remains(lambda: work.state() == "T", "stopped")
        os.kill(work.pid, signal.SIGCONT)
        work.goes_on()

    def test_the_root_of_the_hierarchy_is_no_freezer(self, lab: Lab) -> None:
        place = place_of("" if self.wish_file == "cgroup.freeze" else "freezer")
        assert place is not None
        if os.path.exists(f"{place}/{self.wish_file}"):
            pytest.skip("NOT PROVEN HERE: our own cgroup is not the root of its hierarchy")
        with pytest.raises(NotACgroup, match="no freezer here"):
            open_freezer(place)
