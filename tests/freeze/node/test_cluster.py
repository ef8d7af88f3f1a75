"""The way to the API server: whatever goes wrong is one kind of error, and nothing is remembered wrongly."""

import asyncio
import re
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from queueproxy.freeze.node.cluster import ApiError, Cluster
from tests.support.apiserver import ApiServer
from tests.support.knative_pod import knative_pod

pytestmark = pytest.mark.slow  # real servers and clients, real time

POD = knative_pod()
WATCH = {"watch": "true", "resourceVersion": "0"}
REVIEW = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "a"}}


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with ApiServer([POD]) as server:
        yield server


def with_cluster(api: ApiServer, work: Callable[[Cluster], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        cluster = Cluster(str(api.kubeconfig_path))
        try:
            return await work(cluster)
        finally:
            await cluster.close()

    return asyncio.run(run())


def failure(api: ApiServer, work: Callable[[Cluster], Awaitable[Any]]) -> ApiError:
    async def tried(cluster: Cluster) -> ApiError:
        with pytest.raises(ApiError) as raised:
            await work(cluster)
        return raised.value

    return with_cluster(api, tried)  # type: ignore[no-any-return]


def test_calls_go_through_with_the_kubeconfigs_token(api: ApiServer) -> None:
    async def work(cluster: Cluster) -> tuple[bytes, Any]:
        assert repr(cluster) == "<Cluster not opened>"
        listed = await cluster.get("/api/v1/pods", {"labelSelector": "app"}, 10.0)
        assert repr(cluster) == f"<Cluster {api.url}>"
        return listed, await cluster.post("/apis/authentication.k8s.io/v1/tokenreviews", REVIEW, 10.0)

    listed, review = with_cluster(api, work)
    assert POD["metadata"]["uid"].encode() in listed and api.queries == [{"labelSelector": "app"}]
    assert review["kind"] == "TokenReview" and review["spec"] == {"token": "a"}


def test_a_watch_opens_with_an_empty_line_and_ends_with_the_servers_word(api: ApiServer) -> None:
    async def work(cluster: Cluster) -> list[bytes]:
        query = WATCH | {"timeoutSeconds": "1"}
        async with aclosing(cluster.lines("/api/v1/pods", query, 5.0, 20.0)) as lines:
            return [line async for line in lines]

    opened, added = with_cluster(api, work)
    assert opened == b"" and added.startswith(b'{"type":"ADDED"') and added.endswith(b"\n")


@pytest.mark.parametrize(
    ("kind", "status", "words", "retry_after"),
    [
        ("refuse", 0, "Connect", None),
        ("error", 500, "etcdserver: request timed out", None),
        ("throttle", 429, "Too many requests", 1.0),
        ("unauthorized", 401, "Unauthorized", None),
        ("hang", 0, "TimeoutError", None),
    ],
)
@pytest.mark.parametrize("call", ["get", "post", "lines"])
def test_every_failure_is_an_api_error(
    api: ApiServer, kind: str, status: int, words: str, retry_after: float | None, call: str
) -> None:
    async def work(cluster: Cluster) -> None:
        await cluster.get("/api/v1/pods", {}, 20.0)  # opened while all is well
        api.outage(kind)
        within = 0.3 if kind == "hang" else 20.0
        if call == "get":
            await cluster.get("/api/v1/pods", {}, within)
        elif call == "post":
            await cluster.post("/apis/authentication.k8s.io/v1/tokenreviews", REVIEW, within)
        else:
            async with aclosing(cluster.lines("/api/v1/pods", WATCH, 5.0, within)) as lines:
                async for _ in lines:
                    pass

    error = failure(api, work)
    assert (error.status, error.retry_after) == (status, retry_after) and words in str(error)
    api.restore()


def test_a_silent_watch_is_an_error(api: ApiServer) -> None:
    async def work(cluster: Cluster) -> None:
        async with aclosing(cluster.lines("/api/v1/pods", WATCH, 0.1, 20.0)) as lines:
            async for _ in lines:
                pass

    assert "TimeoutError" in str(failure(api, work))


@pytest.mark.parametrize("mid_line", [False, True])
def test_a_watch_that_is_cut_is_an_error(api: ApiServer, mid_line: bool) -> None:
    async def work(cluster: Cluster) -> None:
        async with aclosing(cluster.lines("/api/v1/pods", WATCH, 5.0, 20.0)) as lines:
            async for line in lines:
                if line:
                    await asyncio.to_thread(api.cut_watches, mid_line=mid_line)

    assert failure(api, work).status == 0


def test_an_answer_that_is_no_object_is_an_error(api: ApiServer) -> None:
    async def garbage(cluster: Cluster) -> None:
        await cluster.get("/api/v1/pods", {}, 20.0)
        api.outage("garbage")
        await cluster.post("/apis/authentication.k8s.io/v1/tokenreviews", REVIEW, 5.0)

    assert failure(api, garbage).status == 0
    api.restore()
    api.tamper = lambda review: [review]  # type: ignore[assignment,return-value]
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    assert "not an object" in str(failure(api, lambda cluster: cluster.post(path, REVIEW, 5.0)))


def test_after_a_401_the_configuration_is_read_again(api: ApiServer) -> None:
    async def work(cluster: Cluster) -> bytes:
        await cluster.get("/api/v1/pods", {}, 20.0)
        api.token += "-rotated"
        with pytest.raises(ApiError, match="401"):
            await cluster.get("/api/v1/pods", {}, 20.0)
        assert api.kubeconfig_path.exists()  # written anew
        return await cluster.get("/api/v1/pods", {}, 20.0)

    assert POD["metadata"]["uid"].encode() in with_cluster(api, work)


def test_a_pod_uses_its_own_service_account(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes.aio.config import incluster_config

    token = api.folder / "token"
    token.write_text(api.token)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(api.ca_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))

    async def run() -> bytes:
        cluster = Cluster()
        listed = await cluster.get("/api/v1/pods", {}, 20.0)
        await cluster.close()
        return listed

    assert POD["metadata"]["uid"].encode() in asyncio.run(run())


@pytest.mark.parametrize("text", [None, "", "nonsense: [", "apiVersion: v1\nkind: Config\n"], ids=str)
def test_a_kubeconfig_that_cannot_be_read_is_an_api_error(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)

    async def run() -> None:
        with pytest.raises(ApiError) as raised:
            await Cluster(str(path)).get("/api/v1/pods", {}, 20.0)
        assert raised.value.status == 0

    asyncio.run(run())


@pytest.mark.fz("FZ-133")
def test_another_certificate_authority_is_not_trusted(api: ApiServer) -> None:
    with ApiServer() as stranger:
        kubeconfig = api.kubeconfig_path
        kubeconfig.write_text(kubeconfig.read_text().replace(str(api.ca_path), str(stranger.ca_path)))

        async def run() -> str:
            cluster = Cluster(str(kubeconfig))
            with pytest.raises(ApiError) as raised:
                await cluster.get("/api/v1/pods", {}, 20.0)
            await cluster.close()
            return str(raised.value)

        assert "certificate verify failed" in asyncio.run(run())
    assert api.calls["list", "pods"] == 0


def test_a_caller_that_gives_up_leaves_nothing_behind(api: ApiServer) -> None:
    async def work(cluster: Cluster) -> bytes:
        loop = asyncio.get_running_loop()
        task = loop.create_task(cluster.get("/api/v1/pods", {}, 20.0))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return await cluster.get("/api/v1/pods", {}, 20.0)

    assert with_cluster(api, work)


def test_nobody_listening_is_an_api_error(api: ApiServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        kubeconfig = api.kubeconfig_path
        kubeconfig.write_text(kubeconfig.read_text().replace(str(api.port), str(unused.getsockname()[1])))

        async def run() -> None:
            cluster = Cluster(str(kubeconfig))
            for _ in range(2):
                with pytest.raises(ApiError):
                    await cluster.get("/api/v1/pods", {}, 5.0)
            await cluster.close()

        asyncio.run(run())


def test_the_client_is_imported_here_only_and_not_before_the_first_call() -> None:
    package = Path(__file__).resolve().parents[3] / "queueproxy"
    named = re.compile(r"^\s*(?:import|from) kubernetes\b|import_module\(\"kubernetes", re.MULTILINE)
    assert [path.name for path in package.rglob("*.py") if named.search(path.read_text())] == ["cluster.py"]
    program = (
        "import sys, queueproxy.freeze.node.pods, queueproxy.freeze.node.review; "
        "print(sorted({'kubernetes', 'aiohttp', 'pydantic'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=package.parent
    )
    assert (run.returncode, run.stdout) == (0, "[]\n"), run.stderr
