"""What is asked of a connection before its transport is made happens, once, in order."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from queueproxy.proxy.unmade import Unmade
from tests.support.wires import Clock, Loop, Transport

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


class Heard:
    """A protocol."""

    def pause_writing(self) -> None:
        pass

    def connection_lost(self, _: Exception | None) -> None:
        pass


def transport() -> Transport:
    return Transport(Loop(Clock()), Heard())


def test_what_is_written_leaves_at_once(ends: Ends) -> None:
    ours, theirs = ends
    unmade = Unmade(ours)
    unmade.write(b"GET / ")
    unmade.writelines([b"HTTP/1.1\r\n", b"\r\n"])
    assert theirs.recv(100) == b"GET / HTTP/1.1\r\n\r\n"
    made = transport()
    unmade.made(made)  # type: ignore[arg-type]
    assert made.out == b""
    unmade.write(b"more")
    assert made.out == b"more" and unmade.handed_over() is made


def test_what_the_kernel_does_not_take_follows_in_order_through_the_transport(ends: Ends) -> None:
    ours, theirs = ends
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    unmade = Unmade(ours)
    said = bytes(range(256)) * 400
    unmade.write(said)
    unmade.write(b"the end")
    early = b""
    try:
        while piece := theirs.recv(1 << 20):
            early += piece
    except BlockingIOError:
        pass
    assert 0 < len(early) < len(said)
    unmade.write(b".")  # there is room again, but it is not its turn
    made = transport()
    made._write = made.write  # type: ignore[attr-defined]
    made.write = lambda data: made._write(bytes(data))  # type: ignore[attr-defined,method-assign]
    unmade.made(made)  # type: ignore[arg-type]
    assert early + made.out == said + b"the end."


def test_a_broken_connection_is_left_to_the_transport_to_find(ends: Ends) -> None:
    ours, theirs = ends
    theirs.close()
    unmade = Unmade(ours)
    unmade.write(b"GET")
    made = transport()
    made.write = lambda data: None  # type: ignore[method-assign]
    unmade.made(made)  # type: ignore[arg-type]
    assert not made.closing


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("how", ["close", "abort"])
def test_an_end_waits_until_the_transport_is_handed_over(ends: Ends, how: str, before: bool) -> None:
    unmade = Unmade(ends[0])
    made = transport()
    if before:
        getattr(unmade, how)()
    unmade.made(made)  # type: ignore[arg-type]
    if not before:
        getattr(unmade, how)()
    assert unmade.is_closing() and not made.closing, "uvloop would close the descriptor twice"
    unmade.handed_over()
    assert made.closing and made.aborted is (how == "abort")


def test_an_abort_is_not_softened_by_a_close_after_it(ends: Ends) -> None:
    unmade = Unmade(ends[0])
    made = transport()
    unmade.abort()
    unmade.close()
    unmade.made(made)  # type: ignore[arg-type]
    unmade.handed_over()
    assert made.aborted


@pytest.mark.parametrize("again", [True, False])
def test_the_wish_not_to_read_is_kept_until_the_transport_would_keep_to_it(ends: Ends, again: bool) -> None:
    unmade = Unmade(ends[0])
    unmade.pause_reading()
    made = transport()
    unmade.made(made)  # type: ignore[arg-type]
    assert made.reading, "too early: uvloop starts reading after `connection_made`"
    if again:
        unmade.resume_reading()
    assert unmade.handed_over() is made
    assert made.reading is again


def test_it_knows_its_socket(ends: Ends) -> None:
    unmade = Unmade(ends[0])
    assert unmade.get_extra_info("socket") is ends[0]
    assert unmade.get_extra_info("peername", "?") == "?"
