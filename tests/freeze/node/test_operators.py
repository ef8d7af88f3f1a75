"""The operators' port over real sockets."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from queueproxy.freeze.node.config import Address
from queueproxy.freeze.node.events import Events
from queueproxy.freeze.node.operators import Operators


class Node:
    """What is behind the port."""

    def __init__(self) -> None:
        self.events = Events("s")
        self.thawed: list[tuple[str | None, float]] = []
        self.why = ""

    def pods(self) -> list[dict[str, object]]:
        return [{"uid": "u", "state": "frozen"}]

    def status(self) -> dict[str, object]:
        return {"node": "n1"}

    def thaw(self, uid: str | None, hold_for: float) -> bool:
        self.thawed.append((uid, hold_for))
        return uid != "nobody"

    def readiness(self) -> str:
        return self.why

    def metrics(self) -> bytes:
        return b"freezer_pods 1\n"

    def happen(self, count: int = 1) -> None:
        for _ in range(count):
            self.events.add(1.0, "u", "ns", "pod", "rev", "frozen", self.events.number, "idle")


Story = Callable[[Node, Operators, aiohttp.ClientSession], Awaitable[None]]


def run(story: Story, address: Address = Address("127.0.0.1", 0)) -> None:  # noqa: B008
    async def inside() -> None:
        node = Node()
        operators = Operators(node, address)
        await operators.start()
        connector = aiohttp.UnixConnector(address.path) if address.path else None
        base = "http://here" if address.path else f"http://127.0.0.1:{operators.port}"
        try:
            async with asyncio.timeout(20), aiohttp.ClientSession(base, connector=connector) as client:
                await story(node, operators, client)
        finally:
            await operators.close()

    asyncio.run(inside())


def test_pods_health_and_metrics_are_served() -> None:
    async def story(node: Node, operators: Operators, client: aiohttp.ClientSession) -> None:
        async with client.get("/v1/pods") as answer:
            assert await answer.json() == {"node": "n1", "pods": [{"uid": "u", "state": "frozen"}]}
        async with client.get("/metrics") as answer:
            assert await answer.text() == "freezer_pods 1\n" and answer.headers["Content-Type"].startswith("text/plain")
        async with client.get("/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        for why, status in (("", 200), ("draining", 503)):
            node.why = why
            async with client.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (status, f"{why or 'ok'}\n")

    run(story)


@pytest.mark.fz("FZ-111")
def test_thawing_one_or_all_with_a_hold() -> None:
    async def story(node: Node, operators: Operators, client: aiohttp.ClientSession) -> None:
        for path in ("/v1/pods/u/thaw", "/v1/pods/u/thaw?hold=1m30s", "/v1/thaw-all?hold=250ms"):
            async with client.post(path) as answer:
                assert answer.status == 202
        assert node.thawed == [("u", 0.0), ("u", 90.0), (None, 0.25)]

    run(story)


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("POST", "/v1/pods/nobody/thaw", 404, "no such pod on this node"),
        ("POST", "/v1/pods/u/thaw?hold=soon", 400, "hold: write a duration"),
        ("POST", "/v1/thaw-all?hold=25h", 400, "at most 24h"),
        ("GET", "/v1/thaw-all", 405, "Method Not Allowed"),
        ("POST", "/v1/pods", 405, "Method Not Allowed"),
        ("GET", "/v2/pods", 404, "Not Found"),
        ("PUT", "/v1/pods/self/state", 404, "Not Found"),
    ],
)
def test_what_is_wrong_is_a_problem_and_changes_nothing(method: str, path: str, status: int, detail: str) -> None:
    async def story(node: Node, operators: Operators, client: aiohttp.ClientSession) -> None:
        async with client.request(method, path) as answer:
            said = await answer.json()
            assert (answer.status, answer.content_type, said["status"]) == (status, "application/problem+json", status)
            assert detail in said["detail"]
        assert [uid for uid, _ in node.thawed] in ([], ["nobody"])

    run(story)


@pytest.mark.fz("FZ-111")
def test_from_elsewhere_it_can_be_read_and_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller whose address is not the loopback's: what the kernel says of the connection counts, not a header."""

    async def story(node: Node, operators: Operators, client: aiohttp.ClientSession) -> None:
        monkeypatch.setattr("queueproxy.freeze.node.operators._LOCAL", ("127.9.",))
        for path in ("/v1/pods/u/thaw", "/v1/thaw-all"):
            async with client.post(path, headers={"X-Forwarded-For": "127.9.0.1"}) as answer:
                assert answer.status == 403
        async with client.get("/v1/pods") as answer:
            assert answer.status == 200
        assert node.thawed == []

    run(story)


