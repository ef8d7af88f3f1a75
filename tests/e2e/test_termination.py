"""Nobody dies without being told: a stop signal reaches a sleeping container at once, and a pod ends with grace."""

import signal
from collections.abc import Iterator
from itertools import pairwise
from time import monotonic

import pytest

from tests.support.e2e_pod import SIDECAR, Pod
from tests.support.e2e_world import World

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("e2e")]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as running:
        yield running


@pytest.fixture
def pod(world: World) -> Iterator[Pod]:
    with world.pod() as started:
        started.app.until_frozen()
        yield started


def told_at(pod: Pod) -> float:
    """When the app's own handler ran."""
    return float(pod.app.log.heard("sigterm", within=5.0)[1].split()[1])


@pytest.mark.fz("FZ-055", "FZ-054")
def test_a_stop_signal_to_a_frozen_container_arrives_within_a_second(pod: Pod) -> None:
    sent = monotonic()
    pod.app.signal(signal.SIGTERM)
    assert told_at(pod) - sent < 1.0
    assert pod.app.wait(5.0) == 0


@pytest.mark.fz("FZ-055")
def test_it_stays_awake_until_it_is_gone(world: World, pod: Pod) -> None:
    """A graceful app takes its time: it must not be put to sleep again meanwhile."""
    with world.pod(app_env={"LINGER": "1.5"}) as slow:
        slow.app.until_frozen()
        slow.app.signal(signal.SIGTERM)
        began = told_at(slow)
        assert slow.app.wait(5.0) == 0
        ticks = slow.app.ticks(began)
        assert len(ticks) > 50
        assert max(later - earlier for earlier, later in pairwise(ticks)) < 0.5


@pytest.mark.fz("FZ-050", "FZ-053", "FZ-054", "L-06")
def test_a_deleted_pod_is_awake_for_its_end_and_serves_until_then(world: World, pod: Pod) -> None:
    sent = monotonic()
    world.api.terminate(pod.manifest())
    pod.sidecar.signal(signal.SIGTERM)
    pod.app.until_frozen(False, within=2.0)
    assert monotonic() - sent < 2.0
    assert pod.ask("/").status == 200  # draining, not deaf
    pod.app.signal(signal.SIGTERM)
    assert told_at(pod) - sent < 3.0
    assert pod.app.wait(5.0) == 0
    assert pod.containers[SIDECAR].pids()  # it outlives the app, for requests that are under way


@pytest.mark.fz("FZ-051", "FZ-093")
def test_a_freezer_that_is_told_to_stop_leaves_nobody_frozen(world: World) -> None:
    with world.pod() as first, world.pod() as second:
        first.app.until_frozen()
        second.app.until_frozen()
        assert world.freezer.stop(15.0) == 0
        assert not first.app.frozen
        assert not second.app.frozen
        world.freezer.start().ready()
        first.app.until_frozen()
        assert first.ask("/").status == 200


@pytest.mark.fz("FZ-093", "FZ-014")
def test_a_request_between_two_freezers_is_answered(world: World) -> None:
    with world.pod() as pod:
        pod.app.until_frozen()
        world.freezer.stop(15.0)
        try:
            assert pod.ask("/").status == 200
        finally:
            world.freezer.start().ready()
