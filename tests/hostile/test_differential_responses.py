"""What we forward of a hostile answer is read alike by independent clients, and the next answer is the next."""

import asyncio
import http.client
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import aiohttp
import pytest

from tests.hostile.corpus import Case, corpus

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("differential")]

OWN = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nown"
FRAMING = frozenset((b"content-length", b"transfer-encoding", b"trailer"))
CASES = [
    case
    for case in corpus("responses")
    if case.outcomes[0].kind == "forward" and not case.large  # clients limit a head to 64 KB or less
]


class Read(NamedTuple):
    """What a client took the answer for."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes


def read_of(status: int, fields: list[tuple[bytes, bytes]], body: bytes) -> Read:
    kept = sorted((name.lower(), value) for name, value in fields)
    return Read(status, [field for field in kept if field[0] not in FRAMING], body)


@contextmanager
def replayed(path: Path, *answers: bytes) -> Iterator[Path]:
    """A server that gives these answers, one for each request, on one connection if the client likes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    listener.settimeout(15)

    def serve() -> None:
        with suppress(OSError):
            peer, _ = listener.accept()
            for answer in answers:
                peer.settimeout(15)
                head = b""
                while not head.endswith(b"\r\n\r\n"):
                    data = peer.recv(65536)
                    head += data
                    if not data:  # a client may prefer a new connection
                        peer.close()
                        peer, _ = listener.accept()
                peer.sendall(answer)
            peer.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield path
    finally:
        listener.close()
        thread.join(15)
        path.unlink()


def by_http_client(path: Path, method: str) -> tuple[Read, bytes]:
    connection = http.client.HTTPConnection("a")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(15)
    connection.sock.connect(str(path))
    connection.request(method, "/")
    answer = connection.getresponse()
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.getheaders()]
    read = read_of(answer.status, fields, answer.read())
    connection.request("GET", "/next")
    following = connection.getresponse().read()
    connection.close()
    return read, following


def by_aiohttp(path: Path, method: str) -> tuple[Read, bytes]:
    async def both() -> tuple[Read, bytes]:
        connector = aiohttp.UnixConnector(str(path), limit=1)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            async with session.request(method, "http://a/", allow_redirects=False) as answer:
                read = read_of(answer.status, list(answer.raw_headers), await answer.read())
            async with session.get("http://a/next") as answer:
                return read, await answer.read()

    return asyncio.run(both())


def by_curl(path: Path, method: str) -> tuple[Read, bytes]:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs the command curl")
    head, body = path.with_suffix(".head"), path.with_suffix(".body")
    how = ["--head"] if method == "HEAD" else []
    done = subprocess.run(
        [curl, "-sS", "--max-time", "15", "--unix-socket", str(path), *how, "-D", str(head), "-o", str(body), "http://a/",
         "--next", "-sS", "--max-time", "15", "--unix-socket", str(path), "http://a/next"],
        capture_output=True, timeout=40, check=True,
    )  # fmt: skip
    final = [block for block in head.read_bytes().split(b"\r\n\r\n") if block.startswith(b"HTTP/1.1 ")]
    last = next(block for block in final if block[9:10] != b"1")
    first, *lines = last.split(b"\r\n")
    fields = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    taken = body.read_bytes() if body.exists() and method != "HEAD" else b""
    return read_of(int(first[9:12]), fields, taken), done.stdout


CLIENTS = {"http.client": by_http_client, "aiohttp": by_aiohttp, "curl": by_curl}
PAIRS = [
    pytest.param(client, case, id=f"{client}-{case.name}")
    for client in CLIENTS
    for case in CASES
    # http.client takes a 103 for the final answer
    if client != "http.client" or case.outcomes[0].out.count(b"\r\n\r\n") == 1
]


@pytest.mark.qp("QP-200")
@pytest.mark.parametrize(("client", "case"), PAIRS)
def test_all_clients_read_what_we_meant(client: str, case: Case, tmp_path: Path) -> None:
    (outcome,) = case.outcomes
    method = "HEAD" if case.settings.get("ask") == "HEAD" else "GET"
    heads = outcome.out.split(b"\r\n\r\n")[:-1]
    data = outcome.out + outcome.body
    if b"\r\nTransfer-Encoding: chunked\r\n" in outcome.out:
        chunk = b"%x\r\n%b\r\n" % (len(outcome.body), outcome.body) if outcome.body else b""
        data = outcome.out + chunk + b"0\r\n" + b"".join(outcome.trailers) + b"\r\n"
    first, *lines = heads[-1].split(b"\r\n")
    fields = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    with replayed(tmp_path / "s", data, OWN) as path:
        read, following = CLIENTS[client](path, method)
    assert read == read_of(int(first[9:12]), fields, outcome.body)
    assert following == b"own"