def test_a_unix_socket_is_this_node(tmp_path: Path) -> None:
    async def story(node: Node, operators: Operators, client: aiohttp.ClientSession) -> None:
        async with client.post("/v1/thaw-all") as answer:
            assert answer.status == 202
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600

    run(story, Address("", 0, str(tmp_path / "s")))


# -- events


@pytest.mark.fz("FZ-104")
def test_events_come_as_they_happen_one_line_each() -> None:
    async def story(node: Node, operators: Operators, client: aiohttp.ClientSession) -> None:
        node.happen(2)
        async with client.get("/v1/events") as answer:
            assert answer.content_type == "application/x-ndjson"
            lines = [json.loads(await answer.content.readline()) for _ in range(2)]
            node.happen()
            lines.append(json.loads(await answer.content.readline()))
        assert [line["id"] for line in lines] == ["s:1", "s:2", "s:3"]
        assert lines[0] == {
            "id": "s:1", "at": 1.0, "uid": "u", "namespace": "ns", "name": "pod", "revision": "rev", "kind": "frozen",
            "generation": 0, "reason": "idle",
        }  # fmt: skip

    run(story)


@pytest.mark.fz("FZ-104")
@pytest.mark.parametrize(
    ("after", "first"),
    [
        pytest.param("s:2", "s:3", id="where it was"),
        pytest.param("2", "s:3", id="a bare number"),
        pytest.param("other:2", "s:1", id="the stream of a former freezer"),
        pytest.param("s:x", "s:1", id="nonsense"),
        pytest.param("", "s:1", id="from the beginning"),
    ],
)
def test_a_reader_goes_on_where_it_was(after: str, first: str) -> None:
    async def story(node: Node, operators: Operators, client: aiohttp.ClientSession) -> None:
        node.happen(3)
        async with client.get("/v1/events", params={"after": after, "follow": "false"}) as answer:
            lines = [json.loads(line) for line in (await answer.text()).splitlines()]
        assert lines[0]["id"] == first and lines[-1]["id"] == "s:3"

    run(story)


@pytest.mark.fz("FZ-104")
def test_what_a_slow_reader_missed_is_said() -> None:
    async def story(node: Node, operators: Operators, client: aiohttp.ClientSession) -> None:
        node.happen(4096 + 5)
        async with client.get("/v1/events", params={"after": "s:2", "follow": "false"}) as answer:
            lines = (await answer.text()).splitlines()
        assert json.loads(lines[0]) == {"kind": "lost", "count": 3, "stream": "s"}
        assert json.loads(lines[1])["id"] == "s:6" and len(lines) == 1 + 4096

    run(story)


def test_readers_are_sent_home_when_the_freezer_ends() -> None:
    async def story(node: Node, operators: Operators, client: aiohttp.ClientSession) -> None:
        async with client.get("/v1/events") as answer:
            node.happen()
            await answer.content.readline()
            await operators.close()
            assert await answer.content.read() == b""

    run(story)


def test_a_port_that_is_taken_is_an_error() -> None:
    async def story(node: Node, operators: Operators, client: aiohttp.ClientSession) -> None:
        with pytest.raises(OSError, match="address already in use"):
            await Operators(node, Address("127.0.0.1", operators.port)).start()

    run(story)
