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
    assert client.got() == ANSWER and client.open and wires.pool.take(certain=False) is None


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
