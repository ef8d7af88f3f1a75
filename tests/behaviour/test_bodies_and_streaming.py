"""Bodies of any size and framing, both ways, as they come and with little of them in memory (contract 1.3)."""

import threading
from collections.abc import Iterator

import pytest

from tests.support.rawhttp import Wire
from tests.support.sidecar import BOTH_LOOPS, Pod, one_pod

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.xdist_group("bodies"), BOTH_LOOPS]

BULK = 200 * 1024 * 1024
MEMORY = 12 * 1024 * 1024  # what a stream may add to the process: socket reads of 256 KiB, some of them in flight
PIECE = bytes(range(256)) * 1024  # 256 KiB


@pytest.fixture(scope="module")
def pod(loop: str) -> Iterator[Pod]:
    with one_pod(loop=loop) as pod:
        yield pod


@pytest.fixture(autouse=True)
def clean(pod: Pod) -> Iterator[None]:
    yield
    pod.fresh()


# -- requests


@pytest.mark.qp("QP-074")
@pytest.mark.parametrize("size", [1, 1000, 65536, 3_000_001])
def test_a_sized_upload_arrives_sized(pod: Pod, size: int) -> None:
    body = (PIECE * (size // len(PIECE) + 1))[:size]
    client = pod.client()
    sender = threading.Thread(target=client.ask, args=("POST", "/"), kwargs={"body": body})
    sender.start()
    asked = pod.origin.request()
    sender.join()
    assert asked.message.get("content-length") == str(size).encode()
    assert asked.message.get("transfer-encoding") is None
    assert asked.message.body == body
    asked.wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-074")
def test_an_empty_sized_upload_keeps_its_length(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", "/", "Content-Length: 0")
    asked = pod.origin.request()
    assert asked.message.get("content-length") == b"0"
    asked.wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-074")
def test_upload_chunks_are_passed_on_as_they_come(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", "/", "Transfer-Encoding: chunked")
    asked = pod.origin.began()
    assert asked.message.get("transfer-encoding") == b"chunked"
    for piece in (b"first", b"second", b"x" * 70_000):
        client.send(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece))
        got = b""
        while len(got) < len(piece):
            got += asked.wire.chunk()
        assert got == piece
    client.send(b"0\r\n\r\n")
    assert asked.wire.chunk() == b""
    assert asked.wire.trailers() == []
    asked.wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-076")
def test_request_trailers_reach_the_app_but_none_that_frame_or_route(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", "/", "Transfer-Encoding: chunked", "Trailer: X-Sum")
    client.send(b"2\r\nhi\r\n0\r\nX-Sum: abc\r\nX-More:  two  \r\n\r\n")
    asked = pod.origin.request()
    assert asked.message.get("trailer") == b"X-Sum"
    assert asked.message.trailers == [(b"X-Sum", b"abc"), (b"X-More", b"two")]
    asked.wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-054")
def test_of_length_and_chunked_chunked_wins_and_the_connection_ends(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", "/", "Content-Length: 3", "Transfer-Encoding: chunked")
    client.send(b"5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    asked = pod.origin.request()
    assert asked.message.get("content-length") is None
    assert asked.message.body == b"hello"
    asked.wire.answer()
    assert client.response().get("connection") == b"close"
    assert client.gone()
    pod.served()


# -- answers


@pytest.mark.qp("QP-070")
def test_an_unsized_answer_is_flushed_with_its_head_and_at_every_read(pod: Pod) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    head = client.head()
    assert head.get("transfer-encoding") == b"chunked"
    for piece in (b"one", b"two", b"three"):
        wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        assert client.chunk() == piece
    wire.send(b"0\r\n\r\n")
    assert client.chunk() == b""
    assert client.trailers() == []


@pytest.mark.qp("QP-072", "QP-073")
def test_events_are_flushed_per_read_even_when_sized(pod: Pod) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 24\r\n\r\n")
    assert client.head().get("content-length") == b"24"
    for event in (b"data: a\n\n", b"data: bcd\n\n", b"\n\n\n\n"):
        wire.send(event)
        assert client.exactly(len(event)) == event


@pytest.mark.qp("QP-070")
def test_an_answer_that_ends_with_its_connection_becomes_chunked_and_ours_stays(pod: Pod) -> None:
    client = pod.client()
    client.ask()
    wire = pod.origin.request().wire
    wire.send(b"HTTP/1.1 200 OK\r\n\r\nuntil ")
    assert client.head().get("transfer-encoding") == b"chunked"
    assert client.chunk() == b"until "
    wire.send(b"the end")
    assert client.chunk() == b"the end"
    wire.close()
    assert client.chunk() == b""
    client.trailers()
    client.ask("GET", "/next")
    pod.origin.request().wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-041")
def test_an_http_1_0_client_gets_an_unsized_answer_by_end_of_connection(pod: Pod) -> None:
    client = pod.client()
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    asked = pod.origin.request()
    assert asked.message.start == b"GET / HTTP/1.1"
    assert asked.message.get("host") == b"127.0.0.1:8080"
    asked.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    answer = client.response()
    assert answer.get("transfer-encoding") is None
    assert answer.get("connection") == b"close"
    assert answer.body == b"abcde"


@pytest.mark.qp("QP-075")
@pytest.mark.parametrize("announced", [True, False], ids=["announced", "unannounced"])
def test_answer_trailers_reach_the_client(pod: Pod, announced: bool) -> None:
    client = pod.client()
    client.ask("GET", "/", "TE: trailers", "Connection: te")
    wire = pod.origin.request().wire
    announcement = b"Trailer: Grpc-Status\r\n" if announced else b""
    wire.send(b"HTTP/1.1 200 OK\r\n", announcement, b"Transfer-Encoding: chunked\r\n\r\n")
    wire.send(b"2\r\nok\r\n0\r\nGrpc-Status: 0\r\nX-Two: b\r\nContent-Length: 9\r\n\r\n")
    answer = client.response()
    assert answer.body == b"ok"
    assert answer.trailers == [(b"Grpc-Status", b"0"), (b"X-Two", b"b")]
    assert answer.get("trailer") == (b"Grpc-Status" if announced else None)


@pytest.mark.qp("QP-087")
@pytest.mark.parametrize(
    ("method", "raw", "length"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n", b"1234"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n", None),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", None),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", None),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n", None),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"0"),
    ],
    ids=["HEAD sized", "HEAD unsized", "204", "204 with length", "304", "304 with length", "empty"],
)
def test_answers_without_a_body_leave_the_connection_usable(
    pod: Pod, method: str, raw: bytes, length: bytes | None
) -> None:
    client = pod.client()
    client.ask(method)
    pod.origin.request().wire.send(raw)
    answer = client.response(to=method)
    assert answer.get("content-length") == length
    client.ask("GET", "/next")
    pod.origin.request().wire.answer(body=b"next")
    assert client.response().body == b"next"


# -- both at once


@pytest.mark.qp("QP-083")
def test_an_answer_may_start_and_go_on_while_the_upload_does(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", "/", "Transfer-Encoding: chunked")
    wire = pod.origin.began().wire
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert client.head().status == 200
    for word in (b"ping", b"pong", b"peng"):
        client.send(b"4\r\n%b\r\n" % word)
        assert wire.chunk() == word
        wire.send(b"4\r\n%b\r\n" % word.upper())
        assert client.chunk() == word.upper()
    client.send(b"0\r\n\r\n")
    assert wire.chunk() == b""
    wire.trailers()
    wire.send(b"0\r\n\r\n")
    assert client.chunk() == b""
    client.trailers()
    client.ask("GET", "/next")
    pod.origin.request().wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-083")
def test_an_early_answer_reaches_a_client_that_stalls_its_upload(pod: Pod) -> None:
    """Upstream withholds it (D04)."""
    client = pod.client()
    client.ask("POST", "/", "Content-Length: 100000")
    client.send(b"x" * 10)
    wire = pod.origin.began().wire
    wire.answer(413, body=b"too much")
    answer = client.response()
    assert (answer.status, answer.body) == (413, b"too much")


@pytest.mark.qp("QP-083")
def test_the_rest_of_a_small_upload_is_swallowed_after_an_early_answer(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", "/", "Content-Length: 1000")
    pod.origin.began().wire.answer(403, body=b"no")
    assert client.response().status == 403
    client.send(b"x" * 1000)
    client.ask("GET", "/next")
    asked = pod.origin.request()
    assert asked.target == b"/next"
    asked.wire.answer()
    assert client.response().status == 200


@pytest.mark.qp("QP-083")
def test_the_rest_of_a_large_upload_ends_the_connection_after_an_early_answer(pod: Pod) -> None:
    client = pod.client()
    client.ask("POST", "/", "Content-Length: 1000000000000")
    pod.origin.began().wire.answer(403, body=b"no")
    assert client.response().status == 403
    with pytest.raises(OSError):
        while True:  # for a second what comes is swallowed, so that the answer can be read; then it is the end
            client.send(PIECE)
    pod.served()


# -- size and memory


def _pump(wire: Wire, total: int, failed: list[BaseException]) -> None:
    try:
        sent = 0
        while sent < total:
            wire.send(PIECE)
            sent += len(PIECE)
    except BaseException as error:
        failed.append(error)


@pytest.mark.qp("QP-074", "QP-357")
def test_a_large_answer_waits_for_a_slow_reader_outside_our_memory(pod: Pod) -> None:
    client = pod.client(receive=65536)
    client.ask()
    wire = pod.origin.request().wire
    before = pod.sidecar.rss
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BULK)
    failed: list[BaseException] = []
    pump = threading.Thread(target=_pump, args=(wire, BULK, failed))
    pump.start()
    client.head()
    peak = 0
    size = 0
    while size < BULK:
        piece = client.exactly(min(4 * 1024 * 1024, BULK - size))
        size += len(piece)
        peak = max(peak, pod.sidecar.rss)
    pump.join(30)
    assert not failed
    assert peak - before < MEMORY, f"{(peak - before) >> 20} MiB more"


@pytest.mark.qp("QP-074", "QP-357")
def test_a_large_upload_waits_for_a_slow_app_outside_our_memory(pod: Pod) -> None:
    client = pod.client()
    before = pod.sidecar.rss
    client.ask("PUT", "/", f"Content-Length: {BULK}")
    failed: list[BaseException] = []
    pump = threading.Thread(target=_pump, args=(client, BULK, failed))
    pump.start()
    wire = pod.origin.began().wire
    peak = 0
    size = 0
    while size < BULK:
        piece = wire.exactly(min(4 * 1024 * 1024, BULK - size))
        size += len(piece)
        peak = max(peak, pod.sidecar.rss)
    pump.join(30)
    assert not failed
    assert peak - before < MEMORY, f"{(peak - before) >> 20} MiB more"
    wire.answer()
    assert client.response().status == 200


def _fill(wire: Wire) -> int:
    """Sends until nothing more is taken; how much was."""
    wire.sock.settimeout(0.5)
    sent = 0
    try:
        while sent < BULK:
            sent += wire.sock.send(PIECE)
    except TimeoutError:
        return sent
    finally:
        wire.sock.settimeout(15)
    return sent


@pytest.mark.qp("QP-357")
def test_the_app_is_not_read_while_the_client_does_not_read(pod: Pod) -> None:
    client = pod.client(receive=65536)
    client.ask()
    wire = pod.origin.request().wire
    before = pod.sidecar.rss
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BULK)
    assert _fill(wire) < BULK // 4  # the kernel's buffers, twice
    assert pod.sidecar.rss - before < MEMORY


@pytest.mark.qp("QP-357")
def test_the_client_is_not_read_while_the_app_does_not_read(pod: Pod) -> None:
    client = pod.client()
    before = pod.sidecar.rss
    client.ask("PUT", "/", f"Content-Length: {BULK}")
    pod.origin.began()
    assert _fill(client) < BULK // 4
    assert pod.sidecar.rss - before < MEMORY


@pytest.mark.qp("QP-357")
def test_a_connection_to_the_app_is_read_again_after_a_client_that_did_not_read(pod: Pod) -> None:
    """The slow client's answer fits into our buffer, so the app's connection is free before the client is."""
    slow = pod.client(receive=4096)
    slow.sock.setsockopt(6, 10, 4096)  # TCP_WINDOW_CLAMP: the kernel takes little for us
    slow.ask("GET", "/slow")
    asked = pod.origin.request()
    size = 4 * 1024 * 1024
    pump = threading.Thread(target=asked.wire.answer, kwargs={"body": b"x" * size})
    pump.start()
    head = slow.head()
    assert head.get("content-length") == str(size).encode()
    left = size
    while pump.is_alive():  # the app has said everything; we still hold a part of it
        left -= len(slow.exactly(min(65536, left)))
    pump.join()
    for number in range(3):
        other = pod.client()
        other.ask("GET", f"/{number}")
        following = pod.origin.request()
        following.wire.answer(body=b"prompt")
        assert other.response().body == b"prompt"
    slow.exactly(left)


@pytest.mark.qp("QP-357")
def test_pipelined_answers_wait_for_a_client_that_does_not_read(pod: Pod) -> None:
    """The second answer starts while our buffer for the client is still full of the first."""
    client = pod.client(receive=4096)
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % i for i in range(8)))
    before = pod.sidecar.rss
    taken = 0
    for i in range(8):
        wire = pod.origin.request().wire
        wire.sock.settimeout(0.5)
        size = 8 * 1024 * 1024
        wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        left = size
        try:
            while left:
                left -= wire.sock.send(b"x" * min(left, 1 << 18))
        except TimeoutError:
            taken = i * size + size - left
            break
    else:
        raise AssertionError("the sidecar took all of 64 MiB")
    assert taken < 24 * 1024 * 1024
    assert pod.sidecar.rss - before < MEMORY
