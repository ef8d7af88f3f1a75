"""The life of a request: every way out gives everything back exactly once, and a client never hears two answers."""

from collections.abc import Callable

import pytest

from queueproxy.proxy.deadline import Timeouts
from tests.support.wires import GET, HELLO, POST, AppWire, ClientWire, Wires

ANSWER = HELLO
UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n"
SWITCH = b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n"
CHUNKED_POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nDate: d\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_the_plain_life_of_a_request() -> None:
    with Wires(concurrency=1) as wires:
        client = wires.client()
        client.says(GET)
        assert wires.levels == (1, 1, 1, 0, 1) and client.got() == b""
        app = wires.dialled()
        assert app.got() == b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n"
        wires.loop.advance(0.5)
        app.says(ANSWER)
        assert client.got() == ANSWER and client.open
        wires.at_rest()
        assert wires.recorder.invocations[200].sum == pytest.approx(0.5)
        client.says(GET)
        assert (app.got() != b"", wires.pool.waiting) == (True, []), "the connection is used again"
        app.says(ANSWER)
        assert client.got() == ANSWER
        wires.at_rest()


@pytest.mark.qp("QP-070", "QP-072")
def test_each_read_from_the_app_is_one_write_at_once() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        pieces = (CHUNKED_HEAD, b"2\r\nab\r\n", b"1\r\nc\r\n1\r\nd\r\n", b"0\r\nSum: 1\r\n\r\n")
        heard = []
        for piece in pieces:
            app.says(piece)
            heard.append(client.got())
        assert heard == list(pieces)
        assert client.transport.writes == 4
        wires.at_rest()


