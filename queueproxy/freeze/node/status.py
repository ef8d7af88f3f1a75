"""Runs `queueproxy status`: the table of this node's pods, once or every second, from the freezer's operators' port.

Talks HTTP with the standard library to a freezer on this node. Without one there is one clear sentence and exit 1.
Names and reasons come from other people's pods, so nothing that is not printable reaches the terminal.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Any, Final, TextIO

from queueproxy.freeze.node.config import Address

__all__ = ["NoFreezer", "Operator", "status", "table"]

_WITHIN: Final = 3.0
_EVERY: Final = 1.0
_HOME_AND_CLEAR: Final = "\x1b[H\x1b[J"
_COLUMNS: Final = ("POD", "STATE", "SINCE", "WAKES", "ASLEEP", "CPU SAVED", "WHY", "BEFORE")
_RIGHT: Final = frozenset({"SINCE", "WAKES", "ASLEEP", "CPU SAVED"})
_WHY_MAX: Final = 40


class NoFreezer(Exception):
    """Nobody there, or somebody else."""


class Operator:
    """Calls a freezer's operators' port."""

    def __init__(self, address: Address) -> None:
        self.address = address

    def get(self, path: str) -> Any:
        """The JSON there."""
        return self._call("GET", path)

    def post(self, path: str) -> Any:
        return self._call("POST", path)

    def _call(self, method: str, path: str) -> Any:
        connection = _Unix(self.address.path) if self.address.path else http.client.HTTPConnection(
            self.address.host, self.address.port, timeout=_WITHIN
        )  # fmt: skip
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
            if response.status >= 400:
                raise NoFreezer(f"{self.address} answered {response.status}: {_detail(body)}")
            return json.loads(body)
        except (OSError, http.client.HTTPException) as error:
            raise NoFreezer(f"no freezer at {self.address}: {error or type(error).__name__}") from None
        except ValueError:
            raise NoFreezer(f"what answers at {self.address} is not a freezer") from None
        finally:
            connection.close()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_WITHIN)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_WITHIN)
        self.sock.connect(self._path)


def status(address: Address, out: TextIO, err: TextIO, *, as_json: bool, watch: bool, rounds: int | None = None) -> int:
    """0, or 1 when there is no freezer. `rounds` bounds a watch."""
    operator, pause = Operator(address), Event()
    try:
        while True:
            node = operator.get("/v1/pods")
            if not isinstance(node, dict) or not isinstance(node.get("pods"), list):
                raise NoFreezer(f"what answers at {address} is not a freezer")
            text = json.dumps(node) + "\n" if as_json else table(node)
            out.write(_HOME_AND_CLEAR + text if watch and not as_json else text)
            out.flush()
            rounds = None if rounds is None else rounds - 1
            if not watch or rounds == 0:
                return 0
            pause.wait(_EVERY)
    except NoFreezer as error:
        err.write(f"queueproxy status: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        return 0


def table(node: Mapping[str, Any]) -> str:
    """The page for people."""
    pods = node["pods"]
    asleep = sum(pod["state"] in ("frozen", "throttled") for pod in pods)
    head = f"node {_shown(node['node'])}: {len(pods)} pods, {asleep} asleep, up {duration(node['up_s'])}"
    if node["draining"]:
        head += ", draining"
    if not node["synced"]:
        head += ", no news from the API server yet"
    elif node["watch_stale_s"]:
        head += f", API server away for {duration(node['watch_stale_s'])}"
    rows = [_COLUMNS, *(_row(pod) for pod in pods)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [head, "", *(_line(row, widths) for row in rows)] if pods else [head]
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """For people: 340ms, 2.5s, 12s, 3m05s, 2h10m, 4d03h."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600:02d}h"


def _row(pod: Mapping[str, Any]) -> tuple[str, ...]:
    name = f"{pod['namespace']}/{pod['name']}" if pod["name"] else pod["uid"]
    why = pod["why"] or ("" if pod["connected"] else "no sidecar connected")
    before = ", ".join(f"{change['kind']} {duration(change['ago_s'])}" for change in pod["changes"][:3])
    return (
        _shown(name), pod["state"], duration(pod["since_s"]), str(pod["wakes"]), duration(pod["asleep_s"]),
        duration(pod["cpu_saved_s"]), _shown(why, _WHY_MAX), _shown(before),
    )  # fmt: skip


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = (
        text.rjust(width) if name in _RIGHT else text.ljust(width)
        for name, text, width in zip(_COLUMNS, row, widths, strict=True)
    )
    return "  ".join(cells).rstrip()


def _shown(text: str, longest: int = 200) -> str:
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _detail(body: bytes) -> str:
    try:
        return _shown(str(json.loads(body)["detail"]))
    except (ValueError, KeyError, TypeError):
        return ""
