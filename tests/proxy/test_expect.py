"""`Expect: 100-continue`: said once, by the app or by us, and a connection is closed where the upload is uncertain."""

import pytest

from queueproxy.proxy.expect import CONTINUE_AFTER
from tests.support.wires import HELLO, POST, Wires

ASKING = POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.qp("QP-079")
def test_the_expectation_is_forwarded_and_the_apps_100_relayed_once() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(ASKING)
        app = wires.dialled()
        assert b"Expect: 100-continue\r\n" in app.got()
        app.says(GO_ON)
        app.says(GO_ON)
        wires.loop.advance(10 * CONTINUE_AFTER)
        assert client.got() == GO_ON
        client.says(b"hello")
        assert app.got() == b"hello"
        app.says(HELLO)
        assert client.got() == HELLO and client.open
        wires.at_rest()


@pytest.mark.qp("QP-079")
def test_when_the_app_is_silent_we_say_it_after_a_second_and_not_again() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(ASKING)
        app = wires.dialled()
        wires.loop.advance(CONTINUE_AFTER - 0.001)
        assert client.got() == b""
        wires.loop.advance(0.001)
        assert client.got() == GO_ON
        app.says(GO_ON)
        assert client.got() == b""
        client.says(b"hello")
        app.says(HELLO)
        assert client.got() == HELLO and client.open
        wires.at_rest()


@pytest.mark.qp("QP-079")
@pytest.mark.parametrize("end", ["answer", "refused", "app gone"])
def test_a_final_answer_before_the_100_closes_because_the_upload_is_uncertain(end: str) -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(ASKING)
        if end == "refused":
            wires.refused()
        else:
            app = wires.dialled()
            if end == "answer":
                app.says(HELLO)
            else:
                app.leaves()
            assert app.transport.is_closing(), "half a request was sent on it"
        assert b"Connection: close\r\n" in client.got() and client.transport.eof
        client.says(b"hello")  # swallowed
        wires.loop.advance(10 * CONTINUE_AFTER)
        assert client.transport.lost and client.got() == b""
        wires.at_rest()


@pytest.mark.qp("QP-079")
def test_a_client_that_did_not_wait_keeps_its_connection() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(ASKING + b"hello")
        app = wires.dialled()
        assert app.got().endswith(b"hello")
        app.says(HELLO)
        assert client.got() == HELLO and client.open
        wires.at_rest()
        wires.loop.advance(10 * CONTINUE_AFTER)
        assert client.got() == b""


def test_a_1_0_client_hears_no_100() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(ASKING.replace(b"HTTP/1.1", b"HTTP/1.0"))
        app = wires.dialled()
        wires.loop.advance(10 * CONTINUE_AFTER)
        assert client.got() == b""
        client.says(b"hello")
        app.says(HELLO)
        assert client.got().endswith(b"hello")
        wires.at_rest()


@pytest.mark.qp("QP-132")
def test_a_client_that_leaves_while_expecting_leaves_no_timer() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(ASKING)
        wires.dialled()
        client.leaves()
        assert wires.loop.timers == 0
        wires.at_rest()
