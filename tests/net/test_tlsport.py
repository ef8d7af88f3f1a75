"""The port as the sidecar holds it: nothing without a certificate, looks at the files, goes away at the end."""

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from queueproxy.config import TlsSettings
from queueproxy.net import tlsport
from queueproxy.net.keypair import TlsFailed
from queueproxy.net.listen import ListenFailed
from queueproxy.net.tls import LOADED
from queueproxy.net.tlsport import LOOK_EVERY, TlsPort
from tests.support.tlsends import LOOPS, Run, Talker, Told
from tests.support.tlspair import Pair, client_context, made, mount
from tests.support.waiting import until


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Pair]:
    folder = tmp_path_factory.mktemp("made")
    return [made(folder, name) for name in ("kn-user-one", "kn-user-two")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def port_of(directory: Path, told: Told) -> TlsPort:
    return TlsPort(asyncio.get_running_loop(), str(directory), TlsSettings(), {"http/1.1": Talker}, told)


@pytest.mark.slow
@pytest.mark.qp("QP-047", "QP-320")
def test_without_a_certificate_nothing_happens_and_none_of_tls_is_loaded() -> None:
    program = """
import asyncio, sys
from queueproxy.config import TlsSettings
from queueproxy.net.tlsport import TlsPort
async def main():
    port = TlsPort(asyncio.get_running_loop(), "/nowhere", TlsSettings(), {}, None)
    await port.open(1)
    port.close()
asyncio.run(main())
names = ["tls", "tlsdoor", "tlstransport", "tlsterms", "groups"]
print([name for name in names if "queueproxy.net." + name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "[]\n"


@LOOPS
@pytest.mark.qp("QP-323", "QP-310")
def test_it_serves_looks_and_goes_away(
    run: Run, pairs: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LOOK_EVERY <= 60.0
    monkeypatch.setattr(tlsport, "LOOK_EVERY", 0.02)

    async def scene() -> None:
        directory, told, number = mount(tmp_path / "certs", pairs[0]), Told(), free_port()
        port = port_of(directory, told)
        await port.open(number)
        assert [line for line, _ in told.lines] == [
            "Starting to watch the following directories for changes",
            LOADED,
            f"Starting tls server main :{number}",
        ]
        reader, writer = await asyncio.open_connection("127.0.0.1", number, ssl=client_context())
        mount(directory, pairs[1])
        await until(lambda: [line for line, _ in told.lines].count(LOADED) == 2)
        port.close()
        assert told.lines[-1][0] == "Shutting down server: main tls"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", number)
        mount(directory, pairs[0])
        for _ in range(5):
            await asyncio.sleep(0.02)
        assert [line for line, _ in told.lines].count(LOADED) == 2, "it has stopped looking"
        port.close()
        assert not reader.at_eof(), "who is in may stay"
        writer.transport.abort()

    run(scene())


@LOOPS
@pytest.mark.qp("QP-324", "QP-011")
def test_what_is_wrong_at_start_ends_the_start(run: Run, pairs: list[Pair], tmp_path: Path) -> None:
    async def scene() -> None:
        broken = mount(tmp_path / "broken", Pair(pairs[0].certificate, pairs[1].key))
        with pytest.raises(TlsFailed, match=r"^failed to create certWatcher: failed to parse certificate: "):
            await port_of(broken, Told()).open(1)
        with socket.create_server(("", 0)) as taken:
            number = taken.getsockname()[1]
            words = rf"^main server failed to serve: listen tcp :{number}: bind: address already in use$"
            with pytest.raises(ListenFailed, match=words):
                await port_of(mount(tmp_path / "fine", pairs[0]), Told()).open(number)

    run(scene())
