"""Holds pods as an API server does: versions that only grow, a history of changes that can be forgotten, selectors.

Pure: no clock, no I/O. What it refuses is a `Status`, with the code and the reason a real server gives.
"""

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, NamedTuple

Pod = dict[str, Any]
Selector = Callable[[Pod], bool]


class Status(Exception):
    """A refusal, as the API writes it."""

    def __init__(self, code: int, reason: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.retry_after = retry_after
        self.body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        }


class Change(NamedTuple):
    """One version: a pod before and after, None where there was none."""

    version: int
    before: Pod | None
    after: Pod | None

    def event(self, selects: Selector) -> dict[str, Any] | None:
        """What a watcher with this selector hears: a pod that leaves its selection is deleted for it."""
        was = self.before is not None and selects(self.before)
        now = self.after is not None and selects(self.after)
        if self.after is not None and now:
            return {"type": "MODIFIED" if was else "ADDED", "object": self.after}
        if self.before is not None and was:
            gone = deepcopy(self.before)
            gone["metadata"]["resourceVersion"] = str(self.version)
            return {"type": "DELETED", "object": gone}
        return None


class Store:
    """Pods by namespace and name."""

    def __init__(self, version: int = 1000) -> None:
        self.version = version
        self.pods: dict[tuple[str, str], Pod] = {}
        self.history: list[Change] = []
        self._oldest = version  # changes after this version are still known

    def put(self, pod: Mapping[str, Any]) -> Change:
        """Creates or replaces."""
        after = deepcopy(dict(pod))
        key = (after["metadata"]["namespace"], after["metadata"]["name"])
        self.version += 1
        after["metadata"]["resourceVersion"] = str(self.version)
        return self._record(Change(self.version, self.pods.get(key), after), key)

    def remove(self, namespace: str, name: str) -> Change:
        key = (namespace, name)
        if key not in self.pods:
            raise Status(404, "NotFound", f'pods "{name}" not found')
        self.version += 1
        return self._record(Change(self.version, self.pods[key], None), key)

    def forget_history(self) -> None:
        """As after a compaction: who watches from before now is told 410."""
        self.history.clear()
        self._oldest = self.version

    def since(self, version: int) -> list[Change]:
        if version < self._oldest:
            raise Status(410, "Expired", f"too old resource version: {version} ({self._oldest})")
        return [change for change in self.history if change.version > version]

    def select(self, selects: Selector) -> list[Pod]:
        return [pod for _, pod in sorted(self.pods.items()) if selects(pod)]

    def _record(self, change: Change, key: tuple[str, str]) -> Change:
        if change.after is None:
            del self.pods[key]
        else:
            self.pods[key] = change.after
        self.history.append(change)
        return change


_FIELDS = {
    "spec.nodeName": lambda pod: pod["spec"].get("nodeName", ""),
    "metadata.name": lambda pod: pod["metadata"]["name"],
    "metadata.namespace": lambda pod: pod["metadata"]["namespace"],
    "status.phase": lambda pod: pod.get("status", {}).get("phase", ""),
}
_TERM = re.compile(r"\s*([A-Za-z0-9./_-]+)\s*(==|=|!=)\s*([^,=!]*)\s*")
_SET = re.compile(r"\s*([A-Za-z0-9./_-]+)\s+(in|notin)\s+\(([^)]*)\)\s*")
_NAME = re.compile(r"\s*(!?)\s*([A-Za-z0-9./_-]+)\s*")


def selector(fields: str, labels: str, namespace: str = "") -> Selector:
    """Field and label selector in the API's syntax; 400 for what a real server would not accept either."""
    tests: list[Selector] = [lambda pod: not namespace or pod["metadata"]["namespace"] == namespace]
    tests += [_field(term) for term in fields.split(",") if fields]
    tests += [_label(term) for term in re.split(r",(?![^(]*\))", labels) if labels]
    return lambda pod: all(test(pod) for test in tests)


def _field(term: str) -> Selector:
    match = _TERM.fullmatch(term)
    if match is None or match[1] not in _FIELDS:
        raise Status(400, "BadRequest", f'field label not supported: "{term}"')
    read, value, equal = _FIELDS[match[1]], match[3], match[2] != "!="
    return lambda pod: (read(pod) == value) is equal


def _label(term: str) -> Selector:
    if match := _TERM.fullmatch(term):
        name, value, equal = match[1], match[3], match[2] != "!="
        return lambda pod: (_labels(pod).get(name) == value) is equal
    if match := _SET.fullmatch(term):
        name, values, inside = match[1], [value.strip() for value in match[3].split(",")], match[2] == "in"
        return lambda pod: (_labels(pod).get(name) in values) is inside
    if match := _NAME.fullmatch(term):
        name, wanted = match[2], not match[1]
        return lambda pod: (name in _labels(pod)) is wanted
    raise Status(400, "BadRequest", f'unable to parse requirement: "{term}"')


def _labels(pod: Pod) -> Mapping[str, str]:
    return pod["metadata"].get("labels") or {}
