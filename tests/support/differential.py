"""Runs independent HTTP servers that report how they read a request: Node, aiohttp, uvicorn with h11, nginx, haproxy.

Each answers without a body and with a field `X-Report`: what it took for method, target, fields and content. nginx and
haproxy report through a recorder behind them, so what they would send on is compared. All of them listen on Unix
sockets in one directory: no ports, no namespace, no root. aiohttp runs without its C extension, which is llhttp again.

`python -m tests.support.differential aiohttp SOCKET` is the aiohttp server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

PATIENCE = 15.0
ENOUGH = 2.0  # seconds for a server that is expected to say nothing, or nothing more
SENTINEL = b"GET /sentinel HTTP/1.1\r\nHost: sentinel\r\nConnection: close\r\n\r\n"
ROOT = Path(__file__).parents[2]

# Framing and hop-by-hop fields differ between hops by right; content and target say whether they were read alike.
PER_HOP = frozenset((
    "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "expect",
))  # fmt: skip

NODE = r"""
const http = require('http'), crypto = require('crypto');
const perHop = new Set(JSON.parse(process.argv[1]));
const sha = (buffer) => crypto.createHash('sha256').update(buffer).digest('hex');
const server = http.createServer({ maxHeaderSize: 4 << 20 }, (request, response) => {
  const pieces = [];
  request.on('data', (piece) => pieces.push(piece));
  request.on('end', () => {
    let fields = [];
    for (let i = 0; i < request.rawHeaders.length; i += 2) {
      const name = request.rawHeaders[i].toLowerCase();
      if (!perHop.has(name)) fields.push([name, request.rawHeaders[i + 1]]);
    }
    fields.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0));
    const short = (text) => text.length > 300 ? sha(Buffer.from(text, 'latin1')) : text;
    const lines = fields.map((field) => field.join(': ')).join('\n');
    const report = {
      method: short(request.method), target: short(request.url), fields: short(lines),
      content: sha(Buffer.concat(pieces)),
    };
    response.setHeader('X-Report', Buffer.from(JSON.stringify(report), 'latin1').toString('base64'));
    response.setHeader('Content-Length', 0);
    response.end();
  });
});
server.maxHeadersCount = 0;
server.keepAliveTimeout = 500;
server.listen(process.argv[2]);
"""

NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/nginx.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_max_body_size 0; client_header_buffer_size 8k; large_client_header_buffers 4 1m;
  underscores_in_headers on; ignore_invalid_headers off; merge_slashes off;
  client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{
    listen unix:{directory}/nginx;
    location / {{
      proxy_pass http://unix:{directory}/recorder; proxy_http_version 1.1;
      proxy_set_header Host $http_host; proxy_set_header Connection "";
    }}
  }}
}}
"""

HAPROXY = """
global
  tune.bufsize 1048576
  tune.maxrewrite 8192
  tune.http.maxhdr 32767
  maxconn 64
defaults
  mode http
  timeout connect 10s
  timeout client 3s
  timeout server 3s
frontend front
  bind unix@{directory}/haproxy
  default_backend recorder
backend recorder
  server recorder unix@{directory}/recorder
"""


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("latin-1")).hexdigest() if len(text) > 300 else text


