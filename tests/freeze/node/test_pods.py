"""The inventory: nothing is missed, nothing is raised, and it stays as it was while the API server is away."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from math import inf
from pathlib import Path
from time import thread_time
from typing import Any

import pytest
import uvloop

from queueproxy.clock import monotonic
from queueproxy.freeze.annotations import DEFAULTS, Mode
from queueproxy.freeze.node.cluster import Cluster
from queueproxy.freeze.node.inventory import PodFacts, Rules
from queueproxy.freeze.node.pods import Patience, Pods
from queueproxy.log import LineWriter, Log
from tests.support.apiserver import ApiServer
from tests.support.knative_pod import container_id, knative_pod
from tests.support.waiting import until

pytestmark = pytest.mark.slow  # real servers and clients, real time

POD = knative_pod()
UID = POD["metadata"]["uid"]
SECOND = knative_pod("second-00001-deployment-7d9f-bcdef", ip="10.244.0.40")
ELSEWHERE = knative_pod("third-00001-deployment-7d9f-bcdef", node="node2")
FOREIGN = knative_pod("foreign", overrides={"metadata": {"labels": None}})
QUICK = Patience(pause=0.01, pause_max=0.1, settled=0.0)


def uid(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["uid"])


class Scene:
    """An inventory, its API server, what it told and what it logged."""

    def __init__(self, api: ApiServer, log_path: Path) -> None:
        self.api = api
        self._log_path = log_path
        self._log_file = log_path.open("wb")
        self.log = Log(LineWriter(self._log_file.fileno()))
        self.told: list[PodFacts | str] = []

    def run(
        self,
        work: Callable[[Pods], Awaitable[Any]],
        patience: Patience = QUICK,
        runner: Callable[[Coroutine[Any, Any, Any]], Any] = asyncio.run,
    ) -> Any:
        async def inside() -> Any:
            cluster = Cluster(str(self.api.kubeconfig_path))
            pods = Pods(
                cluster,
                Rules("node1"),
                DEFAULTS,
                self.log,
                known=self.told.append,
                gone=self.told.append,
                chance=random.Random(1),
                patience=patience,
            )
            pods.start()
            try:
                return await work(pods)
            finally:
                await pods.close()
                await cluster.close()

        return runner(inside())

    @property
    def names(self) -> list[str]:
        """What was told, in short: names of pods known, uids of pods gone."""
        return [each if isinstance(each, str) else each.name for each in self.told]

    @property
    def logged(self) -> str:
        self.log.close()
        return self._log_path.read_text()

    def close(self) -> None:
        self._log_file.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with ApiServer([POD, ELSEWHERE, FOREIGN], bookmark_every=0.2) as api:
        made = Scene(api, tmp_path / "log")
        yield made
        made.close()


async def watching(scene: Scene, pods: Pods) -> None:
    await until(lambda: pods.stale_for(monotonic()) == 0.0)


def test_only_this_nodes_knative_pods_are_asked_for_and_known(scene: Scene) -> None:
    async def work(pods: Pods) -> None:
        assert pods.stale_for(monotonic()) == inf and not pods.synced and repr(pods).startswith("<Pods 0 not synced")
        await watching(scene, pods)
        assert pods.synced and len(pods) == 1 and [facts.uid for facts in pods] == [UID]
        assert pods.get(UID) is not None and pods.get("nobody") is None
        assert repr(pods).startswith("<Pods 1 watching")

    scene.run(work)
    listed, watched = scene.api.queries
    assert listed["fieldSelector"] == watched["fieldSelector"] == "spec.nodeName=node1"
    assert listed["labelSelector"] == "serving.knative.dev/revision"
    assert listed["resourceVersion"] == "0" and watched["resourceVersion"] == str(scene.api.store.version)
    assert watched["allowWatchBookmarks"] == "true" and 300 <= int(watched["timeoutSeconds"]) < 600


def test_changes_are_told_as_they_come_and_only_when_they_matter(scene: Scene) -> None:
    async def work(pods: Pods) -> None:
        await watching(scene, pods)
        api = scene.api
        api.modify(POD, {"metadata": {"labels": {"nothing": "that matters"}}})
        api.add_pod(SECOND)
        await until(lambda: len(pods) == 2)
        api.modify(POD, {"metadata": {"annotations": {"queueproxy.dev/freeze": "throttle"}}})
        await until(lambda: pods.get(UID).policy.mode is Mode.THROTTLE)  # type: ignore[union-attr]
        api.delete(SECOND)
        await until(lambda: len(pods) == 1)

    scene.run(work)
    assert scene.names == [POD["metadata"]["name"], SECOND["metadata"]["name"], POD["metadata"]["name"], uid(SECOND)]


@pytest.mark.fz("FZ-073")
def test_a_restarted_container_is_told_with_its_new_id(scene: Scene) -> None:
    async def work(pods: Pods) -> None:
        await watching(scene, pods)
        running = {"running": {"startedAt": "2026-11-22T07:00:00Z"}}
        new = container_id(UID, "user-container", 1)
        statuses = [
            {**each, "containerID": f"containerd://{new}", "restartCount": 1, "state": running}
            if each["name"] == "user-container"
            else each
            for each in POD["status"]["containerStatuses"]
        ]
        scene.api.modify(POD, {"status": {"containerStatuses": statuses}})
        await until(lambda: [each.id for each in pods.get(UID).containers] == [new])  # type: ignore[union-attr]

    scene.run(work)


def test_a_terminating_pod_is_told_before_it_is_gone(scene: Scene) -> None:
    async def work(pods: Pods) -> None:
        await watching(scene, pods)
        scene.api.terminate(POD)
        await until(lambda: pods.get(UID).terminating)  # type: ignore[union-attr]
        scene.api.delete(POD)
        await until(lambda: not len(pods))

    scene.run(work)
    assert scene.names[-1] == UID


@pytest.mark.fz("FZ-110")
def test_a_wrong_annotation_is_said_once(scene: Scene) -> None:
    async def work(pods: Pods) -> None:
        await watching(scene, pods)
        for number in range(5):
            changes = {"annotations": {"queueproxy.dev/min-uptime": "soon"}, "labels": {"turn": str(number)}}
            scene.api.modify(POD, {"metadata": changes})
        scene.api.add_pod(SECOND)
        await until(lambda: len(pods) == 2)

    scene.run(work)
    assert scene.logged.count("min-uptime") == 1


@pytest.mark.fz("FZ-064")
@pytest.mark.parametrize("kind", ["refuse", "hang", "error", "throttle", "unauthorized", "garbage"])
@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_the_inventory_survives_an_outage_and_misses_nothing_that_happened_meanwhile(
    scene: Scene, kind: str, runner: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    patience = QUICK._replace(silence=0.5)  # a server that hangs is noticed by its silence

    async def work(pods: Pods) -> None:
        scene.api.add_pod(SECOND)
        await watching(scene, pods)
        scene.api.outage(kind)
        await until(lambda: pods.stale_for(monotonic()) > 0.05)
        assert len(pods) == 2 and pods.synced
        scene.api.delete(SECOND)
        scene.api.modify(POD, {"metadata": {"annotations": {"queueproxy.dev/freeze": "off"}}})
        third = scene.api.add_pod(knative_pod("fourth-00001-deployment-x"))
        before = pods.failures
        if kind != "hang":
            await until(lambda: pods.failures >= before + 2)
        assert len(pods) == 2 and pods.get(UID).policy.mode is Mode.FREEZE  # type: ignore[union-attr]
        scene.api.restore()
        await watching(scene, pods)
        assert {facts.uid for facts in pods} == {UID, uid(third)}
        assert pods.get(UID).policy.mode is Mode.OFF  # type: ignore[union-attr]

    scene.run(work, patience, runner)
    assert uid(SECOND) in scene.names
    assert scene.logged.count("lost the API server") == 1 and scene.logged.count("watching again") == 1


def test_an_api_server_that_is_away_at_the_start_is_waited_for(scene: Scene) -> None:
    scene.api.outage("refuse")

    async def work(pods: Pods) -> None:
        await until(lambda: pods.failures >= 2)
        assert not pods.synced and pods.stale_for(monotonic()) == inf
        scene.api.restore()
        await watching(scene, pods)
        assert len(pods) == 1

    scene.run(work)


@pytest.mark.parametrize("mid_line", [False, True])
def test_a_watch_that_is_cut_is_followed_by_a_new_list(scene: Scene, mid_line: bool) -> None:
    async def work(pods: Pods) -> None:
        await watching(scene, pods)
        await asyncio.to_thread(scene.api.cut_watches, mid_line=mid_line)
        scene.api.add_pod(SECOND)
        await until(lambda: len(pods) == 2)

    scene.run(work)
    assert scene.api.calls["list", "pods"] == 2


@pytest.mark.parametrize("way", ["event", "status"])
def test_410_gone_is_followed_by_a_new_list_that_notices_deletions(tmp_path: Path, way: str) -> None:
    with ApiServer([POD, SECOND], expired_as=way) as api:
        scene = Scene(api, tmp_path / "log")

        async def work(pods: Pods) -> None:
            await watching(scene, pods)
            api.outage("error")
            await until(lambda: pods.failures)
            api.delete(SECOND)
            api.list_delay = 0.1
            api.restore()
            await until(lambda: api.calls["list", "pods"] >= 2)
            api.add_pod(ELSEWHERE)  # a version between the list and the watch, forgotten before the watch begins
            api.forget_history()
            await watching(scene, pods)
            await until(lambda: {facts.uid for facts in pods} == {UID})

        scene.run(work)
        assert uid(SECOND) in scene.names
        scene.close()


def test_a_version_that_expires_again_and_again_does_not_make_a_storm_of_lists(scene: Scene) -> None:
    scene.api.expired_as = "status"

    async def work(pods: Pods) -> int:
        await watching(scene, pods)
        scene.api.store.since = lambda version: scene.api.store.__class__.since(scene.api.store, 0)  # type: ignore[method-assign]
        await asyncio.to_thread(scene.api.cut_watches)
        await asyncio.sleep(1.0)  # the time is the measure
        return pods.lists

    assert scene.run(work, Patience(pause=0.2, pause_max=0.4, settled=5.0)) <= 9


def test_a_watch_that_ends_in_order_is_taken_up_where_it_ended(scene: Scene) -> None:
    async def work(pods: Pods) -> None:
        await watching(scene, pods)
        await until(lambda: pods.watches >= 2)
        scene.api.add_pod(SECOND)
        await until(lambda: len(pods) == 2)

    scene.run(work, QUICK._replace(watch_for=1))
    assert scene.api.calls["list", "pods"] == 1 and scene.api.calls["watch", "pods"] >= 2


def test_bookmarks_move_the_version(scene: Scene) -> None:
    async def work(pods: Pods) -> None:
        await watching(scene, pods)
        for _ in range(3):
            scene.api.add_pod(ELSEWHERE)  # no event for us
        await until(lambda: f"version={scene.api.store.version}>" in repr(pods))

    scene.run(work)


def test_the_next_list_never_goes_back_in_time(scene: Scene) -> None:
    async def work(pods: Pods) -> None:
        await watching(scene, pods)
        version = str(scene.api.store.version)
        await asyncio.to_thread(scene.api.cut_watches)
        await until(lambda: pods.lists == 2)
        await watching(scene, pods)
        assert scene.api.queries[-2]["resourceVersion"] == version
        assert scene.api.queries[-2]["resourceVersionMatch"] == "NotOlderThan"

    scene.run(work)


def test_a_server_that_lost_its_memory_is_believed_in_the_end(scene: Scene) -> None:
    async def work(pods: Pods) -> None:
        await watching(scene, pods)
        scene.api.store.version -= 500  # restored from a backup
        await asyncio.to_thread(scene.api.cut_watches)
        await until(lambda: scene.api.queries[-1]["resourceVersion"] == str(scene.api.store.version))
        await watching(scene, pods)
        assert len(pods) == 1

    scene.run(work)


@pytest.mark.parametrize(
    "event",
    [
        b"nonsense\n",
        b"{}\n",
        b"[]\n",
        b'{"type":"ADDED"}\n',
        b'{"type":"ADDED","object":{}}\n',
        b'{"type":"MODIFIED","object":{"metadata":7}}\n',
        b'{"type":"DELETED","object":{"metadata":{}}}\n',
        b'{"type":"ERROR","object":{"code":"odd"}}\n',
        b'{"type":"ERROR","object":{"code":500,"message":"etcd"}}\n',
        b"[" * 100_000 + b"\n",
        b'"' + b"x" * 9_000_000 + b'"\n',
    ],
    ids=lambda event: event[:40].decode(),
)
def test_an_event_that_makes_no_sense_is_followed_by_a_new_list(scene: Scene, event: bytes) -> None:
    async def work(pods: Pods) -> None:
        await watching(scene, pods)
        await asyncio.to_thread(scene.api.say_in_watches, event)
        await until(lambda: pods.lists == 2)
        await watching(scene, pods)
        assert len(pods) == 1 and pods.failures == 1

    scene.run(work)
    assert scene.names == [POD["metadata"]["name"]]


def test_a_list_without_a_version_is_a_failure_not_an_inventory(scene: Scene) -> None:
    scene.api.tamper_list = lambda listed: {"items": listed["items"][:0]}

    async def work(pods: Pods) -> None:
        await until(lambda: pods.failures >= 2)
        assert not pods.synced
        scene.api.tamper_list = lambda listed: listed
        await watching(scene, pods)
        assert len(pods) == 1

    scene.run(work)


def test_pauses_grow_are_jittered_and_honour_retry_after(scene: Scene) -> None:
    from queueproxy.freeze.node.cluster import ApiError

    pods = Pods(
        Cluster(), Rules("node1"), DEFAULTS, scene.log,
        known=scene.told.append, gone=scene.told.append, chance=random.Random(7),
    )  # fmt: skip
    pauses = [pods._failed(ApiError(0, "no")) for _ in range(12)]
    ceilings = [min(0.5 * 2**turn, 30.0) for turn in range(12)]
    assert all(ceiling / 2 <= pause <= ceiling for pause, ceiling in zip(pauses, ceilings, strict=True))
    assert len({pause / ceiling for pause, ceiling in zip(pauses, ceilings, strict=True)}) == 12
    fresh = Pods(Cluster(), Rules("node1"), DEFAULTS, scene.log, known=scene.told.append, gone=scene.told.append)
    assert fresh._failed(ApiError(429, "slow", 7.0)) == 7.0
    assert fresh._failed(ApiError(429, "slow", 7000.0)) == 30.0


def test_stopping_before_the_first_answer_is_quiet(scene: Scene) -> None:
    async def work(pods: Pods) -> None:
        await pods.close()
        await pods.close()

    scene.run(work)
    assert scene.told == []


@pytest.mark.slow
def test_250_pods_are_listed_in_a_moment_and_the_loop_keeps_turning(tmp_path: Path) -> None:
    """Budget: 300 ms of CPU for the list, never more than 25 ms at a stretch, since pods are thawed meanwhile; and
    2 ms for an event. The server is another process, or its work would count as ours."""
    fields = {"managedFields": [{"manager": "kubelet", "fieldsV1": {"f:spec": {"f:" + "x" * 40: {}}}}] * 80}
    many = [
        knative_pod(f"app{number}-00001-deployment-x", ip=f"10.244.1.{number}", overrides={"metadata": fields})
        for number in range(250)
    ]
    (tmp_path / "pods.json").write_text(json.dumps({"items": many}))
    command = [sys.executable, "-m", "tests.support.apiserver", "--folder", str(tmp_path), str(tmp_path / "pods.json")]
    root = Path(__file__).resolve().parents[3]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    with server, (tmp_path / "log").open("wb") as log_file:
        assert server.stdin is not None and server.stdout is not None
        kubeconfig = json.loads(server.stdout.readline())["kubeconfig"]

        def order(*words: Any) -> None:
            assert server.stdin is not None and server.stdout is not None
            server.stdin.write(json.dumps(words) + "\n")
            server.stdin.flush()
            assert "done" in json.loads(server.stdout.readline())

        async def turns(over: Callable[[], bool]) -> tuple[float, float]:
            """CPU of this thread until `over`, in all and between two turns of the loop at most."""
            first = last = thread_time()
            longest = 0.0
            while not over():
                await asyncio.sleep(0.0001)
                now = thread_time()
                longest, last = max(longest, now - last), now
            return last - first, longest

        async def measured() -> tuple[float, float, float]:
            cluster, told = Cluster(kubeconfig), list[Any]()
            await cluster.get("/healthz", {}, 20.0)
            log = Log(LineWriter(log_file.fileno()))
            pods = Pods(cluster, Rules("node1"), DEFAULTS, log, known=told.append, gone=told.append, patience=QUICK)
            pods.start()
            listed, longest = await turns(lambda: pods.stale_for(monotonic()) == 0.0)
            assert len(told) == 250

            def change_a_hundred() -> None:
                for pod in many[:100]:
                    order("modify", "default", pod["metadata"]["name"], {"metadata": {"labels": {"a": "b"}}})

            before = thread_time()  # of this thread only
            await asyncio.to_thread(change_a_hundred)
            await until(lambda: pods.events >= 100)
            events = thread_time() - before
            await pods.close()
            await cluster.close()
            return listed, longest, events / 100

        listed, longest, event = asyncio.run(measured())
        server.stdin.close()
        assert server.wait(20) == 0
    print(f"250 pods: {listed * 1e3:.0f} ms in all, {longest * 1e3:.1f} ms at a stretch, {event * 1e6:.0f} us an event")
    assert listed <= 0.3 and longest <= 0.025 and event <= 0.002
