"""Decides what a pod's policy means to the idle policy of its sidecar.

The policy's own settings are the base; the pod's owner and the node's operator decide mode, delays and uptime. THROTTLE
without a delay of its own throttles where freezing was due: whoever asked for less than freezing asked for it then.
"""

from dataclasses import replace

from queueproxy.freeze.annotations import Mode, PodPolicy
from queueproxy.freeze.settings import IdleSettings

__all__ = ["settings", "spoken_to_old"]


def settings(policy: PodPolicy, base: IdleSettings) -> IdleSettings:
    """The idle policy's settings under `policy`."""
    throttle, freeze = policy.throttle_after_s, policy.freeze_after_s
    if policy.mode is Mode.OFF:
        throttle = freeze = None
    elif policy.mode is Mode.THROTTLE:
        throttle, freeze = freeze if throttle is None else throttle, None
    return replace(
        base,
        throttle_after=throttle,
        freeze_after=freeze,
        min_uptime=policy.min_uptime_s,
        shadow=policy.mode is Mode.SHADOW,
    )


def spoken_to_old(policy: PodPolicy) -> PodPolicy:
    """What is left of `policy` with a daemon that can only freeze."""
    if policy.mode is Mode.THROTTLE:
        return policy._replace(mode=Mode.OFF, reason="the freezer on this node is an old one and cannot throttle")
    return policy._replace(throttle_after_s=None)
