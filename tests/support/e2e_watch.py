"""Watches pods and sends them load, from outside: what was frozen when, who waited at a port, what was lost.

`FrozenWatch` and `QueueWatch` look at the kernel again and again (neither has an event that could be relied on) and
keep what they saw; `Kubelet` probes user ports; `Load` keeps an account of each request.
"""

from __future__ import annotations

import http.client
import json
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self

from queueproxy.net.sockdiag import ListenWatch
from tests.support.e2e_listen import Log
from tests.support.e2e_node import ROOT, Node
from tests.support.e2e_pod import Container, Pod
from tests.support.netns import NetworkNamespace

__all__ = ["FrozenWatch", "Kubelet", "Load", "QueueWatch", "Request"]

PATIENCE = 20.0


class _Watch:
    """A thread that does `look` every `period` seconds until closed; its failure fails the test that closes it."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def look(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(PATIENCE)
        if self._failure is not None and value is None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._over.wait(self._period):
                self.look()
        except BaseException as failure:
            self._failure = failure


class FrozenWatch(_Watch):
    """When containers were seen frozen: `spans` are (container, first seen, last seen)."""

    def __init__(self, containers: Callable[[], Sequence[Container]], period: float = 0.02) -> None:
        super().__init__(period)
        self._containers = containers
        self._open: dict[str, tuple[float, float]] = {}
        self.spans: list[tuple[str, float, float]] = []

    def look(self) -> None:
        now = monotonic()
        seen = {container.id for container in self._containers() if container.pid and container.frozen}
        for container in list(self._open):
            if container not in seen:
                self.spans.append((container, *self._open.pop(container)))
        for container in seen:
            self._open[container] = (self._open.get(container, (now, now))[0], now)

    def naps(self, container: Container) -> int:
        """How often it has been seen falling asleep."""
        return sum(each == container.id for each, _, _ in self.spans) + (container.id in self._open)


class QueueWatch(_Watch):
    """The longest accept queue seen at a port of a network."""

    def __init__(self, network: NetworkNamespace, port: int, period: float = 0.01) -> None:
        super().__init__(period)
        self.longest = 0
        self.looks = 0
        self._port = port
        self._watch = ListenWatch([port])
        with network.inside():
            self._watch.accept_queue()  # the socket is opened with the first question, and stays in there

    def look(self) -> None:
        self.looks += 1
        self.longest = max(self.longest, self._watch.accept_queue().get(self._port, 0))

    def __exit__(self, *args: object) -> None:
        super().__exit__(*args)  # type: ignore[arg-type]
        self._watch.close()


class Probed(NamedTuple):
    """One probe of a kubelet's."""

    target: str
    began: float
    took: float
    problem: str


class Kubelet:
    """Probes of user ports, each second and with a second's timeout."""

    def __init__(self, node: Node, *targets: str, period: float = 1.0, timeout: float = 1.0) -> None:
        self._node = node
        self._command = [
            sys.executable,
            "-m",
            "tests.support.e2e_kubelet",
            f"--period={period}",
            f"--timeout={timeout}",
        ]
        self._command += targets
        self._process: subprocess.Popen[bytes] | None = None
        self.log = Log("kubelet")

    def __enter__(self) -> Kubelet:
        self._process = self._node.listener.popen([*self._node.launch(), *self._command], self.log, cwd=ROOT)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    @property
    def probes(self) -> list[Probed]:
        return [Probed(**json.loads(line)) for _, line in self.log.lines]

    @property
    def failed(self) -> list[Probed]:
        return [probed for probed in self.probes if probed.problem]


class Request(NamedTuple):
    """One request of a load. `problem` is empty when its own answer came whole."""

    pod: str
    identity: str
    began: float
    ended: float
    problem: str


class Load:
    """Clients that ask pods through their sidecars, with pauses in which an app may fall asleep."""

    def __init__(self, pods: Sequence[Pod], *, clients: int = 3, pause: float = 0.2, timeout: float = 10.0) -> None:
        self.pods = pods
        self.done: list[Request] = []
        self._pause = pause
        self._timeout = timeout
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(self._timeout + PATIENCE)

    def lost(self) -> list[Request]:
        return [request for request in self.done if request.problem]

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        count = 0
        while not self._over.wait(chance.expovariate(1 / self._pause)):
            pod = chance.choice(self.pods)
            count += 1
            identity = f"{number}-{count}"
            began = monotonic()
            path = "/slow" if chance.random() < 0.1 else "/"
            problem = self._ask(pod, path, identity)
            self.done.append(Request(pod.name, identity, began, monotonic(), problem))

    def _ask(self, pod: Pod, path: str, identity: str) -> str:
        try:
            answer = pod.ask(path, headers={"X-Id": identity}, timeout=self._timeout)
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"
        if answer.status != 200:
            return f"{answer.status} {answer.body[:100]}"
        return "" if answer.body.split()[-1:] == [identity] else f"somebody else's answer: {answer.body!r}"
