"""The three timeouts of a revision, from the client's side (contract 3.8). Each pod here has one of them short."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.rawhttp import Message, Wire
from tests.support.sidecar import Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("timeouts")]

NAMES = {
    "max": ("REVISION_TIMEOUT_SECONDS", "Request timeout"),
    "start": ("REVISION_RESPONSE_START_TIMEOUT_SECONDS", "Response start timeout"),
    "idle": ("REVISION_IDLE_TIMEOUT_SECONDS", "Idle timeout"),
}


def _pod(which: str, loop: str) -> Callable[[], Iterator[Pod]]:
    def fixture() -> Iterator[Pod]:
        with one_pod(loop=loop, CONTAINER_CONCURRENCY="3", **{NAMES[which][0]: "1"}) as pod:
            yield pod

    return fixture


max_pod = pytest.fixture(scope="module", name="max_pod")(_pod("max", "uvloop"))
start_pod = pytest.fixture(scope="module", name="start_pod")(_pod("start", "uvloop"))
idle_pod = pytest.fixture(scope="module", name="idle_pod")(_pod("idle", "uvloop"))
plain_pod = pytest.fixture(scope="module", name="plain_pod")(_pod("max", "asyncio"))


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in request.fixturenames:
        if name.endswith("_pod"):
            request.getfixturevalue(name).fresh()


def is_the_504(answer: Message) -> bool:
    """Fifteen bytes, no newline, no nosniff (QP-170)."""
    return (
        answer.status == 504
        and answer.body == b"request timeout"
        and answer.get("content-length") == b"15"
        and answer.get("content-type") == b"text/plain; charset=utf-8"
        and answer.get("x-content-type-options") is None
    )


def started(pod: Pod) -> tuple[Wire, Wire]:
    """(client, app) of a request whose answer has begun."""
    client = pod.client()
    client.ask()
    app = pod.origin.request().wire
    app.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    assert client.head().status == 200
    assert client.chunk() == b"hi"
    return client, app


@pytest.mark.qp("QP-170", "QP-171", "QP-172", "QP-174", "QP-178", "QP-179", "QP-205")
@pytest.mark.parametrize("name", ["max_pod", "start_pod", "idle_pod", "plain_pod"])
def test_an_app_that_says_nothing_is_a_504_and_both_ends_are_clean(request: pytest.FixtureRequest, name: str) -> None:
    pod: Pod = request.getfixturevalue(name)
    client = pod.client()
    for _ in range(2):  # the connection stays usable
        began_at = time.monotonic()
        client.ask("POST", body=b"whole")
        wire = pod.origin.request().wire
        assert is_the_504(client.response())
        assert 0.95 < time.monotonic() - began_at < 3
        assert wire.gone()
    said = NAMES["max" if name == "plain_pod" else name.removesuffix("_pod")][1]
    logged = pod.sidecar.heard(said)
    assert (logged["severity"], logged["message"]) == ("WARNING", f"{said}: 1s")
    assert pod.sidecar.all_zero()


@pytest.mark.qp("QP-170")
def test_an_unfinished_upload_gets_its_504_too(max_pod: Pod) -> None:
    """Upstream withholds it while the client stalls (D04)."""
    client = max_pod.client()
    client.ask("POST", "/", "Content-Length: 100000")
    client.send(b"some")
    wire = max_pod.origin.began().wire
    assert is_the_504(client.response())
    assert wire.gone()


@pytest.mark.qp("QP-173")
@pytest.mark.parametrize("name", ["max_pod", "idle_pod"])
def test_waiting_for_a_slot_counts(request: pytest.FixtureRequest, name: str) -> None:
    pod: Pod = request.getfixturevalue(name)
    clients = [pod.client() for _ in range(4)]
    for client in clients:
        client.ask()
    at_app = pod.origin.requests(3)
    for client in clients:
        assert is_the_504(client.response())
    for one in at_app:
        assert one.wire.gone()


@pytest.mark.qp("QP-153", "QP-173")
def test_a_request_that_timed_out_waiting_never_reaches_the_app(start_pod: Pod) -> None:
    running = [started(start_pod) for _ in range(3)]  # the response-start timeout spares these
    waiting = start_pod.client()
    waiting.ask("GET", "/waiting")
    assert is_the_504(waiting.response())
    for client, app in running:
        app.send(b"0\r\n\r\n")
        assert client.chunk() == b""
    start_pod.served()


@pytest.mark.qp("QP-175", "QP-180")
@pytest.mark.parametrize("name", ["max_pod", "idle_pod", "plain_pod"])
def test_a_started_answer_keeps_its_status_and_is_cut_not_completed(request: pytest.FixtureRequest, name: str) -> None:
    """Upstream appends its text and ends cleanly (D03); then nobody can tell it from a whole answer."""
    pod: Pod = request.getfixturevalue(name)
    client, app = started(pod)
    assert client.rest() == b""
    assert app.gone()
    assert pod.sidecar.all_zero()


@pytest.mark.qp("QP-175")
def test_a_started_sized_answer_is_cut_short(max_pod: Pod) -> None:
    client = max_pod.client()
    client.ask()
    max_pod.origin.request().wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    client.head()
    assert client.rest() == b"half"


@pytest.mark.qp("QP-174", "QP-175")
def test_a_client_that_does_not_read_is_cut_all_the_same(max_pod: Pod) -> None:
    client = max_pod.client(receive=4096)
    client.ask()
    app = max_pod.origin.request().wire
    app.sock.settimeout(5)
    app.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            app.send(b"x" * 65536)
    # Its unread bytes hide our end from the client; the kernel knows that nobody holds the other side any more.
    max_pod.sidecar.let_go_of(client.sock.getsockname()[1])


@pytest.mark.qp("QP-171")
def test_response_start_has_no_effect_once_a_head_was_sent(start_pod: Pod) -> None:
    client, app = started(start_pod)
    stat = start_pod.sidecar.whole_stat()  # at least a second more
    assert stat["average_concurrent_requests"] == pytest.approx(1.0)
    app.send(b"3\r\nend\r\n0\r\n\r\n")
    assert client.chunk() == b"end"
    assert client.chunk() == b""


@pytest.mark.qp("QP-172")
def test_every_write_postpones_the_idle_timeout(idle_pod: Pod) -> None:
    client, app = started(idle_pod)
    ended_at = time.monotonic() + 2.5
    while time.monotonic() < ended_at:
        app.send(b"1\r\n.\r\n")
        assert client.chunk() == b"."
        wait_a_little()
    app.send(b"0\r\n\r\n")
    assert client.chunk() == b""


def wait_a_little() -> None:
    """The app's pace in these tests: real time is what they are about."""
    time.sleep(0.3)


