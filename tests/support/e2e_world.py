"""Runs a whole node under its freezer: containerd, an API server stand-in, the freezer, and pods that may sleep.

    with World() as world, world.pod(annotations=QUICK) as pod:
        pod.app.until_frozen()

What the API server says of a pod follows what is done to it here, as the kubelet would report it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.support.apiserver import ApiServer
from tests.support.e2e_freezer import Freezer
from tests.support.e2e_node import CONTROLLERS, Node
from tests.support.e2e_pod import AUDIENCE, Container, Pod

__all__ = ["QUICK", "World", "annotated"]

PREFIX = "queueproxy.dev/"


def annotated(**settings: str) -> dict[str, str]:
    """Annotations, by the last part of their names."""
    return {PREFIX + name.replace("_", "-"): value for name, value in settings.items()}


# Asleep soon: tests wait for it.
QUICK = annotated(freeze_after="200ms", min_uptime="0s")


class World:
    """See the module docstring."""

    def __init__(self, *, hierarchies: Sequence[str] = CONTROLLERS, **settings: Mapping[str, Any]) -> None:
        self.node = Node()
        self.settings = settings
        self.hierarchies = hierarchies
        self.pods: list[Pod] = []
        self.api: ApiServer
        self.freezer: Freezer
        self._stack = ExitStack()

    def __repr__(self) -> str:
        return f"<World {self.node!r} {len(self.pods)} pods>"

    def __enter__(self) -> World:
        with ExitStack() as stack:
            stack.enter_context(self.node)
            with self.node.network.inside():  # a thread belongs to the network it was started in
                self.api = stack.enter_context(ApiServer())
            kubeconfig = str(self.api.kubeconfig_path)
            self.freezer = stack.enter_context(Freezer(self.node, kubeconfig, self.settings, self.hierarchies))
            self.freezer.ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.__exit__(*args)  # type: ignore[arg-type]

    @contextmanager
    def pod(self, *, annotations: Mapping[str, str] = QUICK, has_token: bool = True, **options: Any) -> Iterator[Pod]:
        """A pod that is ready, known to the API server and so to the freezer."""
        pod = Pod(self.node, annotations=annotations, **options)
        self.api.add_pod(pod.manifest(pending=True))
        if has_token:
            pod.token = self.mint(pod)
        try:
            with pod:
                self.report(pod)
                self.pods.append(pod)
                yield pod.ready()
        finally:
            self.api.delete(pod.manifest())
            if pod in self.pods:
                self.pods.remove(pod)

    def report(self, pod: Pod) -> None:
        """The kubelet tells the API server how the pod is."""
        self.api.add_pod(pod.manifest())

    def mint(self, pod: Pod) -> str:
        """A token for it, as the kubelet would ask for."""
        return self.api.mint_token(pod.manifest(), AUDIENCE)

    def restart(self, pod: Pod, name: str) -> Container:
        """A container that has ended is started anew, and the kubelet reports it."""
        container = pod.restart(name)
        self.report(pod)
        return container

    def told_to_end(self, pod: Pod, grace: float = 30.0) -> dict[str, int]:
        """The pod is deleted: the API server says so, the kubelet ends it."""
        self.api.terminate(pod.manifest())
        return pod.stop(grace)

    def row(self, pod: Pod) -> dict[str, Any]:
        """What the freezer tells operators of a pod; {} when it does not know it."""
        return next((row for row in self.freezer.pods() if row["uid"] == pod.uid), {})

    def until(self, what: Any, within: float = 10.0) -> Any:
        """For what has no event to wait for: asks until it is true."""
        for _ in range(int(within / 0.05)):
            if found := what():
                return found
            threading.Event().wait(0.05)
        raise AssertionError(f"not within {within} s")
