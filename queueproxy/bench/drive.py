"""Runs one stretch of load, with wrk where it is on PATH and with our own generator elsewhere, and reads its report."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from queueproxy.bench import wrk
from queueproxy.bench.histogram import Histogram
from queueproxy.bench.wrk import Report

__all__ = ["SCENARIOS", "Driver", "LoadError", "Scenario"]

SLACK_S = 30.0  # beyond the run itself, before a generator counts as hung


class LoadError(RuntimeError):
    """The generator failed, so there is no figure."""


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    path: str
    send: int = 0  # bytes of request body, or of one message
    carried: int = 0  # bytes of body through the proxy per request, both ways; 0 when that is not the point
    websocket: bool = False  # a request is one message and its echo
    headers: tuple[str, ...] = ()  # beside Host
    rate: int = 0  # requests per second over all connections; 0: as fast as they are answered


# What an ingress puts around a browser's request, without a traceparent: that decides about sampling.
INGRESS = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) bench",
    "Accept: */*",
    "X-Forwarded-For: 10.0.0.9",
    "X-Forwarded-Proto: http",
    "X-Request-Id: 0c9d7e2c-9f6c-4f9e-8a63-2f0cf2a1b9b1",
)

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("small", "/"),
        # A tenth of what the slowest subject was measured to do on two cores shared with origin and wrk: nobody queues.
        Scenario("paced", "/", rate=1000),
        Scenario("ingress", "/shop/basket?item=17&amount=2", headers=INGRESS),
        Scenario("64k", "/bytes/65536", carried=65536),
        Scenario("1m", "/bytes/1048576", carried=1 << 20),
        Scenario("up64k", "/sink", send=65536, carried=65536),
        Scenario("up1m", "/sink", send=1 << 20, carried=1 << 20),
        Scenario("echo", "/echo", send=1024),
        Scenario("echo64k", "/echo", send=65536, carried=2 * 65536),
        Scenario("ws1k", "/ws", send=1024, carried=2 * 1024, websocket=True),
        Scenario("ws64k", "/ws", send=65536, carried=2 * 65536, websocket=True),
    )
}


class Driver:
    """`program` is the path of wrk, or None for our own generator."""

    def __init__(self, program: str | None) -> None:
        self.program = program

    @classmethod
    def found(cls, choice: str = "auto") -> Driver:
        """`auto`, `wrk` or `own`."""
        program = None if choice == "own" else shutil.which("wrk")
        if choice == "wrk" and program is None:
            raise LoadError("wrk is not on PATH")
        return cls(program)

    def __repr__(self) -> str:
        return f"<Driver {self.name}>"

    @property
    def name(self) -> str:
        return "wrk" if self.program else "own"

    def run(self, port: int, scenario: Scenario, connections: int, seconds: float) -> Report:
        if self.program is None or scenario.websocket or scenario.rate:  # wrk does neither
            return self._own(port, scenario, connections, seconds)
        if not scenario.send:
            return self._wrk(port, scenario, connections, seconds, None)
        with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
            script.write(wrk.post_script(scenario.send))
            script.flush()
            return self._wrk(port, scenario, connections, seconds, script.name)

    def _wrk(self, port: int, scenario: Scenario, connections: int, seconds: float, script: str | None) -> Report:
        assert self.program is not None
        url = f"http://127.0.0.1:{port}{scenario.path}"
        argv = wrk.command(
            self.program, url, connections=connections, seconds=seconds, script=script, headers=scenario.headers
        )
        return wrk.read(_output(argv, seconds))

    def _own(self, port: int, scenario: Scenario, connections: int, seconds: float) -> Report:
        argv = [sys.executable, "-m", "queueproxy.bench.load", f"--port={port}", f"--path={scenario.path}"]
        argv += [f"--body={scenario.send}", f"--connections={connections}", f"--seconds={seconds}"]
        argv += ["--websocket"] if scenario.websocket else []
        argv += [f"--rate={scenario.rate}"] if scenario.rate else []
        argv += [f"--header={header}" for header in scenario.headers]
        report = json.loads(_output(argv, seconds))
        histogram = Histogram()
        histogram.add(report["histogram"])
        return Report(
            report["requests"],
            report["errors"],
            report["seconds"],
            histogram.percentile(50),
            histogram.percentile(99),
        )


def _output(argv: list[str], seconds: float) -> str:
    try:
        ran = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=seconds + SLACK_S,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"{argv[0]} did not end {SLACK_S:.0f} s after its time") from None
    if ran.returncode:
        raise LoadError(f"{argv[0]} ended with status {ran.returncode}: {ran.stderr.strip()[-400:]}")
    return ran.stdout
