"""One client connection: answers in order, probes, refusals, pipelining, timers, back-pressure, lingering."""

import pytest

from queueproxy.proxy.deadline import HEAD_TIMEOUT, LINGER, Timeouts
from queueproxy.proxy.server import DISCARD
from tests.support.wires import GET, HELLO, HIGH_WATER, POST, Wires

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
HEALTH = b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.30\r\nK-Network-Probe: queue\r\n\r\n"
NETWORK = b"GET / HTTP/1.1\r\nHost: a\r\nK-Network-Probe: probe\r\nK-Network-Hash: h4sh\r\n\r\n"


def status(answer: bytes) -> bytes:
    return answer[9:12]


def body(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


# === Probes and oddities, answered here. ===


@pytest.mark.qp("QP-100", "QP-101", "QP-102", "QP-105", "QP-106", "QP-103", "QP-130", "QP-205")
@pytest.mark.parametrize(
    ("request_bytes", "ready", "code", "text", "extra"),
    [
        pytest.param(HEALTH, True, b"200", b"queue", b"Content-Type: text/plain; charset=utf-8\r\n", id="ready"),
        pytest.param(HEALTH, False, b"503", b"", b"Content-Length: 0\r\n", id="not ready"),
        pytest.param(NETWORK, True, b"200", b"", b"K-Network-Hash: h4sh\r\n", id="network probe"),
        pytest.param(NETWORK.replace(b"K-Network-Hash: h4sh\r\n", b""), True, b"400",
                     b'a probe request must contain a non-empty "K-Network-Hash" header\n',
                     b"X-Content-Type-Options: nosniff\r\n", id="network probe without hash"),
        pytest.param(HEALTH.replace(b"queue", b"activator"), True, b"400",
                     b"unexpected probe header value: activator\n", b"X-Content-Type-Options: nosniff\r\n",
                     id="activator"),
        pytest.param(HEALTH.replace(b"K-Network-Probe: queue\r\n", b""), True, b"400",
                     b"unexpected probe header value: \n", b"nosniff", id="no value"),
    ],
)  # fmt: skip
def test_probes_are_answered_here_and_count_nowhere(
    request_bytes: bytes, ready: bool, code: bytes, text: bytes, extra: bytes
) -> None:
    with Wires(concurrency=1, freezing=True) as wires:
        wires.put_to_sleep()
        wires.health.verdict = ready
        asked = len(wires.mechanism.asked)
        client = wires.client()
        client.says(request_bytes)
        answer = client.got()
        assert (status(answer), body(answer), extra in answer) == (code, text, True), answer
        assert client.open and wires.pool.waiting == [] and wires.window.count == 0
        assert len(wires.mechanism.asked) == asked, "a probe wakes nobody"
        wires.at_rest()


@pytest.mark.qp("QP-107")
@pytest.mark.parametrize("request_bytes", [HEALTH, NETWORK], ids=["health", "network"])
def test_both_kinds_of_probe_fail_while_draining(request_bytes: bytes) -> None:
    with Wires() as wires:
        wires.drain.draining = True
        client = wires.client()
        client.says(request_bytes)
        answer = client.got()
        assert (status(answer), body(answer)) == (b"503", b"shutting down\n")
        assert wires.drain.arrivals == []


@pytest.mark.qp("QP-281", "QP-282")
def test_ordinary_requests_are_served_while_draining_and_restart_the_quiet_period() -> None:
    with Wires() as wires:
        wires.drain.draining = True
        client = wires.client()
        client.says(GET)
        wires.app().says(HELLO)
        assert client.got() == HELLO and wires.drain.arrivals == [wires.clock.now]


@pytest.mark.qp("QP-130", "QP-157")
def test_a_marked_request_passes_limiter_and_stats_but_reaches_the_app() -> None:
    with Wires(concurrency=1) as wires:
        first, marked = wires.client(), wires.client()
        first.says(GET)
        app = wires.dialled()
        marked.says(b"GET / HTTP/1.1\r\nHost: a\r\nK-Kubelet-Probe: queue\r\nK-Original-Host: o\r\n\r\n")
        assert wires.levels == (2, 1, 1, 0, 2), "busy, but neither counted nor limited"
        other = wires.dialled()
        sent = other.got()
        assert b"Host: a\r\n" in sent and b"K-Original-Host: o\r\n" in sent
        other.says(HELLO)
        app.says(HELLO)
        assert (marked.got(), first.got()) == (HELLO, HELLO)
        wires.at_rest()
        assert wires.recorder.invocations[200].count == 1


@pytest.mark.qp("QP-055")
def test_options_star_is_answered_here() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = client.got()
        assert status(answer) == b"200" and b"Content-Length: 0\r\n" in answer and client.open
        assert wires.window.count == 0
        client.says(GET)
        wires.app().says(HELLO)
        assert client.got() == HELLO


def test_an_unknown_expectation_is_417() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n")
        answer = client.got()
        assert status(answer) == b"417" and b"Connection: close\r\n" in answer and not client.open
        wires.at_rest()


@pytest.mark.qp("QP-353")
def test_a_slow_probe_that_was_refused_meanwhile_is_not_answered() -> None:
    with Wires() as wires:
        wires.health.verdict = None
        client = wires.client()
        client.says(CHUNKED.replace(b"Host: a", b"Host: a\r\nUser-Agent: kube-probe/1\r\nK-Network-Probe: queue"))
        client.says(b"zz\r\n")
        assert status(client.got()) == b"400" and client.transport.eof
        wires.health.decide(True)  # a second answer would be an error of the strict wire
        assert client.got() == b""
        wires.loop.advance(LINGER)
        assert client.transport.lost


def test_a_slow_probe_whose_client_left_is_not_answered() -> None:
    with Wires() as wires:
        wires.health.verdict = None
        client = wires.client()
        client.says(HEALTH)
        client.leaves()
        wires.health.decide(True)
        assert client.got() == b""
        wires.at_rest()


def test_what_is_pipelined_behind_a_slow_probe_follows_it_and_the_client_is_read_again() -> None:
    with Wires() as wires:
        wires.health.verdict = None
        client = wires.client()
        client.says(HEALTH + POST + b"he")
        assert not client.transport.reading
        wires.health.decide(True)
        assert body(client.got()) == b"queue"
        assert client.transport.reading, "the rest of the second request can come"
        client.says(b"llo")
        app = wires.app()
        assert app.got().endswith(b"hello")
        app.says(HELLO)
        assert client.got() == HELLO


# === Refusals. ===


@pytest.mark.qp("QP-053", "QP-132")
@pytest.mark.parametrize(
    ("head", "line", "text"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400 Bad Request: missing required Host header", None),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", b"400 Bad Request: malformed Host header", None),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", b"400 Bad Request", None),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"501 Not Implemented",
         b"Unsupported transfer encoding"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", b"505 HTTP Version Not Supported", None),
        (b"\x16\x03\x01\x00", b"400 Bad Request", None),
    ],
    ids=["no Host", "bad Host", "bad name", "bad coding", "bad version", "TLS"],
)  # fmt: skip
def test_what_is_not_http_gets_gos_answer_and_the_end(head: bytes, line: bytes, text: bytes | None) -> None:
    with Wires(concurrency=1) as wires:
        client = wires.client()
        client.says(head)
        end = b"\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
        assert client.got() == b"HTTP/1.1 " + line + end + (text or line)
        assert client.transport.eof and not client.transport.lost, "the client may read the answer first"
        client.says(GET)  # ignored
        wires.loop.advance(LINGER)
        assert client.transport.lost and client.got() == b""
        assert (wires.window.count, wires.pool.waiting, wires.recorder.refused) == (0, [], {"bad_message": 1})
        wires.at_rest()


