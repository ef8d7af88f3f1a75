#!/usr/bin/env python3
"""Shows what `queueproxy run` does, in under half a minute: an app that talks in its sleep falls silent between
requests.

Starts examples/sleeptalker under `queueproxy run`, prints its ticks as they come, waits until it sleeps, sends
requests and measures what waking costs. It checks what it shows: a tick while the app is asleep, or a request that
fails, ends the demo with status 1. Works without root (by signals then, and it says so). `--serve` only starts it and
leaves it running for a browser or curl.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

SLEEPTALKER = str(Path(__file__).with_name("sleeptalker") / "sleeptalker.py")
TICK_EVERY = 0.5
ASLEEP_FOR = 4.0  # silence of eight ticks: nobody takes that for a coincidence
TIMED = 5  # quick requests for the figures, asleep and awake

COLOURS = {"tick": "36", "say": "1", "good": "32", "bad": "31", "dim": "2", "app": "33"}


class Demo:
    """The app under `queueproxy run --json`, and what was seen of it."""

    def __init__(self) -> None:
        self.coloured = sys.stdout.isatty()
        self.began = time.monotonic()
        self.events: list[dict[str, Any]] = []
        self.ticks: list[float] = []
        self.naps: list[list[float]] = []  # confirmed asleep, thaw asked for (0 while it lasts)
        self.broken: list[str] = []
        self.news = threading.Condition()
        self.mechanism = ""
        self.origin = 0.0
        command = [sys.executable, "-m", "queueproxy", "run", "--port", "0", "--metrics-port", "0", "--json"]
        self.process = subprocess.Popen(
            [*command, "--freeze-after", "1s", "--", sys.executable, SLEEPTALKER],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.readers = [threading.Thread(target=read, daemon=True) for read in (self.read_events, self.read_app)]
        for reader in self.readers:
            reader.start()

    def print(self, text: str, colour: str = "say") -> None:
        stamp = f"{time.monotonic() - self.began:6.2f} s  "
        if self.coloured:
            text = f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"
        print(stamp + text, flush=True)

    # What comes from the run.

    def read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            with self.news:
                self.events.append(event)
                if event["event"] == "started":
                    self.origin = event["began_at_monotonic_s"]  # the clock of ours and of its events, in one
                elif event["event"] == "state":
                    at = self.origin + event["at_s"]
                    if event["to"] == "frozen":
                        self.naps.append([at, 0.0])
                    elif self.naps:
                        self.naps[-1][1] = at - event["took_us"] / 1e6
                elif event["event"] in ("problem", "fatal"):
                    self.print(f"queueproxy: {event['message']}", "dim")
                self.news.notify_all()

    def read_app(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            now = time.monotonic()
            text = line.rstrip("\n")
            if " tick " in text:
                with self.news:
                    self.ticks.append(now)
                    self.news.notify_all()
                self.print(f"  app: {text}", "tick")
            elif "queueproxy" not in text and " warning " not in text:
                self.print(f"  app: {text}", "app")

    def until(self, what: Any, within: float = 10.0) -> Any:
        with self.news:
            happened = self.news.wait_for(what, within)
        if not happened:
            raise SystemExit(f"the demo got stuck; last events: {self.events[-3:]}")
        return happened

    def event(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.until(
            lambda: next((e for e in self.events if e["event"] in (name, "fatal")), None)
        )
        if found["event"] == "fatal":
            raise SystemExit(f"queueproxy run failed: {found['message']}")
        return found

    def asleep(self, nap: int) -> None:
        """Wait for the n-th nap; by its number, because the end of the one before may not have been told yet."""
        self.until(lambda: len(self.naps) == nap and not self.naps[-1][1])

    # What is sent to it.

    def request(self, path: str, *, aloud: bool) -> float:
        """Seconds to the first byte of the answer."""
        began = time.monotonic()
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        client.request("GET", path)
        response = client.getresponse()
        first = response.readline().decode().rstrip()
        took = time.monotonic() - began
        if response.status != 200:
            self.broken.append(f"GET {path} was answered {response.status}")
        if aloud:
            self.print(f"  answer: {first}   (first byte after {took * 1000:.1f} ms)", "good")
        for line in response:
            if aloud:
                self.print(f"  answer: {line.decode().rstrip()}", "good")
        client.close()
        return took

    # The show.

    def open(self) -> None:
        started = self.event("started")
        self.port = self.event("serving")["port"]
        self.mechanism = started["mechanism"]
        how = {
            "cgroup2": "cgroup v2 freezer",
            "cgroup1": "cgroup v1 freezer",
            "signal": "SIGSTOP and SIGCONT (no root)",
        }
        self.print(f"The sleeptalker runs as pid {started['pid']} behind http://127.0.0.1:{self.port}.")
        self.print(
            f"It ticks every {TICK_EVERY:g} s, and is put to sleep after 1 s without a request: {how[self.mechanism]}."
        )
        self.event("ready")

    def show_sleep(self) -> None:
        self.asleep(1)
        self.print("Idle for a second: it is asleep now. Listen to the silence ...")
        # The point is that nothing happens: there is no event to wait for.
        with self.news:
            self.news.wait_for(lambda: self.naps[-1][1] != 0.0, ASLEEP_FOR)
        began = self.naps[-1][0]
        late = [tick for tick in self.ticks if tick > began + 0.1]  # 0.1 s: on its way through two pipes
        if late:
            self.broken.append(f"{len(late)} ticks while asleep")
        self.print(
            f"... {ASLEEP_FOR:g} s, {len(late)} ticks. Awake it would have ticked {ASLEEP_FOR / TICK_EVERY:.0f} times."
        )

    def show_request(self) -> None:
        before = len(self.ticks)
        self.print("A request wakes it; it works for two seconds and ticks meanwhile:")
        self.request("/", aloud=True)
        ticked = len(self.ticks) - before
        if not ticked:
            self.broken.append("no tick during a request of two seconds")
        self.print(f"It ticked {ticked} times during the request.")

    def measure(self) -> None:
        """Wakes in quick succession, and the same requests to the app awake."""
        self.print(f"Now what waking costs: {TIMED} quick requests to it asleep, {TIMED} to it awake.")
        asleep = []
        for nap in range(TIMED):
            self.asleep(nap + 2)
            asleep.append(self.request("/quick", aloud=False))
        awake = [self.request("/quick", aloud=False) for _ in range(TIMED)]
        kernel = sorted(e["took_us"] / 1000 for e in self.events if e["event"] == "state" and e["to"] == "running")
        a, b = sorted(asleep)[TIMED // 2] * 1000, sorted(awake)[TIMED // 2] * 1000
        self.print(
            f"  from asking for the thaw to the kernel's confirmation   {kernel[len(kernel) // 2]:6.2f} ms", "good"
        )
        self.print(f"  first byte of an answer, asleep when asked              {a:6.2f} ms", "good")
        self.print(f"  first byte of an answer, awake when asked               {b:6.2f} ms", "good")
        self.print(f"  so sleeping costs the one who wakes it about            {max(0.0, a - b):6.2f} ms", "good")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for reader in self.readers:
            reader.join(5)

    def check(self) -> int:
        slept_for = sum((ended or time.monotonic()) - began for began, ended in self.naps)
        inside = [t for t in self.ticks if any(began + 0.1 < t < ended for began, ended in self.naps if ended)]
        if inside and not self.broken:
            self.broken.append(f"{len(inside)} ticks while asleep")
        if self.process.returncode:
            self.broken.append(f"queueproxy run ended with status {self.process.returncode}")
        lasted = time.monotonic() - self.began
        for summary in (e for e in self.events if e["event"] == "summary"):
            saved = summary["cpu_saved_s_estimate"]
            self.print(
                f"Asleep {slept_for:.1f} of {lasted:.1f} s, {summary['wakes']} wakes, CPU saved ≈ "
                f"{'?' if saved is None else f'{saved:.2f} s'}. Nothing is left behind.",
            )
        for what in self.broken:
            self.print(f"NOT AS PROMISED: {what}", "bad")
        return 1 if self.broken else 0


def serve() -> int:
    """Leave it running for a browser or curl."""
    port = os.environ.get("PORT", "8012")
    print(f"The sleeptalker behind http://127.0.0.1:{port} - try: curl -N http://127.0.0.1:{port}/   (Ctrl-C ends it)")
    command = [sys.executable, "-m", "queueproxy", "run", "--port", port, "--", sys.executable, SLEEPTALKER]
    os.execv(sys.executable, command)  # it is the foreground process now: Ctrl-C, the status line, the exit status


def main() -> int:
    parser = argparse.ArgumentParser(description="An app that falls silent between requests.")
    parser.add_argument(
        "--serve", action="store_true", help="keep it running for a browser or curl (PORT, default 8012)"
    )
    if parser.parse_args().serve:
        return serve()
    demo = Demo()
    try:
        demo.open()
        demo.show_sleep()
        demo.show_request()
        demo.measure()
    finally:
        demo.close()
    return demo.check()


if __name__ == "__main__":
    sys.exit(main())