@pytest.mark.parametrize("size", [5, 200_000], ids=["small", "more than came with the head"])
def test_a_body_that_came_with_its_head_leaves_with_it_in_one_write(size: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size
    expected = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-Forwarded-For: 10.0.0.9\r\n\r\n" % size
    first, rest = b"x" * min(size, 64_000), b"y" * max(0, size - 64_000)
    with Wires() as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        app.says(ANSWER)
        app.got()
        client.got()
        before = app.transport.writes
        client.says(head + first)
        assert (app.got(), app.transport.writes) == (expected + first, before + 1)
        if rest:
            client.says(rest)
            assert (app.got(), app.transport.writes) == (rest, before + 2)
        app.says(ANSWER)
        assert client.got() == ANSWER
        wires.at_rest()


@pytest.mark.parametrize("body", [b"", b"hel"], ids=["none of it", "a part of it"])
def test_a_body_that_comes_while_its_connection_is_dialled_leaves_with_the_head(body: bytes) -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(POST + body)
        app = wires.dialled()
        assert app.got().endswith(b"\r\n\r\n" + body)
        assert app.transport.writes == 1
        client.says(b"hello"[len(body) :])
        assert app.got() == b"hello"[len(body) :]
        app.says(ANSWER)
        assert client.got() == ANSWER
        wires.at_rest()


# === Every way out. A bystander holds another slot throughout, so that a slot given back twice is seen. ===

Out = Callable[[Wires, ClientWire], None]


def sent(wires: Wires, client: ClientWire, data: bytes = GET) -> AppWire:
    client.says(data)
    return wires.dialled()


def success(wires: Wires, client: ClientWire) -> None:
    sent(wires, client).says(ANSWER)
    assert client.got() == ANSWER


def success_activator(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client, GET.replace(b"\r\n\r\n", b"\r\nK-Proxy-Request: activator\r\n\r\n"))
    assert wires.window.proxied == 1
    app.says(ANSWER)


def answer_with_surplus(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.says(ANSWER + ANSWER)
    assert client.got() == ANSWER and app.transport.aborted


def answer_until_eof(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.says(b"HTTP/1.1 200 OK\r\nDate: d\r\n\r\nhello")
    app.ends()
    assert client.got() == CHUNKED_HEAD + b"5\r\nhello\r\n0\r\n\r\n" and client.open


def gone_while_dialling(wires: Wires, client: ClientWire) -> None:
    client.says(GET)
    client.leaves()
    app = wires.dialled()
    assert app.got() == b"", "nobody waits for that answer"


def gone_while_dialling_and_refused(wires: Wires, client: ClientWire) -> None:
    client.says(GET)
    client.leaves()
    wires.refused()


def gone_after_sending(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    client.leaves(ConnectionResetError())
    assert app.transport.aborted, "the app must not work for nobody"


def gone_by_half_close(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    client.ends()
    assert app.transport.aborted


def gone_mid_upload(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client, POST + b"he")
    client.leaves()
    assert app.transport.aborted


def gone_mid_answer(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.says(ANSWER[:-2])
    client.leaves()
    assert app.transport.aborted


def timeout_while_dialling(wires: Wires, client: ClientWire) -> None:
    client.says(GET)
    wires.loop.advance(10.0)
    assert client.got().endswith(b"request timeout") and client.open
    wires.refused()
    assert client.got() == b""


def timeout_after_sending(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    wires.loop.advance(10.0)
    assert client.got().startswith(b"HTTP/1.1 504 ") and client.open and app.transport.aborted


def timeout_mid_answer(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.says(ANSWER[:-2])
    wires.loop.advance(10.0)
    assert client.got() == ANSWER[:-2] and not client.open and app.transport.aborted


def timeout_mid_upload(wires: Wires, client: ClientWire) -> None:
    sent(wires, client, POST + b"he")
    wires.loop.advance(10.0)
    assert client.got().endswith(b"request timeout")
    client.says(b"llo")


def refused_by_the_app(wires: Wires, client: ClientWire) -> None:
    client.says(GET)
    wires.refused()
    assert client.got().endswith(b"\r\n\r\ndial tcp 127.0.0.1:8080: connect: connection refused\n") and client.open


def eof_before_the_answer(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.ends()
    assert client.got().endswith(b"\r\n\r\nEOF\n") and client.open


def reset_before_the_answer(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.leaves(ConnectionResetError("reset"))
    assert client.got().startswith(b"HTTP/1.1 502 ")


def eof_mid_answer(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.says(ANSWER[:-1])
    app.ends()
    assert client.got() == ANSWER[:-1] and not client.open


def eof_mid_chunked_answer(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.says(CHUNKED_HEAD + b"5\r\nhello\r\n")
    app.ends()
    assert client.got() == CHUNKED_HEAD + b"5\r\nhello\r\n" and not client.open


def reset_mid_answer_until_eof(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.says(b"HTTP/1.1 200 OK\r\nDate: d\r\n\r\nhello")
    app.leaves(ConnectionResetError())
    assert client.got() == CHUNKED_HEAD + b"5\r\nhello\r\n" and not client.open


def eof_after_the_answer(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.says(ANSWER)
    app.ends()
    assert client.got() == ANSWER and client.open and wires.pool.take() is None


def malformed_answer(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.says(b"220 smtp ready\r\n")
    assert client.got().startswith(b"HTTP/1.1 502 ") and client.open and app.transport.aborted


def malformed_body(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client)
    app.says(CHUNKED_HEAD + b"5\r\nhello\r\nzz\r\n")
    assert client.got() == CHUNKED_HEAD + b"5\r\nhello\r\n" and not client.open


def malformed_upload(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client, CHUNKED_POST)
    client.says(b"zz\r\n")
    assert client.got().startswith(b"HTTP/1.1 502 ") and not client.open and app.transport.aborted


def malformed_upload_mid_answer(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client, CHUNKED_POST)
    app.says(ANSWER[:-1])
    client.says(b"zz\r\n")
    assert client.got() == ANSWER[:-1] and not client.open and app.transport.aborted


def upgraded_and_ended_by_both(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client, UPGRADE)
    app.says(SWITCH)
    assert wires.plane.tunnels == 1
    client.ends()
    app.ends()


def upgraded_and_client_gone(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client, UPGRADE)
    app.says(SWITCH)
    client.leaves()
    assert app.transport.is_closing()


def upgraded_and_app_gone(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client, UPGRADE)
    app.says(SWITCH)
    app.leaves(ConnectionResetError())
    assert not client.open


def upgraded_until_the_timeout(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client, UPGRADE)
    app.says(SWITCH)
    wires.loop.advance(10.0)
    assert not client.open and app.transport.is_closing()


def upgrade_to_something_else(wires: Wires, client: ClientWire) -> None:
    app = sent(wires, client, UPGRADE)
    app.says(SWITCH.replace(b"web", b"other") + b"bytes of it")
    assert b'backend tried to switch protocol "other" when "web" was requested\n' in client.got()
    assert app.transport.aborted


def upgrade_nobody_asked_for(wires: Wires, client: ClientWire) -> None:
    sent(wires, client).says(SWITCH)
    assert client.got().startswith(b"HTTP/1.1 502 ")


def upgrade_declined(wires: Wires, client: ClientWire) -> None:
    sent(wires, client, UPGRADE).says(ANSWER)
    assert client.got() == ANSWER and client.open


WAYS_OUT: list[Out] = [
    success, success_activator, answer_with_surplus, answer_until_eof,
    gone_while_dialling, gone_while_dialling_and_refused, gone_after_sending, gone_by_half_close, gone_mid_upload,
    gone_mid_answer, timeout_while_dialling, timeout_after_sending, timeout_mid_answer, timeout_mid_upload,
    refused_by_the_app, eof_before_the_answer, reset_before_the_answer, eof_mid_answer, eof_mid_chunked_answer,
    reset_mid_answer_until_eof, eof_after_the_answer, malformed_answer, malformed_body, malformed_upload,
    malformed_upload_mid_answer, upgraded_and_ended_by_both, upgraded_and_client_gone, upgraded_and_app_gone,
    upgraded_until_the_timeout, upgrade_to_something_else, upgrade_nobody_asked_for, upgrade_declined,
]  # fmt: skip


@pytest.mark.qp("QP-084", "QP-086", "QP-132", "QP-154", "QP-174", "QP-200", "QP-144", "QP-081", "QP-082")
@pytest.mark.fz("FZ-026")
@pytest.mark.parametrize("way_out", WAYS_OUT, ids=lambda out: out.__name__.replace("_", " "))
def test_everything_is_given_back_once_whatever_happens(way_out: Out) -> None:
    with Wires(concurrency=2, timeouts=Timeouts(10.0)) as wires:
        bystander = wires.client()
        bystander.says(GET)
        other = wires.dialled()
        client = wires.client()
        exchange = bystander.protocol._exchange
        assert exchange is not None
        exchange.began_at += 1000.0  # outlives every timeout of the other
        way_out(wires, client)
        assert wires.levels == (1, 1, 1, 0, 1), "only the bystander's is left"
        assert wires.window.proxied == 0
        other.says(ANSWER)
        assert bystander.got() == ANSWER
        wires.at_rest()
        wires.loop.advance(1000.0)
        wires.at_rest()
        if not client.transport.lost and client.open:
            client.says(GET)
            wires.app().says(ANSWER)
            assert client.got().endswith(ANSWER), "the connection serves the next request"
            wires.at_rest()


# === Waiting: for a slot, for the thaw. ===


def queued(wires: Wires) -> tuple[AppWire, ClientWire, ClientWire]:
    """(the app with the running request, its client, a client that waits for the slot)"""
    first, second = wires.client(), wires.client()
    first.says(GET)
    app = wires.dialled()
    app.got()
    second.says(GET)
    assert wires.levels == (2, 2, 1, 1, 2), "waiting counts as concurrency"
    return app, first, second


@pytest.mark.qp("QP-133", "QP-150", "QP-153", "QP-156")
def test_a_waiter_that_leaves_frees_its_place_and_never_reaches_the_app() -> None:
    with Wires(concurrency=1) as wires:
        app, first, second = queued(wires)
        third = wires.client()
        third.says(GET)
        second.leaves()
        assert wires.levels == (2, 2, 1, 1, 2)
        app.says(HELLO)
        assert app.got().count(b"GET /") == 1, "the third's"
        app.says(HELLO)
        assert (first.got(), third.got(), second.got()) == (HELLO, HELLO, b"")
        wires.at_rest()


@pytest.mark.qp("QP-153", "QP-173", "QP-170", "QP-132")
def test_a_waiter_times_out_with_504_and_never_reaches_the_app() -> None:
    with Wires(concurrency=1, timeouts=Timeouts(10.0)) as wires:
        app, first, second = queued(wires)
        exchange = first.protocol._exchange
        assert exchange is not None
        exchange.began_at += 1000.0
        wires.loop.advance(10.0)
        assert second.got().endswith(b"\r\n\r\nrequest timeout") and second.open
        assert wires.levels == (1, 1, 1, 0, 1) and 504 not in wires.recorder.invocations
        app.says(HELLO)
        assert app.got() == b""
        wires.at_rest()


@pytest.mark.qp("QP-150")
@pytest.mark.parametrize("end", ["answer", "client gone", "app gone"])
def test_the_slot_goes_to_the_longest_waiter_however_it_gets_free(end: str) -> None:
    with Wires(concurrency=1) as wires:
        app, first, second = queued(wires)
        if end == "answer":
            app.says(HELLO)
        elif end == "client gone":
            first.leaves()
        else:
            app.leaves(ConnectionResetError())
        assert wires.levels == (1, 1, 1, 0, 1)
        wires.app().says(HELLO)
        assert second.got() == HELLO
        wires.at_rest()


@pytest.mark.fz("FZ-031", "FZ-033", "FZ-036")
def test_requests_wait_for_the_confirmed_thaw_together_and_cause_one() -> None:
    with Wires(concurrency=3, freezing=True) as wires:
        wires.put_to_sleep()
        clients = [wires.client() for _ in range(4)]
        asked = len(wires.mechanism.asked)
        for client in clients:
            client.says(GET)
        assert len(wires.mechanism.asked) == asked + 1
        assert (wires.pool.waiting, wires.gate.waiting) == ([], 3), "one waits for a slot"
        wires.mechanism.answer()
        assert len(wires.pool.waiting) == 3
        for _ in range(3):
            wires.dialled().says(HELLO)
        wires.app().says(HELLO)
        assert [client.got() for client in clients] == [HELLO] * 4
        wires.at_rest()


@pytest.mark.fz("FZ-038", "FZ-026")
@pytest.mark.parametrize("end", ["leaves", "times out"])
def test_a_request_that_waits_for_the_thaw_obeys_its_own_end(end: str) -> None:
    with Wires(concurrency=1, freezing=True, timeouts=Timeouts(0.2)) as wires:
        wires.put_to_sleep()
        client, other = wires.client(), wires.client()
        client.says(GET)
        if end == "leaves":
            client.leaves()
        else:
            wires.loop.advance(0.2)
            assert client.got().endswith(b"request timeout")
        other.says(GET)
        wires.mechanism.answer()
        assert len(wires.pool.waiting) == 1, "only the other's"
        wires.app().says(HELLO)
        assert other.got() == HELLO
        wires.at_rest()


@pytest.mark.fz("FZ-038", "FZ-067")
def test_a_thaw_that_does_not_come_is_503_for_all_and_takes_nothing_with_it() -> None:
    with Wires(concurrency=1, freezing=True) as wires:
        wires.put_to_sleep()
        wires.mechanism.fails, wires.mechanism.silent = True, False
        clients = [wires.client() for _ in range(5)]
        for client in clients:
            client.says(GET)
        wires.loop.advance(3.0)
        for client in clients:
            answer = client.got()
            assert answer.startswith(b"HTTP/1.1 503 ") and b"Retry-After: 1\r\n" in answer and client.open
        assert wires.levels == (0, 0, 0, 0, 0) and wires.gate.waiting == 0


# === Connections to the app that turn out dead. ===


@pytest.mark.qp("QP-202")
@pytest.mark.fz("FZ-034")
@pytest.mark.parametrize(
    "data",
    [GET, GET.replace(b"GET", b"HEAD"), GET.replace(b"GET", b"OPTIONS"),
     GET.replace(b"GET", b"POST").replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\nIdempotency-Key: k\r\n\r\n")],
    ids=["GET", "HEAD", "OPTIONS", "POST with an idempotency key"],
)  # fmt: skip
@pytest.mark.parametrize("error", [None, ConnectionResetError()], ids=["end", "reset"])
def test_a_stale_connection_is_replaced_once_for_a_repeatable_request(data: bytes, error: Exception | None) -> None:
    with Wires(concurrency=1) as wires:
        stale = wires.pooled()
        client = wires.client()
        client.says(data)
        stale.leaves(error)
        assert client.got() == b""
        fresh = wires.dialled()
        assert fresh.got() == stale.got()
        fresh.leaves(error)
        assert client.got().startswith(b"HTTP/1.1 502 ") and wires.pool.waiting == []
        assert wires.recorder.retries == 1
        wires.at_rest()


@pytest.mark.qp("QP-202")
@pytest.mark.parametrize(
    "data", [POST + b"hello", GET.replace(b"GET", b"POST"), GET.replace(b"GET", b"DELETE"),
             GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\n\r\nx")],
    ids=["POST", "POST without body", "DELETE", "GET with a body"],
)  # fmt: skip
def test_what_may_have_had_an_effect_is_never_sent_twice(data: bytes) -> None:
    with Wires() as wires:
        pooled = wires.pooled()
        client = wires.client()
        client.says(data)
        assert pooled.got() != b""
        pooled.leaves()
        assert client.got().startswith(b"HTTP/1.1 502 ") and wires.pool.waiting == []
        wires.at_rest()


@pytest.mark.qp("QP-202")
def test_a_request_that_may_not_be_repeated_asks_the_kernel_first() -> None:
    with Wires() as wires:
        stale = wires.pooled()
        stale.transport.make_stale()
        client = wires.client()
        client.says(POST + b"hello")
        assert stale.got() == b"" and stale.transport.aborted
        wires.dialled().says(HELLO)
        assert client.got() == HELLO
        wires.at_rest()


@pytest.mark.qp("QP-202")
def test_nothing_is_repeated_once_the_app_has_answered_a_word() -> None:
    with Wires() as wires:
        app = wires.pooled()
        client = wires.client()
        client.says(GET)
        app.says(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
        app.leaves()
        answers = client.got()
        assert answers.startswith(b"HTTP/1.1 103 ") and b"HTTP/1.1 502 " in answers and wires.pool.waiting == []
        wires.at_rest()


@pytest.mark.qp("QP-202")
@pytest.mark.parametrize("fresh", ["client leaves", "refused"])
def test_the_second_try_ends_like_any_other(fresh: str) -> None:
    with Wires(concurrency=1) as wires:
        stale = wires.pooled()
        client = wires.client()
        client.says(GET)
        stale.leaves()
        if fresh == "refused":
            wires.refused()
            assert client.got().startswith(b"HTTP/1.1 502 ")
        else:
            client.leaves()
            wires.dialled()
        wires.at_rest()


# === Answers. ===


@pytest.mark.qp("QP-078")
@pytest.mark.parametrize("final", [b"404", b"204"])
def test_the_final_status_survives_every_1xx_before_it(final: bytes) -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(GET)
        wires.app().says(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 x\r\nLink: a\r\n\r\nHTTP/1.1 102 x\r\n\r\n"
            b"HTTP/1.1 " + final + b" x\r\nContent-Length: 0\r\n\r\n"
        )
        assert [line.split()[1] for line in client.got().split(b"\r\n") if line.startswith(b"HTTP")] == [
            b"100", b"103", b"102", final,
        ]  # fmt: skip
        wires.at_rest()


def test_a_1_0_client_hears_no_1xx_and_its_unsized_answer_ends_with_the_connection() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        wires.app().says(b"HTTP/1.1 103 x\r\n\r\n" + CHUNKED_HEAD + b"5\r\nhello\r\n0\r\nA: b\r\n\r\n")
        assert client.got() == b"HTTP/1.1 200 OK\r\nDate: d\r\nConnection: close\r\n\r\nhello" and not client.open
        wires.at_rest()


@pytest.mark.qp("QP-084")
def test_a_cut_answer_to_a_1_0_client_is_a_reset() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(b"GET / HTTP/1.0\r\n\r\n")
        app = wires.dialled()
        app.says(CHUNKED_HEAD + b"5\r\nhello\r\n")
        app.leaves()
        assert client.transport.aborted
        wires.at_rest()


@pytest.mark.qp("QP-087")
def test_head_is_answered_without_body_and_keeps_its_length() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(GET.replace(b"GET", b"HEAD"))
        wires.app().says(HELLO.removesuffix(b"hello"))
        assert client.got() == HELLO.removesuffix(b"hello") and client.open
        client.says(GET)
        wires.app().says(HELLO)
        assert client.got() == HELLO
        wires.at_rest()


@pytest.mark.qp("QP-083")
def test_an_answer_may_begin_before_the_upload_has_ended() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(POST + b"he")
        app = wires.dialled()
        app.says(CHUNKED_HEAD + b"2\r\nHE\r\n")
        assert client.got() == CHUNKED_HEAD + b"2\r\nHE\r\n"
        client.says(b"llo")
        app.says(b"3\r\nLLO\r\n0\r\n\r\n")
        assert client.got() == b"3\r\nLLO\r\n0\r\n\r\n" and client.open
        wires.at_rest()
        assert wires.pool.take() is app.protocol


# === Timeouts. ===


@pytest.mark.qp("QP-171", "QP-179")
def test_response_start_acts_only_while_nothing_was_written() -> None:
    with Wires(timeouts=Timeouts(100.0, response_start=5.0)) as wires:
        silent, begun = wires.client(), wires.client()
        silent.says(GET)
        begun.says(GET)
        wires.dialled()
        app = wires.dialled()
        app.says(CHUNKED_HEAD)
        begun.got()
        wires.loop.advance(5.0)
        assert silent.got().startswith(b"HTTP/1.1 504 ")
        wires.loop.advance(50.0)
        app.says(b"0\r\n\r\n")
        assert begun.got() == b"0\r\n\r\n"
        assert [line[:2] for line in wires.log.lines] == [("warning", "Response start timeout: 5s")]
        wires.at_rest()


@pytest.mark.qp("QP-078", "QP-171")
def test_a_relayed_1xx_is_a_response_start_and_the_504_after_it_is_whole() -> None:
    with Wires(timeouts=Timeouts(20.0, response_start=5.0)) as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        app.says(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        assert client.got().startswith(b"HTTP/1.1 103 ")
        wires.loop.advance(19.9)
        assert client.got() == b""
        wires.loop.advance(0.1)
        assert client.got().startswith(b"HTTP/1.1 504 ")
        assert [line[:2] for line in wires.log.lines] == [("warning", "Request timeout: 20s")]
        wires.at_rest()


@pytest.mark.qp("QP-172", "QP-180", "QP-175")
def test_idle_is_rearmed_by_each_write_and_cuts_a_begun_answer() -> None:
    with Wires(timeouts=Timeouts(100.0, idle=5.0)) as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        app.says(CHUNKED_HEAD)
        for _ in range(4):
            wires.loop.advance(4.0)
            app.says(b"1\r\nx\r\n")
        wires.loop.advance(4.999)
        assert client.open
        wires.loop.advance(0.001)
        assert client.got() == CHUNKED_HEAD + b"1\r\nx\r\n" * 4 and not client.open
        assert app.transport.aborted
        wires.at_rest()


@pytest.mark.qp("QP-172", "QP-178")
def test_idle_without_a_write_is_504_and_the_next_request_starts_anew() -> None:
    with Wires(timeouts=Timeouts(100.0, idle=5.0)) as wires:
        client = wires.client()
        client.says(GET)
        app = wires.dialled()
        wires.loop.advance(4.0)
        app.says(HELLO)
        client.got()
        client.says(GET)
        wires.loop.advance(4.9)
        assert client.got() == b"", "the first request's time is not the second's"
        wires.loop.advance(0.1)
        assert client.got().endswith(b"request timeout") and client.open
        wires.at_rest()
