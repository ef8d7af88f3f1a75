"""Pods as the inventory would report them, in one line."""

from queueproxy.freeze.annotations import DEFAULTS, Mode
from queueproxy.freeze.node.inventory import ContainerFacts, PodFacts

__all__ = ["container_id", "pod", "pod_uid"]


def pod_uid(number: int = 1) -> str:
    return f"00000000-0000-0000-0000-{number:012x}"


def container_id(number: int) -> str:
    return f"{number:064x}"


def pod(
    number: int = 1,
    *,
    mode: Mode = Mode.FREEZE,
    containers: tuple[int, ...] | None = None,
    revision: str = "hello-00001",
    terminating: bool = False,
    refusal: str = "",
) -> PodFacts:
    """`containers` are the numbers of their ids; refused pods have none, as the inventory says it."""
    ids = (number * 16,) if containers is None else containers
    found = tuple(ContainerFacts(f"user-{at}", container_id(id_), "containerd") for at, id_ in enumerate(ids))
    return PodFacts(
        uid=pod_uid(number),
        namespace="default",
        name=f"hello-{number}",
        node="node-1",
        ips=(f"10.0.0.{number % 250 + 1}",),
        revision=revision,
        qos="burstable",
        policy=DEFAULTS._replace(mode=mode),
        containers=() if refusal else found,
        sidecar_id=container_id(number * 16 + 15),
        terminating=terminating,
        refusal=refusal,
    )
