"""All containers of a revision sleep and wake together; the sidecar and the sandbox never do."""

from collections.abc import Iterator
from time import monotonic

import pytest

from tests.support.e2e_watch import FrozenWatch
from tests.support.e2e_world import QUICK, World, annotated

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("e2e")]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as running:
        yield running


@pytest.mark.fz("FZ-073", "FZ-074", "L-04")
def test_two_containers_sleep_and_wake_together(world: World) -> None:
    with world.pod(containers=("serving", "helper")) as pod:
        serving, helper = pod.apps
        with FrozenWatch(lambda: [pod.sidecar, pod.sandbox]) as others:
            serving.until_frozen()
            asleep_at = helper.until_frozen()
            began = monotonic()
            assert helper.ticks(asleep_at, began) == []
            assert pod.ask("/slow").body.startswith("serving")
            assert len(helper.ticks(began)) > 15
            serving.until_frozen()
            helper.until_frozen()
        assert others.spans == []


@pytest.mark.fz("FZ-073", "FZ-110")
def test_the_annotation_narrows_it_to_the_containers_it_names(world: World) -> None:
    with world.pod(containers=("serving", "helper"), annotations=QUICK | annotated(containers="serving")) as pod:
        serving, helper = pod.apps
        with FrozenWatch(lambda: [helper]) as watch:
            for _ in range(2):
                serving.until_frozen()
                since = len(helper.log.lines)
                helper.log.heard("tick", since=since + 10)
                assert pod.ask("/").status == 200
        assert watch.spans == []


@pytest.mark.fz("FZ-012", "FZ-096", "D-27")
def test_a_container_that_dies_asleep_is_replaced_and_its_successor_sleeps_too(world: World) -> None:
    with world.pod() as pod:
        pod.app.until_frozen()
        old = pod.app
        old.kill()
        assert old.wait() == 137
        new = world.restart(pod, old.name)
        new.log.heard("listening")
        world.until(lambda: pod.ask("/").status == 200)
        # It may sleep again when the kubelet has found it ready, and that may be before the sidecar sees that it is
        # another one (FZ-012): so it is asked as the kubelet asks, again and again.
        world.until(lambda: pod.health().status == 200 and new.frozen, 20.0)
        assert pod.ask("/").status == 200
