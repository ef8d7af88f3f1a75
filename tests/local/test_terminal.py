"""The status line on a real pseudo-terminal, read back as a terminal would show it."""

import asyncio
import fcntl
import os
import pty
import struct
import termios
import tty
from collections.abc import Iterator

import pytest

from queueproxy.local.terminal import RESET, StatusLine, fit

ROWS, COLUMNS = 10, 60


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    size(theirs, ROWS)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def size(fd: int, rows: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, COLUMNS, 0, 0))


def written(fd: int) -> bytes:
    os.set_blocking(fd, False)
    seen = b""
    try:
        while True:
            seen += os.read(fd, 65536)
    except BlockingIOError:
        return seen


def test_a_long_line_is_cut_and_shows_that_it_was() -> None:
    assert fit("abcdef", 6) == "abcdef"
    assert fit("abcdefg", 6) == "abcde…"
    assert fit("abc", 0) == "…"


def test_it_takes_the_last_row_out_of_the_scrolling_region_and_gives_it_back(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal

    async def main() -> None:
        line = StatusLine(theirs, asyncio.get_running_loop(), lambda: "awake")
        line.changed()
        shown = written(ours)
        assert b"\x1b[1;9r" in shown
        assert shown.endswith(b"\x1b7\x1b[10;1H\x1b[2K\x1b[7mawake\x1b[0m\x1b8")  # the cursor is where the app left it
        line.close()
        assert written(ours) == RESET
        line.close()
        assert written(ours) == b""

    asyncio.run(main())


def test_it_is_drawn_when_something_changed_at_most_four_times_a_second_and_by_no_timer_after(
    terminal: tuple[int, int],
) -> None:
    ours, theirs = terminal
    texts = iter(["one", "two", "three"])
    drawn: list[float] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def compose() -> str:
            drawn.append(loop.time())
            if len(drawn) == 2:
                done.set_result(None)
            return next(texts)

        line = StatusLine(theirs, loop, compose)
        for _ in range(1000):
            line.changed()
        assert len(drawn) == 1
        await done
        assert drawn[1] - drawn[0] >= 0.24
        assert line._timer is None  # nothing ticks while nothing changes
        line.close()

    asyncio.run(main())
    assert b"two" in written(ours)


def test_the_same_text_is_not_written_twice(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal

    async def main() -> None:
        line = StatusLine(theirs, asyncio.get_running_loop(), lambda: "asleep")
        line._draw()
        assert b"asleep" in written(ours)
        line._draw()
        assert written(ours) == b""
        size(theirs, ROWS + 5)
        line._next_at = 0.0
        line.resized()
        assert b"\x1b[1;14r" in written(ours)
        line.close()

    asyncio.run(main())


@pytest.mark.parametrize("rows", [0, 2])
def test_a_terminal_too_small_is_left_alone(terminal: tuple[int, int], rows: int) -> None:
    ours, theirs = terminal
    size(theirs, rows)

    async def main() -> None:
        line = StatusLine(theirs, asyncio.get_running_loop(), lambda: "awake")
        line.changed()
        line.close()

    asyncio.run(main())
    assert written(ours) == b""


def test_what_is_no_terminal_is_left_alone() -> None:
    reading, writing = os.pipe()

    async def main() -> None:
        line = StatusLine(writing, asyncio.get_running_loop(), lambda: "awake")
        line.changed()
        line.close()

    asyncio.run(main())
    assert written(reading) == b""
    os.close(reading)
    os.close(writing)
