"""What the HTTP protocols rely on, over TLS: half an end, an honest buffer, an end that waits for readers."""

import asyncio
import socket
import ssl
from typing import Any

import pytest

from queueproxy.net import tlstransport
from queueproxy.net.keypair import KeyPair
from queueproxy.net.tls import make_context
from queueproxy.net.tlsterms import Terms
from queueproxy.net.tlstransport import BUFFER, TlsTransport
from tests.support.tlsends import LOOPS, Client, Ends, Run, Talker, ends
from tests.support.tlspair import client_context, made, mount
from tests.support.waiting import until

LARGE = 6_000_000


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    folder = tmp_path_factory.mktemp("certs")
    pair = KeyPair.mounted(str(mount(folder / "certs", made(folder))))
    assert pair is not None
    return make_context(pair, Terms(oldest="1.2"), ("http/1.1",))


class Thread:
    """A client that reads when it is told to, outside the loop: a blocking socket in the default executor."""

    def __init__(self, here: Ends, *, version: str = "") -> None:
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.sock.settimeout(15)
        self._port = here.port
        self._context = client_context(newest=version)

    async def connected(self) -> "Thread":
        def connect() -> ssl.SSLSocket:
            self.sock.connect(("127.0.0.1", self._port))
            # A missing close_notify is an error here, as for careful clients.
            return self._context.wrap_socket(self.sock, server_hostname="a", suppress_ragged_eofs=False)

        self.sock = await self._do(connect)
        return self

    async def read(self, size: int) -> bytes:
        def read() -> bytes:
            data = b""
            while len(data) < size and (piece := self.sock.recv(65536)):
                data += piece
            return data

        return await self._do(read)

    async def _do(self, what: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(None, what)


async def talker(here: Ends, client: Client | None = None) -> Talker:
    await until(lambda: here.made)
    return here.made[-1]


@LOOPS
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_half_an_end_leaves_the_other_half(run: Run, context: ssl.SSLContext, version: str) -> None:
    async def scene() -> None:
        async with ends(lambda: context) as here:
            client = await Thread(here, version=version).connected()
            server = await talker(here)
            assert server.transport.can_write_eof()
            server.transport.write(b"last words")
            server.transport.write_eof()
            assert await client.read(1000) == b"last words"  # and then the end
            client.sock.sendall(b"I go on")
            await until(lambda: server.data == b"I go on")
            assert not server.lost
            client.sock.close()
            await until(lambda: server.lost)

    run(scene())


@LOOPS
def test_half_an_end_loses_nothing_that_waits_to_be_read(run: Run, context: ssl.SSLContext) -> None:
    """OpenSSL ends a connection that is told to end its side while data of the other wait in it."""

    async def scene() -> None:
        async with ends(lambda: context) as here:
            client = await Thread(here).connected()
            server = await talker(here)
            server.transport.pause_reading()
            client.sock.sendall(b"a" * 20_000)
            # The kernel has it all once it was acknowledged; the loop reads it in one of the next turns.
            for _ in range(20):
                await asyncio.sleep(0.005)
            server.transport.write_eof()
            assert await client.read(10) == b""
            server.transport.resume_reading()
            client.sock.sendall(b"b" * 20_000)
            await until(lambda: server.data == b"a" * 20_000 + b"b" * 20_000)
            client.sock.close()
            await until(lambda: server.lost)

    run(scene())


@LOOPS
def test_what_the_client_has_not_taken_is_counted_and_soon_too_much(run: Run, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        async with ends(lambda: context) as here:
            client = await Thread(here).connected()
            server = await talker(here)
            written = deepest = 0
            while not server.full:
                server.transport.write(b"z" * 16_384)
                written += 16_384
                await asyncio.sleep(0)
                assert written < LARGE
                below = server.transport._raw.get_write_buffer_size()
                assert server.transport.get_write_buffer_size() >= below
                deepest = max(deepest, below)
            assert deepest, "TCP's buffer was in use before TLS's"
            assert 0 < server.transport.get_write_buffer_size() <= 4 * BUFFER
            server.transport.write(b"z" * LARGE)
            assert server.transport.get_write_buffer_size() > LARGE / 2
            assert len(await client.read(written + LARGE)) == written + LARGE
            await until(lambda: server.transport.get_write_buffer_size() == 0)
            client.sock.close()
            await until(lambda: server.lost)

    run(scene())


@LOOPS
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_the_end_waits_for_a_slow_reader(
    run: Run, context: ssl.SSLContext, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlstransport, "PARTING", 0.02)  # many of them pass while it reads

    async def scene() -> None:
        async with ends(lambda: context) as here:
            client = await Thread(here, version=version).connected()
            server = await talker(here)
            server.transport.write(b"z" * LARGE)
            server.transport.close()
            assert server.transport.is_closing()
            for _ in range(10):
                assert len(await client.read(1000)) >= 1000
                await asyncio.sleep(0.01)
                assert not server.lost
                assert not server.transport._raw.is_closing(), "what the client says is still read"
            rest = len(await client.read(LARGE))
            assert rest > LARGE - 10 * 66_536
            assert await client.read(1) == b"", "with close_notify"
            await until(lambda: server.lost)
            client.sock.close()

    run(scene())


@LOOPS
def test_the_end_does_not_wait_for_a_client_that_says_nothing(
    run: Run, context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tlstransport, "PARTING", 0.1)

    async def scene() -> None:
        async with ends(lambda: context) as here:
            client = await Thread(here).connected()
            server = await talker(here)
            server.transport.close()
            server.transport.close()
            assert not server.lost
            await until(lambda: server.lost, within=5.0)
            assert server.lost == [None]
            assert await client.read(1) == b""
            client.sock.close()

    run(scene())


@LOOPS
def test_a_clients_close_notify_is_the_end(run: Run, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        async with ends(lambda: context) as here:
            client = await here.client()
            client.writer.write(b"bye")
            server = await talker(here)
            client.writer.close()
            await until(lambda: server.lost)
            assert (server.data, server.ended, server.lost) == (b"bye", True, [None])

    run(scene())


@LOOPS
def test_after_the_end_nothing_that_is_asked_does_harm(run: Run, context: ssl.SSLContext) -> None:
    async def scene() -> None:
        async with ends(lambda: context) as here:
            client = await here.client()
            server = await talker(here)
            transport = server.transport
            assert isinstance(transport, TlsTransport)
            assert transport.get_extra_info("peername")[0] == "127.0.0.1"
            assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert transport.get_protocol() is server
            transport.abort()
            await until(lambda: server.lost)
            transport.write(b"x")
            transport.writelines([b"x"])
            transport.pause_reading()
            transport.resume_reading()
            transport.write_eof()
            transport.close()
            transport.abort()
            assert transport.is_closing() and transport.get_write_buffer_size() == 0
            assert len(server.lost) == 1
            client.drop()

    run(scene())
