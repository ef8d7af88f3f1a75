"""Upgraded connections: bytes both ways, half-close both ways, back-pressure, and when they end."""

import pytest

from queueproxy.proxy.deadline import Timeouts
from tests.support.wires import HIGH_WATER, AppWire, ClientWire, Wires

UPGRADE = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: Web\r\n\r\n"
SWITCH = b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: web\r\nX-Key: k\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nX-Key: k\r\nConnection: Upgrade\r\nUpgrade: web\r\n\r\n"


def upgraded(wires: Wires, early: bytes = b"", first: bytes = b"") -> tuple[ClientWire, AppWire]:
    client = wires.client()
    client.says(UPGRADE + early)
    app = wires.dialled()
    assert b"Connection: Upgrade\r\nUpgrade: Web\r\n" in app.got()
    app.says(SWITCH + first)
    assert client.got() == SWITCHED + first
    return client, app


@pytest.mark.qp("QP-080", "QP-144", "QP-154")
@pytest.mark.fz("FZ-029")
def test_bytes_pass_both_ways_and_the_request_counts_until_both_sides_are_done() -> None:
    with Wires(concurrency=1, freezing=True) as wires:
        client, app = upgraded(wires, early=b"early", first=b"first")
        assert app.got() == b"early" and client.transport.reading
        client.says(b"GET / HTTP/1.1\r\n\r\n")
        app.says(b"HTTP/1.1 nonsense")
        assert (app.got(), client.got()) == (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 nonsense")
        assert wires.levels == (1, 1, 1, 0, 1) and wires.plane.tunnels == 1
        client.ends()
        app.ends()
        wires.at_rest()
        assert 200 in wires.recorder.invocations, "what upstream records for a 101"


@pytest.mark.qp("QP-080")
def test_the_app_may_go_on_after_the_client_has_ended() -> None:
    with Wires() as wires:
        client, app = upgraded(wires)
        client.ends()
        assert app.transport.eof and not client.transport.is_closing()
        app.says(b"more")
        assert client.got() == b"more"
        app.ends()
        assert client.transport.lost and app.transport.lost
        wires.at_rest()


@pytest.mark.qp("QP-080")
def test_the_client_may_go_on_after_the_app_has_ended_and_its_last_words_arrive() -> None:
    with Wires() as wires:
        client, app = upgraded(wires)
        app.ends()
        assert client.transport.eof
        app.transport.taking = False
        client.says(b"last words")
        client.ends()
        wires.at_rest()
        assert app.got() == b"last words" and not app.transport.aborted and not app.transport.lost
        app.transport.take_all()
        wires.loop.settle()
        assert app.transport.lost


@pytest.mark.qp("QP-357")
def test_a_full_writer_on_one_side_stops_the_reader_on_the_other() -> None:
    with Wires() as wires:
        client, app = upgraded(wires)
        for reader, writer in ((client, app), (app, client)):
            writer.transport.taking = False
            reader.says(b"x" * (HIGH_WATER + 1))
            assert not reader.transport.reading
            writer.transport.take_all()
            assert reader.transport.reading
        assert client.transport.pauses == client.transport.resumes == 1
        assert app.transport.pauses == app.transport.resumes == 1
        client.leaves()
        wires.at_rest()


@pytest.mark.qp("QP-177")
def test_relayed_bytes_keep_an_idle_timeout_away_and_silence_does_not() -> None:
    with Wires(timeouts=Timeouts(100.0, response_start=5.0, idle=5.0)) as wires:
        client, app = upgraded(wires)
        for _ in range(5):
            wires.loop.advance(4.0)
            app.says(b"x")
        assert client.open
        wires.loop.advance(5.0)
        assert not client.open and app.transport.is_closing()
        wires.at_rest()


@pytest.mark.qp("QP-172", "QP-177")
def test_what_the_client_says_is_no_sign_of_life_of_the_app() -> None:
    with Wires(timeouts=Timeouts(100.0, idle=5.0)) as wires:
        client, app = upgraded(wires)
        wires.loop.advance(4.0)
        client.says(b"anybody there?")
        wires.loop.advance(1.0)
        assert not client.open and app.transport.is_closing()
        wires.at_rest()


@pytest.mark.qp("QP-357")
def test_each_read_is_one_write_on_the_other_side() -> None:
    with Wires() as wires:
        client, app = upgraded(wires)
        before = client.transport.writes, app.transport.writes
        for _ in range(3):
            client.says(b"ping")
            app.says(b"pong")
            assert (app.got(), client.got()) == (b"ping", b"pong")
        assert (client.transport.writes, app.transport.writes) == (before[0] + 3, before[1] + 3)
        client.leaves()
        wires.at_rest()


@pytest.mark.qp("QP-176")
def test_max_duration_ends_it_however_busy() -> None:
    with Wires(timeouts=Timeouts(10.0)) as wires:
        client, app = upgraded(wires)
        wires.loop.advance(9.0)
        app.says(b"x")
        wires.loop.advance(1.0)
        assert not client.open and app.transport.is_closing()
        wires.at_rest()


@pytest.mark.qp("QP-080")
def test_a_101_before_the_request_was_whole_is_502_and_its_body_no_protocol() -> None:
    with Wires() as wires:
        client = wires.client()
        client.says(UPGRADE.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe"))
        app = wires.dialled()
        app.says(SWITCH)
        assert client.got().startswith(b"HTTP/1.1 502 ") and app.transport.aborted
        client.says(b"llo\r\n0\r\n\r\n")
        assert client.open
        wires.at_rest()
