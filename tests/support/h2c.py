"""Runs an app that speaks HTTP/2 without TLS and nothing else: Node's own server, in this network or another."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.netns import NetworkNamespace

PATIENCE = 30.0
_SCRIPT = Path(__file__).parent / "servers" / "h2c.js"


class H2c:
    """heard: the headers of each request, pseudo-headers included."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert process.stdout is not None
        self.port = int(process.stdout.readline())
        self.heard: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.heard.append(json.loads(line))
                self._news.notify_all()

    def until(self, what: Callable[[], bool]) -> None:
        with self._news:
            assert self._news.wait_for(what, PATIENCE), self.heard

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()


@contextmanager
def h2c_app(namespace: NetworkNamespace | None = None, port: int = 0) -> Iterator[H2c]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs the command node")
    start = subprocess.Popen if namespace is None else namespace.popen
    app = H2c(start([node, str(_SCRIPT), str(port)], stdout=subprocess.PIPE, text=True))
    try:
        yield app
    finally:
        app.stop()
