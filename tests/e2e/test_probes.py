"""The kubelet probes the user port of a sleeping app each second, with a second's patience, and never fails.

Liveness probes do not pass through queue-proxy: what answers them is the app, which a knock has woken in time.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.e2e_spec import CODE
from tests.support.e2e_watch import FrozenWatch, Kubelet, QueueWatch
from tests.support.e2e_world import World
from tests.support.sidecar import USER

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("e2e")]

GRPC_APP = (sys.executable, f"{CODE}/e2e_grpc_app.py")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as running:
        yield running


def probe(world: World, seconds: int) -> None:
    with ExitStack() as stack:
        pods = {
            "http": stack.enter_context(world.pod()),
            "tcp": stack.enter_context(world.pod()),
            "grpc": stack.enter_context(world.pod(args=GRPC_APP)),
            "http6": stack.enter_context(world.pod()),
        }
        for pod in pods.values():
            pod.app.until_frozen(within=60.0)
        frozen_before = {kind: pod.app.frozen_usec for kind, pod in pods.items()}
        sleep = stack.enter_context(FrozenWatch(lambda: [pod.app for pod in pods.values()], period=0.01))
        queues = {kind: stack.enter_context(QueueWatch(pod.network, USER)) for kind, pod in pods.items()}
        targets = [
            f"http:{pods['http'].ip}:{USER}/healthz",
            f"tcp:{pods['tcp'].ip}:{USER}",
            f"grpc:{pods['grpc'].ip}:{USER}",
            f"http:[{pods['http6'].ip6}]:{USER}/healthz",
        ]
        kubelet = stack.enter_context(Kubelet(world.node, *targets))
        kubelet.log.until(lambda: len(kubelet.log.lines) >= seconds * len(targets), seconds + 15.0)
        probes = kubelet.probes
        asleep = {kind: (pod.app.frozen_usec - frozen_before[kind]) / 1e6 for kind, pod in pods.items()}
    slowest = max(probes, key=lambda probed: probed.took)
    naps = {kind: sleep.naps(pod.app) for kind, pod in pods.items()}
    warnings = {kind: pod.sidecar.log.said("WARNING") for kind, pod in pods.items()}
    print(
        f"{len(probes)} probes in {seconds} s, slowest {slowest.took * 1000:.0f} ms; naps {naps}; seconds asleep "
        f"{ {kind: round(value, 1) for kind, value in asleep.items()} }; longest accept queue "
        f"{ {kind: queue.longest for kind, queue in queues.items()} }; warnings of sidecars "
        f"{ {kind: len(lines) for kind, lines in warnings.items()} }"
    )
    assert [probed for probed in probes if probed.problem] == []
    assert {kind: queue.longest for kind, queue in queues.items() if queue.longest > 2} == {}
    # Asleep between probes, not kept awake by them. A machine so busy that freezes fail gets a rest from them, half a
    # minute and more (FZ-066); the sidecar warns of that, and then a fifth has to do.
    assert all(count > seconds / (10 if warnings[kind] else 2) for kind, count in naps.items()), warnings


@pytest.mark.fz("FZ-098", "FZ-041", "FZ-045")
def test_no_probe_fails_while_the_app_sleeps(world: World) -> None:
    probe(world, 20)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.fz("FZ-098", "FZ-041", "FZ-045")
def test_no_probe_fails_in_ten_minutes_of_sleep(world: World) -> None:
    probe(world, 600)
