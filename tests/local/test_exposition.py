"""The metrics page of a run, over a real connection."""

import asyncio
import socket

import pytest

from queueproxy.local.exposition import Exposition
from queueproxy.metrics.pause import PauseCounts
from queueproxy.metrics.recorder import Recorder
from queueproxy.metrics.window import Window
from queueproxy.net.listen import ListenFailed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def fetch(port: int, path: str) -> tuple[bytes, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return head.split(b"\r\n")[0], body


@pytest.mark.fz("FZ-100")
def test_the_page_is_served_and_other_paths_are_not() -> None:
    async def main() -> None:
        port, exposition = free_port(), Exposition()
        pause = PauseCounts(0.0)
        pause.moved("running", "frozen", "idle", "ok", 1.0)
        loop = asyncio.get_running_loop()
        await exposition.open(loop, "127.0.0.1", port, Recorder(Window(0.0)), pause)
        status, body = await fetch(port, "/metrics")
        assert status == b"HTTP/1.1 200 OK"
        assert b'kn_serving_pause_state{state="frozen"} 1.0' in body
        assert (await fetch(port, "/"))[0] == b"HTTP/1.1 404 Not Found"
        exposition.close()
        with pytest.raises(ConnectionRefusedError):
            await fetch(port, "/metrics")

    asyncio.run(main())


def test_a_taken_port_is_told_by_an_exception_and_closing_is_harmless() -> None:
    async def main() -> None:
        exposition = Exposition()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(ListenFailed, match="address already in use"):
                await exposition.open(
                    asyncio.get_running_loop(),
                    "127.0.0.1",
                    taken.getsockname()[1],
                    Recorder(Window(0.0)),
                    PauseCounts(0.0),
                )
        exposition.close()

    asyncio.run(main())