def test_a_refusal_in_the_pipeline_comes_after_the_answers_before_it() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(GET + b"nonsense\r\n\r\n")
        assert client.got() == b""
        wires.app().says(HELLO)
        answers = client.got()
        assert answers.startswith(HELLO) and status(answers[len(HELLO) :]) == b"400"
        assert client.transport.eof
        wires.at_rest()


@pytest.mark.qp("QP-151", "QP-205", "QP-132")
def test_the_full_queue_answers_503_at_once_in_order_and_keeps_the_connection() -> None:
    with Wires(concurrency=1) as wires:
        crowd = [wires.client() for _ in range(11)]
        for one in crowd:
            one.says(GET)
        late = wires.client()
        late.says(POST + b"hello" + HEALTH)
        answers = late.got()
        assert status(answers) == b"503" and b"X-Content-Type-Options: nosniff\r\n" in answers
        assert b"\r\n\r\npending request queue full\n" in answers and answers.endswith(b"\r\n\r\nqueue")
        assert wires.recorder.refused == {"queue_full": 1} and 503 not in wires.recorder.invocations
        app = wires.dialled()
        for one in crowd:
            app.says(HELLO)
            assert one.got() == HELLO, "first come, first served"
        wires.at_rest()


@pytest.mark.qp("QP-054")
def test_after_a_last_answer_nothing_pipelined_is_looked_at() -> None:
    with Wires(concurrency=1) as wires:
        for _ in range(11):
            wires.client().says(GET)
        client = wires.client()
        client.says(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + HEALTH)
        answers = client.got()
        assert answers.count(b"HTTP/1.1") == 1 and b"Connection: close\r\n" in answers
        assert client.transport.lost