def upgraded(pod: Pod) -> tuple[Wire, Wire]:
    client = pod.client()
    client.ask("GET", "/ws", "Connection: Upgrade", "Upgrade: websocket")
    app = pod.origin.request().wire
    app.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    assert client.head().status == 101
    return client, app


@pytest.mark.qp("QP-176")
def test_max_duration_ends_upgraded_connections_however_busy(max_pod: Pod) -> None:
    client, app = upgraded(max_pod)
    with pytest.raises((AssertionError, OSError)):
        for _ in range(20):
            app.send(b".")
            assert client.exactly(1) == b"."
            wait_a_little()
    assert max_pod.sidecar.all_zero()


@pytest.mark.qp("QP-177")
def test_response_start_spares_an_upgraded_connection(start_pod: Pod) -> None:
    """Upstream kills it (D02)."""
    client, app = upgraded(start_pod)
    assert start_pod.sidecar.whole_stat()["average_concurrent_requests"] == pytest.approx(1.0)
    app.send(b"still here")
    assert client.exactly(10) == b"still here"


@pytest.mark.qp("QP-177")
def test_idle_ends_an_upgraded_connection_only_when_it_is_idle(idle_pod: Pod) -> None:
    client, app = upgraded(idle_pod)
    for _ in range(6):
        app.send(b".")
        assert client.exactly(1) == b"."
        wait_a_little()
    assert client.gone()
    assert app.gone()


@pytest.mark.qp("QP-171", "QP-177")
def test_response_start_ends_an_upgrade_that_is_not_answered(start_pod: Pod) -> None:
    client = start_pod.client()
    client.ask("GET", "/ws", "Connection: Upgrade", "Upgrade: websocket")
    start_pod.origin.request()
    assert is_the_504(client.response())


@pytest.mark.qp("QP-170")
def test_probes_do_not_time_out(max_pod: Pod) -> None:
    assert max_pod.sidecar.health().status == 200
