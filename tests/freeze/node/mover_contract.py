"""What a pod mover must do on the real kernel. Imported by test_mover.py, run once per world of hierarchies.

Real pods, real processes, an event loop of each kind. The container that never follows has a task in a system call
that userfaultfd never lets end.
"""

import asyncio
import json
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from queueproxy.clock import monotonic
from queueproxy.freeze.node.cgroup import open_freezer, run
from queueproxy.freeze.node.held import HeldError
from queueproxy.freeze.node.inventory import ContainerFacts
from queueproxy.freeze.node.mover import Moved, PodMover
from queueproxy.freeze.node.throttle import CpuThrottle, Squeeze
from queueproxy.freeze.vocabulary import Rung
from tests.support.cgroupfs import PATIENCE, Workload, until
from tests.support.kubepods import Node, Pod, descriptors

RUNNING, THROTTLED, FROZEN = Rung.RUNNING, Rung.THROTTLED, Rung.FROZEN


class Driver:
    """A loop and what is asked of movers on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, node: Node) -> None:
        self.loop = loop
        self.node = node
        self.tree = node.tree()
        self._movers: list[PodMover] = []

    def mover(self, pod: Pod, **kwargs: object) -> PodMover:
        mover = PodMover(self.loop, self.tree, pod.containers, pod.uid, pod.qos, **kwargs)  # type: ignore[arg-type]
        self._movers.append(mover)
        return mover

    def moved(self, mover: PodMover, rung: Rung) -> Moved:
        answers: list[Moved] = []
        mover.move(rung, answers.append)
        self.until(lambda: answers)
        assert len(answers) == 1
        return answers[0]

    def until(self, condition: Callable[[], object]) -> None:
        """Run the loop until a fact of ours holds; it is looked at whenever the loop has had a turn."""
        deadline_at = monotonic() + PATIENCE

        def look() -> None:
            if condition() or monotonic() > deadline_at:
                self.loop.stop()
            else:
                self.loop.call_later(0.001, look)

        if not condition():
            look()
            self.loop.run_forever()
        assert condition()

    def close(self) -> None:
        for mover in self._movers:
            mover.close()


@contextmanager
def driver_on(loop: asyncio.AbstractEventLoop, *controllers: str) -> Iterator[Driver]:
    with Node(*controllers) as node:
        driver = Driver(loop, node)
        try:
            yield driver
        finally:
            driver.close()
            loop.close()


def reached(moved: Moved, rung: Rung) -> bool:
    return moved.rung is rung and not moved.detail and not moved.gone


class MoverContract:
    """Subclasses provide the `at` fixture (a Driver), `mechanism` and how somebody else freezes: `wish`."""

    mechanism: str
    wish: tuple[str, str, str]  # file, on, off

    def foreign(self, at: Driver, path: str, *, freeze: bool = True) -> None:
        name, on, off = self.wish
        Path(at.node.at(path), name).write_text(on if freeze else off)
        freezer = open_freezer(at.node.at(path))
        until(lambda: freezer.observe().frozen is freeze, "somebody else's freeze or thaw")
        freezer.close()

    @pytest.mark.fz("FZ-070", "FZ-074", "FZ-080")
    @pytest.mark.parametrize("count", [1, 3])
    def test_all_containers_stop_and_all_go_on(self, at: Driver, count: int) -> None:
        pod = at.node.pod([f"c{number}" for number in range(count)])
        works = [at.node.run(path) for path in pod.paths]
        mover = at.mover(pod)
        assert mover.mechanism == ""
        assert mover.pids() == frozenset()
        for _ in range(3):
            moved = at.moved(mover, FROZEN)
            assert reached(moved, FROZEN), moved
            assert moved.mechanism == mover.mechanism == self.mechanism
            assert 0.0 < moved.took < PATIENCE
            assert mover.seen() is FROZEN
            assert mover.pids() == {work.pid for work in works}
            for work in works:
                work.stands_still()
            assert reached(at.moved(mover, RUNNING), RUNNING)
            assert mover.seen() is RUNNING
            for work in works:
                work.goes_on()

    def test_a_thaw_is_confirmed_before_move_returns(self, at: Driver) -> None:
        """The wake path costs no turn of the loop."""
        pod = at.node.pod()
        at.node.run(pod.paths[0])
        mover = at.mover(pod)
        late = 0
        for _ in range(20):
            assert reached(at.moved(mover, FROZEN), FROZEN)
            answers: list[Moved] = []
            mover.move(RUNNING, answers.append)
            late += not answers
            at.until(lambda answers=answers: answers)
            assert reached(answers[0], RUNNING)
        assert late <= 2, "only when we were held up ourselves"

    def test_a_rung_reached_already_is_confirmed_again(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b"])
        for path in pod.paths:
            at.node.run(path)
        mover = at.mover(pod)
        for rung in (RUNNING, FROZEN, FROZEN, THROTTLED, THROTTLED, RUNNING, RUNNING):
            assert reached(at.moved(mover, rung), rung)
            assert mover.seen() is rung

    # === CPU. ===

    def limit(self, at: Driver, pod: Pod, number: int = 0) -> CpuThrottle:
        return CpuThrottle.open(at.node.at(pod.paths[number], "cpu"))

    def someone_limits(self, at: Driver, pod: Pod, quota_us: int, number: int = 0) -> None:
        """As kubelet would: it knows nothing of us."""
        Path(at.node.at(pod.paths[number], "cpu"), "cpu.cfs_quota_us").write_text(str(quota_us))

    @pytest.mark.fz("FZ-080", "FZ-081", "FZ-082", "FZ-083", "FZ-085")
    @pytest.mark.parametrize("way", ["up", "through-frozen", "frozen-first"])
    def test_the_exact_limit_is_back_whatever_the_way(self, at: Driver, way: str) -> None:
        pod = at.node.pod(["a", "b"])
        works = [at.node.run(path) for path in pod.paths]
        limits = [self.limit(at, pod, number) for number in range(2)]
        self.someone_limits(at, pod, 73_000, 1)
        before = [str(limit.read()) for limit in limits]
        assert before == ["max 100000", "73000 100000"]
        mover = at.mover(pod)
        steps = {
            "up": [THROTTLED, RUNNING],
            "through-frozen": [THROTTLED, FROZEN, THROTTLED, FROZEN, RUNNING],
            "frozen-first": [FROZEN, THROTTLED, RUNNING],
        }
        for rung in steps[way]:
            assert reached(at.moved(mover, rung), rung)
            assert mover.seen() is rung
            expected = ["1000 100000"] * 2 if rung is THROTTLED else before
            assert [str(limit.read()) for limit in limits] == expected
            if rung is not FROZEN:
                for work in works:
                    work.goes_on()
        for limit in limits:
            limit.close()

    @pytest.mark.fz("FZ-082")
    def test_a_limit_someone_wrote_meanwhile_is_left_to_them(self, at: Driver) -> None:
        pod = at.node.pod()
        at.node.run(pod.paths[0])
        mover = at.mover(pod)
        assert reached(at.moved(mover, THROTTLED), THROTTLED)
        self.someone_limits(at, pod, 50_000)
        assert mover.seen() is RUNNING
        assert reached(at.moved(mover, RUNNING), RUNNING)
        limit = self.limit(at, pod)
        assert str(limit.read()) == "50000 100000"
        limit.close()

    @pytest.mark.fz("FZ-074")
    def test_when_one_cannot_be_throttled_the_others_get_their_limit_back(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b", "c"])
        works = [at.node.run(path) for path in pod.paths[:2]]
        os.rmdir(at.node.at(pod.paths[2], "cpu"))
        mover = at.mover(pod)
        assert reached(at.moved(mover, FROZEN), FROZEN)
        moved = at.moved(mover, THROTTLED)
        assert moved == Moved(None, self.mechanism, moved.took, "c: no cpu controller", False)
        assert mover.seen() is RUNNING, "it was frozen before, and is not left so"
        limit = self.limit(at, pod)
        assert str(limit.read()) == "max 100000"
        limit.close()
        for work in works:
            work.goes_on()

    @pytest.mark.fz("FZ-083")
    @pytest.mark.parametrize("asleep", [THROTTLED, FROZEN])
    def test_the_first_progress_after_a_thaw_does_not_wait_for_the_next_period(self, at: Driver, asleep: Rung) -> None:
        """The period is 100 ms. What a quiet machine needs (5 ms at p99) is for the bench to say: on two busy cores a
        task that was never put to sleep waits as long for its turn."""
        pod = at.node.pod()
        work = at.node.run(pod.paths[0], "busy")
        mover = at.mover(pod)
        waited: list[float] = []
        for _ in range(20):
            assert reached(at.moved(mover, THROTTLED), THROTTLED)
            assert reached(at.moved(mover, asleep), asleep)
            at.loop.call_later(0.005, at.loop.stop)  # the quota of 1 ms is used up
            at.loop.run_forever()
            before = work.counts()
            began_at = monotonic()
            assert reached(at.moved(mover, RUNNING), RUNNING)
            until(lambda before=before: work.counts() != before, "the first progress")
            waited.append(monotonic() - began_at)
        assert sorted(waited)[10] < 0.025, waited

    # === All or nothing. ===

    @pytest.mark.fz("FZ-072", "FZ-074", "D-33")
    def test_when_one_does_not_stop_the_others_are_thawed_again(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b", "c"])
        works = [at.node.run(path, mode) for path, mode in zip(pod.paths, ("ticking", "stuck", "ticking"), strict=True)]
        mover = at.mover(pod)
        moved = at.moved(mover, FROZEN)
        assert moved.rung is None
        assert moved.detail == "b: timed out: not confirmed within 200 ms"
        assert 0.2 <= moved.took < 1.0
        assert mover.seen() is RUNNING
        for work in (works[0], works[2]):
            work.goes_on()

    @pytest.mark.fz("FZ-072", "FZ-074")
    def test_the_others_are_stepped_together_not_one_after_another(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b", "c"])
        for path in pod.paths:
            at.node.run(path, "stuck")
        moved = at.moved(at.mover(pod), FROZEN)
        assert moved.rung is None
        assert 0.2 <= moved.took < 0.6
        assert sorted(part[0] for part in moved.detail.split("; ")) == ["a"], "the first to fail is the reason"

    @pytest.mark.fz("FZ-074", "FZ-076")
    @pytest.mark.parametrize("victim", [0, 1, 2])
    def test_when_somebody_else_has_frozen_one_nothing_stays_frozen_by_us(self, at: Driver, victim: int) -> None:
        pod = at.node.pod(["a", "b", "c"])
        works = [at.node.run(path) for path in pod.paths]
        self.foreign(at, pod.paths[victim])
        mover = at.mover(pod)
        for rung in (FROZEN, RUNNING):
            moved = at.moved(mover, rung)
            assert moved.rung is None
            assert moved.detail == f"{'abc'[victim]}: foreign: frozen by someone else"
            assert mover.seen() is FROZEN, "one of them is"
            for number, work in enumerate(works):
                work.stands_still() if number == victim else work.goes_on()
        self.foreign(at, pod.paths[victim], freeze=False)
        assert reached(at.moved(mover, FROZEN), FROZEN)
        assert reached(at.moved(mover, RUNNING), RUNNING)

    @pytest.mark.fz("FZ-075", "FZ-076")
    def test_a_pod_that_somebody_froze_above_us_is_reported(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b"])
        works = [at.node.run(path) for path in pod.paths]
        mover = at.mover(pod)
        assert reached(at.moved(mover, FROZEN), FROZEN)
        name, on, off = self.wish
        above = Path(at.node.pod_at(pod), name)
        above.write_text(on)
        moved = at.moved(mover, RUNNING)
        assert moved.rung is None
        # Whichever ends first is named first.
        assert sorted(moved.detail.split("; ")) == [f"{name}: foreign: an ancestor is frozen" for name in "ab"]
        above.write_text(off)
        for work in works:
            work.goes_on()
        assert reached(at.moved(mover, RUNNING), RUNNING)

    def test_cgroups_within_a_container_stop_and_go_with_it_but_their_own_freeze_stays_theirs(self, at: Driver) -> None:
        """T-25: an app with a delegated cgroup may freeze parts of itself."""
        pod = at.node.pod()
        at.node.run(pod.paths[0])
        inside = [f"{pod.paths[0]}/{name}" for name in ("running", "frozen")]
        for path in inside:
            os.mkdir(at.node.at(path))
        running, frozen = (at.node.first.run(at.node.at(path), "ticking") for path in inside)
        self.foreign(at, inside[1])
        mover = at.mover(pod)
        for _ in range(3):
            assert reached(at.moved(mover, FROZEN), FROZEN)
            running.stands_still()
            assert reached(at.moved(mover, RUNNING), RUNNING)
            running.goes_on()
            frozen.stands_still()
        self.foreign(at, inside[1], freeze=False)
        frozen.goes_on()

    # === Containers that are gone. ===

    @pytest.mark.fz("FZ-096", "D-35")
    def test_a_container_that_is_gone_counts_as_running(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b"])
        works = [at.node.run(path) for path in pod.paths]
        mover = at.mover(pod)
        assert reached(at.moved(mover, FROZEN), FROZEN)
        self.end(at, pod, works, 0)
        assert reached(at.moved(mover, RUNNING), RUNNING)
        works[1].goes_on()
        moved = at.moved(mover, FROZEN)
        assert (moved.rung, moved.detail, moved.gone) == (None, "a: the cgroup is gone", False)
        assert mover.seen() is RUNNING
        works[1].goes_on()
        assert reached(at.moved(mover, RUNNING), RUNNING)
        self.end(at, pod, works, 1)
        moved = at.moved(mover, RUNNING)
        assert (moved.rung, moved.gone) == (RUNNING, True)
        moved = at.moved(mover, FROZEN)
        assert (moved.rung, moved.gone) == (None, True)
        assert json.loads(json.dumps(mover.held()))["containers"] == []

    def end(self, at: Driver, pod: Pod, works: list[Workload], number: int) -> None:
        """As a runtime removes a container: no process, then no directory, in any hierarchy."""
        path = pod.paths[number]
        Path(at.node.at(path), self.wish[0]).write_text(self.wish[2])
        works[number].close()
        for controller in at.node.controllers:
            at.node.remove(path, controller)

    def test_a_container_that_never_was_is_gone(self, at: Driver) -> None:
        pod = at.node.pod(["a"])
        stranger = pod._replace(containers=(ContainerFacts("a", "f" * 64, "containerd"),))
        mover = at.mover(stranger)
        moved = at.moved(mover, FROZEN)
        assert (moved.rung, moved.mechanism, moved.detail, moved.gone) == (None, "", "a: the cgroup is gone", True)
        moved = at.moved(mover, RUNNING)
        assert (moved.rung, moved.gone) == (RUNNING, True)
        assert mover.frozen_usec() is mover.cpu_usec() is mover.stop_pending() is None

    def test_a_pod_without_containers_does_not_sleep(self, at: Driver) -> None:
        mover = at.mover(at.node.pod(["a"])._replace(containers=()))
        assert at.moved(mover, FROZEN).detail == "no container of this pod may sleep"
        assert reached(at.moved(mover, RUNNING), RUNNING)

    def test_a_name_of_another_shape_is_an_answer_not_an_exception(self, at: Driver) -> None:
        pod = at.node.pod(["a"])
        mover = at.mover(pod._replace(containers=(ContainerFacts("a", "../..", "containerd"),)))
        for rung in (FROZEN, RUNNING):
            moved = at.moved(mover, rung)
            assert (moved.rung, moved.gone) == (None, False)
            assert moved.detail.startswith("a: cannot be opened: '../..' is no container id")

    # === Newer moves. ===

    @pytest.mark.fz("FZ-072")
    def test_a_newer_move_supersedes_and_the_older_never_answers(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b"])
        ticking = at.node.run(pod.paths[0])
        at.node.run(pod.paths[1], "stuck")
        mover = at.mover(pod)
        older: list[Moved] = []
        mover.move(FROZEN, older.append)
        assert not older
        assert "moving" in repr(mover)
        moved = at.moved(mover, RUNNING)
        assert reached(moved, RUNNING)
        assert moved.took < 0.1
        ticking.goes_on()
        at.loop.call_later(0.3, at.loop.stop)
        at.loop.run_forever()
        assert not older
        assert mover.seen() is RUNNING
        assert "at rest" in repr(mover)

    def test_a_move_asked_for_from_within_an_answer_is_moved(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b"])
        works = [at.node.run(path) for path in pod.paths]
        mover = at.mover(pod)
        answers: list[Moved] = []

        def again(moved: Moved) -> None:
            answers.append(moved)
            if len(answers) < 5:
                mover.move(RUNNING if moved.rung is FROZEN else FROZEN, again)

        mover.move(FROZEN, again)
        at.until(lambda: len(answers) == 5)
        assert [moved.rung for moved in answers] == [FROZEN, RUNNING, FROZEN, RUNNING, FROZEN]
        for work in works:
            work.stands_still()

    def test_nothing_is_answered_and_nothing_left_open_after_close(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b"])
        works = [at.node.run(path, mode) for path, mode in zip(pod.paths, ("ticking", "stuck"), strict=True)]
        before = descriptors()
        mover = at.mover(pod)
        answers: list[Moved] = []
        mover.move(FROZEN, answers.append)
        assert mover.stop_pending() is None
        mover.held()
        assert len(descriptors()) > len(before)
        mover.close()
        assert descriptors() == before
        assert not any(f"/proc/{work.pid}/" in path for path in descriptors("/proc/") for work in works)
        at.loop.call_later(0.3, at.loop.stop)
        at.loop.run_forever()
        assert not answers

    # === What the journal remembers. ===

    @pytest.mark.fz("FZ-076", "FZ-092")
    @pytest.mark.parametrize("rung", [THROTTLED, FROZEN])
    @pytest.mark.parametrize("written", ["before", "after"])
    @pytest.mark.parametrize("known", [True, False], ids=["facts-known", "journal-alone"])
    def test_a_successor_lifts_what_its_predecessor_did(
        self, at: Driver, rung: Rung, written: str, known: bool
    ) -> None:
        pod = at.node.pod(["a", "b"])
        works = [at.node.run(path) for path in pod.paths]
        dead = at.mover(pod)
        record = dead.held()
        assert reached(at.moved(dead, rung), rung)
        if written == "after":
            record = dead.held()
        dead.close()
        mover = at.mover(pod if known else pod._replace(containers=()), adopt=json.loads(json.dumps(record)))
        assert mover.seen() is rung
        assert mover.mechanism == self.mechanism
        assert mover.held() == record, "a third one could go on"
        assert reached(at.moved(mover, RUNNING), RUNNING)
        limit = self.limit(at, pod)
        assert str(limit.read()) == "max 100000"
        limit.close()
        for work in works:
            work.goes_on()
        moved = at.moved(mover, FROZEN)
        assert (moved.rung, moved.detail) == ((FROZEN, "") if known else (None, "no container of this pod may sleep"))
        assert mover.seen() is (FROZEN if known else RUNNING)

    @pytest.mark.fz("FZ-092")
    def test_a_freeze_that_died_half_way_is_lifted(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b", "c"])
        works = [at.node.run(path) for path in pod.paths]
        record = at.mover(pod).held()
        self.foreign(at, pod.paths[1])  # as our predecessor's first write would be
        mover = at.mover(pod, adopt=record)
        assert mover.seen() is FROZEN
        assert reached(at.moved(mover, RUNNING), RUNNING)
        for work in works:
            work.goes_on()

    @pytest.mark.fz("FZ-074", "FZ-076")
    def test_a_thaw_goes_to_all_even_when_one_was_frozen_by_someone_else(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b", "c"])
        works = [at.node.run(path) for path in pod.paths]
        self.foreign(at, pod.paths[1])
        record = at.mover(pod).held()
        for number in (0, 2):
            self.foreign(at, pod.paths[number])  # after it was written down: as our predecessor's would be
        moved = at.moved(at.mover(pod, adopt=record), RUNNING)
        assert (moved.rung, moved.detail) == (None, "b: foreign: frozen by someone else")
        works[0].goes_on()
        works[1].stands_still()
        works[2].goes_on()

    @pytest.mark.fz("FZ-082", "FZ-092")
    def test_a_limit_that_was_remembered_but_never_squeezed_is_not_written(self, at: Driver) -> None:
        pod = at.node.pod()
        at.node.run(pod.paths[0])
        record = at.mover(pod).held()
        self.someone_limits(at, pod, 60_000)
        mover = at.mover(pod, adopt=record)
        assert mover.seen() is RUNNING
        for rung in (RUNNING, THROTTLED, RUNNING):
            assert reached(at.moved(mover, rung), rung)
        limit = self.limit(at, pod)
        assert str(limit.read()) == "60000 100000"
        limit.close()

    @pytest.mark.fz("FZ-096")
    def test_a_namesake_is_not_what_the_journal_remembers(self, at: Driver) -> None:
        pod = at.node.pod()
        record = at.mover(pod).held()
        path = at.node.at(pod.paths[0])
        os.rmdir(path)
        os.mkdir(path)
        work = at.node.run(pod.paths[0])
        self.foreign(at, pod.paths[0])
        mover = at.mover(pod, adopt=record)
        moved = at.moved(mover, RUNNING)
        assert (moved.rung, moved.detail) == (None, "app: foreign: frozen by someone else")
        work.stands_still()

    def test_a_container_of_the_past_is_thawed_and_never_put_to_sleep(self, at: Driver) -> None:
        pod = at.node.pod(["old", "new"])
        works = [at.node.run(path) for path in pod.paths]
        old, new = (pod._replace(containers=(one,)) for one in pod.containers)
        dead = at.mover(old)
        assert reached(at.moved(dead, FROZEN), FROZEN)
        mover = at.mover(new, adopt=dead.held())
        limit = self.limit(at, pod)
        for rung in (THROTTLED, FROZEN):
            assert reached(at.moved(mover, rung), rung)
            works[0].goes_on()
            assert str(limit.read()) == "max 100000"
        limit.close()
        works[1].stands_still()
        self.foreign(at, pod.paths[0])
        assert reached(at.moved(mover, FROZEN), FROZEN), "the other one's trouble is not the pod's"

    @pytest.mark.fz("FZ-132")
    @pytest.mark.parametrize("lie", ["another-pod", "another-root", "another-hierarchy", "nonsense"])
    def test_a_record_that_lies_is_refused_and_leaves_nothing_open(self, at: Driver, lie: str) -> None:
        pod = at.node.pod(["a", "b"])
        first = at.mover(pod)
        record = json.loads(json.dumps(first.held()))
        first.close()
        if lie == "another-pod":
            record["uid"] = at.node.pod().uid
        elif lie == "another-root":
            record["containers"][1]["freezer"]["root"] = "elsewhere/kubepods.slice"
        elif lie == "another-hierarchy":
            record["containers"][1]["freezer"]["hierarchy"] = "memory"
        else:
            record = {"uid": pod.uid, "containers": 7}
        before = descriptors()
        with pytest.raises(HeldError):
            at.mover(pod, adopt=record)
        assert descriptors() == before

    # === What else it tells. ===

    @pytest.mark.fz("FZ-055")
    def test_the_container_that_was_told_to_stop_is_named(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b"])
        works = [at.node.run(path, "handling") for path in pod.paths]
        mover = at.mover(pod)
        assert reached(at.moved(mover, FROZEN), FROZEN)
        assert mover.stop_pending() is None
        assert not mover.is_blind
        works[1].process.terminate()
        assert mover.stop_pending() == "b"
        assert reached(at.moved(mover, RUNNING), RUNNING)
        assert works[1].process.wait(PATIENCE) == 7, "it stopped as it wanted to"
        assert works[0].is_alive()

    @pytest.mark.fz("FZ-103")
    def test_frozen_time_is_counted_to_a_hundredth(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b"])
        for path in pod.paths:
            at.node.run(path)
        mover = at.mover(pod)
        assert mover.frozen_usec() is None
        mover.held()
        before = mover.frozen_usec()
        assert before is not None
        began_at = monotonic()
        assert reached(at.moved(mover, FROZEN), FROZEN)
        frozen_at = monotonic()
        at.loop.call_later(0.5, at.loop.stop)
        at.loop.run_forever()
        thaw_at = monotonic()
        asleep = mover.frozen_usec()
        assert reached(at.moved(mover, RUNNING), RUNNING)
        ended_at = monotonic()
        after = mover.frozen_usec()
        assert asleep is not None
        assert after is not None
        for count in (asleep, after):
            assert (thaw_at - frozen_at) * 0.99 <= (count - before) / 1e6 <= (ended_at - began_at) * 1.01
        assert mover.frozen_usec() == after, "awake, nothing is added"

    @pytest.mark.fz("FZ-105")
    def test_cpu_time_is_that_of_all_containers(self, at: Driver) -> None:
        pod = at.node.pod(["a", "b"])
        works = [at.node.run(path, "busy") for path in pod.paths]
        mover = at.mover(pod)
        mover.held()
        until(lambda: (mover.cpu_usec() or 0) > 50_000, "CPU time to be used")
        assert reached(at.moved(mover, FROZEN), FROZEN)
        before = mover.cpu_usec()
        for work in works:
            work.stands_still()
        after = mover.cpu_usec()
        assert before is not None
        assert after is not None
        assert after - before < 20_000, "asleep it uses none"

    # === Anything. ===

    @pytest.mark.fz("FZ-074", "FZ-075", "FZ-076", "FZ-080")
    @pytest.mark.parametrize("seed", range(3), ids="seed-{}".format)
    def test_whatever_is_asked_and_whoever_interferes_what_is_answered_is_so(self, at: Driver, seed: int) -> None:
        pod = at.node.pod(["a", "b", "c"])
        works = [at.node.run(path) for path in pod.paths]
        chance = random.Random(seed)
        mover = at.mover(pod)
        theirs = [open_freezer(at.node.at(path)) for path in pod.paths]
        limits = [self.limit(at, pod, number) for number in range(3)]
        for _ in range(60):
            rung = chance.choice([RUNNING, RUNNING, THROTTLED, FROZEN])
            doing = chance.choice(["move", "move", "move", "hurry", "interfere", "successor"])
            if doing == "hurry":
                mover.move(rung, lambda moved: None)
            elif doing == "interfere":
                freezer = chance.choice(theirs)
                run(chance.choice([freezer.freeze, freezer.thaw])(deadline_for=PATIENCE))
                limits[chance.randrange(3)].squeeze() if chance.random() < 0.3 else None
            elif doing == "successor":
                at.moved(mover, mover.seen())
                record = mover.held()
                mover.close()
                mover = at.mover(pod, adopt=record)
            else:
                moved = at.moved(mover, rung)
                if moved.rung is not None:
                    assert moved.rung is rung
                    assert all(freezer.observe().frozen is (rung is FROZEN) for freezer in theirs), moved
                else:
                    assert moved.detail
        for freezer in theirs:
            run(freezer.thaw(force=True))
        at.moved(mover, RUNNING)
        assert reached(at.moved(mover, RUNNING), RUNNING)
        for work in works:
            work.goes_on()
        for limit in limits:
            assert limit.restore() in (Squeeze.UNCHANGED, Squeeze.RESTORED, Squeeze.FOREIGN)
            limit.close()
        for freezer in theirs:
            freezer.close()
