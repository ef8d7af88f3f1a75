"""Decides from the report of the machine's tests whether they prove what the machine was started for.

An exit status of 0 is not enough: a test that skips is no proof, and here the v2 tests must not skip.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple
from xml.etree import ElementTree

__all__ = ["MAY_SKIP", "MUST_PASS", "Verdict", "judge"]

# Start of a test's name -> how many at least. Each of these is why there is a machine at all.
MUST_PASS: Mapping[str, int] = {
    "tests.freeze.node.test_throttle.TestRealV2": 5,
    "tests.freeze.node.test_cgroup.TestRealV2": 30,
    "tests.vm.test_v2_only": 45,
}
# More than these are no accident.
MOST_AGAIN = 3
# What a kernel with v2 alone, Debian's, cannot show; anything else that is skipped is a fault.
MAY_SKIP: Collection[str] = (
    "NOT PROVEN HERE: needs root and a mounted freezer cgroup hierarchy",
    "NOT PROVEN HERE: needs root and a mounted cpu cgroup hierarchy",
    "NOT PROVEN HERE: needs root and a mounted cpuacct cgroup hierarchy",
    "NOT PROVEN HERE: this kernel has no frozen_usec",
)


class Verdict(NamedTuple):
    """`faults` empty: proven. `again` are those that passed at the second try only."""

    passed: int
    skipped: Mapping[str, int]
    faults: list[str]
    again: Collection[str] = ()

    def __str__(self) -> str:
        lines = [f"{self.passed} tests passed on v2 alone"]
        lines += [f"  at the second try: {name}" for name in self.again]
        lines += [f"{count} skipped: {reason}" for reason, count in sorted(self.skipped.items())]
        return "\n".join([*lines, *(f"FAULT: {fault}" for fault in self.faults)])


class _Report(NamedTuple):
    passed: list[str]
    skipped: list[tuple[str, str]]
    failed: dict[str, str]


def judge(
    report: str, second: str = "", must_pass: Mapping[str, int] = MUST_PASS, may_skip: Collection[str] = MAY_SKIP
) -> Verdict:
    """Of pytest's JUnit report, and of that of a second try of what had failed."""
    try:
        first, again = _read(report), _read(second) if second else _Report([], [], {})
    except ElementTree.ParseError as error:
        return Verdict(0, {}, [f"the report cannot be read: {error}"])
    saved = [name for name in first.failed if name in again.passed and name not in again.failed]
    passed = [*(name for name in first.passed if name not in first.failed), *saved]
    faults = [f"{name}: {why}" for name, why in first.failed.items() if name not in saved]
    faults += [f"{name}: skipped: {reason}" for name, reason in first.skipped if reason not in may_skip]
    if not passed:
        faults.append("no test passed")
    if len(saved) > MOST_AGAIN:
        faults.append(f"{len(saved)} tests passed at the second try only")
    for start, least in must_pass.items():
        if (found := sum(name.startswith(start) for name in passed)) < least:
            faults.append(f"{found} tests of {start} passed, not {least}")
    return Verdict(len(passed), Counter(reason for _, reason in first.skipped), faults, saved)


def _read(report: str) -> _Report:
    """A test that fails in its teardown has two entries or one with both marks: it failed."""
    found = _Report([], [], {})
    for case in ElementTree.fromstring(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}"
        marks = {mark.tag: mark for mark in case}
        wrong, skipped = marks.get("failure", marks.get("error")), marks.get("skipped")
        if wrong is not None:  # an element without children is false
            found.failed[name] = (wrong.get("message") or "?").splitlines()[0]
        elif skipped is not None:
            found.skipped.append((name, skipped.get("message") or "?"))
        else:
            found.passed.append(name)
    return found
