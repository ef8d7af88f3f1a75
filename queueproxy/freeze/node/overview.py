"""Decides what operators see of a pod: one flat record, the same for `GET /v1/pods`, `status` and `status --json`."""

from collections.abc import Collection, Mapping

from queueproxy.freeze.node.actions import Phase
from queueproxy.freeze.node.book import Page
from queueproxy.freeze.node.entry import Entry
from queueproxy.freeze.vocabulary import Rung
from queueproxy.freeze.wire import RUNG_WORDS, WANTED_WORDS

__all__ = ["pod_record", "pod_records"]


def pod_records(
    now: float, pods: Mapping[str, Entry], pages: Mapping[str, Page], connected: Collection[str]
) -> list[dict[str, object]]:
    """All pods, by namespace and name."""
    found = [pod_record(now, entry, pages.get(uid), uid in connected) for uid, entry in pods.items()]
    return sorted(found, key=lambda record: (str(record["namespace"]), str(record["name"]), str(record["uid"])))


def pod_record(now: float, entry: Entry, page: Page | None, connected: bool) -> dict[str, object]:
    """One pod. Durations are seconds; `asleep_s` and `cpu_saved_s` include the present sleep."""
    view = entry.view(now)
    policy = view.policy
    return {
        "uid": entry.uid,
        "namespace": page.namespace if page is not None else "",
        "name": page.name if page is not None else "",
        "revision": page.revision if page is not None else "",
        "state": _state(entry),
        "since_s": round(now - entry.since, 3),
        "wanted": WANTED_WORDS[entry.wanted],
        "generation": entry.generation,
        "wakes": entry.wakes,
        "asleep_s": round(page.usage.asleep_for(now), 3) if page is not None else 0.0,
        "cpu_saved_s": round(page.usage.saved(now), 3) if page is not None else 0.0,
        "why": entry.reason(now),
        "mode": policy.mode.name.lower() if policy is not None else "",
        "mechanism": entry.mechanism,
        "lease_s": round(view.lease_s, 3),
        "connected": connected,
        "changes": [
            {"ago_s": round(now - change.at, 3), "kind": change.kind, "reason": change.reason}
            for change in (reversed(page.changes) if page is not None else ())
        ],
    }


def _state(entry: Entry) -> str:
    """The confirmed rung, or what it is on its way to; `stuck` is a pod that cannot be thawed."""
    if entry.phase is Phase.STUCK:
        return "stuck"
    if entry.phase is Phase.SINKING:
        return "falling asleep"
    if entry.phase is Phase.RISING:
        return "waking"
    return RUNG_WORDS[entry.rung if entry.phase is not Phase.RUNNING else Rung.RUNNING]