# === Uploads that nobody wants any more. ===


@pytest.mark.qp("QP-178")
def test_the_rest_of_an_answered_upload_is_swallowed_and_the_connection_kept() -> None:
    with Wires(timeouts=Timeouts(5.0)) as wires:
        client = wires.client()
        client.says(POST + b"he")
        app = wires.dialled()
        wires.loop.advance(5.0)
        assert status(client.got()) == b"504" and app.transport.aborted and client.open
        client.says(b"llo" + GET)
        wires.app().says(HELLO)
        assert client.got() == HELLO
        wires.at_rest()


@pytest.mark.qp("QP-353")
@pytest.mark.parametrize("size", [DISCARD, DISCARD + 1], ids=["as much as is swallowed", "a byte more"])
def test_how_much_of_it_is_swallowed(size: int) -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        wires.app().says(HELLO)
        assert client.got() == HELLO
        for at in range(0, size, 50_000):
            if not client.transport.eof:
                client.says(b"x" * min(50_000, size - at))
        assert client.open is (size == DISCARD)


# === Time. ===


@pytest.mark.qp("QP-049")
@pytest.mark.fz("FZ-021")
def test_a_half_head_keeps_the_app_awake_for_at_most_sixty_seconds() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(b"GET / HTTP/1.1\r\n")
        assert wires.policy.half_read == 1
        wires.loop.advance(HEAD_TIMEOUT / 2)
        client.says(b"Host: a\r\n")
        wires.loop.advance(HEAD_TIMEOUT / 2 - 0.001)
        assert client.open
        wires.loop.advance(0.001)
        assert client.transport.lost and client.got() == b"", "closed without an answer"
        wires.at_rest()


@pytest.mark.qp("QP-048")
def test_an_idle_connection_has_no_timer_and_no_end() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(GET)
        wires.app().says(HELLO)
        wires.loop.advance(100_000)
        assert client.open and wires.loop.timers == 0


@pytest.mark.fz("FZ-036", "FZ-021")
def test_the_first_bytes_of_a_request_wake_the_app() -> None:
    with Wires(freezing=True) as wires:
        wires.put_to_sleep()
        client = wires.client()
        asked = len(wires.mechanism.asked)
        client.says(b"G")
        assert len(wires.mechanism.asked) == asked + 1 and wires.policy.half_read == 1
        client.leaves()
        wires.mechanism.answer()
        wires.at_rest()


# === Back-pressure: pauses and resumes pair up. ===


@pytest.mark.qp("QP-357")
def test_a_client_that_does_not_read_stops_its_app_connection_and_nobody_elses() -> None:
    with Wires() as wires:
        slow, quick = wires.client(), wires.client()
        slow.transport.taking = False
        slow.says(GET)
        app = wires.dialled()
        quick.says(GET)
        other = wires.dialled()
        app.says(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * (HIGH_WATER + 1))
        assert not app.transport.reading and other.transport.reading
        slow.transport.take_all()
        assert app.transport.reading and app.transport.pauses == app.transport.resumes == 1


