"""What sleep costs: the first byte after it, the sidecar's own CPU during it, and nothing at all for the awake."""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.e2e_figures import measure_resume, measure_wakes, percentile, share_of_core, undisturbed
from tests.support.e2e_spec import CODE
from tests.support.e2e_watch import Kubelet
from tests.support.e2e_world import QUICK, World, annotated
from tests.support.sidecar import USER

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("e2e")]

QUIET = {"TICK": "1"}  # nothing beside what is measured
PLAIN = (sys.executable, f"{CODE}/e2e_plain_app.py")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as running:
        yield running


def measure(world: World, pods: int, wakes: int, resumes: int, part: float = 50) -> tuple[float, float, float]:
    """Added at this percentile, added at the 99th, and how many times slower containerd's resume is at the first."""
    with ExitStack() as stack:
        sleepers = [stack.enter_context(world.pod(args=PLAIN)) for _ in range(pods)]
        stack.enter_context(undisturbed(world))
        found = measure_wakes(sleepers, wakes)
        paused = stack.enter_context(world.pod(annotations=QUICK | annotated(freeze="off"), app_env=QUIET))
        resume = percentile(measure_resume(paused, resumes), part)
    ratio = resume / found.added(part)
    print(f"{found}; containerd Tasks.Resume p{part:g} {resume:.2f} ms: {ratio:.1f} times the added p{part:g}")
    return found.added(part), found.added(99), ratio


@pytest.mark.fz("FZ-143")
def test_a_wake_adds_little_and_the_runtimes_own_resume_much_more(world: World) -> None:
    """Beside other tests only the quicker quarter says something about us, the rest is the others' time slices. The
    budgets themselves are the long test's."""
    added, _, ratio = measure(world, pods=4, wakes=24, resumes=12, part=25)
    assert added < 3.0  # FZ-143
    assert ratio > 3


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.fz("FZ-143")
def test_the_budgets_of_a_wake_are_kept(world: World) -> None:
    added, worst, ratio = measure(world, pods=8, wakes=400, resumes=60)
    assert added <= 0.5
    assert worst <= 3.0
    assert ratio >= 20


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.fz("FZ-098")
def test_a_sidecar_whose_app_sleeps_uses_next_to_no_cpu_with_its_knock(world: World) -> None:
    with world.pod(app_env=QUIET) as pod:
        pod.app.until_frozen()
        share = share_of_core(pod.sidecar, 30.0)
        with Kubelet(world.node, f"http:{pod.ip}:{USER}/healthz") as kubelet:
            threading.Event().wait(8.0)  # the rhythm is learnt
            probed = share_of_core(pod.sidecar, 30.0)
            failed = kubelet.failed
    print(f"asleep: {share:.3%} of a core, with a probe a second {probed:.3%}")
    assert failed == []
    assert share <= 0.002
    assert probed <= 0.004  # a knock, a wake and a sleep each second: what is aimed at is 0.002
