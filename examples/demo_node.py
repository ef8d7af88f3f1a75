#!/usr/bin/env python3
"""Shows a whole node under its freezer, with real containers, in under a minute. Root only: `make demo-node`.

Brings up from nothing: a containerd of its own with runc, an API server stand-in, `queueproxy freezer` as uid 0
without capabilities, and two Knative pods with sandbox, user container and queue-proxy as uid 65532. Then the apps
sleep and wake, a sidecar is killed, a sleeping container is told to end, and everything is removed. It checks what it
shows: a tick while an app is asleep, or a request that fails, ends the demo with status 1. What cannot be shown on
this machine is said, with status 2.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from typing import TYPE_CHECKING, Any

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

if TYPE_CHECKING:
    from tests.support.e2e_pod import Pod
    from tests.support.e2e_world import World

PACKAGES = {"grpc": "grpcio", "aiohttp": "aiohttp", "kubernetes": "kubernetes", "cryptography": "cryptography",
            "yaml": "PyYAML", "pytest": "pytest"}  # fmt: skip
SILENCE = 3.0  # seconds; two apps would tick a dozen times
TIMED = 6
COLOURS = {"say": "1", "good": "32", "bad": "31", "dim": "2", "hello": "36", "world": "33"}


def missing() -> str:
    """What this machine lacks for it; "" when nothing."""
    lacking = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if lacking:
        return f"Python packages {', '.join(lacking)}: `make demo-node` installs them"
    from tests.support.containerd import missing as tools

    what = tools()
    if what == "root":
        return "root: it starts containers. Try: sudo make demo-node"
    return f"programs: {what}" if what else ""


class Demo:
    """The node, and what was not as promised."""

    def __init__(self) -> None:
        self.coloured = sys.stdout.isatty()
        self.began = time.monotonic()
        self.broken: list[str] = []
        self.pods: dict[str, Pod] = {}
        self.lock = threading.Lock()

    def say(self, text: str, colour: str = "say") -> None:
        stamp = f"{time.monotonic() - self.began:6.2f} s  "
        if self.coloured:
            text = f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"
        with self.lock:
            print(stamp + text, flush=True)

    def check(self, kept: bool, promise: str) -> None:
        if not kept:
            self.broken.append(promise)
            self.say(f"NOT AS PROMISED: {promise}", "bad")

    def echo(self, name: str) -> Callable[[str], None]:
        return lambda line: self.say(f"  {name}: {line}", name)

    def ticks(self, pod: Pod, since: float, until: float) -> int:
        return sum(since < at < until and " tick " in line for at, line in pod.app.log.lines)

    # The show.

    def start(self, stack: ExitStack) -> World:
        from tests.support.e2e_spec import CODE
        from tests.support.e2e_world import World, annotated

        world = stack.enter_context(World(leases={"longest": "5s"}))
        assert world.node.containerd.process is not None
        assert world.freezer.process is not None
        self.say(f"containerd runs (pid {world.node.containerd.process.pid}), on directories of its own.")
        self.say(f"queueproxy freezer runs (pid {world.freezer.process.pid}): uid 0, no capability, no runtime socket.")
        annotations = annotated(freeze_after="1s", min_uptime="0s")
        args = (sys.executable, f"{CODE}/sleeptalker.py")
        for name in ("hello", "world"):
            pod = stack.enter_context(
                world.pod(name=f"{name}-00001", args=args, annotations=annotations, wait_for="tick")
            )
            pod.app.log.echo = self.echo(name)
            self.pods[name] = pod
            pids = f"app pid {pod.app.pid}, queue-proxy pid {pod.sidecar.pid} (uid 65532)"
            self.say(f"Pod {name} at {pod.ip} is ready: {pids}.")
        self.say("Both apps tick every half second, and sleep after one second without a request.")
        return world

    def sleep(self) -> None:
        for pod in self.pods.values():
            pod.app.until_frozen()
        self.say("Both sleep: the kernel has frozen their cgroups. Listen to the silence ...")
        began = time.monotonic() + 0.1  # what was on its way through the pipe
        threading.Event().wait(SILENCE)
        count = sum(self.ticks(pod, began, time.monotonic()) for pod in self.pods.values())
        self.say(f"... {SILENCE:g} s, {count} ticks.")
        self.check(count == 0, "no tick while asleep")

    def status(self, world: World) -> None:
        shown = world.freezer.run("status")
        self.say("$ queueproxy status")
        for line in shown.stdout.splitlines():
            self.say(f"  {line}", "dim")
        self.check(shown.returncode == 0, f"status answers ({shown.stderr.strip()})")

    def wake(self) -> None:
        hello, world = self.pods["hello"], self.pods["world"]
        self.say("A request wakes hello; it works for two seconds. world goes on sleeping:")
        began = time.monotonic()
        answer = hello.ask("/")
        ended = time.monotonic()
        for line in answer.body.splitlines():
            self.say(f"  answer: {line}", "good")
        self.say(f"  first byte after {answer.first * 1000:.1f} ms", "good")
        self.check(answer.status == 200, "the request is answered")
        self.check(self.ticks(hello, began, ended) > 0, "hello ticks during its request")
        self.check(self.ticks(world, began, ended) == 0 and world.app.frozen, "world sleeps through it")

    def measure(self, world: World) -> None:
        pod = self.pods["hello"]
        asleep, awake, resumed = [], [], []
        for _ in range(TIMED):
            pod.app.until_frozen()
            asleep.append(pod.ask("/quick").first * 1000)
            awake.append(pod.ask("/quick").first * 1000)
        containerd = world.node.containerd
        for _ in range(TIMED):
            containerd.pause(pod.sandbox.id)  # a container that nobody here freezes
            began = time.monotonic()
            containerd.resume(pod.sandbox.id)
            resumed.append((time.monotonic() - began) * 1000)
        self.say(f"  first byte of an answer, asleep when asked    {median(asleep):6.2f} ms", "good")
        self.say(f"  first byte of an answer, awake when asked     {median(awake):6.2f} ms", "good")
        self.say(f"  what containerd takes only to resume a task   {median(resumed):6.2f} ms", "good")

    def kill(self, world: World) -> None:
        pod = self.pods["hello"]
        pod.app.until_frozen()
        self.say(f"kill -9 {pod.sidecar.pid}: hello's queue-proxy dies while its app sleeps. A freeze is a lease ...")
        killed_at = time.monotonic()
        pod.sidecar.kill()
        thawed_at = pod.app.until_frozen(False, within=10.0)
        self.say(f"... so the freezer has woken the app by itself, {thawed_at - killed_at:.1f} s later (lease: 5 s).")
        self.check(thawed_at - killed_at < 6.0, "nobody stays frozen for longer than the lease and a second")
        world.restart(pod, pod.sidecar.name)
        self.check(pod.ready().ask("/quick").status == 200, "a new queue-proxy serves")
        self.say("A new queue-proxy has taken over.")

    def end(self) -> None:
        pod = self.pods["world"]
        pod.app.until_frozen()
        self.say("containerd sends SIGTERM to world, which sleeps:")
        sent_at = time.monotonic()
        pod.app.signal(signal.SIGTERM)
        status = pod.app.wait(5.0)
        took = time.monotonic() - sent_at
        self.say(f"  it was woken, heard it, and ended with status {status} after {took:.2f} s", "good")
        self.check(status == 0 and took < 2.0, "a stop signal reaches a sleeping app")


def main() -> int:
    if what := missing():
        print(f"demo-node cannot be shown here. Missing: {what}", file=sys.stderr)
        return 2
    demo = Demo()
    with ExitStack() as stack:
        world: Any = demo.start(stack)
        demo.sleep()
        demo.status(world)
        demo.wake()
        demo.measure(world)
        demo.kill(world)
        demo.status(world)
        demo.end()
        for pod in demo.pods.values():
            pod.app.log.echo = None
        demo.say("Removing pods, freezer and containerd ...")
    demo.say("Nothing is left behind.")
    return 1 if demo.broken else 0


if __name__ == "__main__":
    sys.exit(main())
