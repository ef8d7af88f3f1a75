"""Runs the real `queueproxy freezer` on a node of the e2e suite: uid 0 without a single capability, as its DaemonSet.

It sees the node's cgroups as a hostPath of a kubelet with `--cgroup-root` would show them: a mount namespace of its
own in which only this node's part of each hierarchy is bound below one directory.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from tests.support.e2e_listen import Log
from tests.support.e2e_node import CONTROLLERS, HOST_IP, Answer, Node

__all__ = ["Freezer"]

PORT, OPERATORS = 9696, 9697
START_WITHIN = 20.0
PATIENCE = 20.0
Settings = Mapping[str, Mapping[str, Any]]


class Freezer:
    """One node's freezer. It may be killed and started again."""

    def __init__(
        self, node: Node, kubeconfig: str, settings: Settings | None = None, hierarchies: Sequence[str] = CONTROLLERS
    ) -> None:
        """`hierarchies`: those it may see, of what the node has."""
        self.node = node
        self._mounts = [node.hierarchies[kind] for kind in hierarchies if kind in node.hierarchies]
        self.home = f"{node.home}/freezer"
        self.log = Log("freezer")
        self.process: subprocess.Popen[bytes] | None = None
        self.settings: dict[str, dict[str, Any]] = {
            "": {"node": node.name, "journal": f"{self.home}/journal"},
            "listen": {"sidecars": f"{HOST_IP}:{PORT}", "operators": f"127.0.0.1:{OPERATORS}", "plain-http": True},
            "kubernetes": {"kubeconfig": kubeconfig},
            "cgroups": {"root": f"{self.home}/cgroup"},
        }
        for table, entries in (settings or {}).items():
            self.settings[table] = {**self.settings.get(table, {}), **entries}
        os.makedirs(f"{self.home}/journal", mode=0o700)
        os.makedirs(f"{self.home}/cgroup")
        with open(f"{self.home}/freezer.toml", "w") as file:
            file.write(toml(self.settings))

    def __repr__(self) -> str:
        return f"<Freezer pid={self.process.pid if self.process else None} {self.log!r}>"

    def __enter__(self) -> Freezer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- life

    def start(self) -> Freezer:
        command = self.command("freezer", "--config", f"{self.home}/freezer.toml")
        self.process = self.node.listener.popen(command, self.log, env=self._env, cwd=self.home)
        return self

    def ready(self, within: float = START_WITHIN) -> Freezer:
        """Waits until its readiness probe succeeds."""
        until = monotonic() + within
        while True:
            with suppress(OSError):
                if self.ask("/readyz", timeout=2.0).status == 200:
                    return self
            assert self.process is not None
            assert self.process.poll() is None, f"it ended: {self.log.lines}"
            assert monotonic() < until, f"not ready within {within} s: {self.log!r}"
            threading.Event().wait(0.02)

    def kill(self) -> None:
        """As `kill -9`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self, within: float = PATIENCE) -> int:
        """By SIGTERM, as a DaemonSet is updated; its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    # -- talking to it

    def ask(self, path: str, *, timeout: float = PATIENCE, **options: Any) -> Answer:
        """On the operators' port, as somebody on the node."""
        return self.node.ask("127.0.0.1", OPERATORS, path, timeout=timeout, **options)

    def pods(self) -> list[dict[str, Any]]:
        """What it tells operators of each pod."""
        answer = json.loads(self.ask("/v1/pods").body)
        found: list[dict[str, Any]] = answer["pods"] if isinstance(answer, dict) else answer
        return found

    def command(self, *args: str) -> list[str]:
        """`queueproxy ARGS`, as it would be run on the node."""
        script = []
        for mount in dict.fromkeys(self._mounts):
            place = f"{self.home}/cgroup/{os.path.basename(mount)}"
            script += [f"mkdir -p {place}", f"mount --bind {mount}/{self.node.name} {place}"]
        # The mounts need a capability; what comes after them has none.
        program = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        program += [sys.executable, "-m", "queueproxy", *args]
        script.append(f"exec {shlex.join(program)}")
        return [
            *self.node.launch(), "unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join(script),
        ]  # fmt: skip

    def run(self, *args: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """One of the operator's commands."""
        return subprocess.run(
            self.command(*args),
            env=self._env,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    @property
    def rss(self) -> int:
        """Resident bytes."""
        assert self.process is not None
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

    @property
    def _env(self) -> dict[str, str]:
        # The code as it was when the node was made, like an image.
        return {"PATH": os.environ["PATH"], "PYTHONPATH": f"{self.node.home}/code", "HOME": self.home}


def toml(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """Strings, numbers, flags and lists of strings, which JSON writes the same way."""
    lines = []
    for table, entries in settings.items():
        lines += [f"[{table}]"] if table else []
        lines += [f"{name} = {json.dumps(value)}" for name, value in entries.items()]
    return "\n".join(lines) + "\n"
