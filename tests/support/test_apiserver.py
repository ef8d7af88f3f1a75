"""The stand-in for an API server, judged by the official client: its models, its watch, its kubeconfig loader."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.apiserver import ApiServer
from tests.support.apistore import Status, Store, selector
from tests.support.knative_pod import knative_pod
from tests.support.tokens import AUDIENCE
from tests.support.waiting import until

pytestmark = pytest.mark.slow  # real servers and clients, real time

ROOT = Path(__file__).resolve().parents[2]
POD = knative_pod()
NAME, UID = POD["metadata"]["name"], POD["metadata"]["uid"]
OTHER = knative_pod("other-00001-deployment-7d9f-bcdef", node="node2")


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer([POD, OTHER]) as server:
        yield server


def official(api: ApiServer, work: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    """Runs `work(client module, ApiClient)` on the generated client, models and all."""
    from kubernetes.aio import client, config

    async def run() -> Any:
        settings = client.Configuration()
        await config.load_kube_config(str(api.kubeconfig_path), client_configuration=settings)
        async with client.ApiClient(settings) as made:
            result = await work(client, made)
        await until(lambda: api.connections == 0)  # or what is left of them is somebody else's warning
        return result

    return asyncio.run(run())


def test_the_official_client_lists_and_reads_pods(api: ApiServer) -> None:
    async def work(client: Any, made: Any) -> tuple[Any, Any, Any]:
        core = client.CoreV1Api(made)
        return (
            await core.list_pod_for_all_namespaces(field_selector="spec.nodeName=node1", label_selector="app"),
            await core.list_namespaced_pod("nowhere"),
            await core.read_namespaced_pod(NAME, "default"),
        )

    here, nowhere, one = official(api, work)
    assert [pod.metadata.uid for pod in here.items] == [UID] and nowhere.items == []
    assert here.metadata.resource_version == str(api.store.version)
    assert one.status.container_statuses[0].state.running.started_at.year == 2026
    assert one.spec.node_name == "node1"


@pytest.mark.parametrize(
    ("fields", "labels", "names"),
    [
        ("", "", {"hello", "other"}),
        ("spec.nodeName=node1", "", {"hello"}),
        ("spec.nodeName!=node1,metadata.namespace=default", "", {"other"}),
        (f"metadata.name={NAME}", "app", {"hello"}),
        ("status.phase==Running", "app=hello-00001", {"hello"}),
        ("", "app!=hello-00001", {"other"}),
        ("", "!app", set()),
        ("", "app in (hello-00001, x),serving.knative.dev/revision", {"hello"}),
        ("", "app notin (hello-00001)", {"other"}),
        ("spec.hostname=x", "", None),
        ("", "app is hello", None),
    ],
)
def test_selectors_choose_as_a_cluster_would(fields: str, labels: str, names: set[str] | None) -> None:
    store = Store()
    store.put(POD)
    store.put(OTHER)
    if names is None:
        with pytest.raises(Status, match="400"):
            selector(fields, labels)
    else:
        chosen = store.select(selector(fields, labels))
        assert {pod["metadata"]["name"].partition("-")[0] for pod in chosen} == names


def test_the_official_watch_hears_every_change_once(api: ApiServer) -> None:
    async def work(client: Any, made: Any) -> list[tuple[str, str, str]]:
        from kubernetes.aio import watch

        core = client.CoreV1Api(made)
        listed = await core.list_pod_for_all_namespaces(field_selector="spec.nodeName=node1")
        watcher, heard = watch.Watch(), []
        api.modify(POD, {"metadata": {"labels": {"a": "b"}}})  # between list and watch: nothing is missed
        stream = watcher.stream(
            core.list_pod_for_all_namespaces,
            field_selector="spec.nodeName=node1",
            resource_version=listed.metadata.resource_version,
            timeout_seconds=20,
        )
        async for event in stream:
            pod = event["object"]
            heard.append((event["type"], pod.metadata.uid, pod.metadata.resource_version))
            if len(heard) == 1:
                api.modify(OTHER, {"metadata": {"labels": {"not": "seen"}}})
                api.modify(POD, {"spec": {"nodeName": "node2"}})  # leaves the selection
            elif len(heard) == 2:
                api.modify(POD, {"spec": {"nodeName": "node1"}})
                api.delete(POD)
            elif len(heard) == 4:
                break
        api.cut_watches()  # the client would say goodbye to it for half a minute
        await watcher.close()
        return heard

    heard = official(api, work)
    assert [(kind, uid) for kind, uid, _ in heard] == [
        ("MODIFIED", UID), ("DELETED", UID), ("ADDED", UID), ("DELETED", UID),
    ]  # fmt: skip
    versions = [int(version) for _, _, version in heard]
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("way", ["event", "status"])
def test_a_version_that_was_forgotten_is_410(way: str) -> None:
    with ApiServer([POD], expired_as=way) as api:
        version = str(api.store.version)
        api.modify(POD, {"metadata": {"labels": {"a": "b"}}})
        api.forget_history()

        async def work(client: Any, made: Any) -> int:
            from kubernetes.aio import watch

            watcher = watch.Watch()
            try:
                list_pods = client.CoreV1Api(made).list_pod_for_all_namespaces
                async for event in watcher.stream(list_pods, resource_version=version, timeout_seconds=20):
                    raise AssertionError(event)
            except client.exceptions.ApiException as error:
                return int(error.status)
            finally:
                await watcher.close()
            return 0

        assert official(api, work) == 410


def test_a_quiet_watch_gets_bookmarks_and_ends_when_asked_to() -> None:
    with ApiServer([POD], bookmark_every=0.2) as api:

        async def work(client: Any, made: Any) -> list[tuple[str, str]]:
            from kubernetes.aio import watch

            async with watch.Watch() as watcher:
                stream = watcher.stream(
                    client.CoreV1Api(made).list_pod_for_all_namespaces,
                    allow_watch_bookmarks=True,
                    resource_version=str(api.store.version),
                    timeout_seconds=1,
                )
                return [(event["type"], event["raw_object"]["metadata"]["resourceVersion"]) async for event in stream]

        heard = official(api, work)
        assert 2 <= len(heard) <= 6 and set(heard) == {("BOOKMARK", str(api.store.version))}


@pytest.mark.parametrize(
    ("make", "authenticated", "audiences"),
    [
        pytest.param(lambda api: api.mint_token(POD), True, [AUDIENCE], id="good"),
        pytest.param(lambda api: api.mint_token(POD, "other"), None, None, id="another audience"),
        pytest.param(lambda api: api.mint_token(POD, valid_for=-1), None, None, id="expired"),
        pytest.param(lambda api: api.mint_token(POD)[:-8] + "AAAAAAAA", None, None, id="forged"),
        pytest.param(lambda api: "nonsense", None, None, id="no token"),
        pytest.param(lambda api: api.mint_token(knative_pod("gone-00001-deployment-x")), None, None, id="pod is gone"),
    ],
)
def test_the_official_client_reviews_tokens(
    api: ApiServer, make: Callable[[ApiServer], str], authenticated: bool | None, audiences: list[str] | None
) -> None:
    async def work(client: Any, made: Any) -> Any:
        spec = client.V1TokenReviewSpec(token=make(api), audiences=[AUDIENCE])
        return await client.AuthenticationV1Api(made).create_token_review(client.V1TokenReview(spec=spec))

    status = official(api, work).status
    assert (status.authenticated, status.audiences) == (authenticated, audiences)
    if authenticated:
        assert status.user.username == "system:serviceaccount:default:default"
        assert status.user.extra["authentication.kubernetes.io/pod-uid"] == [UID]
        assert status.user.extra["authentication.kubernetes.io/node-name"] == ["node1"]
    else:
        assert "invalid bearer token" in status.error


def test_events_are_accepted_and_kept(api: ApiServer) -> None:
    async def work(client: Any, made: Any) -> None:
        reference = client.V1ObjectReference(kind="Pod", name=NAME, namespace="default", uid=UID)
        meta = client.V1ObjectMeta(name="frozen.1", namespace="default")
        event = client.CoreV1Event(metadata=meta, involved_object=reference, reason="Frozen", type="Normal")
        await client.CoreV1Api(made).create_namespaced_event("default", event)

    official(api, work)
    assert api.events[0]["reason"] == "Frozen" and api.events[0]["involvedObject"]["uid"] == UID


@pytest.mark.parametrize(("kind", "status"), [("error", 500), ("throttle", 429), ("unauthorized", 401)])
def test_an_outage_has_the_status_of_a_real_one_and_ends(api: ApiServer, kind: str, status: int) -> None:
    async def work(client: Any, made: Any) -> tuple[int, int]:
        core = client.CoreV1Api(made)
        api.outage(kind)
        try:
            await core.list_pod_for_all_namespaces()
        except client.exceptions.ApiException as error:
            failed = error.status
        api.restore()
        return int(failed), len((await core.list_pod_for_all_namespaces()).items)

    assert official(api, work) == (status, 2)


def test_nobody_gets_in_without_the_kubeconfigs_token(api: ApiServer) -> None:
    async def work(client: Any, made: Any) -> int:
        made.configuration.api_key["BearerToken"] = "Bearer " + api.mint_token(POD)
        try:
            await client.CoreV1Api(made).list_pod_for_all_namespaces()
        except client.exceptions.ApiException as error:
            return int(error.status)
        return 200

    assert official(api, work) == 401


@pytest.mark.slow
def test_it_runs_on_its_own_and_takes_orders(tmp_path: Path) -> None:
    (tmp_path / "pods.json").write_text(json.dumps({"items": [POD]}))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.apiserver", "--folder", str(tmp_path), str(tmp_path / "pods.json")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    with process:
        assert process.stdin is not None and process.stdout is not None

        def order(*words: Any) -> Any:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(words) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        told = json.loads(process.stdout.readline())
        assert told["url"].startswith("https://127.0.0.1:") and Path(told["kubeconfig"]).exists()
        assert order("mint_token", "default", NAME)["done"].count(".") == 2
        assert order("modify", "default", NAME, {"metadata": {"labels": {"a": "b"}}})["done"]["metadata"]["labels"]["a"]
        assert "KeyError" in order("delete", "default", "nobody")["failed"]
        assert "failed" in order("close")
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kubectl_understands_it_where_there_is_one(api: ApiServer) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(api.folder)}  # it keeps a cache at home
    command = ["kubectl", "--kubeconfig", str(api.kubeconfig_path), "get", "--raw", "/api/v1/pods?limit=5"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    assert run.returncode == 0, run.stderr
    assert {item["metadata"]["uid"] for item in json.loads(run.stdout)["items"]} >= {UID}
