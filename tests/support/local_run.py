"""Runs `queueproxy run --json` as a user would, and reads what it says: the harness of tests/behaviour/test_run_*."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from queueproxy.freeze.node.hierarchy import Mounts
from queueproxy.local import placement, procfs
from queueproxy.local.procfs import Identity

TICKER = str(Path(__file__).with_name("ticking_app.py"))
Event = dict[str, Any]
# Bounds every wait for something that must happen; slow machines set it higher.
PATIENCE = float(os.environ.get("QP_TEST_PATIENCE", "15"))


class LocalRun:
    """One run. `events` are its JSON lines, `output` the lines of its stderr and of the app's output."""

    def __init__(
        self,
        *flags: str,
        command: Sequence[str] = (),
        environ: dict[str, str] | None = None,
        around: Sequence[str] = (),
    ) -> None:
        """`around` is a command that runs the run, and becomes it by exec."""
        app = list(command) or [sys.executable, "-u", TICKER]
        arguments = [sys.executable, "-m", "queueproxy", "run", "--port", "0", "--metrics-port", "0", "--json", *flags]
        self.process = subprocess.Popen(
            [*around, *arguments, "--", *app],
            env={**os.environ, **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.events: list[Event] = []
        self.output: list[str] = []
        self._news = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read_events, daemon=True),
            threading.Thread(target=self._read_output, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Nothing outlives a test, whatever it did."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for reader in self._readers:
            reader.join(15)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()

    def _read_output(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.output.append(line.rstrip("\n"))
                self._news.notify_all()

    # -- what it says

    def until(self, what: Callable[[], Any], within: float = PATIENCE) -> Any:
        """Wait for events or output until `what` is true; its value."""
        with self._news:
            happened = self._news.wait_for(what, within)
        assert happened, f"not within {within} s; events {self.events[-5:]}, output {self.output[-20:]}"
        return happened

    def event(self, name: str, within: float = PATIENCE, **fields: Any) -> Event:
        """The first event of that name with those fields, waiting for it."""
        return self.until(lambda: self._find(name, fields), within)

    def _find(self, name: str, fields: dict[str, Any]) -> Event | None:
        for event in self.events:
            if event["event"] == name and all(event.get(key) == value for key, value in fields.items()):
                return event
        return None

    def states(self, to: str | None = None) -> list[Event]:
        return [event for event in self.events if event["event"] == "state" and to in (None, event["to"])]

    def asleep(self, times: int = 1, within: float = PATIENCE, *, rung: str = "frozen") -> Event:
        """Wait until the app has fallen asleep for the n-th time and not woken since."""

        def is_so() -> Event | None:
            states = self.states()
            fallen = [event for event in states if event["to"] == rung]
            return states[-1] if len(fallen) >= times and states[-1]["to"] == rung else None

        found: Event = self.until(is_so, within)
        return found

    @property
    def port(self) -> int:
        return int(self.event("serving")["port"])

    @property
    def started(self) -> Event:
        return self.event("started")

    @property
    def app(self) -> Identity:
        found = procfs.identity(self.started["pid"])
        assert found is not None
        return found

    def ready(self) -> Self:
        self.event("ready")
        return self

    def ended(self, within: float = PATIENCE + 5) -> int:
        """Wait for the end; the exit status."""
        status = self.process.wait(within)
        for reader in self._readers:
            reader.join(within)
        return status

    def ticks(self) -> list[float]:
        """When the app ticked, on the machine's monotonic clock."""
        return [float(line.split()[1]) for line in list(self.output) if line.startswith("tick ")]

    def naps(self) -> list[tuple[float, float]]:
        """When the app was asleep for certain: from each confirmed freeze to the moment its thaw was asked for."""
        began = self.started["began_at_monotonic_s"]
        naps: list[tuple[float, float]] = []
        fell: float | None = None
        for event in self.states():
            if event["to"] == "frozen":
                fell = began + event["at_s"]
            elif fell is not None:
                naps.append((fell, began + event["at_s"] - event["took_us"] / 1e6))
                fell = None
        return naps

    # -- what is asked of it

    def get(
        self, path: str = "/", *, port: int | None = None, timeout: float = PATIENCE
    ) -> tuple[int, str, dict[str, str]]:
        client = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=timeout)
        try:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode(), {k.lower(): v for k, v in response.getheaders()}
        finally:
            client.close()

    # -- what it leaves

    def left_behind(self) -> list[str]:
        """Everything of the run that is still there: processes, cgroups, records. Give the dying a moment."""
        deadline = time.monotonic() + 5
        while (left := self._left()) and time.monotonic() < deadline:
            os.sched_yield()
        return left

    def _left(self) -> list[str]:
        left = []
        started = self._find("started", {})
        if started is not None:
            left += [f"process {stat.pid}" for stat in procfs.in_session(started["pid"])]
        mounts: Mounts = placement.read_hierarchy()[0]
        mark = f"queueproxy-{self.process.pid}-"
        left += [path for path, name in placement.leftovers(mounts) if name.startswith(mark)]
        for journal in ("/run/queueproxy", f"/tmp/queueproxy-{os.geteuid()}"):
            if os.path.isdir(journal) and os.access(journal, os.R_OK):
                left += [name for name in os.listdir(journal) if mark in name]
        return left