@pytest.mark.qp("QP-357")
def test_an_app_connection_that_was_stopped_for_one_client_serves_the_next() -> None:
    with Wires() as wires:
        slow, next_one = wires.client(), wires.client()
        slow.transport.taking = False
        slow.says(GET)
        app = wires.dialled()
        app.says(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
        assert slow.transport.buffered > HIGH_WATER
        next_one.says(GET)
        wires.app().says(HELLO)
        assert next_one.got() == HELLO
        wires.at_rest()


@pytest.mark.qp("QP-357", "QP-074")
def test_an_app_that_does_not_read_stops_the_upload() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
        app = wires.dialled()
        app.transport.taking = False
        client.says(b"x" * (HIGH_WATER + 1))
        assert not client.transport.reading
        app.transport.take_all()
        assert client.transport.reading and client.transport.pauses == client.transport.resumes == 1


@pytest.mark.qp("QP-357", "QP-074")
def test_an_upload_for_a_sleeping_app_is_held_up_to_a_bound() -> None:
    with Wires(freezing=True) as wires:
        wires.put_to_sleep()
        client = wires.client()
        client.says(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 60_000)
        assert client.transport.reading
        client.says(b"x" * 60_000)
        assert not client.transport.reading
        wires.mechanism.answer()
        app = wires.dialled()
        assert body(app.got()) == b"x" * 120_000 and client.transport.reading
        client.says(b"x" * 80_000)
        app.says(HELLO)
        assert client.got() == HELLO
        wires.at_rest()


def test_a_refused_waiter_with_a_held_upload_is_read_again() -> None:
    with Wires(freezing=True) as wires:
        wires.put_to_sleep()
        client = wires.client()
        client.says(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 80000\r\n\r\n" + b"x" * 70_000)
        assert not client.transport.reading
        wires.mechanism.fails, wires.mechanism.silent = True, False
        wires.mechanism.answer()
        wires.loop.advance(1.0)
        answer = client.got()
        assert status(answer) == b"503" and b"Retry-After: 1\r\n" in answer
        assert client.transport.reading
        client.says(b"x" * 10_000)
        client.says(GET)
        assert status(client.got()) == b"503", "stuck: refused at once"
        assert wires.levels[0] == 0 and wires.gate.waiting == 0


def test_pipelined_requests_stop_the_client_until_their_turn() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(GET * 3)
        assert not client.transport.reading
        app = wires.dialled()
        for _ in range(3):
            assert app.got().count(b"GET /") == 1, "one at a time"
            app.says(HELLO)
            assert client.got() == HELLO
        assert client.transport.reading and client.transport.pauses == client.transport.resumes == 1
        wires.at_rest()


# === Shutdown. ===


@pytest.mark.qp("QP-283", "QP-284")
def test_at_shutdown_idle_connections_end_and_busy_ones_after_their_answer() -> None:
    with Wires() as wires:
        idle, busy, half = wires.client(), wires.client(), wires.client()
        half.says(b"GET / HT")
        busy.says(GET)
        app = wires.dialled()
        wires.plane.close_idle()
        wires.loop.settle()
        assert (idle.open, busy.open, half.open) == (False, True, True)
        app.says(HELLO)
        assert b"Connection: close\r\n" in busy.got() and not busy.open
        assert app.transport.reading
        half.says(b"TP/1.1\r\nHost: a\r\n\r\n")
        wires.app().says(HELLO)
        assert b"Connection: close\r\n" in half.got() and not half.open
        wires.at_rest()


def test_a_peer_is_named_as_x_forwarded_for_wants_it() -> None:
    with Wires() as wires:
        client = wires.client()
        assert client.protocol.peer == b"10.0.0.9"
        for name, peer in (("::ffff:1.2.3.4", b"1.2.3.4"), ("2001:db8::1", b"2001:db8::1")):
            other = wires.client()
            other.transport.get_extra_info = lambda *_, name=name: (name, 1)  # type: ignore[method-assign,misc]
            other.protocol.connection_made(other.transport)  # type: ignore[arg-type]
            assert other.protocol.peer == peer