def report_of(method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], content: bytes) -> dict[str, str]:
    """What every server says of a request; long texts by their hash."""
    kept = [(name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")) for name, value in fields]
    kept = sorted((field for field in kept if field[0] not in PER_HOP), key=lambda field: field[0])
    return {
        "method": _short(method.decode("latin-1")),
        "target": _short(target.decode("latin-1")),
        "fields": _short("\n".join(f"{name}: {value}" for name, value in kept)),
        "content": hashlib.sha256(content).hexdigest(),
    }


def _encoded(report: dict[str, str]) -> str:
    return base64.b64encode(json.dumps(report, ensure_ascii=False).encode("latin-1")).decode()


# -- the recorder behind nginx and haproxy: reads what they send, strictly


class Incomplete(Exception):
    pass


def parsed(data: bytes) -> tuple[dict[str, str], bytes]:
    """(report, what follows) of the request that data begins with; an AssertionError for anything sloppy."""
    head, mark, rest = data.partition(b"\r\n\r\n")
    if not mark:
        raise Incomplete
    lines = head.split(b"\r\n")
    assert b"\n" not in head.replace(b"\r\n", b""), head
    method, target, version = lines[0].split(b" ")
    assert version == b"HTTP/1.1", head
    fields = []
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        assert colon and name and not name[:1].isspace(), line
        fields.append((name, value))
    framing = [(name.lower(), value.strip()) for name, value in fields]
    lengths = [value for name, value in framing if name == b"content-length"]
    codings = [value for name, value in framing if name == b"transfer-encoding"]
    assert len(lengths) + len(codings) <= 1, head
    content = b""
    if codings:
        assert codings == [b"chunked"], head
        while True:
            line, mark, rest = rest.partition(b"\r\n")
            if not mark:
                raise Incomplete
            size = int(line, 16)
            if len(rest) < size + 2:
                raise Incomplete
            if size == 0:
                break
            content += rest[:size]
            assert rest[size : size + 2] == b"\r\n"
            rest = rest[size + 2 :]
        while not rest.startswith(b"\r\n"):
            _, mark, rest = rest.partition(b"\r\n")
            if not mark:
                raise Incomplete
        rest = rest[2:]
    elif lengths:
        size = int(lengths[0])
        if len(rest) < size:
            raise Incomplete
        content, rest = rest[:size], rest[size:]
    return report_of(method, target, fields, content), rest


class Recorder:
    """A listening socket and a thread for each connection."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                peer, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        held = b""
        with peer:
            peer.settimeout(PATIENCE)
            while True:
                try:
                    report, held = parsed(held)
                except Incomplete:
                    try:
                        data = peer.recv(1 << 18)
                    except OSError:
                        return
                    if not data:
                        return
                    held += data
                    continue
                except (AssertionError, ValueError):
                    peer.sendall(b"HTTP/1.1 599 Sloppy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    return
                line = b"X-Report: " + _encoded(report).encode()
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + line + b"\r\n\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


# -- the Python servers


async def _serve_aiohttp(path: str) -> None:
    from aiohttp import web

    async def report(request: web.BaseRequest) -> web.Response:
        content = await request.read()
        said = report_of(request.method.encode(), request.raw_path.encode(), list(request.raw_headers), content)
        return web.Response(headers={"X-Report": _encoded(said)})

    runner = web.ServerRunner(web.Server(report, max_line_size=1 << 21, max_field_size=1 << 21, max_headers=1 << 15))
    await runner.setup()
    await web.UnixSite(runner, path).start()
    await asyncio.Event().wait()


async def application(scope: Any, receive: Any, send: Any) -> None:
    """For uvicorn."""
    content = b""
    while True:
        event = await receive()
        content += event.get("body", b"")
        if not event.get("more_body"):
            break
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    said = report_of(scope["method"].encode(), scope["raw_path"] + query, list(scope["headers"]), content)
    headers = [(b"x-report", _encoded(said).encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


# -- all of them


def _commands(directory: Path) -> dict[str, list[str]]:
    paths = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    node, nginx, haproxy = (shutil.which(tool, path=paths) for tool in ("node", "nginx", "haproxy"))
    commands = {
        "aiohttp": [sys.executable, "-m", "tests.support.differential", "aiohttp", str(directory / "aiohttp")],
        "uvicorn": [
            sys.executable, "-m", "uvicorn", "--http", "h11", "--ws", "none", "--lifespan", "off",
            "--log-level", "error", "--h11-max-incomplete-event-size", str(1 << 21),
            "--uds", str(directory / "uvicorn"), "tests.support.differential:application",
        ],
    }  # fmt: skip
    if node:
        commands["node"] = [node, "-e", NODE, json.dumps(sorted(PER_HOP)), str(directory / "node")]
    if nginx:
        (directory / "nginx.conf").write_text(NGINX.format(directory=directory))
        commands["nginx"] = [nginx, "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", "nginx.log"]
    if haproxy:
        (directory / "haproxy.conf").write_text(HAPROXY.format(directory=directory))
        commands["haproxy"] = [haproxy, "-db", "-f", str(directory / "haproxy.conf")]
    return commands


SERVERS = ("node", "aiohttp", "uvicorn", "nginx", "haproxy")


class Readers:
    """The servers that this machine has, running. `here` are their names."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._recorder = Recorder(directory / "recorder")
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        env = {**os.environ, "AIOHTTP_NO_EXTENSIONS": "1", "PYTHONPATH": str(ROOT)}
        for name, command in _commands(directory).items():
            with (directory / f"{name}.out").open("wb") as out:
                self._processes[name] = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=out)
        self.here = tuple(name for name in SERVERS if name in self._processes)

    def __repr__(self) -> str:
        return f"<Readers {' '.join(self.here)}>"

    def started(self) -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        for name in self.here:
            while True:
                try:
                    self._connect(name).close()
                    break
                except OSError:
                    said = (self._directory / f"{name}.out").read_text(errors="replace")
                    assert self._processes[name].poll() is None, f"{name} ended: {said}"
                    assert time.monotonic() < deadline, f"{name} does not listen: {said}"
                    threading.Event().wait(0.02)

    def close(self) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(PATIENCE)
        self._recorder.close()

    def _connect(self, name: str) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(PATIENCE)
        try:
            peer.connect(str(self._directory / name))
        except OSError:
            peer.close()
            raise
        return peer

    def read(self, name: str, stream: bytes, *, patience: float = PATIENCE) -> list[dict[str, str] | int]:
        """How that server reads the stream: a report for each request, or the status of a refusal."""
        pieces = []
        with self._connect(name) as peer:
            peer.settimeout(patience)
            try:
                peer.sendall(stream)
                while data := peer.recv(1 << 16):
                    pieces.append(data)
            except (ConnectionResetError, BrokenPipeError, TimeoutError):
                pass  # what was said before counts
        said: list[dict[str, str] | int] = []
        for head in b"".join(pieces).split(b"\r\n\r\n"):
            if not head.startswith(b"HTTP/1.1 "):
                continue
            status = int(head[9:12])
            reports = [line[9:].strip() for line in head.split(b"\r\n") if line[:9].lower() == b"x-report:"]
            if reports:
                said.append(json.loads(base64.b64decode(reports[0]).decode("latin-1")))
            elif status >= 200:
                said.append(status)
        return said


@contextmanager
def readers() -> Iterator[Readers]:
    """All servers of this machine, gone afterwards."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qp-")))
        servers = Readers(directory)
        stack.callback(servers.close)
        servers.started()
        yield servers


if __name__ == "__main__":
    assert sys.argv[1] == "aiohttp"
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve_aiohttp(sys.argv[2]))
