"""`queueproxy status`: the table, and what is said when there is no freezer."""

import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from queueproxy.freeze.node.config import Address
from queueproxy.freeze.node.status import NoFreezer, Operator, duration, status, table


def pod(**changes: Any) -> dict[str, Any]:
    return {
        "uid": "u", "namespace": "shop", "name": "cart-00001-x", "revision": "cart-00001", "state": "frozen",
        "since_s": 12.3, "wanted": "idle", "generation": 4, "wakes": 17, "asleep_s": 7265.0, "cpu_saved_s": 0.25,
        "why": "idle", "mode": "freeze", "mechanism": "cgroup2", "lease_s": 21.0, "connected": True,
        "changes": [{"ago_s": 12.3, "kind": "frozen", "reason": "idle"}, {"ago_s": 80, "kind": "thawed", "reason": ""}],
    } | changes  # fmt: skip


def node(*pods: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "node": "n1", "version": "0", "up_s": 100.0, "draining": False, "synced": True, "watch_stale_s": 0.0,
        "pods": list(pods),
    } | changes  # fmt: skip


def test_each_pod_is_one_line_and_columns_line_up() -> None:
    head, empty, names, first, second = table(node(pod(), pod(name="x", state="running", why=""))).splitlines()
    assert (head, empty) == ("node n1: 2 pods, 1 asleep, up 1m40s", "")
    assert names.split() == ["POD", "STATE", "SINCE", "WAKES", "ASLEEP", "CPU", "SAVED", "WHY", "BEFORE"]
    assert first.split() == ["shop/cart-00001-x", "frozen", "12s", "17", "2h01m", "250ms", "idle", "frozen", "12s,",
                             "thawed", "1m20s"]  # fmt: skip
    assert first.index("frozen") == second.index("running") == names.index("STATE")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"draining": True}, ", draining"),
        ({"synced": False}, ", no news from the API server yet"),
        ({"watch_stale_s": 65.0}, ", API server away for 1m05s"),
    ],
)
def test_the_head_says_what_is_unusual(changes: dict[str, Any], said: str) -> None:
    assert table(node(**changes)) == f"node n1: 0 pods, 0 asleep, up 1m40s{said}\n"


def test_a_pod_without_a_sidecar_says_so_and_one_without_a_name_has_its_uid() -> None:
    line = table(node(pod(name="", why="", connected=False))).splitlines()[3]
    assert line.startswith("u ") and "no sidecar connected" in line


def test_nothing_that_is_not_printable_reaches_the_terminal() -> None:
    page = table(node(pod(name="a\x1b[2Jb", why="x\ny" + "z" * 99, changes=[])))
    assert "\x1b" not in page and page.count("\n") == 4 and "z…" in page


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"), (0.34, "340ms"), (2.51, "2.5s"), (12.9, "12s"), (185, "3m05s"), (7800, "2h10m"), (356_400, "4d03h"),
    ],
)  # fmt: skip
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


class Answering(BaseHTTPRequestHandler):
    """Says what the test wants."""

    said = b""
    code = 200

    def do_GET(self) -> None:
        self.send_response(self.code)
        self.send_header("Content-Length", str(len(self.said)))
        self.end_headers()
        self.wfile.write(self.said)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def answering() -> Iterator[tuple[type[Answering], Address]]:
    class Here(Answering):
        pass

    server = HTTPServer(("127.0.0.1", 0), Here)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Here, Address("127.0.0.1", server.server_port)
    server.shutdown()
    thread.join()
    server.server_close()


def run(address: Address, **options: Any) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = status(address, out, err, **({"as_json": False, "watch": False} | options))
    return code, out.getvalue(), err.getvalue()


def test_once_it_prints_the_table_or_the_json(answering: tuple[type[Answering], Address]) -> None:
    here, address = answering
    here.said = json.dumps(node(pod())).encode()
    assert run(address) == (0, table(node(pod())), "")
    code, out, _ = run(address, as_json=True)
    assert code == 0 and json.loads(out) == node(pod())


@pytest.mark.slow
def test_watching_draws_the_page_anew(answering: tuple[type[Answering], Address]) -> None:
    here, address = answering
    here.said = json.dumps(node()).encode()
    code, out, _ = run(address, watch=True, rounds=2)
    assert code == 0 and out == 2 * f"\x1b[H\x1b[J{table(node())}"


def test_without_a_freezer_there_is_one_sentence_and_exit_1() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", free.getsockname()[1])
    code, out, err = run(address)
    assert (code, out) == (1, "") and err.startswith(f"queueproxy status: no freezer at {address}: ")
    code, _, err = run(Address("", 0, "/nowhere/at-all.sock"))
    assert code == 1 and "no freezer at unix:/nowhere/at-all.sock" in err


@pytest.mark.parametrize("said", [b"hello", b"[]", b'{"pods": 3}'])
def test_somebody_else_at_the_port_is_recognised(answering: tuple[type[Answering], Address], said: bytes) -> None:
    here, address = answering
    here.said = said
    code, _, err = run(address)
    assert code == 1 and "is not a freezer" in err


def test_a_refusal_is_told_with_its_words(answering: tuple[type[Answering], Address]) -> None:
    here, address = answering
    here.code, here.said = 403, b'{"detail":"from this node only"}'
    with pytest.raises(NoFreezer, match="answered 403: from this node only"):
        Operator(address).get("/v1/pods")
